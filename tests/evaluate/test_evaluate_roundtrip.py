"""The round trip's measures against closed forms and other code, and its rungs in the order of what they lose."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from riff.evaluate.roundtrip import (
    RUNGS,
    compare,
    log_spectral_distance,
    multi_resolution_distance,
    onset_correlation,
    round_trip,
    spectral_convergence,
    trip_figures,
)
from riff.evaluate.sounds import Sound
from riff.utils.errors import RiffError

RATE = 22050


def _music(seconds: float = 3.0, rate: int = RATE) -> torch.Tensor:
    """Plucked chords on a beat, with a noise at each."""
    time = np.arange(round(seconds * rate)) / rate
    sound = np.zeros(len(time))
    rng = np.random.default_rng(0)
    for beat in range(int(seconds * 2)):
        since = time - beat / 2
        on = since >= 0
        envelope = np.where(on, np.exp(-np.clip(since, 0, None) * 5), 0.0)
        for pitch in rng.choice([220.0, 261.6, 329.6, 392.0, 440.0], 3, replace=False):
            sound += 0.1 * envelope * np.sin(2 * math.pi * pitch * since)
        sound += 0.2 * np.where(on, np.exp(-np.clip(since, 0, None) * 60), 0.0) * rng.standard_normal(len(time))
    return torch.from_numpy(sound)[None].float()


@pytest.mark.parametrize("gain", [0.5, 0.9, 2.0])
def test_distances_of_a_sound_and_itself_louder_have_their_closed_forms(gain: float) -> None:
    # Noise, so that no bin lies under a floor.
    a = torch.randn(1, 3 * RATE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert spectral_convergence(a, gain * a) == pytest.approx(abs(1 - gain), rel=1e-6)
    assert log_spectral_distance(a, gain * a) == pytest.approx(abs(20 * math.log10(gain)), rel=1e-3)
    assert multi_resolution_distance(a, gain * a) == pytest.approx(abs(1 - gain) + abs(math.log(gain)), rel=1e-3)


def test_a_sound_equals_itself_and_phase_is_not_heard() -> None:
    a = _music().double()
    same = compare(a, a, RATE)
    assert (same.convergence, same.log_distance, same.multi) == (0.0, 0.0, 0.0)
    assert same.onsets == pytest.approx(1.0)
    assert compare(a, -a, RATE).convergence == pytest.approx(0.0, abs=1e-9)


def test_more_noise_is_farther_in_every_measure() -> None:
    a = _music().double()
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    trips = [compare(a, a + level * noise, RATE) for level in (0.001, 0.01, 0.1)]
    for field in ("convergence", "log_distance", "multi"):
        values = [getattr(trip, field) for trip in trips]
        assert values == sorted(values)
        assert values[0] < values[2]
    assert trips[0].onsets > trips[1].onsets > trips[2].onsets


def test_onset_correlation_falls_when_the_beats_move() -> None:
    a = _music().double()
    assert onset_correlation(a, a.roll(RATE // 4, -1), RATE) < 0.3
    assert math.isnan(onset_correlation(a, torch.zeros_like(a), RATE))


def test_multi_resolution_distance_is_that_of_auraloss() -> None:
    auraloss = pytest.importorskip("auraloss")
    a = torch.randn(1, 1, RATE, generator=torch.Generator().manual_seed(2))
    b = a + 0.3 * torch.randn(1, 1, RATE, generator=torch.Generator().manual_seed(3))
    loss = auraloss.freq.MultiResolutionSTFTLoss(
        fft_sizes=[512, 1024, 2048], hop_sizes=[50, 120, 240], win_lengths=[240, 600, 1200]
    )
    # Its reference is the second argument.
    assert multi_resolution_distance(a[0], b[0]) == pytest.approx(float(loss(b, a)), rel=1e-3)


def test_eight_bits_lose_next_to_nothing_beside_the_mel() -> None:
    mel, picture = round_trip(Sound(Path("a.wav"), _music(2.0), RATE))
    assert (mel.rung, picture.rung) == RUNGS[:2]
    assert mel.convergence < 0.25
    assert mel.onsets > 0.8
    assert picture.convergence == pytest.approx(mel.convergence, abs=0.03)
    assert picture.log_distance < mel.log_distance + 0.5


def test_latents_of_random_weights_lose_most_and_every_rung_has_its_figures(pipe, mini_config) -> None:
    sound = Sound(Path("a.wav"), _music(4.0), RATE)
    trips = round_trip(sound, mini_config, vae=pipe.model.components.vae, quality="fast")
    assert [trip.rung for trip in trips] == list(RUNGS)
    assert trips[2].multi > trips[1].multi
    assert trips[2].onsets < trips[1].onsets
    figures = trip_figures([trips, trips])
    assert len(figures) == 12
    assert figures[0].name == "Spectral convergence, from mel"
    assert figures[0].n == 2
    assert trip_figures([]) == []


def test_riffusions_pictures_make_the_trip_too(riffusion_pipe) -> None:
    sound = Sound(Path("a.wav"), _music(2.0).repeat(2, 1), RATE)
    trips = round_trip(sound, riffusion_pipe.config, quality="fast")
    assert [trip.rung for trip in trips] == list(RUNGS[:2])
    assert trips[1].convergence < 1.0


def test_silence_makes_no_trip_and_is_named() -> None:
    with pytest.raises(RiffError, match=r"quiet\.wav"):
        round_trip(Sound(Path("quiet.wav"), torch.zeros(1, RATE), RATE))

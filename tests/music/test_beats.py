"""Beats of a recording: found to milliseconds where there is a beat, and refused in one line where there is none."""

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from riff.music.beats import Beats, NoBeat, track_beats
from riff.music.tempo_estimation import tempo_error
from riff.spectrogram.tempo import TempoMap
from riff.utils.errors import RiffError

RATE = 44100


def clicks(times: Any, seconds: float, accents: Any = None) -> torch.Tensor:
    """A click at each time, placed between samples, and a thud with it where ``accents`` says so: (1, T)."""
    sound = 1e-4 * np.random.default_rng(0).standard_normal(round(seconds * RATE))
    for index, time in enumerate(times):
        first = int(np.ceil(time * RATE))
        since = np.arange(first, min(first + 4000, len(sound))) / RATE - time
        sound[first : first + 4000] += 0.5 * np.exp(-since / 0.006) * np.sin(2 * np.pi * 1500 * since)
        if accents is not None and accents[index]:
            sound[first : first + 4000] += 0.5 * np.exp(-since / 0.02) * np.sin(2 * np.pi * 60 * since)
    return torch.tensor(sound[None], dtype=torch.float32)


def farthest(found: Beats, times: Any) -> float:
    """Seconds from the true beat that is missed most to the beat nearest to it."""
    return max(min(abs(time - beat) for beat in found.times) for time in times)


def check_cover(found: Beats, end: float) -> None:
    assert found.times[0] <= 0 < found.times[1] and found.times[-2] < end <= found.times[-1]
    assert all(after > before for before, after in itertools.pairwise(found.times))


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("offset", [0.0, 0.13, 0.31])
@pytest.mark.parametrize("bpm", [90.0, 120.0, 137.5])
def test_clicks_are_found_to_ten_milliseconds_tempo_to_half_a_percent(bpm: float, offset: float, given: bool) -> None:
    times = np.arange(offset, 11.0, 60 / bpm)
    found = track_beats(clicks(times, 12.0), RATE, bpm=bpm if given else None)
    assert farthest(found, times) < 0.010
    assert found.bpm == pytest.approx(bpm, rel=1e-9 if given else 0.005)
    assert found.steadiness > 0.98
    assert found.times[0] <= 0 < found.times[1] and found.times[-2] < 12 <= found.times[-1]
    if given:
        np.testing.assert_allclose(np.diff(found.times), 60 / bpm, rtol=1e-9)


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_any_sample_rate_and_shape_will_do(rate: int) -> None:
    times = np.arange(0.2, 9.5, 0.5)
    sound = np.zeros((2, 10 * rate))
    for time in times:
        sound[:, round(time * rate) : round(time * rate) + rate // 100] = 0.3 * np.cos(0.8 * np.arange(rate // 100))
    for waveform in (sound, sound[0], torch.tensor(sound, dtype=torch.float32)):
        assert farthest(track_beats(waveform, rate), times) < 0.010


def test_a_tempo_that_drifts_is_followed_within_twenty_milliseconds() -> None:
    tempo = TempoMap.glide([(0.0, 110.0), (60.0, 120.0)])
    times = 0.2 + tempo.seconds_at(torch.arange(61.0)).numpy()
    found = track_beats(clicks(times, float(times[-1]) + 0.4), RATE)
    assert farthest(found, times) < 0.020
    assert found.bpm == pytest.approx(60 * 60 / (times[-1] - times[0]), rel=0.01)
    assert found.steadiness < 0.9
    check_cover(found, float(times[-1]) + 0.4)
    kept = track_beats(clicks(times, float(times[-1]) + 0.4), RATE, bpm=115.0)
    assert farthest(kept, times) < 0.020, "a given tempo that the music does not keep is a hint only"


def test_a_players_beats_are_kept_as_they_are() -> None:
    rng = np.random.default_rng(3)
    times = np.arange(0.3, 19.5, 0.6) + rng.normal(0.0, 0.015, 32)
    assert farthest(track_beats(clicks(times, 20.0), RATE), times) < 0.010


@pytest.mark.parametrize(("beats_per_bar", "first"), [(4, 0), (4, 1), (4, 3), (3, 2)])
def test_the_downbeat_is_where_the_bass_is(beats_per_bar: int, first: int) -> None:
    times = np.arange(0.2, 15.5, 0.5)
    accents = np.arange(len(times)) % beats_per_bar == first
    found = track_beats(clicks(times, 16.0, accents), RATE, beats_per_bar=beats_per_bar)
    assert 0 <= found.downbeat < beats_per_bar
    downbeats = found.times[found.downbeat :: beats_per_bar]
    assert all(min(abs(time - beat) for beat in downbeats) < 0.01 for time in times[accents])


NOW = np.arange(10 * RATE) / RATE
BEATLESS = {
    "noise": 0.1 * np.random.default_rng(1).standard_normal(10 * RATE),
    "tone": 0.3 * np.sin(2 * np.pi * 220 * NOW),
    "swell": 0.3 * np.sin(2 * np.pi * 220 * NOW) * NOW / 10,
    "vibrato": 0.3 * np.sin(2 * np.pi * 440 * NOW + 3 * np.sin(2 * np.pi * 5 * NOW)),
    "one hit": clicks([4.0], 10.0).numpy(),
    "silence": np.zeros((2, 10 * RATE)),
    "constant": np.full(10 * RATE, 0.5),
    "short": clicks([0.5, 1.0, 1.5], 1.9).numpy(),
    "empty": np.zeros((1, 0)),
}


@pytest.mark.parametrize("name", BEATLESS)
def test_no_beat_is_an_error_or_with_bpm_an_even_grid(name: str) -> None:
    with pytest.raises(RiffError, match=r"(no beat|too short).*; pass bpm") as caught:
        track_beats(BEATLESS[name], RATE)
    assert "\n" not in str(caught.value)
    found = track_beats(BEATLESS[name], RATE, bpm=100.0)
    assert found.bpm == pytest.approx(100.0) and found.steadiness == 0.0
    np.testing.assert_allclose(np.diff(found.times), 0.6)
    assert found.times[0] <= 0 and found.times[-1] >= BEATLESS[name].shape[-1] / RATE


@pytest.mark.parametrize("seconds", [2.2, 3.0, 4.0, 6.0])
def test_seconds_of_noise_have_no_beat_and_seconds_of_beats_do(seconds: float) -> None:
    for seed in range(5):
        noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
        with pytest.raises(NoBeat, match="has no beat"):
            track_beats(0.1 * noise, RATE)
    times = np.arange(0.1, seconds, 0.4)
    assert track_beats(clicks(times, seconds), RATE).bpm == pytest.approx(150.0, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bpm": 10.0}, "bpm is 10.0; use a number from 20 to 400"),
        ({"bpm": float("nan")}, "bpm is nan"),
        ({"bpm": "fast"}, "bpm is 'fast'"),
        ({"beats_per_bar": 5}, "beats_per_bar is 5; use 3 or 4"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RiffError, match=message):
        track_beats(torch.zeros(1, RATE), RATE, **arguments)


def test_infinite_samples_are_refused() -> None:
    with pytest.raises(RiffError, match="NaN or infinite"):
        track_beats(torch.full((1, 3 * RATE), float("nan")), RATE, bpm=100.0)


GENRES = ("house", "techno", "rock", "disco", "salsa", "funk", "metal", "trance", "trap", "synthwave", "chiptune",
          "drum_and_bass")  # fmt: skip


@functools.cache
def composed() -> list[tuple[float, np.ndarray]]:
    pytest.importorskip("fluidsynth", exc_type=ImportError)
    from training.composer.arrange import HELD_OUT_SEEDS, compose
    from training.composer.effects import SAMPLE_RATE
    from training.composer.render import find_soundfont, render

    if find_soundfont() is None:
        pytest.skip("no General MIDI soundfont: apt-get install fluidr3mono-gm-soundfont")
    assert SAMPLE_RATE == RATE
    scores = []
    for index, genre in enumerate(GENRES):
        seeds = range(HELD_OUT_SEEDS.start + index, HELD_OUT_SEEDS.stop, len(GENRES))
        pieces = (compose(seed, genre=genre) for seed in seeds)
        # A flute by itself has no beat that one could hear.
        scores.append(next(score for score in pieces if all(truth.has_drums for truth in score.windows)))
    return [(score.bpm, render(score)) for score in scores]


def test_the_tempo_of_composed_music_is_found_up_to_octaves() -> None:
    def is_found(bpm: float, sound: np.ndarray) -> bool:
        try:
            return tempo_error(track_beats(sound, RATE).bpm, bpm) < 0.01
        except NoBeat:
            return False

    found = [is_found(bpm, sound) for bpm, sound in composed()]
    print(f"{sum(found)} of {len(found)}")
    assert sum(found) >= 10


def test_composed_music_whose_tempo_is_given_lies_on_the_even_grid() -> None:
    found = [track_beats(sound, RATE, bpm=bpm) for bpm, sound in composed()]
    exact = [beats for beats, (bpm, _) in zip(found, composed(), strict=True) if abs(beats.bpm / bpm - 1) < 1e-9]
    print(f"{len(exact)} of {len(found)}")
    assert len(exact) >= 10

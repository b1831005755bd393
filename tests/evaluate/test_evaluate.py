"""Planted truths: each measure is tried on sounds, pictures and numbers whose answer is known."""

import math

import numpy as np
import pytest
import torch

from riff.evaluate.figures import frechet_distance, wilson_interval
from riff.evaluate.image_metrics import mel_statistics, near_copies, psnr, sharpness
from riff.music.key import measure_key, mirex_key_score
from riff.music.tempo_estimation import measure_tempo, tempo_error
from riff.music.theory import KEYS
from riff.utils.errors import RiffError

RATE = 44100


def _clicks(bpm: float, *, beats: int = 8, per_beat: int = 1) -> np.ndarray:
    """Decaying noise bursts on every beat (and soft ones between), starting on the first sample."""
    rng = np.random.default_rng(0)
    sound = np.zeros(round(beats * 60 * RATE / bpm) + RATE // 4)
    burst = rng.standard_normal(RATE // 10) * np.exp(-np.arange(RATE // 10) / 600)
    for step in range(beats * per_beat):
        start = round(step * 60 * RATE / bpm / per_beat)
        sound[start : start + len(burst)] += burst * (1.0 if step % per_beat == 0 else 0.4)
    return sound[: round(beats * 60 * RATE / bpm)]


def _notes(chords: list[list[int]], *, seconds: float = 0.8) -> np.ndarray:
    """Chords of MIDI pitches, each note with six harmonics that fall and decay."""
    time = np.arange(round(seconds * RATE)) / RATE
    pieces = []
    for chord in chords:
        hertz = [440.0 * 2 ** ((pitch - 69) / 12) for pitch in chord]
        tones = [np.sin(2 * np.pi * f * h * time) / h**1.5 for f in hertz for h in range(1, 7)]
        pieces.append(np.sum(tones, axis=0) * np.exp(-time))
    return np.concatenate(pieces)


@pytest.mark.parametrize("bpm", [50.0, 84.0, 120.5, 173.0])
@pytest.mark.parametrize("per_beat", [1, 2, 4])
def test_tempo_of_a_click_track_is_found_within_half_a_percent(bpm: float, per_beat: int) -> None:
    measured = measure_tempo(_clicks(bpm, per_beat=per_beat), RATE)
    assert tempo_error(measured, bpm) < 0.005


def test_tempo_of_three_beats_per_bar_is_found() -> None:
    bar = _clicks(96.0, beats=6)
    assert tempo_error(measure_tempo(bar, RATE), 96.0) < 0.005


def test_tempo_is_found_under_a_sustained_chord_in_stereo_at_another_rate() -> None:
    clicks = _clicks(133.0, per_beat=2)[::2]
    time = np.arange(len(clicks)) * 2 / RATE
    chord = 0.3 * sum(np.sin(2 * np.pi * f * time) for f in (220.0, 277.2, 329.6))
    stereo = torch.from_numpy(np.stack([clicks + chord, 0.5 * clicks + chord])).float()
    assert tempo_error(measure_tempo(stereo, RATE // 2), 133.0) < 0.005


def test_expected_tempo_settles_only_the_level() -> None:
    sound = _clicks(75.0, per_beat=2)
    assert measure_tempo(sound, RATE, expected=150.0) == pytest.approx(150.0, rel=0.005)
    assert measure_tempo(sound, RATE, expected=75.0) == pytest.approx(75.0, rel=0.005)
    assert tempo_error(measure_tempo(sound, RATE, expected=82.0), 82.0) > 0.05


def test_a_wrong_tempo_is_not_excused() -> None:
    assert tempo_error(measure_tempo(_clicks(100.0), RATE), 110.0) > 0.05


@pytest.mark.parametrize(
    ("measured", "requested", "error"),
    [(100.0, 100.0, 0.0), (50.0, 100.0, 0.0), (151.5, 101.0, 0.0), (102.0, 100.0, 0.02)],
)
def test_tempo_error_is_relative_and_tolerates_levels(measured: float, requested: float, error: float) -> None:
    assert tempo_error(measured, requested) == pytest.approx(error, abs=1e-12)


def test_tempo_refuses_silence_short_clips_and_non_positive_tempi() -> None:
    with pytest.raises(RiffError, match="no onsets"):
        measure_tempo(np.zeros(3 * RATE), RATE)
    with pytest.raises(RiffError, match=r"0\.50 s is too short"):
        measure_tempo(np.zeros(RATE // 2), RATE)
    with pytest.raises(RiffError, match="greater than 0"):
        tempo_error(0.0, 120.0)


@pytest.mark.parametrize("tonic", [0, 3, 6, 10])
def test_key_of_a_major_cadence_is_found(tonic: int) -> None:
    chords = [[36, 60, 64, 67], [41, 60, 65, 69], [43, 59, 62, 67], [36, 60, 64, 67]]
    sound = _notes([[pitch + tonic for pitch in chord] for chord in chords])
    assert measure_key(sound, RATE) == KEYS[tonic]


@pytest.mark.parametrize("tonic", [1, 4, 6, 9])
def test_key_of_a_minor_cadence_is_found_under_drums(tonic: int) -> None:
    chords = [[36, 60, 63, 67], [41, 60, 65, 68], [43, 59, 62, 67], [36, 60, 63, 67]]
    sound = _notes([[pitch + tonic for pitch in chord] for chord in chords])
    drums = np.resize(_clicks(120.0, per_beat=2), len(sound))
    assert measure_key(sound + 0.5 * drums, RATE) == KEYS[12 + tonic]


def test_key_does_not_depend_on_level_or_channels() -> None:
    sound = _notes([[45, 57, 60, 64], [40, 56, 59, 64], [45, 57, 60, 64]])
    stereo = torch.from_numpy(np.stack([sound, sound])).float() * 0.01
    assert measure_key(sound, RATE) == measure_key(stereo, RATE) == "A minor"


def test_key_of_silence_is_refused() -> None:
    with pytest.raises(RiffError, match="no key"):
        measure_key(np.zeros(RATE), RATE)


@pytest.mark.parametrize(
    ("estimated", "score"),
    [
        ("C major", 1.0),
        ("G major", 0.5),
        ("F major", 0.0),
        ("A minor", 0.3),
        ("C minor", 0.2),
        ("E minor", 0.0),
    ],
)
def test_mirex_score_of_keys_near_c_major(estimated: str, score: float) -> None:
    assert mirex_key_score(estimated, "C major") == score


def test_mirex_relative_is_symmetric_and_unknown_keys_are_refused() -> None:
    assert mirex_key_score("D# major", "C minor") == mirex_key_score("C minor", "D# major") == 0.3
    with pytest.raises(RiffError, match="'Db major' is not a key"):
        mirex_key_score("Db major", "C major")


def test_frechet_distance_equals_the_closed_form_of_scaled_and_shifted_sets() -> None:
    # b = s * a + shift has covariance s^2 A, so the distance is |gap|^2 + (1 - s)^2 tr(A) exactly.
    a = np.random.default_rng(1).standard_normal((200, 5)) @ np.diag([1.0, 2.0, 0.5, 3.0, 1.0])
    b = 1.5 * a + 2.0
    gap = b.mean(0) - a.mean(0)
    expected = gap @ gap + 0.25 * np.trace(np.cov(a, rowvar=False))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_correlated_gaussians_equals_scipy_square_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(2)
    a = rng.standard_normal((300, 4)) @ rng.standard_normal((4, 4))
    b = rng.standard_normal((100, 4)) @ rng.standard_normal((4, 4)) + 1.0
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    gap = a.mean(0) - b.mean(0)
    expected = gap @ gap + np.trace(cov_a + cov_b - 2 * np.real(linalg.sqrtm(cov_a @ cov_b)))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_identical_and_degenerate_sets_is_zero() -> None:
    a = np.random.default_rng(3).standard_normal((10, 40))
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)


def test_frechet_distance_refuses_bad_sets() -> None:
    with pytest.raises(RiffError, match="NaN"):
        frechet_distance(np.full((4, 2), np.nan), np.zeros((4, 2)))
    with pytest.raises(RiffError, match="shapes"):
        frechet_distance(np.zeros((4, 2)), np.zeros((4, 3)))


def test_wilson_interval_equals_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263 -> 0.2553..0.3662; 0 of 20 -> 0..0.1611; 29 of 29 -> 0.8830..1.
    for hits, total, low, high in ((81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)):
        assert wilson_interval(hits, total) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(RiffError, match="not a share"):
        wilson_interval(3, 2)


def test_psnr_equals_its_closed_form() -> None:
    a = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5
    assert psnr(a, a + 0.05) == pytest.approx(-20 * math.log10(0.05), abs=1e-4)
    assert psnr(a, a) == math.inf
    with pytest.raises(RiffError, match="must be equal"):
        psnr(a, a[:1])


def test_sharpness_of_alternating_rows_is_their_step_and_blur_lowers_it() -> None:
    rows = torch.tensor([0.2, 0.6]).repeat(16)[:, None].expand(32, 8)
    assert sharpness(rows) == pytest.approx(0.4, abs=1e-6)
    assert sharpness((rows[:-1] + rows[1:]) / 2) == pytest.approx(0.0, abs=1e-6)
    assert sharpness(rows.T) == pytest.approx(0.0, abs=1e-6)


def _pulses(cycles_per_beat: float, *, columns: int = 256) -> torch.Tensor:
    beat = torch.arange(columns) / 32
    return (0.5 + 0.25 * torch.cos(2 * math.pi * cycles_per_beat * beat)).expand(3, 256, columns)


@pytest.mark.parametrize("columns", [256, 192])
@pytest.mark.parametrize(("place", "cycles"), [(0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0)])
def test_mel_statistics_hold_level_spread_and_modulation(columns: int, place: int, cycles: float) -> None:
    features = mel_statistics(_pulses(cycles, columns=columns))
    assert features.shape == (3, 96)
    np.testing.assert_allclose(features[:, :32], 5.0, atol=1e-4)
    np.testing.assert_allclose(features[:, 32:64], 2.5 / math.sqrt(2), rtol=0.01)
    modulation = features[:, 64:].reshape(3, 8, 4)
    np.testing.assert_allclose(modulation[..., place], 2.5, rtol=1e-3)
    np.testing.assert_allclose(np.delete(modulation, place, axis=-1), 0.0, atol=1e-3)


def test_mel_statistics_refuse_a_short_picture() -> None:
    with pytest.raises(RiffError, match="too short"):
        mel_statistics(torch.zeros(1, 256, 32))


def test_near_copies_finds_the_planted_copy_and_only_it() -> None:
    generator = torch.Generator().manual_seed(0)
    training = torch.rand(20, 64, 64, generator=generator)
    held_out = torch.rand(10, 64, 64, generator=generator)
    generated = torch.rand(5, 1, 64, 64, generator=generator)
    generated[3, 0] = (0.8 * training[7] + 0.05 * torch.rand(64, 64, generator=generator)).clamp(0, 1)
    found = near_copies(generated, training, held_out=held_out)
    assert found.nearest[3] == 7
    assert list(found.copies) == [3]
    assert found.threshold == pytest.approx((found.held_out.max() + 1) / 2)
    assert found.similarity[3] > 0.9


def test_near_copies_refuses_pictures_of_two_sizes() -> None:
    with pytest.raises(RiffError, match="one size"):
        near_copies(torch.zeros(1, 8, 8), torch.zeros(1, 8, 6), held_out=torch.zeros(1, 8, 8))

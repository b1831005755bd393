"""Hygiene and copies: sounds whose peak, loudness, clipping, silence, bandwidth or origin is planted."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import growth

from riff.evaluate.copies import (
    COPY_SKETCHES,
    Index,
    Likeness,
    Sketches,
    copies_of,
    copies_within,
    copy_figures,
    determinism,
    digest,
    diversity,
    fingerprint,
    most_copied,
    sketch,
    sketch_figures,
    threshold,
)
from riff.evaluate.hygiene import Hygiene, bandwidth, clipping_share, hygiene, inspect, silence_share, true_peak
from riff.evaluate.sounds import Sound

RATE = 44100


def _sound(*channels: np.ndarray, rate: int = RATE) -> Sound:
    return Sound(Path("a.wav"), torch.from_numpy(np.stack(channels)).float(), rate)


def _sine(hertz: float, *, seconds: float = 1.0, phase: float = 0.0, level: float = 1.0) -> np.ndarray:
    return level * np.sin(2 * math.pi * hertz * np.arange(round(seconds * RATE)) / RATE + phase)


def _noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def test_true_peak_sees_between_the_samples_of_a_quarter_rate_sine() -> None:
    # A sine at a quarter of the rate, an eighth of a turn off: its samples reach 0.707 of its peak.
    wave = _sine(RATE / 4, phase=math.pi / 4)[None]
    assert np.abs(wave).max() == pytest.approx(math.sqrt(0.5), abs=1e-6)
    # The start from silence overshoots; it fades in.
    wave *= np.minimum(np.arange(wave.size) / 4000, 1.0)
    wave *= np.minimum(np.arange(wave.size)[::-1] / 4000, 1.0)
    assert 20 * math.log10(true_peak(wave)) == pytest.approx(0.0, abs=0.1)
    assert true_peak(np.zeros((2, 100))) == 0.0


def test_true_peak_of_a_long_sound_is_that_of_its_loudest_part() -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal((1, (1 << 20) + 5000))
    wave[0, (1 << 20) - 500 : (1 << 20) + 500] *= 5.0  # across the border of two blocks
    part = true_peak(wave[:, (1 << 20) - 2000 : (1 << 20) + 2000])
    assert true_peak(wave) == pytest.approx(part, rel=1e-9)


@pytest.mark.parametrize("level", [1.0, 0.1])
def test_loudness_is_that_of_pyloudnorm(level: float) -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    stereo = np.stack([_sine(997, seconds=3, level=level), 0.3 * level * _noise(3.0)])
    expected = pyloudnorm.Meter(RATE).integrated_loudness(stereo.T)
    assert inspect(_sound(*stereo)).loudness == pytest.approx(expected, abs=0.1)


def test_clipping_counts_runs_at_full_scale_and_no_lone_peak() -> None:
    wave = 0.5 * np.ones((1, 1000))
    wave[0, 10] = 1.0  # a peak
    wave[0, 100:105] = 1.0
    wave[0, 200:203] = -1.0
    wave[0, 300:302] = [1.0, -1.0]
    assert clipping_share(wave) == pytest.approx(8 / 1000)
    assert clipping_share(np.clip(_sine(100, level=2.0)[None], -1, 1)) == pytest.approx(2 / 3, abs=0.01)
    assert clipping_share(_sine(100)[None]) < 0.05


def test_silence_is_the_share_of_quiet_blocks() -> None:
    wave = np.concatenate([_sine(440), np.zeros(RATE), 1e-4 * _sine(440)])[None]
    assert silence_share(wave, RATE) == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize("cutoff", [2000.0, 8000.0, 16000.0])
def test_bandwidth_is_the_planted_cutoff(cutoff: float) -> None:
    spectrum = np.fft.rfft(_noise(4.0))
    spectrum[np.fft.rfftfreq(4 * RATE, 1 / RATE) > cutoff] = 0
    assert bandwidth(np.fft.irfft(spectrum)[None], RATE) == pytest.approx(cutoff, rel=0.08)


def test_offset_and_stereo_correlation_have_their_closed_forms() -> None:
    left, right = _sine(440), _sine(440, phase=math.pi / 3)
    found = inspect(_sound(0.4 * left + 0.05, 0.2 * right))
    assert found.offset == pytest.approx(0.05, abs=1e-4)
    assert found.correlation == pytest.approx(0.5, abs=1e-3)
    assert inspect(_sound(left, -left)).correlation == pytest.approx(-1.0)
    assert math.isnan(inspect(_sound(left)).correlation)


def test_silence_has_hygiene_too_and_spoils_no_mean() -> None:
    silent, tone = inspect(_sound(np.zeros(RATE))), inspect(_sound(_sine(440, level=0.5)))
    assert silent == Hygiene(-math.inf, -math.inf, 0.0, 1.0, 0.0, silent.bandwidth, silent.correlation)
    figures = {figure.name: figure for figure in hygiene([silent, tone])}
    assert figures["Silent clips"].value == 0.5
    assert figures["Loudness"].value == pytest.approx(tone.loudness)
    assert figures["Loudness"].n == 1
    assert figures["True peak"].value == pytest.approx(20 * math.log10(0.5), abs=0.1)
    assert figures["Clips that clip"].value == 0.0
    assert all(figure.definition for figure in figures.values())
    assert all(math.isnan(figure.value) for figure in hygiene([]))


def _melody(seed: int, *, seconds: float = 5.0, rate: int = 22050) -> np.ndarray:
    """Notes of four harmonics at random times, on and off a scale."""
    rng = np.random.default_rng(seed)
    sound = np.zeros(round(seconds * rate))
    time = np.arange(rate // 2) / rate
    for start in rng.integers(0, len(sound) - rate // 2, 24):
        pitch = 110.0 * 2.0 ** (rng.integers(0, 36) / 12.0)
        note = sum(np.sin(2 * math.pi * pitch * k * time) / k for k in range(1, 5)) * np.exp(-6 * time)
        sound[start : start + len(note)] += 0.2 * note
    return sound


@pytest.fixture(scope="module")
def library() -> list[np.ndarray]:
    return [fingerprint(_sound(_melody(seed), rate=22050)) for seed in range(40)]


@pytest.mark.parametrize("how", ["as it is", "quieter", "shifted", "noisy", "other rate", "a part", "filtered"])
def test_a_changed_copy_is_found_in_the_training_set(how: str, library: list[np.ndarray]) -> None:
    from riff.audio.io import resample

    melody, rate = _melody(7), 22050
    rng = np.random.default_rng(1)
    changed = {
        "as it is": melody,
        "quieter": 0.1 * melody,
        "shifted": np.concatenate([np.zeros(7777), melody]),
        "noisy": melody + 0.02 * melody.std() * rng.standard_normal(len(melody)),
        "other rate": resample(torch.from_numpy(melody)[None], rate, 44100)[0].numpy(),
        "a part": melody[rate : 4 * rate],
        "filtered": np.convolve(melody, [0.5, 0.5], mode="same"),
    }[how]
    found = fingerprint(_sound(changed, rate=44100 if how == "other rate" else rate))
    match = copies_of([found], Index(library))[0]
    assert match.copy
    assert match.index == 7


def test_other_melodies_of_the_same_notes_are_no_copies(library: list[np.ndarray]) -> None:
    others = [fingerprint(_sound(_melody(seed), rate=22050)) for seed in range(100, 130)]
    matches = copies_of(others, Index(library))
    assert not any(match.copy for match in matches)
    assert max(match.share for match in matches) < 0.06


def test_copies_within_a_set_are_counted_and_the_sound_itself_is_not(library: list[np.ndarray]) -> None:
    twice = [*library[:8], fingerprint(_sound(0.3 * _melody(2), rate=22050))]
    matches = copies_within(twice)
    assert [number for number, match in enumerate(matches) if match.copy] == [2, 8]
    within, training = copy_figures(matches, copies_of(library[:4], Index(library[2:])))
    assert within.value == pytest.approx(2 / 9)
    assert training.value == pytest.approx(0.5)
    assert most_copied(matches) == [(8, 1), (2, 1)]


def test_silence_and_an_empty_library_match_nothing(library: list[np.ndarray]) -> None:
    silent = fingerprint(_sound(np.zeros(RATE)))
    assert silent.shape == (0, 2)
    assert not copies_of([silent], Index(library))[0].copy
    assert not copies_of([library[0]], Index([]))[0].copy
    assert not copies_within([silent, silent])[0].copy


def test_ten_thousand_clips_are_searched_in_linear_time(library: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    hashes = np.concatenate([found[:, 0] for found in library])
    many = [np.stack([rng.choice(hashes, 300), rng.integers(0, 215, 300)], axis=1) for _ in range(9960)]
    indices = {size: Index([*library, *many[: size - len(library)]]) for size in (1_000, 10_000)}
    assert indices[10_000].size == 10_000
    assert indices[10_000].search(library[3]).index == 3
    assert growth(lambda size: indices[size].search(library[3]), 10_000) < 30


def _blurred(mono: np.ndarray, rate: int) -> np.ndarray:
    """Every phase resampled and the fine structure gone, as after an autoencoder: noise in the same broad bands."""
    sound = torch.from_numpy(mono)
    window = torch.hann_window(1024, dtype=torch.float64)
    frames = torch.stft(sound, 1024, 256, window=window, return_complex=True)
    level = torch.nn.functional.avg_pool2d(frames.abs()[None, None], (1, 5), 1, (0, 2))[0, 0]
    phase = 2 * math.pi * torch.rand(level.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.istft(torch.polar(level, phase), 1024, 256, window=window, length=len(mono)).numpy()


@pytest.fixture(scope="module")
def gallery() -> list[np.ndarray]:
    return [sketch(_sound(_melody(seed), rate=22050)) for seed in range(40)]


@pytest.mark.parametrize("shift", [0, 12345])
def test_a_copy_without_its_landmarks_still_looks_alike_at_any_shift(
    shift: int, library: list[np.ndarray], gallery: list[np.ndarray]
) -> None:
    blurred = np.concatenate([np.zeros(shift), _blurred(_melody(11), 22050)])
    assert not copies_of([fingerprint(_sound(blurred, rate=22050))], Index(library))[0].copy
    found = Sketches(gallery).search(sketch(_sound(blurred, rate=22050)))
    assert found.index == 11
    assert found.similarity > COPY_SKETCHES


def test_other_melodies_do_not_look_alike_and_the_sound_itself_may_be_left_out(gallery: list[np.ndarray]) -> None:
    index = Sketches(gallery)
    within = [index.search(each, leave_out=number) for number, each in enumerate(gallery)]
    assert max(found.similarity for found in within) < 0.8
    itself = index.search(gallery[5])
    assert (itself.index, round(itself.similarity, 3)) == (5, 1.0)
    alone, training = sketch_figures(within, [index.search(each) for each in gallery[:3]])
    assert alone.value == 0.0
    assert training.value == 1.0
    assert threshold([Likeness(0, 0.9)]) == pytest.approx(0.95)
    assert threshold() == COPY_SKETCHES


def test_silence_looks_like_nothing(gallery: list[np.ndarray]) -> None:
    silent = sketch(_sound(np.zeros(RATE)))
    assert Sketches(gallery).search(silent) == Likeness(-1, 0.0)
    assert Sketches([silent, silent]).search(gallery[0]) == Likeness(-1, 0.0)
    assert Sketches([]).search(gallery[0]) == Likeness(-1, 0.0)


def test_diversity_is_one_for_the_reference_and_nought_for_one_clip_repeated() -> None:
    rows = np.random.default_rng(0).standard_normal((60, 5))
    same = diversity(rows, rows, "numbers")
    assert same.value == pytest.approx(1.0)
    assert same.low < 1.0 < same.high
    assert diversity(0.5 * rows, rows, "numbers").value == pytest.approx(0.5)
    assert diversity(np.ones((10, 5)), rows, "numbers").value == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(diversity(rows[:2], None, "numbers").value)
    plain = diversity(rows[:3], None, "numbers").value
    pairs = [np.linalg.norm(rows[a] - rows[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert plain == pytest.approx(np.mean(pairs))


def test_two_makings_of_one_recipe_are_compared_and_others_are_not() -> None:
    tone, other = _sound(_sine(440)), _sound(_sine(441))
    recipe = {"model": "riff-mini", "prompt": "jazz", "seed": "7"}
    made = [recipe, dict(recipe), {**recipe, "seed": "8"}, {}, {}]
    assert determinism(made, [digest(tone)] * 2 + [digest(other)] * 3).value == 1.0
    assert determinism(made, [digest(tone), *[digest(other)] * 4]).value == 0.0
    assert math.isnan(determinism(made[2:], [digest(tone)] * 3).value)

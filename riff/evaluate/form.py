"""The shape of a sound in time: does a loop close, does a walk go smoothly, does the level hold, are onsets sharp?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from riff.audio.loudness import loudness
from riff.evaluate.figures import Figure, mean_figure, share_figure
from riff.evaluate.sounds import Sound

WINDOW = 2.0  # seconds of a window where no tempo is known; else it is a bar of four beats
BANDS = 64
_N_FFT, _HOP, _LAG = 1024, 128, 4
REACH = 0.02  # seconds around a downbeat in which its flux is looked for
SEAM = 1.25  # times the largest of the other downbeats, up to which a seam is like one of them
LOUD = -70.0  # LUFS below which a window is silent


@dataclasses.dataclass(frozen=True)
class Form:
    """One sound; NaN where it is too short, or no loop.

    Attributes:
        seam_flux: spectral flux at a loop's seam over the mean of that at its other downbeats.
        seam_step: step between two samples at the seam over the mean of that at the other downbeats.
        seam_usual: whether neither passes 1.25 times the largest of the other downbeats; None if it is no loop.
        roughness: largest over mean step between the mel statistics of neighbouring windows.
        level_step: largest change of loudness from window to window, in LU.
        sharpness: mean attack of the strongest onsets, two a second, in dB of energy after over before.
    """

    seam_flux: float = math.nan
    seam_step: float = math.nan
    seam_usual: bool | None = None
    roughness: float = math.nan
    level_step: float = math.nan
    sharpness: float = math.nan


def measure_form(sound: Sound) -> Form:
    """Measure one sound; tempo and whether it is a loop are what its metadata say."""
    bpm = _positive(sound.metadata.get("bpm"))
    bar = 240.0 / bpm if bpm else WINDOW
    roughness, level_step = evenness(sound, bar)
    attack = onset_sharpness(sound)
    if sound.metadata.get("loop") != "True" or not bpm:
        return Form(roughness=roughness, level_step=level_step, sharpness=attack)
    bars = max(2, round(sound.seconds / bar))
    flux, step = seam(sound, bars)
    ratios = [_over_others(values) for values in (flux, step)]
    usual = all(values[0] <= SEAM * max(values[1:]) for values in (flux, step))
    return Form(ratios[0], ratios[1], usual, roughness, level_step, attack)


def form(found: Sequence[Form], reference: Sequence[Form] = ()) -> list[Figure]:
    """Figures over clips.

    Args:
        found: one of each clip.
        reference: of the music that it should be like; without it the sharpness of onsets is in decibels.
    """
    sharp = [one.sharpness for one in found]
    theirs = [one.sharpness for one in reference if math.isfinite(one.sharpness)]
    attack = "Energy in the 15 ms after an onset over that before it, of the two strongest a second, mean"
    figures = [
        mean_figure(
            "Loop seam, flux",
            [one.seam_flux for one in found],
            "",
            "Rise of log magnitudes within 20 ms of a loop's seam over the mean of its other downbeats; 1 is no seam.",
        ),
        mean_figure(
            "Loop seam, sample step",
            [one.seam_step for one in found],
            "",
            "Step between two samples at a loop's seam over the mean of its other downbeats; 1 is no seam.",
        ),
        share_figure(
            "Loop seams like a downbeat",
            [one.seam_usual for one in found if one.seam_usual is not None],
            "Flux and step at the seam do not pass 1.25 times the largest at the loop's other downbeats.",
        ),
        mean_figure(
            "Roughness",
            [one.roughness for one in found],
            "",
            "Largest over mean step between the mean mel levels of neighbouring bars (2 s without a tempo); 1 is even.",
        ),
        mean_figure(
            "Largest level step",
            [one.level_step for one in found],
            "LU",
            "Largest change of loudness (ITU-R BS.1770-4) from bar to bar (2 s without a tempo), mean over clips.",
        ),
        mean_figure("Onset sharpness", sharp, "dB", f"{attack}."),
    ]
    if theirs:
        middle = float(np.mean(theirs))
        against = f"{attack}, less the reference's {middle:.1f} dB; below 0 attacks are softer."
        figures.append(mean_figure("Onset sharpness against the reference", [v - middle for v in sharp], "dB", against))
    return figures


def seam(sound: Sound, bars: int) -> tuple[list[float], list[float]]:
    """Spectral flux, and the step between two samples, at each downbeat of a sound that is repeated; the seam is first.

    Args:
        sound: a loop.
        bars: how many it has, at least 2.
    """
    mono = sound.mono.numpy().astype(np.float64)
    mono = mono / max(float(np.abs(mono).max()), 1e-9)
    length = len(mono)
    thrice = np.tile(mono, 3)
    places = [length + round(bar * length / bars) for bar in range(bars)]
    return (
        [_flux_at(thrice, place, round(REACH * sound.sample_rate)) for place in places],
        [float(np.abs(np.diff(thrice[place - 3 : place + 3])).max()) for place in places],
    )


def evenness(sound: Sound, window: float) -> tuple[float, float]:
    """Roughness and largest level step of a sound, see :class:`Form`; NaN with fewer than three windows.

    Args:
        sound: any.
        window: seconds of a window.
    """
    from riff.evaluate.embeddings import level

    size = round(window * sound.sample_rate)
    count = sound.waveform.shape[-1] // size if size else 0
    if count < 3:
        return math.nan, math.nan
    parts = sound.waveform[..., : count * size].unflatten(-1, (count, size))
    levels = np.array([max(loudness(parts[:2, index], sound.sample_rate), LOUD) for index in range(count)])
    even = level(sound.mono[None])[0, : count * size].reshape(count, size).numpy().astype(np.float64)
    means = np.stack([_band_levels(part, sound.sample_rate) for part in even])
    steps = np.linalg.norm(np.diff(means, axis=0), axis=1)
    roughness = float(steps.max() / steps.mean()) if steps.mean() > 1e-9 else 1.0
    return roughness, float(np.abs(np.diff(levels)).max())


def onset_sharpness(sound: Sound) -> float:
    """Mean attack in decibels of the strongest onsets of a sound, two a second; NaN under a second or in silence."""
    from riff.music.beats import Onsets

    mono = sound.mono.numpy().astype(np.float64)
    if sound.seconds < 1.0 or np.abs(mono).max() < 1e-4:
        return math.nan
    attack = Onsets.of(mono, sound.sample_rate).attack
    inner = attack[1:-1]
    peaks = np.sort(inner[(inner >= attack[:-2]) & (inner > attack[2:])])[::-1]
    strongest = peaks[: max(2, round(2.0 * sound.seconds))]
    return float(strongest.mean() * 10.0 / math.log(10.0)) if len(strongest) else 0.0


def _flux_at(sound: np.ndarray, place: int, reach: int) -> float:
    """Largest rise of log magnitudes within ``reach`` samples of a place, over half a window.

    Over half a window, so that it does not matter where in a hop an attack falls.
    """
    edge = (_N_FFT + _LAG * _HOP) // 2 + reach
    part = np.pad(sound, edge)[place : place + 2 * edge]
    frames = np.lib.stride_tricks.sliding_window_view(part, _N_FFT)[::_HOP] * np.hanning(_N_FFT)
    loud = np.log(np.abs(np.fft.rfft(frames, axis=1)) + 1e-2)
    return float(np.clip(loud[_LAG:] - loud[:-_LAG], 0.0, None).sum(1).max())


def _band_levels(mono: np.ndarray, sample_rate: int) -> np.ndarray:
    """Levels of 64 bands, evenly wide in mel from 20 Hz up, in dB, nothing below -60 counting; (64,)."""
    power = np.abs(np.fft.rfft(mono * np.hanning(len(mono)))) ** 2 / len(mono)
    hertz = np.fft.rfftfreq(len(mono), 1.0 / sample_rate)
    mel = 2595.0 * np.log10(1.0 + np.array([20.0, min(16000.0, sample_rate / 2)]) / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(mel[0], mel[1], BANDS + 1) / 2595.0) - 1.0)
    totals = np.concatenate([[0.0], np.cumsum(power)])[np.searchsorted(hertz, edges)]
    loud: np.ndarray = 10.0 * np.log10(np.diff(totals) / len(mono) * 2.0 + 1e-6)
    return loud


def _over_others(values: list[float]) -> float:
    return values[0] / max(float(np.mean(values[1:])), 1e-9)


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 20.0 <= value <= 400.0 else None

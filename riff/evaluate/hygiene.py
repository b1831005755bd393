"""Is a sound technically sound? Peaks, loudness, clipping, silence, offset, bandwidth and stereo."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from riff.audio.loudness import loudness
from riff.evaluate.figures import Figure, mean_figure, share_figure
from riff.evaluate.sounds import Sound

OVERSAMPLING = 4
CLIPPED = 0.999  # of full scale, from which a sample may be one that was cut off
RUN = 3  # such samples in a row that make a clip: a lone full-scale sample is a peak
QUIET = 1e-3  # RMS of a 50 ms block, -60 dB of full scale, below which it is silent
BANDWIDTH_DB = 60.0
_BLOCK = 1 << 20  # samples oversampled at once


@dataclasses.dataclass(frozen=True)
class Hygiene:
    """One sound.

    Attributes:
        true_peak: dB of full scale, after oversampling four times; minus infinity for silence.
        loudness: LUFS; minus infinity for silence.
        clipped: share of the samples that lie in runs of at least 3 at full scale.
        silent: share of 50 ms blocks below -60 dB of full scale.
        offset: largest mean of a channel, of full scale.
        bandwidth: Hz, the highest frequency whose long-term level is within 60 dB of the loudest; NaN for silence.
        correlation: of left and right, -1..1; NaN for mono and silence.
    """

    true_peak: float
    loudness: float
    clipped: float
    silent: float
    offset: float
    bandwidth: float
    correlation: float


def inspect(sound: Sound) -> Hygiene:
    """Measure one sound."""
    samples = sound.waveform.numpy().astype(np.float64)
    peak = true_peak(samples)
    return Hygiene(
        20.0 * math.log10(peak) if peak > 0 else -math.inf,
        loudness(sound.waveform[:2], sound.sample_rate),
        clipping_share(samples),
        silence_share(samples, sound.sample_rate),
        float(np.abs(samples.mean(1)).max()),
        bandwidth(samples, sound.sample_rate),
        _correlation(samples),
    )


def hygiene(found: Sequence[Hygiene]) -> list[Figure]:
    """Figures over clips.

    Args:
        found: one of each clip.
    """
    over = "Highest sample after oversampling four times (ITU-R BS.1770-4, annex 2)"
    return [
        mean_figure(
            "Loudness", [one.loudness for one in found], "LUFS", "Integrated (ITU-R BS.1770-4), mean over clips."
        ),
        mean_figure(
            "Loudness spread",
            [one.loudness for one in found],
            "LU",
            "Standard deviation over clips.",
            statistic=_spread,
        ),
        mean_figure("True peak", [one.true_peak for one in found], "dBTP", f"{over}, mean over clips."),
        share_figure("True peak above 0 dBTP", [one.true_peak > 0.0 for one in found], f"{over} passes full scale."),
        share_figure(
            "Clips that clip", [one.clipped > 0 for one in found], "Holds 3 or more samples in a row at full scale."
        ),
        mean_figure(
            "Clipped samples", [one.clipped for one in found], "share", "Samples in runs of 3 or more at full scale."
        ),
        mean_figure(
            "Silence", [one.silent for one in found], "share", "50 ms blocks whose RMS is below -60 dB of full scale."
        ),
        share_figure("Silent clips", [one.silent > 0.95 for one in found], "More than 95 % of the clip is silent."),
        mean_figure("DC offset", [one.offset for one in found], "", "Largest mean of a channel, of full scale."),
        mean_figure(
            "Bandwidth",
            [one.bandwidth for one in found],
            "Hz",
            "Highest frequency whose long-term level lies within 60 dB of the loudest, mean over clips.",
        ),
        mean_figure(
            "Stereo correlation", [one.correlation for one in found], "", "Pearson's of left and right; 1 is mono."
        ),
    ]


def true_peak(samples: np.ndarray) -> float:
    """Highest absolute value of a sound (C, T) after oversampling four times (ITU-R BS.1770-4, annex 2); linear."""
    from scipy.signal import resample_poly

    if not np.any(samples):
        return 0.0
    highest = float(np.abs(samples).max())
    for start in range(0, samples.shape[1], _BLOCK):
        # Blocks overlap by more than the filter's length; beyond the ends there is silence, as for a player.
        part = samples[:, max(0, start - 64) : start + _BLOCK + 64]
        between = np.abs(resample_poly(part, OVERSAMPLING, 1, axis=-1, window=("kaiser", 8.0)))
        first = OVERSAMPLING * (start - max(0, start - 64))
        highest = max(highest, float(between[:, first : first + OVERSAMPLING * _BLOCK].max()))
    return highest


def clipping_share(samples: np.ndarray) -> float:
    """Share of the samples of (C, T) that lie in runs of at least 3 of one sign at full scale."""
    total = 0
    for channel in samples:
        for sign in (1.0, -1.0):
            high = np.concatenate([[0], (sign * channel >= CLIPPED).astype(np.int8), [0]])
            edges = np.flatnonzero(np.diff(high))
            lengths = edges[1::2] - edges[::2]
            total += int(lengths[lengths >= RUN].sum())
    return total / max(samples.size, 1)


def silence_share(samples: np.ndarray, sample_rate: int) -> float:
    """Share of 50 ms blocks of (C, T) whose RMS over the channels is below -60 dB of full scale."""
    block = max(1, min(round(0.05 * sample_rate), samples.shape[1]))
    count = samples.shape[1] // block
    blocks = samples[:, : count * block].reshape(len(samples), count, block)
    return float((np.sqrt((blocks**2).mean((0, 2))) < QUIET).mean())


def bandwidth(samples: np.ndarray, sample_rate: int) -> float:
    """Highest frequency in Hz whose long-term level is within 60 dB of the loudest; NaN for silence.

    Welch's spectrum of 4096 samples (Welch 1967), smoothed over a sixth of an octave so that one line is no bandwidth.
    """
    from scipy.signal import welch

    if not np.any(samples):
        return math.nan
    hertz, power = welch(samples, sample_rate, "hann", min(4096, samples.shape[1]), axis=-1)
    power, hertz = power.mean(0)[1:], hertz[1:]
    if not len(power):
        return math.nan
    edges = np.concatenate([[0.0], np.cumsum(power)])
    low = np.searchsorted(hertz, hertz * 2.0 ** (-1 / 12))
    high = np.searchsorted(hertz, hertz * 2.0 ** (1 / 12), side="right")
    smooth = (edges[high] - edges[low]) / np.maximum(high - low, 1)
    detected = np.flatnonzero(smooth >= smooth.max() * 10.0 ** (-BANDWIDTH_DB / 10.0))
    return float(hertz[detected[-1]])


def _correlation(samples: np.ndarray) -> float:
    if len(samples) != 2:
        return math.nan
    left, right = samples - samples.mean(1, keepdims=True)
    norm = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right / norm) if norm > 1e-9 else math.nan


def _spread(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan

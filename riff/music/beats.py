"""The beats of a recording: when each one is, and which begin a bar, for
:meth:`riff.spectrogram.tempo.TempoMap.from_beats`.

A network finds where beats and bars are likely (:mod:`riff.music.beat_net`), the likeliest path through bars
(:mod:`riff.music.beat_net`) is good to a hundredth of a second, and each beat is then moved to the onset near it.
"""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from riff.music.beat_net import likely_beats
from riff.utils.errors import RiffError
from riff.utils.validation import BPM_RANGE, check_number

SHORTEST = 2.0  # seconds
STEADY = 0.015  # seconds of residual up to which a given tempo is believed
VERY_STEADY = 0.006  # up to which any even grid is: about what finding an onset costs
NEAR = 0.05  # seconds that a beat may be moved
START = 0.005  # seconds within which a beat at the start is put there
LEAST_CLARITY = 0.12  # mean likelihood of a beat where beats are: noise has up to 0.06, most music more than 0.3
CLARITY_SECONDS = 0.5  # but a few seconds of noise have more, up to 0.22 in four seconds
LATE = 0.9  # moments by which a peak of attack is early, measured on clicks
REMEDY = "pass bpm, and downbeat if you know it"


class NoBeat(RiffError):
    """No beat was found.

    Attributes:
        problem: why, without what to do about it.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}; {REMEDY}")
        self.problem = problem


@dataclasses.dataclass(frozen=True)
class Beats:
    """Beats that cover a sound.

    Attributes:
        times: seconds of each, increasing; the first is the only one at or before 0, the last the only one at or after
            the end. Before the first and after the last that was found they go on as the outer intervals do.
        downbeat: index of the first beat that begins a bar, 0 to beats per bar - 1; it may be before the sound.
        bpm: mean tempo in beats per minute.
        steadiness: 1 is an even grid, 0 is no more even than chance (1 - sqrt(12) rms / interval, where rms is that of
            the distances from the evenest grid; a uniformly random beat has 0); 0 where none was found.
    """

    times: tuple[float, ...]
    downbeat: int
    bpm: float
    steadiness: float


def track_beats(
    waveform: Tensor | np.ndarray, sample_rate: int, *, bpm: float | None = None, beats_per_bar: int = 4
) -> Beats:
    """Find the beats of a sound.

    Args:
        waveform: (C, T) or (T,).
        sample_rate: samples per second, in Hz.
        bpm: the tempo if it is known, 20..400. Where the beats keep to it within 15 ms, or where none can be found, the
            result is the even grid of exactly this tempo, at the phase that fits best.
        beats_per_bar: 3 or 4.

    Returns:
        Beats from before the sound to after it.

    Raises:
        NoBeat: without ``bpm``: the sound is shorter than 2 s or silent, or has no beat.
        RiffError: an argument is out of its range, or the sound is not finite.
    """
    if bpm is not None:
        check_number(bpm, "bpm", *BPM_RANGE)
    if beats_per_bar not in (3, 4):
        raise RiffError(f"beats_per_bar is {beats_per_bar!r}; use 3 or 4")
    mono = np.atleast_2d(np.asarray(waveform, dtype=np.float64)).mean(0)
    end = mono.size / sample_rate
    if not np.isfinite(mono).all():
        raise RiffError("the sound holds NaN or infinite samples; no beat can be tracked in it")
    problem = _why_no_beat(mono, sample_rate)
    found = None if problem else _track(mono, sample_rate, bpm, beats_per_bar)
    if found is None:
        if bpm is None:
            raise NoBeat(problem or f"the sound of {end:.1f} s has no beat that can be heard")
        return Beats(_cover(np.array([0.0, 60.0 / bpm]), end), 0, float(bpm), 0.0)
    onsets, bars = found
    times, steadiness = _even_out(onsets, bpm)
    covering = np.array(_cover(times, end))
    return Beats(
        tuple(covering.tolist()),
        _downbeat(covering, bars, beats_per_bar),
        60.0 * (len(times) - 1) / float(times[-1] - times[0]),
        steadiness,
    )


def _why_no_beat(mono: np.ndarray, sample_rate: int) -> str | None:
    """Why there can be no beat, as far as length and level say."""
    if mono.size < SHORTEST * sample_rate:
        return f"a sound of {mono.size / sample_rate:.2f} s is too short to track a beat in (at least {SHORTEST:g} s)"
    if np.abs(mono).max() < 1e-4:
        return "the sound is silent, so it has no beat"
    return None


def _track(
    mono: np.ndarray, sample_rate: int, bpm: float | None, beats_per_bar: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Times of the beats, without gaps, and of those that begin bars; None if there is no beat."""
    from riff.music.beat_net import RATE, beat_probabilities

    likelihoods = beat_probabilities(torch.from_numpy(mono), sample_rate).numpy()
    coarse, first = likely_beats(likelihoods, RATE, beats_per_bar=beats_per_bar, bpm=bpm)
    least = LEAST_CLARITY + CLARITY_SECONDS * sample_rate / mono.size
    if len(coarse) < 4 or _clarity(coarse, likelihoods, RATE) < least:
        return None
    times = _to_onsets(coarse, Onsets.of(mono, sample_rate))
    return None if times is None else (times, coarse[first::beats_per_bar])


def _clarity(times: np.ndarray, likelihoods: np.ndarray, rate: float) -> float:
    """How likely, on average, the network finds a beat at the path's beats, 0..1."""
    frames = np.clip(np.round(times * rate).astype(int)[:, None] + np.arange(-1, 2), 0, likelihoods.shape[1] - 1)
    return float((1.0 - np.exp(likelihoods[0]))[frames].max(1).mean())


@dataclasses.dataclass(frozen=True)
class Onsets:
    """How much louder a sound gets at every millisecond: the energy after that moment over the energy before it.

    Both fade exponentially away from the moment, so that the ratio peaks where an attack begins, short or long.

    Attributes:
        attack: (N,) logarithm of the ratio, >= 0.
        rate: moments per second, near 1000.
    """

    attack: np.ndarray
    rate: float

    @classmethod
    def of(cls, mono: np.ndarray, sample_rate: int) -> "Onsets":
        """Those of a sound (T,) at ``sample_rate`` Hz."""
        hop = max(1, round(sample_rate / 1000))
        bright = np.diff(mono, prepend=mono[:1]) + 0.03 * mono
        rate = sample_rate / hop
        after, before = _energy_around(bright, hop, 0.015 * rate)
        floor = 1e-3 * after.mean() + 1e-12
        attack = np.log(after + floor) - np.log(before + floor)
        return cls(np.clip(attack, 0.0, None), rate)

    def peak(self, time: float, near: float) -> tuple[float, float]:
        """Time and height of the peak of attack near a time, those farther away counting less; height 0 is none."""
        first = max(1, math.ceil((time - near) * self.rate))
        last = min(len(self.attack) - 1, math.floor((time + near) * self.rate) + 1)
        if last - first < 3:
            return time, 0.0
        here, left, right = (self.attack[first + step : last + step] for step in (0, -1, 1))
        distance = np.arange(first, last) / self.rate - time
        weighed = here * np.exp(-0.5 * (distance / (near / 2)) ** 2) * ((here >= left) & (here > right))
        index = int(np.argmax(weighed))
        if not weighed[index] > 0.0:
            return time, 0.0
        # The vertex of the parabola through the peak and its neighbours.
        offset = 0.5 * (left[index] - right[index]) / (left[index] - 2.0 * here[index] + right[index])
        return (first + index + float(offset) + LATE) / self.rate, float(here[index])


def _energy_around(sound: np.ndarray, hop: int, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Energy after and before each of the moments ``hop`` samples apart, fading over ``decay`` of them."""
    from scipy.signal import lfilter

    energy = np.add.reduceat(sound**2, np.arange(0, sound.size, hop)) / hop
    pole = math.exp(-1.0 / decay)
    smooth = (1.0 - pole) * np.stack([lfilter([1.0], [1.0, -pole], e) for e in (energy, energy[::-1])])
    return smooth[1][::-1], np.concatenate([[0.0], smooth[0][:-1]])


def _to_onsets(coarse: np.ndarray, onsets: Onsets) -> np.ndarray | None:
    """The path's beats, each moved to its onset; None if too few have one."""
    near = min(NEAR, 0.2 * float(np.median(np.diff(coarse))))
    times, heights = np.array([onsets.peak(float(time), near) for time in coarse]).T
    clear = heights > 0.25 * np.median(heights)
    if clear.sum() < 4:
        return None
    # A beat without an onset is as late after the path's as those around it that have one.
    late = np.interp(coarse, coarse[clear], (times - coarse)[clear])
    inner = np.flatnonzero(clear)
    return _without_gaps((coarse + late)[inner[0] : inner[-1] + 1])


def _without_gaps(times: np.ndarray) -> np.ndarray:
    """Beats in whose gaps of several intervals the missing ones are put in evenly."""
    interval = float(np.median(np.diff(times)))
    filled = [float(times[0])]
    for time in times[1:]:
        if time - filled[-1] > 0.5 * interval:
            count = max(1, round((time - filled[-1]) / interval))
            filled += np.linspace(filled[-1], time, count + 1)[1:].tolist()
    return np.array(filled)


def _even_out(times: np.ndarray, bpm: float | None) -> tuple[np.ndarray, float]:
    """Beats, made an even grid where they are one within what can be heard; and their steadiness."""
    index = np.arange(len(times))
    interval, start, residual = _line(index, times)
    steadiness = max(0.0, 1.0 - math.sqrt(12.0) * residual / interval)
    if bpm is not None:
        count = np.round((times - times[len(times) // 2]) * bpm / 60.0)
        phases = times - count * 60.0 / bpm
        phase = float(np.median(phases))
        if float(np.sqrt(np.mean((_inner(phases) - phase) ** 2))) < STEADY:
            return phase + np.arange(count[0], count[-1] + 1) * 60.0 / bpm, steadiness
    elif residual < VERY_STEADY:
        return start + index * interval, steadiness
    return times, steadiness


def _line(index: np.ndarray, times: np.ndarray) -> tuple[float, float, float]:
    """Interval, start and rms residual of the evenest grid, beats far off it left out."""
    kept = np.ones(len(times), dtype=bool)
    for _ in range(3):
        interval, start = np.polyfit(index[kept], times[kept], 1)
        off = np.abs(times - start - interval * index)
        kept = off <= max(0.003, 3.0 * float(np.median(off)))
    return float(interval), float(start), float(np.sqrt(np.mean(off[kept] ** 2)))


def _inner(values: np.ndarray) -> np.ndarray:
    """Values without the tenth that is farthest from the median."""
    return values[np.argsort(np.abs(values - np.median(values)))[: math.ceil(0.9 * len(values))]]


def _cover(times: np.ndarray, end: float) -> tuple[float, ...]:
    """Times from the last beat at or before 0 to the first at or after ``end``, the outer intervals going on."""
    first, last = float(times[1] - times[0]), float(times[-1] - times[-2])
    even = bool(np.allclose(np.diff(times), first, rtol=1e-9, atol=1e-9))
    nearest = float(times[int(np.argmin(np.abs(times)))])
    nearest -= round(nearest / first) * first
    if abs(nearest) < START:
        times = times - nearest if even else np.where(np.abs(times) < START, 0.0, times)
    before = max(0, math.ceil(float(times[0]) / first - 1e-9))
    after = max(0, math.ceil((end - float(times[-1])) / last - 1e-9))
    whole = np.concatenate(
        [times[0] - first * np.arange(before, 0, -1), times, times[-1] + last * np.arange(1, after + 1)]
    )
    whole[np.abs(whole) < 1e-9] = 0.0
    start = int(np.searchsorted(whole, 0.0, side="right")) - 1
    stop = int(np.searchsorted(whole, end - 1e-9, side="left")) + 1
    return tuple(whole[start:stop].tolist())


def _downbeat(times: np.ndarray, bars: np.ndarray, beats_per_bar: int) -> int:
    """Index of the first beat of the phase that most bars begin on."""
    nearest = np.abs(times[:, None] - bars).argmin(0)
    return int(np.bincount(nearest % beats_per_bar, minlength=beats_per_bar).argmax())

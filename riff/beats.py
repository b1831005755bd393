"""The beats of a recording: when each one is, and which begin a bar, for :meth:`riff.tempo.TempoMap.from_beats`.

Beats are tracked by dynamic programming on the onset envelope (Ellis 2007, in librosa), which is good to a hundredth of
a second, and each is then moved to the onset near it that :mod:`riff.onsets` finds.
"""

import contextlib
import dataclasses
import itertools
import math
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock
from torch import Tensor

from riff.checks import BPM_RANGE, check_number
from riff.errors import RiffError
from riff.onsets import Onsets

SHORTEST = 2.0  # seconds
STEADY = 0.015  # seconds of residual up to which a given tempo is believed
VERY_STEADY = 0.006  # up to which any even grid is: about what finding an onset costs
NEAR = 0.05  # seconds that a beat may be moved
START = 0.005  # seconds within which a beat at the start is put there
LEAST_CLARITY = 0.08  # correlation of the onsets with themselves, four beats on: noise has 0.03, music 0.3 and more
CLARITY_SECONDS = 0.7  # but of a few seconds noise has more, up to 0.5 / seconds at the tempo that happens to fit best
CHANGE_WEIGHT = 5.0  # of a change of harmony beside a rise of the bass
LEAST_CHANGE = 0.2  # spread of those changes below which they say little
LOW_WEIGHT = 0.5  # of the rise of the bass among the onsets, by which beats are told from off-beats
REMEDY = "pass bpm, and downbeat if you know it"
_called = False  # whether this process has called librosa's beat tracker


class NoBeat(RiffError):
    """No beat can be heard.

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
            the end. Before the first and after the last that was heard they go on as the outer intervals do.
        downbeat: index of the first beat that begins a bar, 0 to beats per bar - 1; it may lie before the sound.
        bpm: mean tempo in beats per minute.
        steadiness: 1 is an even grid, 0 is no more even than chance (1 - sqrt(12) rms / interval, where rms is that of
            the distances from the evenest grid; a uniformly random beat has 0); 0 where none was heard.
    """

    times: tuple[float, ...]
    downbeat: int
    bpm: float
    steadiness: float


def track_beats(
    waveform: Tensor | np.ndarray, sample_rate: int, *, bpm: float | None = None, beats_per_bar: int = 4
) -> Beats:
    """Find the beats of a sound.

    The downbeat is the phase, among the ``beats_per_bar``, on which the energy below 160 Hz rises most on average (bass
    drum and bass note) and the pitch classes change most (harmony).

    Args:
        waveform: (C, T) or (T,).
        sample_rate: samples per second, in Hz.
        bpm: the tempo if it is known, 20..400. Where the beats keep to it within 15 ms, or where none can be heard, the
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
    problem = _unheard(mono, sample_rate)
    found = None
    if problem is None:
        onsets = Onsets.of(mono, sample_rate)
        found = _track(mono, sample_rate, onsets, bpm)
        if found is None:
            problem = f"the sound of {end:.1f} s has no beat that can be heard"
    if found is None:
        if bpm is None:
            raise NoBeat(str(problem))
        return Beats(_cover(np.array([0.0, 60.0 / bpm]), end), 0, float(bpm), 0.0)
    times, steadiness = _settle(found, bpm)
    covering = np.array(_cover(times, end))
    return Beats(
        tuple(covering.tolist()),
        _downbeat(covering, mono, sample_rate, onsets, beats_per_bar),
        60.0 * (len(times) - 1) / float(times[-1] - times[0]),
        steadiness,
    )


def _unheard(mono: np.ndarray, sample_rate: int) -> str | None:
    """Why no beat can be heard, as far as length and level say."""
    if mono.size < SHORTEST * sample_rate:
        return f"a sound of {mono.size / sample_rate:.2f} s is too short to track a beat in (at least {SHORTEST:g} s)"
    if np.abs(mono).max() < 1e-4:
        return "the sound is silent, so it has no beat"
    return None


def _track(mono: np.ndarray, sample_rate: int, onsets: Onsets, bpm: float | None) -> np.ndarray | None:
    """Times of the beats that were heard, without gaps; None if there is no beat."""
    import librosa

    hop = max(1, round(0.0116 * sample_rate))
    window = 1 << round(math.log2(0.046 * sample_rate))
    level = librosa.feature.melspectrogram(
        y=mono.astype(np.float32), sr=sample_rate, n_fft=window, hop_length=hop, n_mels=64, fmax=sample_rate / 2
    )
    decibels = librosa.power_to_db(level, top_db=60.0)
    # It takes the window's length for the delay that it makes good.
    envelope = librosa.onset.onset_strength(S=decibels, sr=sample_rate, n_fft=window, hop_length=hop)
    if not envelope.max() > 1.0:  # decibels on average over the bands
        return None
    rate = sample_rate / hop
    deep = np.interp(np.arange(len(envelope)) / rate, np.arange(len(onsets.low)) / onsets.rate, onsets.low)
    envelope = envelope / envelope.std() + LOW_WEIGHT * deep / max(
        float(deep.std()), 0.05 * float(np.sqrt(np.mean(mono**2)))
    )
    tempi = _tempi(envelope, rate)
    if bpm is not None and tempi:
        tempi = [(bpm, 1.0)]
    best, most = None, 0.0
    for tempo, clarity in tempi:
        with _alone_at_first():
            _, coarse = librosa.beat.beat_track(
                onset_envelope=envelope, sr=sample_rate, hop_length=hop, trim=False, units="time", bpm=tempo
            )
        times = _refined(coarse, onsets)
        if times is not None and clarity * _evenness(times) > most:
            best, most = times, clarity * _evenness(times)
    return best


@contextlib.contextmanager
def _alone_at_first() -> Iterator[None]:
    """Of all the processes of a user, one at a time makes its first call of librosa's beat tracker.

    That call compiles loops and keeps them beside librosa. Two processes that do so at once leave parts of both there,
    and with such a mixture numba crashes every process that comes later.
    """
    global _called
    if _called:
        yield
        return
    name = f"riff-first-beats-{zlib.crc32(str(Path.home()).encode()):08x}.lock"
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # without a folder to lock in it is only less safe
            held.enter_context(FileLock(Path(tempfile.gettempdir()) / name))
        yield
    _called = True


def _tempi(envelope: np.ndarray, rate: float) -> list[tuple[float, float]]:
    """Up to four tempi at whose first four beats the envelope resembles itself most, and how much, at most 1.

    Listeners tap near 120 beats per minute (Parncutt 1994), which settles the level.
    """
    centred = envelope - envelope.mean()
    count = len(centred)
    energy = np.abs(np.fft.rfft(centred, n=2 * count)) ** 2
    correlation = np.fft.irfft(energy)[:count] / (count - np.arange(count))
    correlation = np.convolve(correlation / correlation[0], [0.25, 0.5, 0.25], mode="same")
    tempi = np.geomspace(48.0, 200.0, 600)
    lags = np.outer(np.arange(1, 5), 60.0 * rate / tempi)
    usable = lags < 0.8 * count
    found = (np.interp(lags, np.arange(count), correlation) * usable).sum(0) / np.maximum(usable.sum(0), 1)
    if found.max() < max(LEAST_CLARITY, CLARITY_SECONDS * rate / count):
        return []
    weighed = np.clip(found, 0.0, None) * np.exp(-0.5 * np.log2(tempi / 118.0) ** 2)
    peaks = 1 + np.flatnonzero((weighed[1:-1] >= weighed[:-2]) & (weighed[1:-1] > weighed[2:]))
    order = sorted(peaks.tolist(), key=lambda index: -weighed[index])[:4]
    return [(float(tempi[index]), float(weighed[index])) for index in order]


def _refined(coarse: np.ndarray, onsets: Onsets) -> np.ndarray | None:
    """Tracked beats, each moved to its onset; None if there are too few."""
    if len(coarse) < 4:
        return None
    near = min(NEAR, 0.2 * float(np.median(np.diff(coarse))))
    times, heights = np.array([onsets.peak(float(time), near) for time in coarse]).T
    heard = heights > 0.25 * np.median(heights)
    if heard.sum() < 4:
        return None
    # A beat that cannot be heard is as late after the tracker's as those around it that can.
    late = np.interp(coarse, coarse[heard], (times - coarse)[heard])
    inner = np.flatnonzero(heard)
    return _without_gaps((coarse + late)[inner[0] : inner[-1] + 1])


def _evenness(times: np.ndarray) -> float:
    """1 for even beats, half for such as are each 5 % of the interval off; a drift counts for nothing."""
    interval = float(np.median(np.diff(times)))
    off = float(np.sqrt(np.mean(np.diff(times, n=2) ** 2) / 6.0)) / interval
    return 1.0 / (1.0 + (off / 0.05) ** 2)


def _without_gaps(times: np.ndarray) -> np.ndarray:
    """Beats in whose gaps of several intervals the missing ones are put in evenly."""
    interval = float(np.median(np.diff(times)))
    filled = [float(times[0])]
    for time in times[1:]:
        if time - filled[-1] > 0.5 * interval:
            count = max(1, round((time - filled[-1]) / interval))
            filled += np.linspace(filled[-1], time, count + 1)[1:].tolist()
    return np.array(filled)


def _settle(times: np.ndarray, bpm: float | None) -> tuple[np.ndarray, float]:
    """Beats, made even where they are so within what can be heard; and their steadiness."""
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
    """Values without the tenth that lies farthest from the median."""
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


def _downbeat(times: np.ndarray, mono: np.ndarray, sample_rate: int, onsets: Onsets, beats_per_bar: int) -> int:
    """Index of the first beat of the phase on which most begins."""
    rises = np.zeros(len(times))
    for index, time in enumerate(times):
        part = onsets.low[max(0, round((time - 0.02) * onsets.rate)) : max(0, round((time + 0.02) * onsets.rate))]
        rises[index] = part.max() if part.size else 0.0
    changes = _changes(times, mono, sample_rate)
    scores = np.zeros(beats_per_bar)
    for measure, weight, least in ((rises, 1.0, 1e-9), (changes, CHANGE_WEIGHT, LEAST_CHANGE)):
        heard = measure[1:-1]
        if heard.std() > 1e-9:
            even = (measure - heard.mean()) / max(float(heard.std()), least)
            phases = np.arange(len(times)) % beats_per_bar
            scores += weight * np.array([even[phases == phase].mean() for phase in range(beats_per_bar)])
    # Of equal ones the first that sounds.
    first = 0 if times[0] >= 0.0 else 1
    order = [(first + phase) % beats_per_bar for phase in range(beats_per_bar)]
    return max(order, key=lambda phase: float(scores[phase]) + (0.05 if phase == order[0] else 0.0))


def _changes(times: np.ndarray, mono: np.ndarray, sample_rate: int) -> np.ndarray:
    """How much the pitch classes after each beat differ from those before it, 0..1."""
    chromas = []
    size = 1 << round(math.log2(0.37 * sample_rate))
    hz = np.fft.rfftfreq(size, 1.0 / sample_rate)
    tonal = (hz > 60.0) & (hz < 2000.0)
    classes = np.round(12.0 * np.log2(hz[tonal] / 440.0)).astype(int) % 12
    for start, stop in itertools.pairwise(times):
        # The attack itself is noise.
        part = mono[max(0, round((start + 0.03) * sample_rate)) : max(0, round(stop * sample_rate))][:size]
        level = np.abs(np.fft.rfft(part * np.hanning(part.size), n=size))[tonal] if part.size else np.zeros(tonal.sum())
        chroma = np.bincount(classes, weights=np.sqrt(level), minlength=12)
        chromas.append(chroma - chroma.mean())
    norms = [float(np.linalg.norm(chroma)) for chroma in chromas]
    # What is nearly silent has no pitch.
    chromas = [chroma / max(norm, 0.2 * max(norms), 1e-9) for chroma, norm in zip(chromas, norms, strict=True)]
    same = np.array([float(a @ b) for a, b in itertools.pairwise(chromas)])
    return np.concatenate([[same.mean()], same, [same.mean()]]) * -0.5 + 0.5

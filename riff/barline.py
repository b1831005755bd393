"""From how likely beats and bars are to when they are: the most likely path of a pointer that runs through bars.

The pointer's place in the bar and its speed are the state (Whiteley, Cemgil & Godsill 2006); places are a hundredth of a
second apart whatever the speed, which changes on beats only (Krebs, Böck & Widmer 2015).
"""

import dataclasses
import functools

import numpy as np

RATE = 100  # places per second
SLOWEST, FASTEST = 46.0, 212.0  # beats per minute
KNOWN = 0.06  # share by which a tempo that is told may be left
LOYALTY = 120.0  # e-folds per relative change of the tempo from one beat to the next
USUAL_BPM, SPREAD = 110.0, 1.0  # of tempi, in octaves: what is expected before anything is heard
WEIGHT_NONE = 0.06  # weight of hearing nothing against hearing a beat: places without a beat are many
WIDTH = 0.03  # seconds from a beat on in which it is heard


@dataclasses.dataclass(frozen=True)
class _Space:
    """All states, those of a beat of one tempo one after the other, tempo by tempo within the beat.

    Attributes:
        starts: (K, I) index of the first state of beat k at each of I intervals.
        stops: (K, I) index of the last.
        kinds: (S,) 0 where nothing is heard, 1 on a beat, 2 on the first.
        change: (I, I) log probability of going over from an interval (row) to another.
        prior: (I,) of each interval.
    """

    starts: np.ndarray
    stops: np.ndarray
    kinds: np.ndarray
    change: np.ndarray
    prior: np.ndarray


@functools.lru_cache(maxsize=8)
def _space(beats_per_bar: int, bpm: float | None) -> _Space:
    slow, fast = (SLOWEST, FASTEST) if bpm is None else (bpm / (1.0 + KNOWN), bpm * (1.0 + KNOWN))
    intervals = np.arange(round(RATE * 60.0 / fast), round(RATE * 60.0 / slow) + 1)
    lengths = np.tile(intervals, beats_per_bar)
    ends = np.cumsum(lengths)
    kinds = np.zeros(int(ends[-1]), dtype=np.int8)
    wide = round(WIDTH * RATE)
    for number, (first, length) in enumerate(zip(ends - lengths, lengths, strict=True)):
        kinds[first : first + min(wide, length)] = 2 if number < len(intervals) else 1
    change = -LOYALTY * np.abs(intervals[None, :] / intervals[:, None] - 1.0)
    change -= np.log(np.exp(change).sum(1, keepdims=True))
    prior = -0.5 * (np.log2(RATE * 60.0 / intervals / USUAL_BPM) / SPREAD) ** 2
    shape = (beats_per_bar, len(intervals))
    return _Space((ends - lengths).reshape(shape), (ends - 1).reshape(shape), kinds, change, prior)


def likely_beats(
    likelihoods: np.ndarray, rate: float, *, beats_per_bar: int, bpm: float | None = None
) -> tuple[np.ndarray, int]:
    """The beats of the most likely path.

    Args:
        likelihoods: (3, N) logarithms, of nothing, a beat, and a beat that begins a bar.
        rate: of them, per second.
        beats_per_bar: of the music.
        bpm: the tempo where it is known; None is any from 46 to 212.

    Returns:
        Seconds of each beat, increasing, and the index, 0 to ``beats_per_bar - 1``, of the first that begins a bar.
        There may be none.
    """
    count = likelihoods.shape[1]
    places = np.arange(int(count * RATE / rate)) / RATE * rate
    heard = np.stack([np.interp(places, np.arange(count), row) for row in likelihoods]).T.astype(np.float32)
    heard[:, 0] += np.log(np.float32(WEIGHT_NONE))
    space = _space(beats_per_bar, bpm)
    state, came = _forward(heard, space)
    return _backward(state, came, space, beats_per_bar)


def _forward(heard: np.ndarray, space: _Space) -> tuple[int, np.ndarray]:
    """The best last state, and from which interval the best way into each beat came, (N, K, I)."""
    begins = (np.arange(len(space.starts)) - 1) % len(space.starts)  # the beat before each
    score = np.tile(space.prior, len(space.starts)).repeat((space.stops - space.starts + 1).ravel()).astype(np.float32)
    score = score - np.log(np.tile(space.stops[0] - space.starts[0] + 1, len(space.starts))).repeat(
        (space.stops - space.starts + 1).ravel()
    ).astype(np.float32)
    score += heard[0][space.kinds]
    came = np.zeros((len(heard), *space.starts.shape), dtype=np.uint8)
    change = space.change.astype(np.float32)
    for place in range(1, len(heard)):
        left = score[space.stops[begins]]  # (K, I)
        ways = left[:, :, None] + change  # from row to column
        came[place] = ways.argmax(1)
        score[1:] = score[:-1].copy()
        score[space.starts] = ways.max(1)
        score += heard[place][space.kinds]
    return int(score.argmax()), came


def _backward(state: int, came: np.ndarray, space: _Space, beats_per_bar: int) -> tuple[np.ndarray, int]:
    starts = space.starts.ravel()
    intervals = space.starts.shape[1]
    number = int(np.searchsorted(starts, state, side="right")) - 1
    within = state - int(starts[number])
    times, beats = [], []
    place = len(came) - 1
    while place - within >= 0:
        place -= within
        times.append(place / RATE)
        beats.append(number // intervals)
        if place == 0:
            break
        beat = (number // intervals - 1) % beats_per_bar
        number = beat * intervals + int(
            came[place].reshape(beats_per_bar, intervals)[number // intervals, number % intervals]
        )
        place -= 1
        within = int(space.stops.ravel()[number]) - int(starts[number])
    beats.reverse()
    first = next((index for index, beat in enumerate(beats) if beat == 0), 0)
    return np.array(times[::-1]), first % beats_per_bar

"""From how likely beats and bars are to when they are: the most likely path through bars.

A path goes from beat to beat; how long a beat is may change a little from one to the next, and each has its place in
the bar (Whiteley, Cemgil & Godsill 2006; the tempo changes on beats only, as in Krebs, Böck & Widmer 2015). The best
one is found by dynamic programming over hundredths of a second.
"""

import dataclasses
import functools

import numpy as np

from riff.spectrogram.inversion.kernels import compiled

RATE = 100  # places per second
SLOWEST, FASTEST = 46.0, 212.0  # beats per minute
KNOWN = 0.06  # share by which beats may leave a known tempo
LOYALTY = 120.0  # e-folds per relative change of the tempo from one beat to the next
REACH = 6  # places by which a beat may be longer or shorter than the one before
USUAL_BPM, SPREAD = 110.0, 1.0  # of tempi, in octaves: what is expected before any sound
NOTHING = -2.8  # log weight of a place without a beat against one with a beat, since those are many
WIDTH = 3  # places from a beat on in which the network finds it
_NEVER = -1e30


@dataclasses.dataclass(frozen=True)
class _Tempi:
    """What is expected of the lengths of beats before any sound.

    Attributes:
        lengths: (I,) of a beat, in places, each one more than the one before.
        prior: (I,) log probability of each at the first beat, and of where in it the sound begins.
        change: (I, 2 * REACH + 1) log probability that a beat of that length comes after one up to REACH shorter or
            longer; :data:`_NEVER` where there is no such length.
    """

    lengths: np.ndarray
    prior: np.ndarray
    change: np.ndarray


@functools.lru_cache(maxsize=8)
def _tempi(bpm: float | None) -> _Tempi:
    slow, fast = (SLOWEST, FASTEST) if bpm is None else (bpm / (1.0 + KNOWN), bpm * (1.0 + KNOWN))
    lengths = np.arange(round(RATE * 60.0 / fast), round(RATE * 60.0 / slow) + 1)
    prior = -0.5 * (np.log2(RATE * 60.0 / lengths / USUAL_BPM) / SPREAD) ** 2 - np.log(lengths)
    before = lengths[:, None] + np.arange(-REACH, REACH + 1)
    change = -LOYALTY * np.abs(lengths[:, None] / before - 1.0)
    change -= np.log(np.exp(change).sum(1, keepdims=True))
    change[(before < lengths[0]) | (before > lengths[-1])] = _NEVER
    return _Tempi(lengths, prior, change)


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
    if not count:
        return np.zeros(0), 0
    frames = np.arange(int(count * RATE / rate)) * rate / RATE
    evidence = np.stack([np.interp(frames, np.arange(count), row) for row in likelihoods])
    evidence[0] += NOTHING
    tempi = _tempi(bpm)
    place, number, came = _best_path(evidence, tempi, beats_per_bar)
    # Back from the last beat: each says how long the one before it was, and that is where that one is.
    times, beats = [], []
    while True:
        beat, index = divmod(number, len(tempi.lengths))
        times.append((place + (WIDTH - 1) / 2) / RATE)  # the middle of its places
        beats.append(beat)
        step = int(came[place, beat, index])
        if step < 0:
            break
        before = index + step - REACH
        place -= int(tempi.lengths[before])
        number = (beat - 1) % beats_per_bar * len(tempi.lengths) + before
    first = next((index for index, beat in enumerate(reversed(beats)) if beat == 0), 0)
    return np.array(times[::-1]), first % beats_per_bar


def _best_path(evidence: np.ndarray, tempi: _Tempi, beats_per_bar: int) -> tuple[int, int, np.ndarray]:
    """The last beat of the best path, its place and its number among (K, I), and for each beat where it came from.

    Returns:
        The place, the number, and (N, K, I): how much longer the beat before was, with REACH added; -1 for a first.
    """
    sums = np.concatenate([np.zeros((3, 1)), np.cumsum(evidence, axis=1)], axis=1)
    shape = (beats_per_bar, len(tempi.lengths))
    # A circular buffer over places: no beat looks farther back than the longest length.
    best = np.full((int(tempi.lengths[-1]) + 1, *shape), _NEVER)
    came = np.full((evidence.shape[1], *shape), -1, dtype=np.int8)
    place, number = compiled(_walk)(sums, tempi.lengths, tempi.prior, tempi.change, best, came)
    return int(place), int(number), came


def _walk(sums, lengths, prior, change, best, came):  # type: ignore[no-untyped-def]
    """Fill ``came``; the place and number of the last beat of the best path.

    A state is a beat that begins at a place, has a position in the bar, and lasts ``lengths[index]`` places. With S_k
    the running sums of the log likelihoods of kind k, a path's score is S_0 over all places but those of its beats, and
    S_1 or S_2 (a beat, a bar) over the WIDTH places of each beat. So a beat at p changes it by

        here = (S_kind[p + WIDTH] - S_kind[p]) - S_0[p + WIDTH],     and its end adds S_0[p + length],

    where the beat before it, which ended at p, has added S_0[p]: the terms telescope to S_0 of the gaps. ``best`` is
    the score of the best path up to and with a beat,

        best[p, k, i] = here + S_0[p + length_i] + max over j of (best[p - length_j, k - 1, j] + change[i, j - i]),

    with |j - i| <= REACH; a beat before which the sound has only the end of another one begins a path.
    """
    count = came.shape[0]
    kept, bar, intervals = best.shape
    reach = change.shape[1] // 2
    most, end_place, end_number = -1e300, 0, 0
    for place in range(count):
        on = min(place + WIDTH, count)
        for beat in range(bar):
            kind = 2 if beat == 0 else 1
            here = sums[kind, on] - sums[kind, place] - sums[0, on]
            behind = (beat + bar - 1) % bar
            for index in range(intervals):
                score, step = -1e300, -1
                if place < lengths[index]:  # a first beat
                    score = prior[index] + sums[0, place]
                for other in range(max(0, index - reach), min(intervals, index + reach + 1)):
                    way = (
                        best[(place + kept - lengths[other]) % kept, behind, other]
                        + change[index, other - index + reach]
                    )
                    if way > score:
                        score, step = way, other - index + reach
                score += here + sums[0, min(place + lengths[index], count)]
                best[place % kept, beat, index] = score
                came[place, beat, index] = step
                if place + lengths[index] >= count and score > most:  # its end is the sound's
                    most, end_place, end_number = score, place, beat * intervals + index
    return end_place, end_number

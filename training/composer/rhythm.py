"""The pattern language (one word per beat, one letter per step), swing, and drums."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from training.composer.score import Note

LANES = {
    "k": 36,
    "s": 38,
    "r": 37,
    "c": 39,
    "h": 42,
    "o": 46,
    "p": 44,
    "d": 51,
    "b": 53,
    "y": 49,
    "t": 45,
    "m": 47,
    "g": 50,
    "f": 41,
    "w": 56,
    "n": 64,
    "q": 63,
    "v": 62,
    "a": 70,
    "u": 54,
    "l": 75,
    "i": 65,
    "j": 66,
    "x": 85,
    "e": 81,
    "z": 82,
    "B": 77,
    "W": 76,
}
_LOUDNESS = {"x": 92, "X": 114, "o": 48, "r": 82, "t": 80, "q": 72}
_REPEATS = {"r": 2, "t": 3, "q": 4}


@dataclass(frozen=True)
class Step:
    """One letter of a pattern: start and length in beats within the cycle; triplets are never swung."""

    start: float
    length: float
    letter: str
    triplet: bool


@dataclass(frozen=True)
class Feel:
    """How time is felt: `swing` is where the off-beat of each `unit` (beats) falls, 0.5 = straight."""

    swing: float
    unit: float

    def place(self, time: float, *, triplet: bool = False) -> float:
        """Map straight time (beats) to swung time; keeps every multiple of `unit` in place."""
        if triplet or self.swing == 0.5:
            return time
        base = time // self.unit * self.unit
        phase = (time - base) / self.unit
        early, late = min(phase, 0.5), max(phase - 0.5, 0.0)
        return base + 2 * (early * self.swing + late * (1 - self.swing)) * self.unit


@lru_cache(maxsize=4096)
def parse_pattern(pattern: str, *, beats_per_bar: int) -> tuple[tuple[Step, ...], int]:
    """Read a pattern: words are beats, letters steps, '.' rest, '-' holds the step before.

    Args:
        pattern: such as "x-.x x.x. .... x---"; a four-beat pattern loses each fourth beat in 3/4.
        beats_per_bar: 3 or 4.

    Returns:
        The sounding steps of one cycle and the cycle's length in beats.
    """
    words = pattern.split()
    if beats_per_bar == 3 and len(words) % 4 == 0:
        words = [word for index, word in enumerate(words) if index % 4 != 3]
    steps: list[Step] = []
    holding = False
    for beat, word in enumerate(words):
        for index, letter in enumerate(word):
            size = 1 / len(word)
            if letter == "-" and holding:
                last = steps[-1]
                steps[-1] = Step(last.start, last.length + size, last.letter, last.triplet)
            elif letter in ".-":
                holding = False
            else:
                steps.append(Step(beat + index * size, size, letter, len(word) % 3 == 0))
                holding = True
    return tuple(steps), len(words)


def unroll(pattern: str, *, start: int, stop: int, beats_per_bar: int) -> Iterator[Step]:
    """Yield a pattern's steps from beat `start` to `stop`, in straight time; the cycle begins at `start`."""
    steps, cycle = parse_pattern(pattern, beats_per_bar=beats_per_bar)
    for base in range(start, stop, cycle):
        for step in steps:
            if base + step.start < stop - 1e-6:
                length = min(step.length, stop - base - step.start)
                yield Step(base + step.start, length, step.letter, step.triplet)


def play_groove(
    groove: Mapping[str, str], *, start: int, stop: int, beats_per_bar: int, feel: Feel, rng: random.Random
) -> list[Note]:
    """Play drum lanes between two beats.

    Args:
        groove: lane letter (see LANES) to pattern of x hit, X accent, o ghost, r/t/q 2, 3 or 4 quick hits.
        start: first beat.
        stop: beat to end at.
        beats_per_bar: 3 or 4.
        feel: the swing.
        rng: source of velocity variation.

    Returns:
        Notes in no particular order.
    """
    notes: list[Note] = []
    for lane, pattern in groove.items():
        for step in unroll(pattern, start=start, stop=stop, beats_per_bar=beats_per_bar):
            repeats = _REPEATS.get(step.letter, 1)
            for index in range(repeats):
                time = feel.place(step.start, triplet=step.triplet) + index * step.length / repeats
                velocity = _LOUDNESS[step.letter] + rng.randint(-6, 6) + (4 * index if repeats > 1 else 0)
                notes.append(Note(time, min(0.25, step.length / repeats), LANES[lane], velocity))
    return notes


_FILLS = (
    {"s": "xxxx xxXX"},
    {"s": "xx.. ....", "g": "..xx ....", "m": ".... xx..", "t": ".... ..xX"},
    {"s": "x.xx X.xX"},
    {"g": "xxx ...", "m": "... xx.", "t": "... ..X"},
    {"s": "x..x ..xx", "t": ".xx. xx.."},
    {"s": "oxox xXXX"},
)


def play_fill(*, stop: int, feel: Feel, rng: random.Random) -> tuple[int, list[Note]]:
    """Play a drum fill over the last one or two beats before `stop`; returns its first beat and notes."""
    fill: dict[str, str] = rng.choice(_FILLS)
    length = rng.choice((1, 2, 2))
    if length == 1:
        fill = {lane: pattern.split()[1] for lane, pattern in fill.items()}
    start = stop - length
    return start, play_groove(fill, start=start, stop=stop, beats_per_bar=length, feel=feel, rng=rng)

"""Stretches of whole pieces, from all places in them, with what rings into them."""

from __future__ import annotations

import dataclasses
import random

from training.composer.arrange import compose
from training.composer.score import Part, Score


def cut(score: Score, start: int, stop: int) -> Score:
    """Take windows out of a piece.

    Args:
        score: the piece.
        start: number of the first window.
        stop: number of the window to end before.

    Returns:
        A score of these windows. The notes of the window before are kept with negative starts: ``render`` lets them
        ring
        into the stretch.
    """
    beats = 2 * score.windows[0].beats_per_bar
    first = start * beats

    def kept(part: Part) -> Part:
        notes = (
            dataclasses.replace(note, start=round(note.start - first, 4))
            for note in part.notes
            if first - beats <= note.start < stop * beats
        )
        return dataclasses.replace(part, notes=tuple(notes))

    parts = tuple(part for part in map(kept, score.parts) if part.notes)
    return dataclasses.replace(score, beats=(stop - start) * beats, parts=parts, windows=score.windows[start:stop])


def excerpts(seed: int, *, genre: str | None = None, count: int = 2, windows: int = 2) -> list[Score]:
    """Stretches of the whole piece of a seed that do not overlap, in order of time; training clips come from these.

    Args:
        seed: of the piece, as for ``compose``.
        genre: as for ``compose``.
        count: how many stretches.
        windows: windows of two bars in a stretch.

    Returns:
        The stretches; a piece has at least eight windows.
    """
    score = compose(seed, genre=genre, windows=None)
    rng = random.Random(f"excerpts {seed}")
    spare = len(score.windows) - count * windows
    gaps = sorted(rng.randint(0, spare) for _ in range(count))
    starts = [gap + number * windows for number, gap in enumerate(gaps)]
    return [cut(score, start, start + windows) for start in starts]

"""From played notes to performed ones: mood, small errors of timing and touch, and nothing overlapping."""

from __future__ import annotations

import random

from training.composer.plan import Plan
from training.composer.score import Note

_LARGEST_JITTER = 0.012


def finish(notes: list[Note], *, plan: Plan, drums: bool, rng: random.Random) -> tuple[Note, ...]:
    """Humanise notes and make them playable.

    Args:
        notes: notes in any order, already swung.
        plan: the piece's plan; its mood moves velocities, its genre says how loose the timing is.
        drums: drums are played tighter.
        rng: source of the errors.

    Returns:
        Notes ordered by start; each stays in its window, and no pitch overlaps itself.
    """
    spread = plan.genre.human * (0.5 if drums else 1.0)
    shift = plan.temper.velocity // (2 if drums else 1)
    performed = []
    for note in sorted(notes, key=lambda note: (note.start, note.pitch)):
        error = max(-_LARGEST_JITTER, min(_LARGEST_JITTER, rng.gauss(0.0, spread / 2))) if spread else 0.0
        velocity = note.velocity + shift + (rng.randint(-5, 5) if spread else rng.randint(-2, 2))
        first = note.start // plan.window_beats * plan.window_beats
        last = first + plan.window_beats
        start = max(first, note.start + error)
        if start < last - 0.03:
            duration = max(0.03, min(note.duration, last - start))
            performed.append(Note(round(start, 4), round(duration, 4), note.pitch, max(20, min(127, velocity))))
    return _untangled(performed)


def _untangled(notes: list[Note]) -> tuple[Note, ...]:
    """Cut each note where the same pitch begins again; of two that begin together the louder stays."""
    by_pitch: dict[int, list[Note]] = {}
    for note in sorted(notes, key=lambda note: (note.pitch, note.start, -note.velocity)):
        line = by_pitch.setdefault(note.pitch, [])
        if line and note.start - line[-1].start < 0.03:
            continue
        if line and line[-1].start + line[-1].duration > note.start:
            previous = line[-1]
            line[-1] = Note(previous.start, round(note.start - previous.start, 4), previous.pitch, previous.velocity)
        line.append(note)
    return tuple(sorted((note for line in by_pitch.values() for note in line), key=lambda n: (n.start, n.pitch)))

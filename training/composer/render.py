"""Score to sound: parts played dry, mixed as a record of the genre is, any stretch of a piece by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.composer.effects import SAMPLE_RATE
from training.composer.mix import mix
from training.composer.stems import events_of, find_soundfonts, play_parts

if TYPE_CHECKING:
    from training.composer.score import Part, Score

__all__ = ["SAMPLE_RATE", "events_of", "find_soundfont", "render"]

# How much softer than the piece a stretch is that lies in such a place, in decibels.
_SOFTER = {"intro": -2.0, "ending": -2.0, "break": -1.5}


def find_soundfont() -> Path | None:
    """The first of the soundfonts that this machine has, or None."""
    found = find_soundfonts()
    return found[0] if found else None


def render(
    score: Score, soundfont: str | Path | None = None, *, start: float = 0.0, stop: float | None = None
) -> np.ndarray:
    """Play a score, or a stretch of it with the echo of what came before.

    Args:
        score: what to play.
        soundfont: an SF2 or SF3 file; ``None`` takes FluidR3 or MuseScore General by the score's seed.
        start: first beat, a whole number of windows.
        stop: beat at which to end; ``None`` is the score's end.

    Returns:
        (2, T) float32 at 44.1 kHz, at most 0.9, T = the beats at the score's tempo, rounded to a sample.

    Raises:
        FileNotFoundError: no soundfont was given or found.
    """
    found = [Path(soundfont)] if soundfont else find_soundfonts()
    if not found:
        raise FileNotFoundError("no soundfont found; apt-get install fluid-soundfont-gm or set RIFF_SOUNDFONT")
    stop = float(score.beats) if stop is None else stop
    window = 2 * score.windows[0].beats_per_bar
    before = max(0.0, start - window)  # a window's notes stay in it, so that one window before is all that rings on
    beat = 60.0 * SAMPLE_RATE / score.bpm
    length, first = round(stop * beat) - round(before * beat), round(start * beat) - round(before * beat)
    excerpt = _cut(score, before, stop)
    stems = play_parts(excerpt, length, found[score.seed % len(found)])
    places = {truth.section for truth in score.windows[int(start // window) : -int(-stop // window)]}
    offset = max(_SOFTER.get(place, 0.0) for place in places)
    return mix(excerpt, stems, first=first, offset=offset)


def _cut(score: Score, start: float, stop: float) -> Score:
    import dataclasses

    def kept(part: Part) -> Part:
        notes = (
            dataclasses.replace(note, start=note.start - start) for note in part.notes if start <= note.start < stop
        )
        return dataclasses.replace(part, notes=tuple(notes))

    return dataclasses.replace(score, parts=tuple(kept(part) for part in score.parts))

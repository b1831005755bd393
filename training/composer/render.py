"""Score to sound: parts played dry, then mixed as a record of the genre is."""

from __future__ import annotations

import dataclasses
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


def render(score: Score, soundfont: str | Path | None = None) -> np.ndarray:
    """Play a score as a record: loud as its style is, in stereo, ending where its last beat ends.

    Args:
        score: what to play; notes before its beginning (see ``training.composer.excerpt``) only ring into it.
        soundfont: an SF2 or SF3 file; ``None`` takes FluidR3 or MuseScore General by the score's seed.

    Returns:
        (2, T) float32 at 44.1 kHz, at most 0.9, T = the beats at the score's tempo, rounded to a sample.

    Raises:
        FileNotFoundError: no soundfont was given or found.
    """
    found = [Path(soundfont)] if soundfont else find_soundfonts()
    if not found:
        raise FileNotFoundError("no soundfont found; apt-get install fluid-soundfont-gm or set RIFF_SOUNDFONT")
    beat = 60.0 * SAMPLE_RATE / score.bpm
    early = min((note.start for part in score.parts for note in part.notes), default=0.0)
    before = 2 * score.windows[0].beats_per_bar if early < 0 else 0
    first = round(before * beat)
    whole = _later(score, before)
    stems = play_parts(whole, first + round(score.beats * beat), found[score.seed % len(found)])
    offset = max(_SOFTER.get(truth.section, 0.0) for truth in score.windows)
    return mix(whole, stems, first=first, offset=offset)


def _later(score: Score, beats: int) -> Score:
    def later(part: Part) -> Part:
        notes = (dataclasses.replace(note, start=note.start + beats) for note in part.notes)
        return dataclasses.replace(part, notes=tuple(notes))

    return dataclasses.replace(score, parts=tuple(map(later, score.parts))) if beats else score

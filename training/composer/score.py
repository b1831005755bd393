"""What the composer writes down: notes, parts, and the truth about every window."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """One note; start and duration in beats from the piece's start, MIDI pitch and velocity."""

    start: float
    duration: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Part:
    """One instrument's notes and its place in the mix (pan -1..1, volume and reverb 0..1).

    ``voice`` is one of riff's voices or drum machines (voices.py, machines.py); empty, the soundfont plays ``program``.
    """

    role: str
    program: int
    is_drum: bool
    instrument: str
    pan: float
    volume: float
    reverb: float
    notes: tuple[Note, ...]
    voice: str = ""


@dataclass(frozen=True)
class Truth:
    """What is true of one window: instruments are those that sound in it, most prominent first.

    ``section`` is intro, full, break, fill or ending; ``place`` is verse, chorus or bridge, "" where there is no form.
    """

    genre: str
    family: str
    instruments: tuple[str, ...]
    lead: str
    bpm: float
    keyscale: str
    beats_per_bar: int
    mood: str
    density: str
    swing: bool
    section: str
    has_drums: bool
    has_bass: bool = True
    place: str = ""


@dataclass(frozen=True)
class Score:
    """A whole piece: `beats` beats long, one Truth per window of two bars; ``mix`` is a style of mix.py."""

    seed: int
    beats: int
    bpm: float
    parts: tuple[Part, ...]
    windows: tuple[Truth, ...]
    mix: str = "room"

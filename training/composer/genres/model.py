"""What a genre is made of: layers of instruments with patterns, grooves, progressions and habits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One role in a genre: which instruments may take it and which patterns they play.

    Letters of a pattern (leads and counters read every letter but '.' and '-' as a note of the melody):
    c/x chord, C/X accented, o soft chord, R root, F fifth, T third, S seventh or sixth, O octave of the root,
    A approach to the next root, W walking note, P power chord, p soft one, 1-9 chord tones from below.
    """

    role: str
    instruments: tuple[str, ...]
    patterns: tuple[str, ...]
    centre: int = 0
    volume: float = 0.7
    velocity: int = 80
    chance: float = 1.0
    key: bool = False
    reverb: float = 0.3
    gate: float = 0.95
    voices: int = 3
    strum: float = 0.0
    program: int = -1
    waltz: tuple[str, ...] = ()
    thirds: float = 0.0


@dataclass(frozen=True)
class Genre:
    """A genre's habits.

    `swing` is where the off-beat falls (0.5 straight) in units of `swing_unit` beats; `mix` is a style of mix.py;
    `kits` are drum machines of machines.py, "" the soundfont's own `kit`; `first`: riff-mini 1 learnt it.
    """

    id: str
    family: str
    bpm: tuple[int, int]
    layers: tuple[Layer, ...]
    major: tuple[str, ...]
    minor: tuple[str, ...]
    minor_chance: float = 0.5
    scales: tuple[str, str] = ("major", "minor")
    swing: float = 0.5
    swing_unit: float = 1.0
    waltz_chance: float = 0.0
    moods: tuple[str, ...] = ("happy", "calm")
    kit: int = 0
    grooves: tuple[Mapping[str, str], ...] = ()
    waltz_grooves: tuple[Mapping[str, str], ...] = ()
    drums_key: bool = False
    drums_volume: float = 0.8
    drums_reverb: float = 0.15
    human: float = 0.008
    solo_chance: float = 0.0
    drums_chance: float = 1.0
    mix: str = "room"
    kits: tuple[str, ...] = ()
    first: bool = True

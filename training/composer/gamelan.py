"""How a Balinese gamelan plays: everybody's notes, from one core melody.

No chords and no bass line, but a slow core melody (pokok), two players who interlock into sixteenths around it
(kotekan: polos and sangsih), and gongs that mark the cycle. The scale is pelog selisir in twelve equal steps: 1,
flat 2, flat 3, 5, flat 6.

Sources: Tenzer, Gamelan Gong Kebyar, 2000 (instruments, gong cycles); Vitale, Kotekan, Balungan 4, 1990 (its kinds).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.composer.score import Note
from training.composer.theory import into_range

PELOG = (0, 1, 3, 7, 8)
CYCLE = 8  # beats from gong to gong: one window of two bars
KOTEKAN = ("norot", "telu", "empat", "nyog cag")
# One cycle of two drummers, a letter a sixteenth: L the low drum of the one, H the high drum of the other.
KENDANG = (
    "L.HL .HLH L.HL HLH.",
    "L..H .LH. L.LH .HL.",
    "L.LH HLHL .LHL HLHH",
    "..HL ..HL ..HL HLHL",
    "L... ..H. L.H. LLHH",
)
CYMBALS = ("x.xx x.xx x.xx x.xx", "..x. ..x. ..x. xxxx", "x... x.x. x... x.xx")


@dataclass(frozen=True)
class Piece:
    """What all players share: tonic 0-11, degrees of the core melody (one a beat), and how they play."""

    tonic: int
    bpm: int
    mood: str
    density: str
    kotekan: str
    sections: tuple[str, ...]
    pokok: tuple[int, ...]

    @property
    def beats(self) -> int:
        """Length of the piece in beats."""
        return len(self.pokok)

    def pitch(self, degree: int, *, octave: int) -> int:
        """Degree 0 is the tonic within half an octave of the C at ``octave``."""
        return octave + (self.tonic + 5) % 12 - 5 + 12 * (degree // 5) + PELOG[degree % 5]

    def section(self, beat: int) -> str:
        """Which section a beat lies in."""
        return self.sections[beat // CYCLE]


def ugal(piece: Piece, rng: random.Random) -> list[Note]:
    """The leader plays the core melody an octave up, two notes a beat, the second leaning on the next tone."""
    notes = []
    for beat, degree in enumerate(piece.pokok):
        following = piece.pokok[(beat + 1) % piece.beats]
        pitch = piece.pitch(degree, octave=72)
        if rng.random() < 0.25:
            notes.append(Note(beat, 1.0, pitch, 100))
            continue
        notes.append(Note(beat, 0.5, pitch, 100))
        notes.append(Note(beat + 0.5, 0.5, piece.pitch(following + rng.choice((1, 1, -1)), octave=72), 88))
    return notes


def gangsa(piece: Piece, player: int, instrument: str) -> list[Note]:
    """Polos (player 0) or sangsih (player 1): together they fill every sixteenth."""
    octave = 84 if instrument in ("glockenspiel", "tinkle bell") else 72
    notes = []
    for beat, degree in enumerate(piece.pokok):
        following = piece.pokok[(beat + 1) % piece.beats]
        if piece.section(beat) == "intro" or (piece.density == "sparse" and beat % CYCLE < 2):
            continue
        for sixteenth, played in enumerate(_figure(piece.kotekan, degree, following, beat % 2, player)):
            if played is not None:
                notes.append(Note(beat + sixteenth / 4, 0.3, piece.pitch(played, octave=octave), 92))
    return notes


def _figure(kind: str, degree: int, following: int, half: int, player: int) -> tuple[int | None, ...]:
    """The four sixteenths of a beat for one player, as degrees; None where the other one sounds alone.

    norot: the tone and its upper neighbour in turn, the next tone taken ahead. nyog cag: strictly in turn. telu: three
    tones, the middle one shared. empat: four tones, the outer two struck together.
    """
    if kind == "norot":
        return (degree, None, degree, following) if player == 0 else (None, degree + 1, None, following + 1)
    if kind == "nyog cag":
        return (degree, None, degree + 1, None) if player == 0 else (None, degree + 2, None, degree + 3)
    low, middle, top = degree, degree + 1, degree + 2
    if kind == "telu":
        line = ((middle, top, low, middle), (top, low, middle, low))[half]
        return tuple(tone if tone == middle or (tone == low) == (player == 0) else None for tone in line)
    outer = (
        ((low, None, middle, low), (None, middle, low, None)),
        ((degree + 3, top, None, degree + 3), (top, None, degree + 3, top)),
    )
    return outer[player][half]


def calung(piece: Piece) -> list[Note]:
    """The core melody itself, every second tone of it."""
    return [Note(beat, 2.0, piece.pitch(piece.pokok[beat], octave=60), 92) for beat in range(0, piece.beats, 2)]


def gongs(piece: Piece) -> list[Note]:
    """The great gong opens each cycle, the kempur halves it and the klentong quarters its second half."""
    notes = []
    for start in range(0, piece.beats, CYCLE):
        low = into_range(36 + piece.tonic, 33, 44)
        notes.append(Note(start, 7.6, low, 118))
        notes.append(Note(start + 4, 3.0, low + 7, 108))
        notes.append(Note(start + 6, 1.5, low + 19, 76))
    return notes


def kempli(piece: Piece) -> list[Note]:
    """A small kettle keeps the beat."""
    return [Note(beat, 0.25, 72, 84) for beat in range(piece.beats) if piece.section(beat) != "intro"]


def reyong(piece: Piece) -> list[Note]:
    """Kettles in the middle: off-beats of the core tone and the second degree above it, all at once as a break ends."""
    notes = []
    for beat, degree in enumerate(piece.pokok):
        if piece.section(beat) == "intro":
            continue
        if piece.section(beat) == "break" and beat % CYCLE >= 6:
            for tone in (degree, degree + 2, degree + 3):
                notes.append(Note(beat, 0.3, piece.pitch(tone, octave=60), 108))
            continue
        odd, even = ((1, degree), (2, degree + 2), (3, degree)), ((0, degree + 2), (3, degree))
        for sixteenth, tone in odd if beat % 2 else even:
            notes.append(Note(beat + sixteenth / 4, 0.3, piece.pitch(tone, octave=60), 84))
    return notes


def kendang(piece: Piece, pattern: str, letter: str) -> list[Note]:
    """One of two drummers; both pause in a break until it ends, and a fill is two beats without a rest."""
    pitch = 45 if letter == "L" else 55
    notes = []
    for beat in range(piece.beats):
        if piece.section(beat) in ("intro", "break") and beat % CYCLE < 6:
            continue
        word = pattern.split()[beat % 4]
        if piece.section(beat) == "fill" and beat % CYCLE >= 6:
            word = "LHLH"
        for sixteenth, struck in enumerate(word):
            if struck == letter:
                notes.append(Note(beat + sixteenth / 4, 0.25, pitch, 96))
    return notes


def cymbals(piece: Piece, pattern: str) -> list[Note]:
    """Ceng-ceng: the bell of a ride cymbal."""
    notes = []
    for beat in range(piece.beats):
        if piece.section(beat) in ("intro", "break"):
            continue
        for sixteenth, struck in enumerate(pattern.split()[beat % 4]):
            if struck == "x":
                notes.append(Note(beat + sixteenth / 4, 0.25, 53, 70))
    return notes

"""The reserved world: Balinese gamelan, which riff-mini never hears, so that fine-tuning has something to teach."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from training.composer import gamelan
from training.composer.gamelan import CYCLE, Piece
from training.composer.score import Note, Part, Score, Truth
from training.composer.theory import into_range, key_name

BPM = (84, 150)
_MOODS = ("mysterious", "energetic", "epic", "playful", "dreamy")
_SECTIONS = ("full", "break", "fill")


# GM programs and ranges: metal keys and kettles, gongs, skins and wood.
_KEYS = {
    "celesta": (8, 72, 101),
    "glockenspiel": (9, 74, 103),
    "music box": (10, 70, 99),
    "vibraphone": (11, 60, 89),
    "tinkle bell": (112, 72, 101),
    "kalimba": (108, 58, 87),
    "steel drums": (114, 58, 87),
    "tubular bells": (14, 33, 62),
    "woodblock": (115, 60, 84),
    "taiko drum": (116, 38, 62),
    "melodic tom": (117, 45, 69),
}


@dataclass(frozen=True)
class _Player:
    """One instrument's place: ``pan`` -1..1, ``volume`` and ``reverb`` 0..1."""

    role: str
    instrument: str
    volume: float
    pan: float = 0.0
    reverb: float = 0.45


def compose_gamelan(seed: int, windows: int) -> Score:
    """Compose a piece of the reserved world.

    Args:
        seed: any integer; it draws from other numbers than the thirty genres do.
        windows: number of two-bar windows, which are gong cycles.

    Returns:
        The score with one Truth per window, of genre "gamelan".
    """
    rng = random.Random(f"riff composer, reserved: gamelan {seed}")
    piece = _plan(windows, rng)
    parts = tuple(part for part in _players(piece, rng) if part.notes)
    truths = tuple(_truth(piece, parts, window) for window in range(windows))
    return Score(seed, piece.beats, float(piece.bpm), parts, truths)


RESERVED: Mapping[str, Callable[[int, int], Score]] = {"gamelan": compose_gamelan}


def _plan(windows: int, rng: random.Random) -> Piece:
    density = rng.choices(("sparse", "medium", "dense"), (1, 4, 4))[0]
    melodies = [_melody(rng) for _ in range(3)]
    pokok: list[int] = []
    sections = []
    for window in range(windows):
        pokok += melodies[(0, 0, 1, 0, 2, 1, 0, 2)[window % 8]]
        sections.append("intro" if window == 0 and rng.random() < 0.12 else rng.choices(_SECTIONS, (7, 1, 2))[0])
    return Piece(
        tonic=rng.randrange(12),
        bpm=rng.randint(*BPM),
        mood=rng.choice(_MOODS),
        density=density,
        kotekan=rng.choice(gamelan.KOTEKAN),
        sections=tuple(sections),
        pokok=tuple(pokok),
    )


def _melody(rng: random.Random) -> list[int]:
    """A core melody of one cycle, a degree a beat: it leaves the gong's tone by steps and comes back to it."""
    degrees = [0]
    for beat in range(1, CYCLE):
        here = degrees[-1]
        homeward = (here < 0) - (here > 0)
        step = homeward if here not in range(-1, 3) or beat > 5 else rng.choice((-1, 1, 1, 2))
        degrees.append(here + (step if beat % 2 == 0 or rng.random() < 0.7 else 0))
    return degrees


def _players(piece: Piece, rng: random.Random) -> list[Part]:
    """Everybody, the lead first; a sparse piece does without some."""
    high = rng.choice(("celesta", "glockenspiel", "music box", "tinkle bell", "celesta", "glockenspiel"))
    kettles = rng.choice(("kalimba", "steel drums"))
    lead = rng.choice(("celesta", "vibraphone", "vibraphone", "music box"))
    parts = [
        (_Player("lead", lead, 0.95, 0.05), gamelan.ugal(piece, rng)),
        (_Player("arp", high, 0.85, -0.4), gamelan.gangsa(piece, 0, high)),
        (_Player("counter", high, 0.85, 0.4), gamelan.gangsa(piece, 1, high)),
        (_Player("comp", "vibraphone", 0.7), gamelan.calung(piece)),
        (_Player("bells", "tubular bells", 1.0, 0.0, 0.6), gamelan.gongs(piece)),
        (_Player("percussion", "woodblock", 0.45, 0.1, 0.2), gamelan.kempli(piece)),
    ]
    if piece.density != "sparse":
        parts.append((_Player("comp", kettles, 0.7, 0.15), gamelan.reyong(piece)))
    if piece.density == "dense" or rng.random() < 0.75:
        skins = rng.choice(gamelan.KENDANG)
        parts.append((_Player("percussion", "taiko drum", 0.7, -0.2, 0.25), gamelan.kendang(piece, skins, "L")))
        parts.append((_Player("percussion", "melodic tom", 0.7, 0.2, 0.25), gamelan.kendang(piece, skins, "H")))
    if rng.random() < 0.6:
        struck = gamelan.cymbals(piece, rng.choice(gamelan.CYMBALS))
        parts.append((_Player("drums", "drums", 0.5, -0.1, 0.25), struck))
    return [_part(player, notes, piece, rng) for player, notes in parts]


def _part(player: _Player, notes: list[Note], piece: Piece, rng: random.Random) -> Part:
    """Notes in range, swelling and fading with the cycle, with the small errors of hands."""
    program, low, high = _KEYS.get(player.instrument, (0, 0, 127))
    played: dict[tuple[float, int], Note] = {}
    for note in notes:
        swell = 8.0 * math.sin(2 * math.pi * note.start / (2 * CYCLE))
        velocity = max(20, min(127, round(note.velocity + swell + rng.randint(-4, 4))))
        window_end = (note.start // CYCLE + 1) * CYCLE
        start = max(float(note.start // CYCLE * CYCLE), note.start + rng.gauss(0.0, 0.003))
        pitch = into_range(note.pitch, low, high)
        length = min(note.duration, window_end - start)
        played[note.start, pitch] = Note(round(start, 4), round(length, 4), pitch, velocity)
    cut = _cut(sorted(played.values(), key=lambda note: (note.start, note.pitch)))
    is_drum = player.instrument == "drums"
    return Part(player.role, program, is_drum, player.instrument, player.pan, player.volume, player.reverb, cut)


def _cut(notes: list[Note]) -> tuple[Note, ...]:
    """A key that is struck again while it sounds is damped first."""
    following: dict[int, float] = {}
    cut = []
    for note in reversed(notes):
        length = min(note.duration, following.get(note.pitch, math.inf) - note.start)
        cut.append(Note(note.start, round(length, 4), note.pitch, note.velocity))
        following[note.pitch] = note.start
    return tuple(reversed(cut))


def _truth(piece: Piece, parts: tuple[Part, ...], window: int) -> Truth:
    weights: dict[str, float] = {}
    for part in parts:
        sounding = [note for note in part.notes if window * CYCLE <= note.start < (window + 1) * CYCLE]
        if sounding:
            loud = part.volume * sum(note.velocity * min(note.duration, 1.0) for note in sounding)
            weights[part.instrument] = weights.get(part.instrument, 0.0) + loud
    lead = parts[0].instrument
    ordered = sorted(weights, key=lambda name: (name != lead, name == "drums", -weights[name]))
    return Truth(
        genre="gamelan",
        family="folk/world",
        instruments=tuple(ordered),
        lead=lead,
        bpm=float(piece.bpm),
        keyscale=key_name(piece.tonic, True),
        beats_per_bar=4,
        mood=piece.mood,
        density=piece.density,
        swing=False,
        section=piece.sections[window],
        has_drums="drums" in weights,
    )

"""Pitches, scales, chords and the General MIDI instruments with their registers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

PITCH_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic": (0, 2, 3, 5, 7, 8, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "major_pentatonic": (0, 2, 4, 7, 9),
    "minor_pentatonic": (0, 3, 5, 7, 10),
    "major_blues": (0, 2, 3, 4, 7, 9),
    "minor_blues": (0, 3, 5, 6, 7, 10),
}

_NUMERALS = {"i": 0, "ii": 1, "iii": 2, "iv": 3, "v": 4, "vi": 5, "vii": 6}

# Intervals above the root for each chord suffix; upper-case and lower-case numerals differ in the third.
_SUFFIXES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "": ((0, 4, 7), (0, 3, 7)),
    "7": ((0, 4, 7, 10), (0, 3, 7, 10)),
    "maj7": ((0, 4, 7, 11), (0, 3, 7, 11)),
    "9": ((0, 4, 7, 10, 14), (0, 3, 7, 10, 14)),
    "maj9": ((0, 4, 7, 11, 14), (0, 3, 7, 11, 14)),
    "13": ((0, 4, 7, 10, 21), (0, 3, 7, 10, 21)),
    "6": ((0, 4, 7, 9), (0, 3, 7, 9)),
    "add9": ((0, 4, 7, 14), (0, 3, 7, 14)),
    "sus4": ((0, 5, 7), (0, 5, 7)),
    "sus2": ((0, 2, 7), (0, 2, 7)),
    "5": ((0, 7), (0, 7)),
    "o": ((0, 3, 6), (0, 3, 6)),
    "o7": ((0, 3, 6, 9), (0, 3, 6, 9)),
    "h7": ((0, 3, 6, 10), (0, 3, 6, 10)),
}


@dataclass(frozen=True)
class Chord:
    """A chord as pitch classes: the root first, then the others in chord order."""

    root: int
    tones: tuple[int, ...]
    symbol: str


@dataclass(frozen=True)
class Instrument:
    """A General MIDI instrument: program (0-127), playable range and the middle of its singing register."""

    program: int
    low: int
    high: int
    centre: int


def _instruments() -> dict[str, Instrument]:
    table = """
    piano 0 28 100 72|electric piano 4 33 93 70|harpsichord 6 36 88 71|clavinet 7 36 86 64
    celesta 8 60 103 84|glockenspiel 9 72 105 88|music box 10 60 100 82|vibraphone 11 53 89 72
    marimba 12 45 92 67|xylophone 13 65 103 82|tubular bells 14 55 79 67|dulcimer 15 50 86 72
    hammond organ 16 36 91 67|church organ 19 28 96 67|accordion 21 48 90 71|harmonica 22 58 94 74
    nylon guitar 24 40 84 66|acoustic guitar 25 40 84 66|jazz guitar 26 40 84 66
    electric guitar 27 40 86 67|muted guitar 28 40 79 57|overdriven guitar 29 40 88 68
    distorted guitar 30 34 88 69|upright bass 32 28 62 40|electric bass 33 28 62 38|slap bass 36 28 65 40
    synth bass 38 24 64 36|violin 40 55 100 77|viola 41 48 88 66|cello 42 36 76 55
    pizzicato strings 45 36 91 64|harp 46 30 98 67|timpani 47 36 57 44|strings 48 36 96 69
    synth strings 50 36 96 69|choir 52 45 84 65|trumpet 56 54 86 71|muted trumpet 59 54 84 70
    trombone 57 40 72 56|french horn 60 38 77 59|brass section 61 40 84 66|synth brass 62 36 88 66
    soprano saxophone 64 56 87 73|alto saxophone 65 49 80 67|tenor saxophone 66 44 75 60|oboe 68 58 89 73
    clarinet 71 50 91 69|bassoon 70 34 70 50|piccolo 72 74 104 88|flute 73 60 95 77|recorder 74 62 93 78
    pan flute 75 60 93 75|shakuhachi 77 55 84 70|whistle 78 67 98 82|ocarina 79 64 93 77
    square lead 80 36 98 74|saw lead 81 36 96 74|synth pad 90 36 90 64|warm pad 89 36 90 62
    sitar 104 48 79 62|banjo 105 48 86 68|shamisen 106 50 79 66|koto 107 48 86 69|kalimba 108 55 86 74
    bagpipe 109 55 81 71|fiddle 110 55 96 75|steel drums 114 52 86 72
    bright piano 1 28 100 72|honky tonk piano 3 33 96 72|fm piano 5 36 93 70|percussive organ 17 36 91 69
    rock organ 18 36 91 69|reed organ 20 40 86 68|bandoneon 23 48 88 69|guitar harmonics 31 52 88 72
    picked bass 34 28 60 38|fretless bass 35 28 62 40|tremolo strings 44 40 93 69|vocal oohs 53 48 82 66
    synth choir 54 45 84 66|orchestra hit 55 48 79 62|tuba 58 29 60 42|baritone saxophone 67 37 69 53
    english horn 69 52 81 66|blown bottle 76 55 86 70|calliope 82 55 96 76|charang lead 84 40 88 69
    voice lead 85 45 88 69|fifths lead 86 40 86 66|bowed glass pad 92 40 90 67|metallic pad 93 38 88 64
    halo pad 94 40 88 66|sweep pad 95 36 86 62|crystal synth 98 55 98 79|atmosphere synth 99 45 88 68
    agogo 113 60 88 74|wood block 115 60 84 72|taiko 116 36 60 45|melodic toms 117 40 67 50|shanai 111 56 84 70
    mandolin 25 55 90 76|ukulele 24 60 86 72|oud 24 45 76 59|erhu 110 57 88 72
    supersaw 81 40 98 72|pluck synth 80 48 96 74|synth stab 81 45 88 66|hoover synth 87 36 84 60
    acid bass 38 28 60 41|wobble bass 38 24 52 34|growl bass 38 24 52 34|reese bass 38 24 55 34
    sub bass 38 24 52 34|808 bass 38 24 52 34|log drum 38 28 60 41|pulse bass 38 24 60 38|fm bass 38 26 60 38
    pulse lead 80 45 98 76|thin pulse 80 45 98 76|chip triangle 80 28 84 48|theremin 80 48 88 71
    electric grand 2 28 96 72|bowed bass 43 28 60 40|slow strings 49 40 93 69|new age pad 88 40 91 66
    rain pad 96 40 91 66|soundtrack pad 97 38 86 60|bright synth 100 48 96 74|goblin synth 101 45 86 65
    echo synth 102 48 96 72|sci-fi synth 103 45 91 69|tinkle bell 112 67 100 84|chiff lead 83 50 96 74
    fm bells 14 60 103 84|sine lead 80 45 96 74|gong 14 33 60 43|analog pad 89 36 90 62
    """
    found = {}
    for entry in table.replace("\n", "|").split("|"):
        if words := entry.split():
            numbers = [int(word) for word in words[-4:]]
            found[" ".join(words[:-4])] = Instrument(*numbers)
    return found


INSTRUMENTS = _instruments()


@cache
def parse_chord(symbol: str, *, tonic: int, minor: bool) -> Chord:
    """Read a roman numeral in a key.

    Args:
        symbol: such as "ii7", "V", "bVII", "Imaj7"; in minor III, VI and VII are the natural minor's.
        tonic: pitch class of the key, 0-11.
        minor: whether the key is minor.

    Returns:
        The chord as pitch classes, root first.

    Raises:
        ValueError: when the numeral or its suffix is unknown.
    """
    body = symbol.lstrip("b#")
    accidental = symbol[: len(symbol) - len(body)].count("#") - symbol[: len(symbol) - len(body)].count("b")
    length = next((n for n in (3, 2, 1) if body[:n].lower() in _NUMERALS), 0)
    if not length or body[length:] not in _SUFFIXES:
        raise ValueError(f"unknown chord {symbol!r}; write a roman numeral and one of {sorted(_SUFFIXES)}")
    degree = SCALES["minor" if minor else "major"][_NUMERALS[body[:length].lower()]]
    root = (tonic + degree + accidental) % 12
    intervals = _SUFFIXES[body[length:]][0 if body[0].isupper() else 1]
    return Chord(root, tuple((root + step) % 12 for step in intervals), symbol)


def nearest_pitch(pitch_class: int, target: float) -> int:
    """Return the pitch of a pitch class (0-11) nearest to `target` (MIDI number)."""
    below = int(target) - (int(target) - pitch_class) % 12
    return below if target - below <= 6 else below + 12


def into_range(pitch: int, low: int, high: int) -> int:
    """Shift a pitch by octaves until it lies within [low, high] (at least an octave wide)."""
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return pitch


def key_name(tonic: int, minor: bool) -> str:
    """Return the key as riff writes it, such as "F# minor"."""
    return f"{PITCH_NAMES[tonic % 12]} {'minor' if minor else 'major'}"

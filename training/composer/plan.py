"""What a piece will be before any note is written: key, tempo, metre, mood, density, sections, chords."""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.composer.form import Phrase, make_form
from training.composer.genres.model import Genre
from training.composer.harmony import lay_out
from training.composer.rhythm import Feel
from training.composer.theory import Chord


@dataclass(frozen=True)
class Temper:
    """What a mood does: velocity offset, factor for minor, tempo bias -1..1, semitones leads move."""

    velocity: int
    minor: float
    tempo: float
    shift: int


TEMPERS = {
    "happy": Temper(3, 0.4, 0.3, 2),
    "sad": Temper(-9, 1.7, -0.6, -2),
    "mellow": Temper(-8, 0.9, -0.5, -1),
    "dark": Temper(1, 1.8, -0.1, -4),
    "energetic": Temper(7, 1.0, 0.7, 1),
    "dreamy": Temper(-9, 0.9, -0.3, 2),
    "aggressive": Temper(10, 1.4, 0.6, -2),
    "epic": Temper(8, 1.1, 0.1, 0),
    "romantic": Temper(-4, 1.0, -0.3, 0),
    "playful": Temper(2, 0.5, 0.4, 3),
    "calm": Temper(-12, 0.7, -0.6, 0),
    "mysterious": Temper(-5, 1.6, -0.2, -2),
}


@dataclass(frozen=True)
class Plan:
    """The decisions every part of a piece shares."""

    genre: Genre
    bpm: int
    tonic: int
    minor: bool
    beats_per_bar: int
    mood: str
    density: str
    solo: bool
    feel: Feel
    sections: tuple[str, ...]
    phrases: tuple[Phrase, ...]
    chords: list[Chord]

    @property
    def window_beats(self) -> int:
        """Beats in one window: two bars."""
        return 2 * self.beats_per_bar

    @property
    def temper(self) -> Temper:
        """What the mood does to the notes."""
        return TEMPERS[self.mood]


def _tempo(genre: Genre, bias: float, rng: random.Random) -> int:
    low, high = genre.bpm
    middle = low + (high - low) * (0.5 + 0.4 * bias)
    return round(rng.uniform(low, high) if rng.random() < 0.5 else rng.triangular(low, high, middle))


# How a window of two bars visits its home chord H and two others X, Y: home for half of the time and at the
# start, so that eight beats alone tell the key.
_FORMS = ("H,X Y,H", "H Y,H", "H,X H,Y", "H Y", "H,H X,Y", "H H,Y")
_FORM_WEIGHTS = (5, 3, 4, 3, 3, 2)


def _pointed_home(pair: tuple[str, str], home: str, rng: random.Random) -> tuple[str, str]:
    """Two minor-key chords that tell the key: i with VI or VII alone sounds like the relative major."""
    dominant = home[-1] if home[-1] in "57" else ""
    first, second = pair
    if first.startswith(("VI", "III")) and rng.random() < 0.5:
        first = "iv" + dominant
    if not second.startswith("V") or second.startswith("VI"):
        second = "V" + dominant if rng.random() < 0.75 else second
    return (first, second) if rng.random() < 0.7 else (second, first)


def _chords(genre: Genre, *, bars: int, beats: int, tonic: int, minor: bool, rng: random.Random) -> list[Chord]:
    """The chords of one phrase, one a beat."""
    progression = rng.choice(genre.minor if minor else genre.major)
    words = progression.replace(",", " ").split()
    home = words[0]
    others = [word for word in words if word != home] or [home]
    form = rng.choices(_FORMS, _FORM_WEIGHTS)[0]
    whole = rng.random() < 0.12  # now and then the progression as it is
    names: list[str] = []
    for window in range(bars // 2):
        if not whole and rng.random() < 0.3:
            form = rng.choices(_FORMS, _FORM_WEIGHTS)[0]
        first = rng.randrange(len(others)) if window else 0
        pair = (others[first], others[(first + 1) % len(others)])
        pair = _pointed_home(pair, home, rng) if minor else pair
        names.append(form.replace("H", home).replace("X", pair[0]).replace("Y", pair[1]))
    chosen = progression if whole else " ".join(names)
    return lay_out(chosen, bars=bars, beats_per_bar=beats, tonic=tonic, minor=minor)


def _all_chords(phrases: tuple[Phrase, ...], rng: random.Random, **key: object) -> list[Chord]:
    """The same letter has the same chords wherever it returns."""
    made: dict[str, list[Chord]] = {}
    found: list[Chord] = []
    for phrase in phrases:
        if phrase.letter not in made:
            longest = max(other.window for other in phrases if other.letter == phrase.letter) + 1
            made[phrase.letter] = _chords(bars=2 * longest, rng=rng, **key)  # type: ignore[arg-type]
        size = 2 * int(key["beats"])  # type: ignore[call-overload]
        found += made[phrase.letter][phrase.window * size : (phrase.window + 1) * size]
    for number, phrase in enumerate(phrases):
        if phrase.section == "ending":
            half = int(key["beats"])  # type: ignore[call-overload]
            stop = (2 * number + 2) * half
            found[stop - half : stop] = [made[phrase.letter][0]] * half
    return found


def make_plan(genre: Genre, *, windows: int | None, rng: random.Random) -> Plan:
    """Decide a piece of `windows` two-bar windows (None: a whole piece) in a genre, all choices from `rng`."""
    mood = rng.choice(genre.moods)
    temper = TEMPERS[mood]
    minor = rng.random() < min(0.97, genre.minor_chance * temper.minor)
    tonic = rng.randrange(12)
    beats = 3 if rng.random() < genre.waltz_chance else 4
    busy = 0.25 + 0.15 * temper.tempo
    density = rng.choices(("sparse", "medium", "dense"), (0.5 - busy, 0.5, busy))[0]
    solo = rng.random() < genre.solo_chance
    fills = bool(genre.grooves) and beats == 4 and not solo and genre.drums_chance == 1.0
    phrases = make_form(windows, fills=fills, rng=rng)
    return Plan(
        genre=genre,
        bpm=_tempo(genre, temper.tempo, rng),
        tonic=tonic,
        minor=minor,
        beats_per_bar=beats,
        mood=mood,
        density=density,
        solo=solo,
        feel=Feel(genre.swing, genre.swing_unit),
        sections=tuple(phrase.section for phrase in phrases),
        phrases=phrases,
        chords=_all_chords(phrases, rng, genre=genre, beats=beats, tonic=tonic, minor=minor),
    )

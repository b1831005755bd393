"""Putting measured attributes into the words of riff-mini's captions: comma tags, a bare row, or a sentence."""

import dataclasses
import random
import re

from riff.music.theory import parse_bpm, parse_key

# How often each is said: as often as riff-mini's own captions do.
RATES = {"genre": 0.8, "adjectives": 0.3, "instruments": 0.65, "drums": 0.3, "key": 0.45, "tempo": 0.45}
WORD_RATE = 0.35  # of a tempo in words where it is said at all
PACES = {
    "slow": ("slow", "unhurried", "leisurely", "downtempo"),
    "mid-tempo": ("mid-tempo", "moderate"),
    "fast": ("fast", "uptempo", "quick", "brisk"),
}
ADJECTIVES = {
    "quiet": ("quiet", "soft"),
    "loud": ("loud", "powerful"),
    "bright": ("bright",),
    "warm": ("warm", "mellow"),
    "dark": ("dark", "moody"),
    "sparse": ("sparse", "minimal", "spacious", "uncluttered"),
    "busy": ("busy", "dense", "layered", "full"),
}
DRUMS = {True: ("with drums", "with a beat", "with percussion"), False: ("no drums", "without drums", "drumless")}
BPM_FORMS = ("{bpm} bpm", "{bpm} bpm", "{bpm} BPM")
NOUNS = ("music", "piece", "track", "song", "instrumental")
LINKS = ("with {}", "featuring {}", "with {}")
# What the user's words may speak of; any of these words leaves the matching attribute out.
_MENTIONS = {
    "bpm": "tempo slow slowly fast uptempo midtempo downtempo moderate quick brisk rapid leisurely largo adagio "
    "andante allegro presto",
    "key": "major minor",
    "drums": "drum drums drummer drumless beat beats beatless percussion percussive kit snare kick cymbals acapella "
    "cappella",
    "instruments": "piano pianist keys keyboard rhodes wurlitzer guitar guitars guitarist bass violin violins viola "
    "cello strings orchestra fiddle brass horn horns trumpet trombone sax saxophone flute clarinet oboe bassoon "
    "woodwind organ accordion harmonica synth synths synthesizer pad pads vibraphone marimba xylophone mallets bells "
    "harp banjo koto sitar choir voice voices vocal vocals singer singing ukulele mandolin solo unaccompanied",
    "adjectives": "quiet soft loud powerful bright warm mellow dark moody sparse minimal busy dense",
}


@dataclasses.dataclass(frozen=True)
class Attributes:
    """What may be said, each empty or None where it is not to be.

    Attributes:
        genre: in words.
        adjectives: keys of :data:`ADJECTIVES`.
        instruments: in words.
        drums: whether there are any.
        key: such as "F# minor".
        bpm: beats per minute.
        pace: a key of :data:`PACES`.
    """

    genre: str = ""
    adjectives: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    drums: bool | None = None
    key: str = ""
    bpm: float | None = None
    pace: str = ""


def without_what_is_said(attributes: Attributes, words: str) -> Attributes:
    """The attributes of which the user's words say nothing; beside any words there is no genre."""
    if not words.strip():
        return attributes
    found = set(re.findall(r"[a-z]+", words.lower()))
    spoken = {name for name, mentions in _MENTIONS.items() if found & set(mentions.split())}
    spoken |= ({"bpm"} if parse_bpm(words) is not None else set()) | ({"key"} if parse_key(words) else set())
    nothing = Attributes()
    return dataclasses.replace(attributes, genre="", **{name: getattr(nothing, name) for name in spoken})


def drop(attributes: Attributes, rng: random.Random) -> Attributes:
    """Leave out attributes at random."""
    says = {name: rng.random() < rate for name, rate in RATES.items()}
    count = rng.choice((1, 1, 2, 2, 3))
    return Attributes(
        genre=attributes.genre if says["genre"] else "",
        adjectives=tuple(word for word in attributes.adjectives if rng.random() < RATES["adjectives"]),
        instruments=attributes.instruments[:count] if says["instruments"] else (),
        drums=attributes.drums if says["drums"] else None,
        key=attributes.key if says["key"] else "",
        bpm=attributes.bpm if says["tempo"] else None,
        pace=attributes.pace if says["tempo"] else "",
    )


def tags(words: str, attributes: Attributes) -> str:
    """Everything as comma tags in a fixed order and the plainest words: "waltz, warm, piano, no drums, A minor"."""
    attributes = _unnamed(attributes)
    drums = "" if attributes.drums is None else DRUMS[attributes.drums][0]
    bpm = "" if attributes.bpm is None else BPM_FORMS[0].format(bpm=round(attributes.bpm))
    rest = (*attributes.adjectives, *attributes.instruments, drums, attributes.key, bpm)
    return _joined(_head(words), attributes.genre, *rest)


def compose(words: str, attributes: Attributes, rng: random.Random) -> str:
    """One caption of the attributes; empty if there is nothing to say.

    Args:
        words: the user's, which come first.
        attributes: to be said, all of them.
        rng: source of every choice.
    """
    head, attributes = _head(words), _unnamed(attributes)
    adjectives = [rng.choice(ADJECTIVES[word]) for word in attributes.adjectives]
    number, tempo = _tempo(attributes, rng)
    drums = "" if attributes.drums is None else rng.choice(DRUMS[attributes.drums])
    style = rng.random()
    if style < 0.45:
        middle = _said(*adjectives, *attributes.instruments, drums, tempo)
        rng.shuffle(middle)
        ends = _said(attributes.key, number)
        rng.shuffle(ends)
        return _joined(head, attributes.genre, *middle, *ends)
    if style < 0.6:
        instruments = " and ".join(attributes.instruments[:2])
        front = " ".join(_said(*adjectives, tempo, attributes.genre, instruments))
        return _joined(head, front, drums, attributes.key, number)
    return _sentence(head, attributes, _said(*adjectives, tempo), drums=drums, number=number, rng=rng)


def _sentence(
    head: str, attributes: Attributes, adjectives: list[str], *, drums: str, number: str, rng: random.Random
) -> str:
    """As in "a warm slow piece with piano and bass in A minor at 84 bpm"."""
    played = _listing(attributes.instruments)
    clauses = [rng.choice(LINKS).format(played)] if played else []
    clauses += [f"in {attributes.key}"] if attributes.key else []
    clauses += [f"at {number}"] if number else []
    if head:
        return _joined(head, *adjectives, " ".join(clauses), drums)
    if not (adjectives or attributes.genre or clauses or drums):
        return ""
    subject = " ".join([*adjectives, attributes.genre or rng.choice(NOUNS)])
    return _joined(" ".join([subject, *clauses]), drums)


def _tempo(attributes: Attributes, rng: random.Random) -> tuple[str, str]:
    """A tempo in numbers or, sometimes, in a word."""
    if attributes.bpm is None:
        return "", ""
    if attributes.pace and rng.random() < WORD_RATE:
        return "", rng.choice(PACES[attributes.pace])
    return rng.choice(BPM_FORMS).format(bpm=round(attributes.bpm)), ""


def _unnamed(attributes: Attributes) -> Attributes:
    """Without the instruments that the genre names: "drum and bass" has a bass."""
    genre = attributes.genre.split()
    return dataclasses.replace(
        attributes, instruments=tuple(name for name in attributes.instruments if name not in genre)
    )


def _head(words: str) -> str:
    """The user's words on one line."""
    return " ".join(words.split())


def _listing(names: tuple[str, ...]) -> str:
    return " and ".join(_said(", ".join(names[:-1]), names[-1])) if names else ""


def _said(*texts: str) -> list[str]:
    return [text for text in texts if text]


def _joined(first: str, *texts: str) -> str:
    """Tags with commas between, before which the first loses its stop."""
    rest = _said(*texts)
    return ", ".join(_said(first.rstrip(" .,;"), *rest)) if rest else first

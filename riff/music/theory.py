"""What a prompt says about tempo, key and metre, read from its text without any model."""

import re

from riff.utils.errors import RiffError

TONICS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)

# Every gap is bounded, so that a megabyte of spaces costs no more than reading it once.
_NUMBER = r"(?<![\w./])(\d{1,6}(?:\.\d{1,6})?)"
_UNIT = r"[\s-]{0,3}(?:bpm|b\.p\.m|beats?\s{1,3}(?:per|a)\s{1,3}minute)(?![a-z])"
_RANGE_BPM = re.compile(rf"{_NUMBER}\s{{0,3}}(?:-|–|to)\s{{0,3}}(\d{{1,6}}(?:\.\d{{1,6}})?){_UNIT}", re.IGNORECASE)
_NUMBER_BPM = re.compile(rf"{_NUMBER}{_UNIT}", re.IGNORECASE)
_BPM_NUMBER = re.compile(
    r"(?:\b(?:bpm|tempo)|♩)(?:\s{0,3}[:=]|\s{1,3}(?:of|is|at|about|around))?\s{0,3}"
    r"(?<![\w./])(\d{1,6}(?:\.\d{1,6})?)(?![\w/]|\.\d)",
    re.IGNORECASE,
)

_SIGN = r"(?:#|♯|b|♭|[\s-]?(?:sharp|flat))?"
_TONIC = rf"(?<![\w#♯♭/])(?P<tonic>[a-g])(?P<sign>{_SIGN})"
_KEY = re.compile(rf"{_TONIC}[\s-]{{0,3}}(?P<mode>major|minor|maj|min)(?![\w#])", re.IGNORECASE)
_CHORD_KEY = re.compile(r"(?<![\w#♯♭/])(?P<tonic>[A-G])(?P<sign>[#♯b♭]?)(?P<mode>m)(?![\w#'’])")
_BARE_KEY = re.compile(
    rf"\b[Kk]ey(?:\s{{1,3}}of|\s{{0,3}}[:=])\s{{0,3}}(?P<tonic>[A-G])(?P<sign>{_SIGN})(?P<mode>)(?=\s*(?:[,;.)]|$))"
)
_ASKED_FOR = re.compile(r"(?:\bin|\bkey(?:\s{1,3}of|\s{0,3}[:=])?)\s{1,3}(?:the\s)?$", re.IGNORECASE)
_NOUN_AFTER = re.compile(r"[\s-]{1,3}(?:key|keys|scale|mode|chord|chords|tonality|feel|mood)\b", re.IGNORECASE)
_STOPS = frozenset(",;.:!?)(/|")

_SIGNATURE = re.compile(r"(?<![\w./])(\d{1,2})\s?/\s?(4|8)(?![\w/])|(¾)")
_TRIPLE = re.compile(
    r"\b(?:waltz(?:es)?|minuets?|mazurkas?|three[\s-](?:four|quarter)|triple[\s-](?:time|met(?:er|re)))\b",
    re.IGNORECASE,
)


def parse_bpm(prompt: str) -> float | None:
    """The tempo a prompt states as a number.

    Args:
        prompt: free text, e.g. ``"mellow house, 120 bpm"``, ``"at 84BPM"``, ``"tempo: 90"``, ``"80-90 bpm"``.

    Returns:
        Beats per minute as stated (the middle of a stated range), or None where no number is given; words
        such as "slow" are left to the model. The range is not checked here.
    """
    if found := _RANGE_BPM.search(prompt):
        slowest, fastest = float(found[1]), float(found[2])
        if slowest <= fastest <= 2 * slowest:  # else it is a number and a dash, as in "take 2 - 84 bpm"
            return (slowest + fastest) / 2
    found = _NUMBER_BPM.search(prompt) or _BPM_NUMBER.search(prompt)
    return float(found[1]) if found else None


def parse_key(text: str) -> str | None:
    """The key a prompt states, spelled as one of :data:`KEYS`.

    Args:
        text: free text, e.g. ``"song in F# minor"``, ``"Bb major"``, ``"a min"``, ``"F#m"``, ``"key of C"``.

    Returns:
        The first key found, with sharps (``"A# minor"`` for ``"Bb minor"``), or None. The article in "in a
        minor key" and "a major hit" is not the note A.
    """
    for pattern in (_KEY, _CHORD_KEY, _BARE_KEY):
        for found in pattern.finditer(text):
            if pattern is _BARE_KEY or _is_meant_as_key(found, text):
                return _spell(found)
    return None


def canonical_key(key: str) -> str:
    """One of :data:`KEYS` for a key given as an argument.

    Args:
        key: a key and nothing else, in any spelling: ``"F# minor"``, ``"g flat major"``, ``"Bbm"``.

    Returns:
        The key with its sharps spelling.

    Raises:
        RiffError: the text is not one of the 24 keys.
    """
    if isinstance(key, str):
        stripped = key.strip()
        found = _KEY.fullmatch(stripped) or _CHORD_KEY.fullmatch(stripped[:1].upper() + stripped[1:])
        if found:
            return _spell(found)
    raise RiffError(f"key is {key!r}; use a note (C, C#, Db, ... B) and major or minor, for example 'F# minor'")


def parse_time_signature(prompt: str) -> int:
    """Beats per bar a prompt asks for.

    Args:
        prompt: free text, e.g. ``"a waltz for piano"``, ``"ballad in 6/8"``.

    Returns:
        3 for a triple metre (3/4, 3/8, 6/8, 9/8, a waltz, a minuet), else 4; a signature outranks a word.
    """
    if found := _SIGNATURE.search(prompt):
        return 3 if found[3] or (found[1], found[2]) in {("3", "4"), ("3", "8"), ("6", "8"), ("9", "8")} else 4
    return 3 if _TRIPLE.search(prompt) else 4


def without_numbers(text: str) -> str:
    """A prompt without the tempo, the key and the time signature that it states."""
    for pattern in (_RANGE_BPM, _NUMBER_BPM, _BPM_NUMBER, _KEY, _BARE_KEY, _SIGNATURE):
        text = pattern.sub(" ", text)
    return text


def _is_meant_as_key(found: re.Match[str], text: str) -> bool:
    """Whether a note followed by a mode is a key, where the note may be the article "a" or "Am" a verb."""
    before, after = text[max(0, found.start() - 12) : found.start()], text[found.end() : found.end() + 16]
    is_chord = found["mode"] == "m"
    if found["sign"] or not (is_chord or found["tonic"] in "aA"):
        return True
    starts_sentence = not before.strip() or before.rstrip()[-1] in _STOPS
    ends_phrase = not after.strip() or after.lstrip()[0] in _STOPS
    if is_chord:
        return bool(_ASKED_FOR.search(before)) or (starts_sentence and ends_phrase)
    if _NOUN_AFTER.match(after):
        return found["tonic"] == "A" and not starts_sentence
    if found["tonic"] == "A":
        return True
    return ends_phrase or bool(_ASKED_FOR.search(before))


def _spell(found: re.Match[str]) -> str:
    """The canonical spelling of a match with the groups tonic, sign and mode (an empty mode is major)."""
    sign = found["sign"].strip(" \t\n-").lower()
    step = {"": 0, "#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1}[sign]
    tonic = TONICS[(TONICS.index(found["tonic"].upper()) + step) % 12]
    return f"{tonic} {'minor' if found['mode'].lower() in ('m', 'min', 'minor') else 'major'}"

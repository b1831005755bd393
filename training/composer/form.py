"""The form of a piece: phrases of four bars that return, an intro, fills and an ending."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Capital letters are phrases of four bars (two windows), ' varies one; i introduces the first phrase, k is a break in
# the one before, e ends it.
WHOLE_FORMS = (
    "A A' B A e",
    "i A A' B A' e",
    "i A B A' B' e",
    "A A' B B' A e",
    "i A A' k A' e",
    "A B A' B C B' e",
    "i A A' B k B' e",
    "i A B A' e",
    "A A' B A'",
)
_PLACES = {"A": "verse", "B": "chorus", "C": "bridge"}
WINDOWS_OF_A_PHRASE = 2


@dataclass(frozen=True)
class Phrase:
    """One window of two bars within the form.

    Attributes:
        letter: which phrase it belongs to.
        window: the how-manieth window of that phrase.
        varied: whether a return is played differently.
        section: intro, full, break, fill or ending.
        place: verse, chorus or bridge; "" in a piece too short to have a form.
    """

    letter: str
    window: int
    varied: bool = False
    section: str = "full"
    place: str = ""


def whole_piece(rng: random.Random, *, fills: bool) -> tuple[Phrase, ...]:
    """A piece of 16 to 32 bars."""
    found: list[Phrase] = []
    words = rng.choice(WHOLE_FORMS).split()
    for number, word in enumerate(words):
        letter = (
            word[0]
            if word[0].isupper()
            else next(w[0] for w in words[max(0, number - 1) :: -1] + words if w[0].isupper())
        )
        section = {"i": "intro", "k": "break", "e": "ending"}.get(word[0], "full")
        place = "" if section in ("intro", "ending") else _PLACES[letter]
        for window in range(1 if section == "ending" else WINDOWS_OF_A_PHRASE):
            name = section
            last = window == WINDOWS_OF_A_PHRASE - 1
            if section == "full" and last and fills and rng.random() < 0.6:
                name = "fill"
            found.append(Phrase(letter, window, word.endswith("'"), name, place))
    if found[-1].section in ("full", "fill"):
        end = found[-1]
        found[-1] = Phrase(end.letter, end.window, end.varied, "ending", "")
    return tuple(found)


def make_form(windows: int | None, *, fills: bool, rng: random.Random) -> tuple[Phrase, ...]:
    """The form of ``windows`` windows.

    Args:
        windows: how many windows of two bars; None for a whole piece. Fewer than eight are one phrase.
        fills: whether drums may fill.
        rng: source of every choice.
    """
    if windows is None:
        return whole_piece(rng, fills=fills)
    if windows >= 8:
        found: tuple[Phrase, ...] = ()
        while len(found) < windows:
            found += whole_piece(rng, fills=fills)
        return found[:windows]
    sections = []
    for window in range(windows):
        draw = rng.random()
        if draw < 0.12 and window == 0:
            sections.append("intro")
        elif draw < 0.24:
            sections.append("break")
        elif draw < 0.42 and fills:
            sections.append("fill")
        else:
            sections.append("full")
    return tuple(Phrase("A", window, False, section) for window, section in enumerate(sections))

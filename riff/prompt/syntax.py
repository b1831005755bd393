"""The signs in a prompt: brackets that weigh words, and AND between prompts that are composed."""

import dataclasses
import re

from riff.utils.errors import RiffError

# Words and how much each of them counts; 1 is as usual.
WeightedText = tuple[tuple[str, float], ...]

STEP = 1.1
MOST = 10.0
MOST_OF_PROMPT = 5.0
MAX_PROMPTS = 8

_SIGN = re.compile(r"\\[()\[\]\\]|[()\[\]]|(?<!\S)AND(?!\S)")
_NUMBER = re.compile(r"[-+.,\d]*\d[-+.,\d]*(?:e[-+]?\d+)?|[-+]?(?:nan|inf(?:inity)?)", re.IGNORECASE)
_OPENS = {")": "(", "]": "["}


@dataclasses.dataclass(frozen=True)
class Clause:
    """One prompt of a composition.

    Attributes:
        pieces: its words with their weights, neighbours of one weight joined.
        weight: of the prompt, -5 to 5; below 0 steers away from it.
    """

    pieces: WeightedText
    weight: float = 1.0

    @property
    def text(self) -> str:
        """The words without weights."""
        return strip_weights(self.pieces)


@dataclasses.dataclass
class _Bracket:
    """One that opens; what it multiplies by is known when it closes."""

    sign: str
    place: int
    factor: float = 1.0


_CLOSED, _AND = object(), object()


def strip_weights(pieces: WeightedText) -> str:
    """The words of ``pieces`` without their weights."""
    return "".join(text for text, _ in pieces)


def append_text(pieces: WeightedText, text: str) -> WeightedText:
    """``pieces`` followed by a text of weight 1."""
    if pieces and pieces[-1][1] == 1.0:
        return (*pieces[:-1], (pieces[-1][0] + text, 1.0))
    return (*pieces, (text, 1.0)) if text else pieces


def plain_prompt(prompt: str) -> str:
    """What a prompt says to play, without weights and without the prompts that it steers away from."""
    return ", ".join(clause.text for clause in parse_prompt(prompt) if clause.weight > 0)


def parse_weights(text: str, name: str = "prompt") -> WeightedText:
    """The words of one prompt with their weights.

    Args:
        text: ``(words)`` count 1.1 times as much, ``(words:1.3)`` 1.3 times (0 to 10), ``[words]`` 1.1 times less;
            brackets inside brackets multiply, to 10 at most. ``\\(``, ``\\)``, ``\\[``, ``\\]`` and ``\\\\`` are the
            plain signs.
        name: what the text is called in errors.

    Returns:
        ``((words, weight), ...)``, neighbours of one weight joined; no piece is empty.

    Raises:
        RiffError: a bracket is not closed or not opened, a weight is no number from 0 to 10, or there is an AND.

    Source: the prompt weighting of Stable Diffusion's community, which Riffusion took over.
    """
    clauses = parse_prompt(text, name)
    if len(clauses) > 1:
        raise RiffError(f"{name} joins prompts with AND, which only what is to be played can; use commas there")
    return clauses[0].pieces


def parse_prompt(text: str, name: str = "prompt") -> tuple[Clause, ...]:
    """The prompts that AND joins, each as in :func:`parse_weights`; without an AND there is one, of weight 1.

    Args:
        text: e.g. ``"church bells AND deep (techno:1.2) bass:0.7"``; a number at the end of a prompt is its weight,
            -5 to 5. AND is upper-case and stands between spaces, outside brackets.
        name: what the text is called in errors.

    Raises:
        RiffError: as :func:`parse_weights`; or a composed prompt is empty, none has a weight above 0, or there are
            more than eight.
    """
    items = _scan(text, name)
    groups: list[list[object]] = [[]]
    for item in items:
        if item is _AND:
            groups.append([])
        else:
            groups[-1].append(item)
    if len(groups) == 1:
        return (Clause(_weigh(items, name)),)
    if len(groups) > MAX_PROMPTS:
        raise RiffError(f"{name} joins {len(groups)} prompts with AND; use at most {MAX_PROMPTS}")
    clauses = tuple(_clause(group, name) for group in groups)
    if all(clause.weight <= 0 for clause in clauses):
        raise RiffError(f"{name} gives none of its prompts a weight above 0; say what to play, not only what to avoid")
    return clauses


def clause_weights(clauses: tuple[Clause, ...]) -> tuple[float, ...]:
    """The clauses' weights over the sum of those above 0, so that all together get the guidance of one prompt."""
    total = sum(max(clause.weight, 0.0) for clause in clauses)
    return tuple(clause.weight / total for clause in clauses)


def _scan(text: str, name: str) -> list[object]:
    """Runs of text, brackets that open with their factors, brackets that close, and ANDs, in order."""
    items: list[object] = []
    stack: list[_Bracket] = []
    last = 0
    for found in _SIGN.finditer(text):
        sign, run = found[0], text[last : found.start()]
        last = found.end()
        if sign in _OPENS:
            run = _close(stack, sign, run, found.start(), text, name)
        items.append(run)
        if sign in _OPENS:
            items.append(_CLOSED)
        elif sign in "([":
            stack.append(_Bracket(sign, found.start()))
            items.append(stack[-1])
        elif sign == "AND":
            if stack:
                raise RiffError(
                    f"{name} has AND inside brackets at character {found.start()}; join whole prompts, or write 'and'"
                )
            items.append(_AND)
        else:
            items.append(sign[1])
    if stack:
        place = stack[-1].place
        raise RiffError(
            f"{name} opens {_quote(text, place)} at character {place} and never closes it; close it, or write "
            f"\\{text[place]} for a plain bracket"
        )
    return [*items, text[last:]]


def _close(stack: list[_Bracket], sign: str, run: str, place: int, text: str, name: str) -> str:
    """Close the last bracket; what is left of the ``run`` before the sign without the weight in it."""
    if not stack or stack[-1].sign != _OPENS[sign]:
        why = f"while {_quote(text, stack[-1].place)} is still open" if stack else "that nothing opens"
        raise RiffError(
            f"{name} has '{sign}' at character {place} {why}; mend the brackets, or write \\{sign} for a plain one"
        )
    opened = stack.pop()
    words, number = _split_number(run)
    if number is None:
        opened.factor = STEP if sign == ")" else 1.0 / STEP
        return run
    if sign == "]":
        raise RiffError(f"{name} gives [...] the weight {number!r} at character {place}; write (words:{number})")
    opened.factor = _read_weight(number, 0.0, MOST, f"{name} has the weight {number!r} at character {place}")
    return words


def _split_number(run: str) -> tuple[str, str | None]:
    """A run of text without the number after its last colon, and that number as it is written."""
    words, colon, tail = run.rpartition(":")
    tail = tail.strip()
    if colon and len(tail) <= 40 and _NUMBER.fullmatch(tail):
        return words, tail
    return run, None


def _read_weight(number: str, low: float, high: float, what: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = float("nan")
    if not low <= weight <= high:
        raise RiffError(
            f"{what}; use a number from {low:g} to {high:g} such as 1.3, or a word after it if it is no weight"
        )
    return weight


def _clause(group: list[object], name: str) -> Clause:
    """One prompt of several, with the weight at its end."""
    weight = 1.0
    if isinstance(group[-1], str):
        words, number = _split_number(group[-1])
        if number is not None:
            what = f"{name} gives one of its prompts the weight {number!r}"
            weight = _read_weight(number, -MOST_OF_PROMPT, MOST_OF_PROMPT, what)
            group = [*group[:-1], words]
    pieces = _weigh(group, name)
    first = next((i for i, (text, _) in enumerate(pieces) if text.strip()), -1)
    if first < 0:
        raise RiffError(f"{name} joins nothing with AND; put a prompt before and after it, or write 'and'")
    trimmed = [(text.lstrip() if i == first else text, by) for i, (text, by) in enumerate(pieces) if i >= first]
    while not trimmed[-1][0].strip():
        trimmed.pop()
    trimmed[-1] = (trimmed[-1][0].rstrip(), trimmed[-1][1])
    return Clause(tuple(trimmed), weight)


def _weigh(items: list[object], name: str) -> WeightedText:
    """Runs of text with the product of the brackets around them."""
    pieces: list[tuple[list[str], float]] = []
    products = [1.0]
    for item in items:
        if isinstance(item, _Bracket):
            products.append(products[-1] * item.factor)
        elif item is _CLOSED:
            products.pop()
        elif isinstance(item, str) and item:
            weight = round(products[-1], 6)
            if weight > MOST and item.strip():
                raise RiffError(
                    f"{name} has brackets that give {_quote(item, 0)} a weight of {weight:.3g}; use at most {MOST:g}"
                )
            if pieces and pieces[-1][1] == weight:
                pieces[-1][0].append(item)
            else:
                pieces.append(([item], weight))
    return tuple(("".join(runs), weight) for runs, weight in pieces)


def _quote(text: str, place: int) -> str:
    """A few characters of the text from a place on."""
    here = " ".join(text[place : place + 16].split())
    return f"'{here}...'" if len(text) > place + 16 else f"'{here}'"

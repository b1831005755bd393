"""Ranges that hold wherever a number or a text comes in, and the one line that says so; light, for the command."""

import math
from typing import Any

from riff.errors import RiffError
from riff.fields import show

MAX_SEED = 2**63 - 1
MAX_PROMPT = 10_000
BPM_RANGE = (20.0, 400.0)


def check_number(value: Any, name: str, low: float, high: float, *, whole: bool = False) -> None:
    """Raise RiffError unless ``value`` is a finite (or whole) number from ``low`` to ``high``."""
    kinds = int if whole else (int, float)
    valid = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
    if not valid or not math.isfinite(value):
        kind = "a whole number" if whole else "a number"
        raise RiffError(f"{name} is {show(value)}; use {kind} from {low:g} to {high:g}")


def check_interval(value: Any) -> tuple[float, float]:
    """Two rising numbers from 0 to 1, the shares of the steps from and until which there is guidance.

    Raises:
        RiffError: it is no such pair.
    """
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise RiffError(f"guidance_interval is {show(value)}; use two numbers, such as (0.1, 0.5)")
    for share in value:
        check_number(share, "guidance_interval", 0, 1)
    if value[0] >= value[1]:
        raise RiffError(f"guidance_interval goes from {value[0]:g} to {value[1]:g}; let the second number be greater")
    return float(value[0]), float(value[1])


def check_text(text: object, name: str) -> str:
    """``text`` if it is a string that can be encoded and is not absurdly long."""
    if not isinstance(text, str):
        raise RiffError(f"{name} is {show(text)}; use text")
    if len(text) > MAX_PROMPT:
        raise RiffError(f"{name} has {len(text)} characters; use at most {MAX_PROMPT}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RiffError(f"{name} holds half a surrogate pair at character {error.start}; remove it") from error
    return text


def positive_number(value: object) -> float | None:
    """A positive number out of a stranger's metadata, else None."""
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if 0.0 < found < float("inf") else None

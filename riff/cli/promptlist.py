"""A list of prompts: a text file with one on each line, or JSON objects, one on each line. A bad line is one line."""

import dataclasses
import difflib
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from riff.checks import BPM_RANGE, MAX_PROMPT, MAX_SEED
from riff.cli.arguments import check_prompt, check_stated_tempo
from riff.errors import RiffError
from riff.fields import show
from riff.files import check_readable
from riff.music import canonical_keyscale

MAX_BYTES = 64_000_000
FIELDS = ("prompt", "seed", "bpm", "bars", "duration", "key", "negative", "guidance", "loop", "name")
_JSON_LINES = (".jsonl", ".ndjson")
_NOT_LISTS = (".json", ".yaml", ".yml", ".csv", ".tsv", ".wav", ".flac", ".ogg", ".mp3", ".png")
_RANGES = {"seed": (0, MAX_SEED), "bpm": BPM_RANGE, "bars": (1, 512), "duration": (0.1, 600), "guidance": (0, 50)}
_WHOLE = ("seed", "bars")


@dataclasses.dataclass(frozen=True)
class Item:
    """One line of the list.

    Attributes:
        line: its number in the file, from 1.
        prompt: what to play.
        seed: its own, or None.
        name: what its files are called; None is the prompt.
        wishes: what it says of ``bpm, bars, duration, key, negative, guidance, loop``; the rest is the command's.
        problem: why it cannot be played; None if it can.
    """

    line: int
    prompt: str = ""
    seed: int | None = None
    name: str | None = None
    wishes: dict[str, Any] = dataclasses.field(default_factory=dict)
    problem: str | None = None


def read_items(path: str | Path) -> list[Item]:
    """The items of a list, the bad ones with their problem; blank lines and lines that begin with # are none.

    Args:
        path: ``.jsonl`` or ``.ndjson`` for JSON objects; anything else is one prompt per line.

    Raises:
        RiffError: no such file, too large, no UTF-8, or nothing in it.
    """
    path = Path(path)
    if path.suffix.lower() in _NOT_LISTS:
        raise RiffError(
            f"--prompts {path} has the suffix {path.suffix!r}; give a .txt file, one prompt per line, or .jsonl"
        )
    check_readable(path, expected="a list of prompts, one per line")
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RiffError(f"{path} has more than {MAX_BYTES:,} bytes; split the list")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RiffError(f"{path} is not UTF-8 text (line {line}); save it as UTF-8") from error
    read = _read_object if path.suffix.lower() in _JSON_LINES else _read_line
    # Not splitlines, which also splits at form feeds and the like, and so counts other lines than an editor.
    lines = ((number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1))
    items = [read(number, line) for number, line in lines if line and not line.startswith("#")]
    if not items:
        raise RiffError(f"{path} holds no prompt; write one per line")
    return items


def slug(text: str) -> str:
    """A prompt as a part of a file name: its letters and digits, forty of them at most."""
    # Letters of every alphabet stay, Latin accents go; what a file system or a shell might take amiss is a hyphen.
    plain = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text.casefold()))
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", plain))
    made = ""
    for word in words:
        if made and len(made) + 1 + len(word) > 40:
            break
        made = f"{made}-{word}" if made else word[:40]
    return made or "clip"


def _read_line(number: int, line: str) -> Item:
    return _checked(Item(number, line))


def _read_object(number: int, line: str) -> Item:
    try:
        fields = json.loads(line, parse_constant=_no_constant)
        if not isinstance(fields, dict):
            raise RiffError(f'{show(fields)} is no object; write {{"prompt": "mellow jazz"}}')
        _check_fields(fields)
    except RiffError as error:
        return Item(number, problem=str(error))
    except (ValueError, RecursionError) as error:
        return Item(number, problem=f"no JSON ({' '.join(str(error).split())[:120]})")
    given = {name: value for name, value in fields.items() if value is not None}
    prompt, seed, name = given.pop("prompt"), given.pop("seed", None), given.pop("name", None)
    return _checked(Item(number, prompt, seed, name, given))


def _check_fields(fields: dict[str, Any]) -> None:
    for name in fields:
        if name not in FIELDS:
            near = difflib.get_close_matches(name[:40].lower(), FIELDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ";"
            raise RiffError(f"unknown key {show(name)}{hint} known are {', '.join(FIELDS)}")
    if fields.get("prompt") is None:
        raise RiffError("prompt is missing; say what to play")
    for name in ("prompt", "key", "negative", "name"):
        value = fields.get(name)
        if value is not None and not isinstance(value, str):
            raise RiffError(f"{name} is {show(value)}; use text")
        if value is not None and len(value) > MAX_PROMPT:
            raise RiffError(f"{name} has {len(value)} characters; use at most {MAX_PROMPT}")
    if not isinstance(fields.get("loop") or False, bool):
        raise RiffError(f"loop is {show(fields['loop'])}; use true or false")
    for name, (low, high) in _RANGES.items():
        if fields.get(name) is not None:
            _check_number(name, fields[name], low, high)
    if fields.get("bars") is not None and fields.get("duration") is not None:
        raise RiffError("bars and duration are given; give one of them")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    kinds = (int,) if name in _WHOLE else (int, float)
    valid = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
    if not valid:
        kind = "a whole number" if name in _WHOLE else "a number"
        # 2^63-1 has no honest short form.
        top = str(int(high)) if name == "seed" else f"{high:g}"
        raise RiffError(f"{name} is {show(value)}; use {kind} from {low:g} to {top}")


def _checked(item: Item) -> Item:
    """The item with its texts in the form that the pipeline takes, or with its problem."""
    wishes = dict(item.wishes)
    try:
        for text in (item.prompt, item.name or "", wishes.get("negative", "")):
            text.encode("utf-8")
        prompt = check_prompt(item.prompt)
        check_stated_tempo(prompt)
        if "key" in wishes:
            wishes["key"] = canonical_keyscale(wishes["key"])
    except UnicodeEncodeError:
        return dataclasses.replace(item, problem="it holds half a character (a lone surrogate); remove it")
    except RiffError as error:
        return dataclasses.replace(item, problem=str(error))
    return dataclasses.replace(item, prompt=prompt, wishes=wishes)


def _no_constant(name: str) -> float:
    raise RiffError(f"{name} is no number; use a finite one")

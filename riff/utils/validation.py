"""Numbers, texts and small YAML or JSON files from outside: checked strictly, and each mistake is one line."""

import dataclasses
import difflib
import json
import math
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riff.utils.errors import RiffError
from riff.utils.files import check_readable, write_json, write_text

MAX_SEED = 2**63 - 1
MAX_PROMPT = 10_000
BPM_RANGE = (20.0, 400.0)
MAX_BYTES = 1_000_000
MAX_NUMBER = 100  # characters of a number or a date
SUFFIXES = (".yaml", ".yml", ".json")


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


def check_default_dtype() -> None:
    """Raise RiffError unless torch's default dtype, which any library may change, is the one that riff computes in."""
    import torch

    if torch.get_default_dtype() != torch.float32:
        raise RiffError(
            f"torch's default dtype is {torch.get_default_dtype()}, but riff computes in float32; "
            "call torch.set_default_dtype(torch.float32)"
        )


def positive_number(value: object) -> float | None:
    """A positive number out of untrusted metadata, else None."""
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if 0.0 < found < float("inf") else None


def read_fields(path: str | Path, *, what: str) -> Any:
    """The plain values in a .yaml, .yml or .json file of at most 1 MB.

    Args:
        path: the file, UTF-8.
        what: it should hold, for messages: ``"a timeline"``.

    Raises:
        RiffError: another suffix, no such file, too large, no UTF-8, no YAML or JSON, or a field given twice.
    """
    suffix = check_suffix(path, what=what)
    check_readable(path, expected=f"{what} in YAML or JSON")
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RiffError(f"{path} cannot be read ({error.strerror}); give {what} in YAML or JSON") from error
    if len(content) > MAX_BYTES:
        raise RiffError(f"{path} has more than {MAX_BYTES:,} bytes; {what} is smaller")
    kind = "JSON" if suffix == ".json" else "YAML"
    try:
        text = content.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_once) if kind == "JSON" else _parse_yaml(text)
    except UnicodeDecodeError as error:
        raise RiffError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except RiffError as error:
        raise RiffError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise RiffError(f"{path} is not valid {kind} ({_one_line(error)}); mend it there") from error


def write_fields(path: str | Path, fields: dict[str, Any], *, what: str) -> None:
    """Write plain values to a .yaml, .yml or .json file, wholly or not at all.

    Raises:
        RiffError: another suffix.
        RiffError, SystemProblem: as in :func:`riff.utils.files.atomic_path`.
    """
    if check_suffix(path, what=what) == ".json":
        write_json(path, fields)
        return
    import yaml

    write_text(path, yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100))


def check_suffix(path: str | Path, *, what: str) -> str:
    """The suffix in lower case; RiffError if it is not that of YAML or JSON."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise RiffError(f"{path} has the suffix {suffix!r}; {what} is a file with {', '.join(SUFFIXES)}")
    return suffix


def check_fields(fields: Any, kind: type, *, what: str, example: str) -> None:
    """Raise RiffError unless ``fields`` is a dict of fields of the dataclass ``kind``; a misspelt one is guessed."""
    names = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(fields, dict):
        raise RiffError(f"{what} is {show(fields)}; give fields, {example}")
    for name in fields:
        if name not in names:
            raise RiffError(f"unknown field {show(name)}; {suggest(name, names)}known are {', '.join(names)}")


def non_default_fields(record: Any) -> dict[str, Any]:
    """The fields of a dataclass that do not have their default."""
    values = {field.name: (getattr(record, field.name), field.default) for field in dataclasses.fields(record)}
    return {name: value for name, (value, default) in values.items() if value != default}


def suggest(name: object, known: Sequence[str]) -> str:
    """``"did you mean NAME? "`` if a known name is near, else nothing."""
    near = difflib.get_close_matches(str(name)[:40].lower(), known, n=1)
    return f"did you mean {near[0]}? " if near else ""


def show(value: object) -> str:
    """A value for a message: one line, short whatever it is, even where YAML's aliases make it exponentially large."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # an integer of more digits than Python prints
        return f"a huge {type(value).__name__}"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = _SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 3


def _parse_yaml(text: str) -> Any:
    """The one document of a YAML text; every mistake is a ValueError or RiffError, in time linear in its length."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain values only, as ``safe_load``."""

    def mapping(loader: Loader, node: yaml.Node) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise RiffError(f"{show(node.value)} is no mapping; write name: value")
        loader.flatten_mapping(node)
        pairs = [(loader.construct_object(k, deep=True), loader.construct_object(v, deep=True)) for k, v in node.value]
        for key, _ in pairs:
            if isinstance(key, (list, dict, set)):
                raise RiffError(f"the field {show(key)} has no name; write name: value")
        return _once(pairs)

    def scalar(kind: str) -> Any:
        construct = yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{kind}"]

        def checked(loader: Loader, node: yaml.Node) -> Any:
            # Long numbers cost the square of their length, and PyYAML stumbles over most of what is no such scalar.
            try:
                if kind != "binary" and len(node.value) > MAX_NUMBER:
                    raise ValueError
                return construct(loader, node)
            except (ValueError, LookupError, AttributeError, OverflowError, TypeError) as error:
                raise RiffError(f"{show(node.value)} is no {kind}; put text in quotes") from error

        return checked

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    for kind in ("bool", "int", "float", "timestamp", "binary"):
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", scalar(kind))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(place + (getattr(error, "problem", None) or str(error))) from error


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    fields: dict[Any, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise RiffError(f"the field {show(name)} is given twice; keep one of them")
        fields[name] = value
    return fields


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

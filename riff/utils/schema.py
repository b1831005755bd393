"""Dataclasses whose annotations are their rules: types, ranges, choices and help are written once, on the fields.

A field is annotated as ``Annotated[int, Interval(ge=1, le=150), Option("denoising steps")]``. The metadata is that of
annotated-types, which pydantic reads too, so one dataclass is the check of a call, the options of the command line, the
schema of the server and the controls of the page.
"""

import dataclasses
import functools
import json
import math
import numbers
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Interval, Len

from riff.utils.errors import RiffError
from riff.utils.validation import show, suggest

T = TypeVar("T")
_NONE = type(None)


@dataclasses.dataclass(frozen=True)
class Option:
    """How a field presents itself at every door.

    Attributes:
        help: one line, without a full stop.
        flag: at the shell, where it is not the field's name; "" keeps the field from the shell.
        metavar: what stands for the value in the shell's help.
        slider: lowest, highest and step of the page's slider, where that is narrower than the field's range.
        old: an earlier spelling of the flag, accepted with a warning.
    """

    help: str
    flag: str | None = None
    metavar: str | None = None
    slider: tuple[float, float, float] | None = None
    old: str | None = None

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The help as the schema's description."""
        return {**handler(schema), "description": self.help}


@dataclasses.dataclass(frozen=True)
class Parse:
    """A function that brings a checked value into its normal form, or raises RiffError."""

    function: Callable[[Any], Any]


class FieldError(RiffError):
    """A field with a wrong value. The value stands in the message only; ``allowed`` can be shown to anyone.

    Attributes:
        field: its name.
        allowed: what to use instead.
    """

    def __init__(self, field: str, problem: str, allowed: str) -> None:
        super().__init__(f"{field} {problem}; {allowed}")
        self.field, self.allowed = field, allowed


class UnknownOption(RiffError, TypeError):
    """A keyword that does not exist; the message names the nearest one that does."""


@dataclasses.dataclass(frozen=True)
class FieldInfo:
    """What a field accepts, for those who build options or controls.

    Attributes:
        name: of the field.
        hint: its whole annotation.
        default: ``dataclasses.MISSING`` where a value is required.
        kind: int, float, bool or str.
        many: whether it takes a list.
        single: whether it takes one value, which may be beside lists.
        optional: whether None is allowed.
        low: least number, or None.
        high: greatest number, or None.
        choices: allowed texts; empty where any text is.
        option: its help.
    """

    name: str
    hint: Any
    default: Any
    kind: type
    many: bool
    single: bool
    optional: bool
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    option: Option

    @property
    def flag(self) -> str:
        """``"--num-steps"``; empty where the shell has no such option."""
        name = self.name if self.option.flag is None else self.option.flag
        return f"--{name.replace('_', '-')}" if name else ""

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING


def describe_fields(cls: type) -> tuple[FieldInfo, ...]:
    """The fields of a dataclass in their order."""
    return _describe_fields(cls)  # type: ignore[arg-type]  # mypy takes no class for hashable


@functools.cache
def _describe_fields(cls: type) -> tuple[FieldInfo, ...]:
    hints = get_type_hints(cls, include_extras=True)
    return tuple(_describe(field, hints[field.name]) for field in dataclasses.fields(cls))


def validate(record: Any) -> None:
    """Check every field of a dataclass against its annotation and put its normal form in its place.

    Numbers of numpy become Python's; a bool is no number. For ``__post_init__``, also of a frozen class.

    Raises:
        FieldError: a value has another type, or is out of its range.
    """
    for field in describe_fields(type(record)):
        object.__setattr__(record, field.name, check_value(getattr(record, field.name), field.hint, field.name))


def check_value(value: Any, hint: Any, name: str) -> Any:
    """``value`` in its normal form, if the annotation ``hint`` allows it.

    Raises:
        FieldError: it does not.
    """
    kind, metadata = _unwrap(hint)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # a number of numpy or torch
    if get_origin(kind) in (Union, types.UnionType):
        if value is None and _NONE in get_args(kind):
            return None
        value = _check_union(value, [each for each in get_args(kind) if each is not _NONE], metadata, name)
    elif get_origin(kind) is list:
        value = _check_list(value, get_args(kind)[0], metadata, name)
    else:
        value = _check_scalar(value, kind, metadata, name)
    for each in metadata:
        value = each.function(value) if isinstance(each, Parse) else value
    return value


def from_dict(cls: type[T], fields: Any, *, old: Mapping[str, str] | None = None) -> T:
    """A dataclass from a dict of its fields.

    Args:
        cls: the dataclass.
        fields: by name; those that are left out have their default.
        old: earlier spellings and the present ones; they are accepted with a FutureWarning.

    Raises:
        UnknownOption: a name that does not exist, with the nearest one.
        RiffError: a field is missing or its value is wrong.
    """
    if not isinstance(fields, Mapping):
        raise RiffError(f"{cls.__name__} is {show(fields)}; give fields by name")
    known = describe_fields(cls)
    names = [field.name for field in known]
    given = rename(fields, old or {})
    for name in given:
        if name not in names:
            raise UnknownOption(f"unknown option {show(name)}; {suggest(name, names)}known are {', '.join(names)}")
    for field in known:
        if field.required and field.name not in given:
            raise FieldError(field.name, "is missing", f"give {field.option.help or 'it'}")
    return cls(**given)


def as_dict(record: Any) -> dict[str, Any]:
    """The fields that do not have their default, as plain values; :func:`from_dict` is the inverse."""
    values = ((field, getattr(record, field.name)) for field in describe_fields(type(record)))
    return {field.name: value for field, value in values if field.required or value != field.default}


def accept_old_names(old: Mapping[str, str]) -> Callable[[type[T]], type[T]]:
    """A decorator: a dataclass takes earlier names of its fields as keywords, and has them as properties; both warn."""

    def decorate(cls: type[T]) -> type[T]:
        init = cls.__init__

        @functools.wraps(init)
        def renaming_init(self: T, *args: Any, **fields: Any) -> None:
            init(self, *args, **rename(fields, old, stacklevel=3))

        cls.__init__ = renaming_init  # type: ignore[method-assign, assignment]
        for name, new in old.items():
            if new in [field.name for field in dataclasses.fields(cls)]:  # type: ignore[arg-type]
                setattr(cls, name, renamed_property(name, new))
        return cls

    return decorate


def rename(fields: Mapping[str, Any], old: Mapping[str, str], *, stacklevel: int = 5) -> dict[str, Any]:
    """Fields with earlier spellings replaced, each with a FutureWarning."""
    renamed: dict[str, Any] = {}
    for name, value in fields.items():
        new = old.get(name, name)
        if new != name:
            if new in fields:
                raise RiffError(f"{name} is now {new}, and both are given; give {new}")
            warnings.warn(
                f"{name} is now {new}; the old name goes in the next release", FutureWarning, stacklevel=stacklevel
            )
        renamed[new] = value
    return renamed


def renamed_property(old: str, new: str) -> Any:
    """A property that an attribute's earlier name is: it works, with a FutureWarning."""

    def read(self: Any) -> Any:
        warnings.warn(f"{old} is now {new}; the old name goes in the next release", FutureWarning, stacklevel=2)
        return getattr(self, new)

    return property(read, doc=f"The earlier name of ``{new}``.")


def parse_text(text: str, field: FieldInfo) -> Any:
    """The value that a text stands for, as files, query strings and the shell spell it; then checked.

    Raises:
        FieldError: it is none that the field allows.
    """
    value: Any
    if field.kind is dict or (field.many and text.startswith("[")):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FieldError(field.name, f"is {show(text)}", "use JSON") from error
        return check_value(value, field.hint, field.name)
    value = text
    if field.kind is bool:
        value = {"true": True, "false": False}.get(text.lower(), text)
    elif field.kind in (int, float):
        try:
            value = field.kind(text)
        except ValueError:  # the check below names what is allowed
            value = text
    if field.kind is str and not field.single:
        value = [part.strip() for part in text.split(",")]
    return check_value(value, field.hint, field.name)


def shell_words(record: Any) -> list[str]:
    """The options of the shell command for the same request; fields with their default are left out."""
    words: list[str] = []
    given = as_dict(record)
    for field in describe_fields(type(record)):
        if field.name not in given or not field.flag or field.required:
            continue
        value = given[field.name]
        words.append(field.flag)
        if value is not True:
            words.append(",".join(map(_plain, value)) if isinstance(value, list) else _plain(value))
    return words


def allowed(field: FieldInfo) -> str:
    """What a field allows, in words: ``"a whole number from 1 to 150"``."""
    if field.choices:
        return _alternatives(field.choices)
    if field.kind is bool:
        return "true or false"
    return "text" if field.kind is str else _range(field.kind, field.low, field.high)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e5 else str(value)


def _describe(field: "dataclasses.Field[Any]", hint: Any) -> FieldInfo:
    base, metadata = _unwrap(hint)
    option = next((each for each in metadata if isinstance(each, Option)), None)
    members = list(get_args(base)) if get_origin(base) in (Union, types.UnionType) else [hint]
    optional, members = _NONE in members, [each for each in members if each is not _NONE]
    lists = [each for each in members if get_origin(_unwrap(each)[0]) is list]
    scalars = [each for each in members if each not in lists]
    for member in members:
        option = option or next((each for each in _unwrap(member)[1] if isinstance(each, Option)), None)
    scalar = scalars[0] if scalars else get_args(_unwrap(lists[0])[0])[0]
    kind, inner = _unwrap(scalar)
    bounds = next((each for each in inner if isinstance(each, Interval)), Interval())
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return FieldInfo(
        name=field.name,
        hint=hint,
        default=field.default,
        kind=str if choices else get_origin(kind) or kind,
        many=bool(lists),
        single=bool(scalars),
        optional=optional,
        low=bounds.ge,  # type: ignore[arg-type]
        high=bounds.le,  # type: ignore[arg-type]
        choices=choices,
        option=option or Option(""),
    )


def _unwrap(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _check_union(value: Any, members: list[Any], metadata: tuple[Any, ...], name: str) -> Any:
    """Check ``value`` as the list or as the single value that it is; a length of the whole is that of the list."""
    is_list = isinstance(value, (list, tuple)) or hasattr(value, "tolist")
    lists = [each for each in members if get_origin(_unwrap(each)[0]) is list]
    if is_list and lists:
        kind, inner = _unwrap(lists[0])
        return _check_list(value, get_args(kind)[0], (*inner, *metadata), name)
    return check_value(value, next((each for each in members if each not in lists), members[0]), name)


def _check_list(value: Any, member: Any, metadata: tuple[Any, ...], name: str) -> list[Any]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise FieldError(name, f"is {show(value)}", "use a list")
    length = next((each for each in metadata if isinstance(each, Len)), Len())
    if len(value) < length.min_length or (length.max_length is not None and len(value) > length.max_length):
        least, most = length.min_length, length.max_length
        amount = f"{least} to {most}" if least != most else f"exactly {most}"
        raise FieldError(name, f"has {len(value)} value{'s' if len(value) != 1 else ''}", f"use {amount}")
    return [check_value(each, member, name) for each in value]


def _check_scalar(value: Any, kind: Any, metadata: tuple[Any, ...], name: str) -> Any:
    if get_origin(kind) is Literal:
        if not isinstance(value, (str, int)) or isinstance(value, bool) or value not in get_args(kind):
            raise FieldError(name, f"is {show(value)}", f"use {_alternatives(get_args(kind))}")
        return value
    if kind is str:
        return _check_text(value, metadata, name)
    if kind is bool:
        if not isinstance(value, bool):
            raise FieldError(name, f"is {show(value)}", "use true or false")
        return value
    if kind in (int, float):
        return _check_number(value, kind, metadata, name)
    if not isinstance(value, get_origin(kind) or kind):
        raise FieldError(name, f"is {show(value)}", f"use a {getattr(kind, '__name__', kind)}")
    return value


def _check_text(value: Any, metadata: tuple[Any, ...], name: str) -> str:
    if not isinstance(value, str):
        raise FieldError(name, f"is {show(value)}", "use text, in quotes")
    longest = next((each.max_length for each in metadata if isinstance(each, Len)), None)
    if longest is not None and len(value) > longest:
        raise FieldError(name, f"has {len(value)} characters", f"use at most {longest}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FieldError(
            name, f"holds half a surrogate pair at character {error.start}", "remove half surrogate pairs"
        ) from error
    return value


def _check_number(value: Any, kind: type, metadata: tuple[Any, ...], name: str) -> int | float:
    bounds = next((each for each in metadata if isinstance(each, Interval)), Interval())
    low, high = bounds.ge, bounds.le
    valid = isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    # NaN is in no range; without one it must be looked for.
    valid = valid and (low is None or low <= value) and (high is None or value <= high) and math.isfinite(value)
    if not valid:
        raise FieldError(name, f"is {show(value)}", f"use {_range(kind, low, high)}")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _range(kind: type, low: Any, high: Any) -> str:
    what = "a whole number" if kind is int else "a number"
    return f"{what} from {_end(low)} to {_end(high)}" if low is not None and high is not None else what


def _end(value: float) -> str:
    """An end of a range: a whole number with all its digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _alternatives(choices: tuple[Any, ...]) -> str:
    return " or ".join(map(str, choices)) if len(choices) == 2 else ", ".join(map(str, choices))

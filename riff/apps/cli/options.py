"""What the verbs share: the parser, options derived from requests, and what is checked before a model loads."""

import argparse
import contextlib
import dataclasses
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import riff
from riff.spectrogram.config import Quality
from riff.tasks.requests import LoraWeight, Sampling
from riff.utils.errors import RiffError, is_out_of_memory
from riff.utils.files import atomic_path, remove_leftovers
from riff.utils.schema import FieldError, FieldInfo, allowed, check_value, describe_fields, parse_text
from riff.utils.validation import show, suggest

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MOST_PROBLEMS = 20  # of a list or a folder that have a line of their own
QUALITIES = get_args(Quality)
SUFFIXES = (*SOUND_SUFFIXES, ".png")
Request = TypeVar("Request", bound=Sampling)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line that names the nearest option to a misspelt one."""

    words: Sequence[str] = ()

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's; the words are kept for :meth:`error`."""
        self.words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(self.words, namespace)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's, but what is not understood is the error of the verb."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            getattr(found, "parser", self).error(f"unrecognized arguments: {' '.join(unknown)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Raise RiffError in place of leaving the process."""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        options = [word.split("=")[0] for word in self.words if word.startswith("--") and len(word) > 2]
        hints = [hint.strip() for word in options if word not in known and (hint := suggest(word, known))]
        raise RiffError("; ".join([message, *hints]) + f" (see {self.prog} --help)")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help in which each verb has one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 16


def add_command(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], None], *, help: str, description: str, examples: str = ""
) -> argparse.ArgumentParser:
    """Add a verb with the options that every verb has.

    Args:
        verbs: as ``add_subparsers`` returns it.
        name: the verb.
        run: does its work.
        help: a few words, for the list of all verbs.
        description: a sentence or two, for the verb's own help.
        examples: lines below the options.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=help,
        description=description,
        epilog=examples and f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print nothing but the result and errors")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and what libraries say")
    return parser


def add_options(group: Any, request: type[Any], *, leave_out: Sequence[str] = ()) -> None:
    """Add an option for each field of a request that has one, with its range, default and help.

    Args:
        group: a parser or a group of options.
        request: a dataclass of :mod:`riff.tasks.requests`.
        leave_out: fields that are added elsewhere.
    """
    places: dict[str, Any] = {}
    for pair in getattr(request, "exclusive", ()):
        places |= dict.fromkeys(pair, group.add_mutually_exclusive_group())
    for field in describe_fields(request):
        if field.flag and not field.required and field.name not in leave_out:
            add_field(places.get(field.name, group), field)


def add_field(group: Any, field: FieldInfo, **other: Any) -> None:
    """Add the option of one field; ``other`` is passed to ``add_argument``."""
    how: dict[str, Any] = {"dest": field.name, "default": None if field.required else field.default, **other}
    if field.kind is bool:
        how["action"] = "store_true"
    elif field.choices:
        how["choices"] = list(field.choices)
    else:
        how |= {"type": read_field(field), "metavar": field.option.metavar or field.flag[2:].upper().replace("-", "_")}
    named = "default" in field.option.help or how["default"] in (None, False)
    text = field.option.help if named else f"{field.option.help}; default {how['default']}"
    group.add_argument(field.flag, help=text.replace("%", "%%"), **how)
    if field.option.old:
        how = {name: value for name, value in how.items() if name != "action"} | {"default": argparse.SUPPRESS}
        group.add_argument(
            f"--{field.option.old}", action=_OldSpelling, const=field.flag, help=argparse.SUPPRESS, **how
        )


class _OldSpelling(argparse.Action):
    """An earlier spelling of the option ``const``: accepted with a warning."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        warnings.warn(f"{option} is now {self.const}; the old spelling goes in the next release", stacklevel=1)
        setattr(namespace, self.dest, values)


class Ignored(argparse.Action):
    """An option of an earlier release that changes nothing: accepted with a warning."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        warnings.warn(f"{option} changes nothing, and goes in the next release; leave it out", stacklevel=1)


def read_field(field: FieldInfo) -> Callable[[str], Any]:
    """A converter for argparse: the value of a field, checked."""

    def convert(text: str) -> Any:
        try:
            return parse_text(utf8_text(text) if field.kind is str else text, field)
        except RiffError as error:
            if field.kind is not str:
                raise argparse.ArgumentTypeError(f"{show(text)} is not {allowed(field)}") from error
            words = str(error).removeprefix(f"{field.name} ") if isinstance(error, FieldError) else str(error)
            raise argparse.ArgumentTypeError(words) from error

    return convert


def reader_of(request: type[Any], name: str) -> Callable[[str], Any]:
    """:func:`read_field` of one field of a request."""
    return read_field(next(field for field in describe_fields(request) if field.name == name))


def number(low: float, high: float, *, whole: bool = False) -> Callable[[str], float]:
    """A converter for argparse: a finite number from ``low`` to ``high``, a whole one if ``whole``."""

    def convert(text: str) -> float:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # also refuses NaN
            kind = "whole number" if whole else "number"
            raise argparse.ArgumentTypeError(f"{show(text)} is not a {kind} from {low:g} to {high:g}")
        return value

    return convert


def make_request(cls: type[Request], args: argparse.Namespace, **given: Any) -> Request:
    """A request out of the options of :func:`add_options`, with fields that come from elsewhere.

    Raises:
        RiffError: a value is out of its range, or two do not go together.
    """
    return cls(**(options_of(cls, args) | given))


def options_of(cls: Any, args: argparse.Namespace) -> dict[str, Any]:
    """The options that are named as the fields of a dataclass."""
    names = (field.name for field in dataclasses.fields(cls))
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def shell_text(error: RiffError) -> str:
    """An error's message without the words that only Python's users need."""
    return str(error).replace(" (force=True)", "").replace(" (overwrite=True)", "")


def line_problem(error: Exception) -> RiffError:
    """What an error means for one line of a list, or one file of a folder."""
    if isinstance(error, RiffError):
        return error
    if is_out_of_memory(error):
        return RiffError("there is not enough memory for it; use less of it, or another machine")
    return RiffError(f"it cannot be used ({type(error).__name__}: {str(error)[:200]})")


@contextlib.contextmanager
def noted_warnings() -> Iterator[dict[str, list[str]]]:
    """Show the warnings of a block at its end, and yield what becomes ``{"warnings": [...]}`` if riff has any."""
    facts: dict[str, list[str]] = {}
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield facts
    finally:
        for each in caught:
            warnings.showwarning(each.message, each.category, each.filename, each.lineno)
            if Path(each.filename).is_relative_to(Path(riff.__file__).parent):
                facts.setdefault("warnings", []).append(str(each.message))


def utf8_text(text: str) -> str:
    """What was typed; in a terminal without UTF-8, the bytes of each letter arrive as halves of surrogate pairs.

    Raises:
        RiffError: it is not UTF-8.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise RiffError(f"{show(text)} is not UTF-8 text; type it again in a UTF-8 terminal") from error


# The model


def add_loading_options(parser: argparse.ArgumentParser) -> Any:
    """What :func:`riff.apps.cli.generate.load_pipeline` reads, as a group of options that more may join."""
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        help="a folder (also RUN/model of riff train), a .safetensors file or a hub id; default riff-mini, in the package",  # noqa: E501
    )
    model.add_argument("--device", help="cpu, cuda or mps; default the fastest there is")
    model.add_argument("--scheduler", help="ddim, dpm++, euler, unipc; default the model's own")
    model.add_argument(
        "--guidance-interval", type=number(0, 1), nargs=2, metavar=("FROM", "TO"),
        help="shares of the steps between which there is guidance; default the model's own",
    )  # fmt: skip
    model.add_argument(
        "--lora", action="append", default=[], type=_lora, metavar="LORA[:WEIGHT]",
        help="a LoRA to put on top: a file, or the RUN/model of riff train, with a weight from 0 to 2; repeatable",
    )  # fmt: skip
    model.add_argument("--compile", action="store_true", help="compile the denoiser first: for many or long clips")
    return model


def _lora(text: str) -> tuple[str, float]:
    """A LoRA's file and weight; a colon with no number after it belongs to the name."""
    path, colon, weight = text.rpartition(":")
    try:
        value = float(weight)
    except ValueError:
        return text, 1.0
    if not colon:
        return text, 1.0
    try:
        return path, check_value(value, LoraWeight, "weight")
    except RiffError as error:
        raise argparse.ArgumentTypeError(f"the weight {weight} of {path} is not from 0 to 2") from error


# The output


def add_output(parser: argparse.ArgumentParser, *, more: str = "") -> None:
    """The options that say what is written."""
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=f"{', '.join(SUFFIXES)}{more}")
    parser.add_argument("--no-metadata", action="store_true", help="write only that a machine made it, not how")
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def check_outputs(path: str, *, count: int, force: bool) -> list[Path]:
    """The files that ``count`` results are written to, each known to be writable.

    Args:
        path: what the user gave for ``-o``.
        count: how many results there will be; above 1 they are numbered, ``name-0000.wav`` and so on.
        force: whether existing files may be replaced.

    Raises:
        RiffError: the suffix is unknown, the folder is missing, or a file exists and ``force`` is not given.
        SystemProblem: the folder cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise RiffError(f"-o {path} has the suffix {target.suffix!r}; use one of {', '.join(SUFFIXES)}")
    outputs = [target]
    if count > 1:
        outputs = [target.with_name(f"{target.stem}-{index:04d}{target.suffix}") for index in range(count)]
    for output in outputs:
        _rehearse(output, force=force)
    remove_leftovers(target.parent)
    return outputs


class _RehearsalOver(Exception):
    pass


def _rehearse(path: Path, *, force: bool) -> None:
    """Go through writing ``path`` up to the point where the file would appear."""
    with contextlib.suppress(_RehearsalOver), atomic_path(path, force=force):
        raise _RehearsalOver

"""What the command line accepts: numbers, prompts and output files, all checked before a model loads."""

import argparse
import contextlib
import math
from collections.abc import Callable
from pathlib import Path

from riff.checks import BPM_RANGE, MAX_PROMPT
from riff.errors import RiffError
from riff.files import atomic_path
from riff.music import canonical_keyscale, parse_bpm

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
QUALITIES = ("fast", "default", "high", "best", "griffin-lim")  # riff.inversion's, without importing torch
SUFFIXES = (*SOUND_SUFFIXES, ".png")


def number(low: float, high: float, *, whole: bool = False) -> Callable[[str], float]:
    """A converter for argparse: a finite number from ``low`` to ``high``, a whole one if ``whole``."""

    def convert(text: str) -> float:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # also refuses NaN
            kind = "whole number" if whole else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {kind} from {low:g} to {high:g}")
        return value

    return convert


def check_prompt(prompt: str) -> str:
    """The prompt, unless it is empty or is not text.

    Raises:
        RiffError: it is empty or absurdly long, or holds bytes that are no UTF-8.
    """
    if not prompt.strip():
        raise RiffError('the prompt is empty; say what to play, for example "slow jazz, piano and upright bass"')
    return _check_text(prompt, "the prompt")


def check_wishes(args: argparse.Namespace) -> None:
    """Bring ``args.negative`` and ``args.key``, where given, into the form that the pipeline takes.

    Raises:
        RiffError: the negative prompt is absurdly long or no UTF-8, or the key is none.
    """
    if args.negative is not None:
        args.negative = _check_text(args.negative, "the --negative prompt")
    if args.key is not None:
        args.key = canonical_keyscale(args.key)


def _check_text(text: str, name: str) -> str:
    if len(text) > MAX_PROMPT:
        raise RiffError(f"{name} has {len(text)} characters; use at most {MAX_PROMPT}")
    try:
        # In a terminal without UTF-8 the bytes of each letter arrive as halves of surrogate pairs.
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise RiffError(f"{name} {text!r} is not UTF-8 text; type it again in a UTF-8 terminal") from error


def check_stated_tempo(prompt: str) -> None:
    """Raise RiffError if the prompt states a tempo as a number that riff does not play at."""
    bpm, (low, high) = parse_bpm(prompt), BPM_RANGE
    if bpm is not None and not low <= bpm <= high:
        raise RiffError(f"the prompt's tempo is {bpm:g} bpm; use {low:g} to {high:g}")


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
    return outputs


class _RehearsalOver(Exception):
    pass


def _rehearse(path: Path, *, force: bool) -> None:
    """Go through writing ``path`` up to the point where the file would appear."""
    with contextlib.suppress(_RehearsalOver), atomic_path(path, force=force):
        raise _RehearsalOver

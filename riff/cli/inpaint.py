"""``riff inpaint``: parts of a recording replaced."""

import argparse
from typing import Any

from riff.cli.arguments import number
from riff.cli.edit import add_edit_options, edit
from riff.errors import RiffError

_EXAMPLES = """\
examples:
  riff inpaint song.wav "drum fill" --seconds 7.5 9.5 -o filled.wav
  riff inpaint loop.wav "flute melody" --bars 2 4 --bars 6 8 -o flute.wav
  riff inpaint song.wav "deep sub bass" --seconds 0 8 --high 200 -o bass.wav"""


def add_verb(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "inpaint",
        parents=[everywhere],
        help="replace parts of a recording",
        description="Replace parts of a recording; the rest stays as it is, sample for sample. Prints the file's path.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    music = add_edit_options(parser)
    place = {"action": "append", "nargs": 2, "default": [], "metavar": ("START", "END")}
    music.add_argument("--seconds", type=number(0, 86400), help="a part to replace; repeatable", **place)
    music.add_argument("--bars", type=number(0, 100000), help="the same in bars, 0 is the first; repeatable", **place)
    music.add_argument("--low", type=number(0, 400000), metavar="HZ", help="replace only what lies above")
    music.add_argument("--high", type=number(1, 400000), metavar="HZ", help="replace only what lies below")


def run(args: argparse.Namespace) -> None:
    """Draw the parts and save the whole."""
    if bool(args.seconds) == bool(args.bars):
        raise RiffError("say what to replace: --seconds START END or --bars START END, one kind, as often as needed")
    if wrong := [pair for pair in args.seconds + args.bars if pair[0] >= pair[1]]:
        raise RiffError(f"a part from {wrong[0][0]:g} to {wrong[0][1]:g} is empty; END comes after START")
    if args.low is not None and args.high is not None and args.low >= args.high:
        raise RiffError(f"--low {args.low:g} is not below --high {args.high:g}; nothing would be replaced")
    edit(
        args,
        lambda pipe, options: pipe.inpaint(
            args.audio,
            args.prompt,
            mask_start_seconds=_side(args.seconds, 0),
            mask_end_seconds=_side(args.seconds, 1),
            mask_start_bar=_side(args.bars, 0),
            mask_end_bar=_side(args.bars, 1),
            low_hz=args.low,
            high_hz=args.high,
            **options,
        ),
        drawings=len(args.seconds or args.bars),
        until=max((pair[1] for pair in args.seconds), default=0.0),
    )


def _side(pairs: list[list[float]], index: int) -> list[float] | None:
    return [pair[index] for pair in pairs] or None

"""``riff extend``: a recording goes on."""

import argparse
from typing import Any

from riff.cli.arguments import number
from riff.cli.edit import add_edit_options, edit

_EXAMPLES = """\
examples:
  riff extend loop.wav "funk with a guitar solo" --bars 8 -o longer.wav"""


def add_verb(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "extend",
        parents=[everywhere],
        help="let a recording go on",
        description="Let a recording go on; what there was stays as it is, sample for sample. Prints the file's path.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    music = add_edit_options(parser)
    music.add_argument("--bars", type=number(1, 512, whole=True), default=8, help="how much is new; default 8")


def run(args: argparse.Namespace) -> None:
    """Draw what follows and save the whole."""
    edit(args, lambda pipe, options: pipe.extend(args.audio, args.prompt, bars=args.bars, **options))

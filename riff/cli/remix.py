"""``riff remix``: a recording played anew."""

import argparse
from typing import Any

from riff.cli.arguments import number
from riff.cli.edit import add_edit_options, edit

_EXAMPLES = """\
examples:
  riff remix song.mp3 "church organ" -o organ.wav
  riff remix loop.wav "funky slap bass" --strength 0.75 --bpm 96 -o bass.wav
  riff remix song.mp3 "brushed jazz drums" --stems drums -o brushed.wav"""


def add_verb(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "remix",
        parents=[everywhere],
        help="play a recording anew, as a prompt says",
        description="Play a recording anew, on its own beats and as long as it is. Prints the file's path.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    music = add_edit_options(parser)
    music.add_argument("--strength", type=number(0, 1), default=0.6, help="0 as it is, 1 all new; default 0.6")
    music.add_argument(
        "--stems", metavar="NAMES", help="play only these anew: drums, bass, other, vocals, with commas between them"
    )


def run(args: argparse.Namespace) -> None:
    """Draw the recording anew and save it."""
    stems = None if args.stems is None else _stems(args.stems)
    edit(
        args,
        lambda pipe, options: pipe.remix(args.audio, args.prompt, strength=args.strength, stems=stems, **options),
        own_rate=False,
    )


def _stems(names: str) -> list[str]:
    """The stems that were typed, known ones, and something there to separate them."""
    from riff.stems import check_demucs, check_stems

    stems = list(check_stems([name.strip() for name in names.split(",")]))
    check_demucs()
    return stems

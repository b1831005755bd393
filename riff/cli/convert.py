"""``riff convert``: a legacy checkpoint becomes safetensors."""

import argparse
import json
from typing import Any


def add_verb(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "convert",
        parents=[everywhere],
        help="turn a .bin checkpoint into safetensors",
        description="Read a legacy .bin checkpoint with torch's weights_only reader, check every tensor, and "
        "write it as safetensors with its spectrogram_config.json.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument("source", metavar="SRC", help="a folder in the layout of Stable Diffusion")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to create")
    parser.add_argument("--force", action="store_true", help="replace DIR if it exists")


def run(args: argparse.Namespace) -> None:
    """Convert, and print the new folder."""
    from riff.checkpoint import convert_checkpoint

    folder = convert_checkpoint(args.source, args.output, force=args.force)
    print(json.dumps({"path": str(folder)}) if args.json else folder)

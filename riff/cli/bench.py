"""``riff bench``: how fast and how large riff is on this machine."""

import argparse
import json
from typing import Any

from riff.cli.arguments import number


def add_verb(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "bench",
        parents=[everywhere],
        help="measure speed and memory on this machine",
        description="Measure start, load and render times by stage, and peak memory, in new processes.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--model", help="a folder, a .safetensors file or a hub id; default riff-mini, in the package")
    parser.add_argument("--device", help="cpu, cuda or mps; default the fastest there is")
    parser.add_argument("--steps", type=number(1, 150, whole=True), default=20, help="denoising steps; default 20")
    parser.add_argument("--repeat", type=number(1, 1000, whole=True), default=3, help="renders measured; default 3")


def run(args: argparse.Namespace) -> None:
    """Measure, and print a table."""
    from riff.bench import bench

    figures = bench(model=args.model, device=args.device, steps=args.steps, repeat=args.repeat)
    if args.json:
        print(json.dumps(figures))
        return
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        text = f"{value:.3f}" if isinstance(value, float) else "not measured" if value is None else str(value)
        print(f"{name.ljust(width)}  {text}")

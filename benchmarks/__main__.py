"""``python -m benchmarks``: riff against the tools that do the same, on this machine."""

import argparse
import json
import sys
from collections.abc import Sequence

from riff.apps.cli.options import Parser, number
from riff.utils.errors import RiffError

_EXAMPLES = """\
sections:
  render    cold start, renders by stage, memory
  denoise   prompt to image and to sound, against diffusers' own pipeline
  sound     image to sound, against Riffusion's algorithm and librosa
  encode    sound to image, against torchaudio
  prepare   music to a data set
  train     training steps, against diffusers' objective (extra train)
  serve     requests a second of riff serve, drawn together and one at a time (extra serve)

examples:
  python -m benchmarks --quick                 all of it, briefly: some minutes on two cores
  python -m benchmarks sound encode            only these
  python -m benchmarks --save                  and keep it in benchmarks/results/ to compare versions by"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a table or JSON; returns the exit code."""
    try:
        run(build_parser().parse_args(argv))
    except RiffError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of the options below."""
    parser = Parser(
        prog="python -m benchmarks",
        description="Measure speed and memory, and those of the tools that do the same, in new processes, in turn.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="what to measure (below); default all")
    parser.add_argument("--model", help="a folder, a .safetensors file or a hub id; default riff-mini, in the package")
    parser.add_argument("--device", help="cpu, cuda or mps; default the fastest there is")
    parser.add_argument("--steps", type=number(1, 150, whole=True), default=20, help="denoising steps; default 20")
    parser.add_argument(
        "--repeat", type=number(1, 1000, whole=True), help="measurements of each side; default 3, with --quick 1"
    )
    parser.add_argument("--quick", action="store_true", help="as little of everything as says something")
    parser.add_argument(
        "--compile", action="store_true", help="measure a compiled denoiser too (section denoise): minutes more"
    )
    parser.add_argument("--save", action="store_true", help="add the result to the history of this machine")
    parser.add_argument(
        "--results", metavar="FOLDER", help="of the history; default benchmarks/results, below the current folder"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Measure, and print a table or JSON."""
    if args.results is not None and not args.save:
        raise RiffError(f"--results {args.results} says where to keep the result; add --save to keep it")
    if args.compile and args.sections and "denoise" not in args.sections:
        raise RiffError(f"--compile changes nothing in {', '.join(args.sections)}; add the section denoise")

    from benchmarks.history import RESULTS, save_bench
    from benchmarks.run import bench

    found = bench(
        args.sections,
        model=args.model,
        device=args.device,
        steps=args.steps,
        repeat=args.repeat,
        quick=args.quick,
        compile=args.compile,
        progress=not args.quiet,
    )
    if args.json:
        print(json.dumps(found.to_dict()))
    else:
        for line in found.lines():
            print(line)
    if args.save:
        path = save_bench(found, args.results or RESULTS)
        print(f"kept in {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

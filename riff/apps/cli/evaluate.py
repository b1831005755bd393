"""``riff eval``: how good a folder of music is, measured, with how sure that is."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.apps.cli.options import add_command, number, options_of
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from riff.evaluate.report import Evaluation

_EXAMPLES = """\
  riff eval clips/                                      obedience, form and hygiene; riff's files say what was requested
  riff eval clips/ --reference real/ -o report/         how like real music; report/index.html, report/report.json
  riff eval clips/ --prompts list.csv --json            requested values from a list: file, prompt, bpm, keyscale, genre
  riff eval clips/ --training dataset/                  are any of them copies of these?
  riff eval --round-trip music/                         what sound loses as a mel, an image in 8 bits, and latents

embeddings without a download: mel, descriptors, latents (of --checkpoint), tagger; clap and encodec when their weights
are in the local cache, or as clap=FOLDER. The name of a distance always holds its embedding."""


def add_eval(verbs: Any) -> None:
    """Add ``riff eval``."""
    parser = add_command(
        verbs,
        "eval",
        run_eval,
        help="measure how good a folder of music is",
        description="Measure a folder of music: likeness to a reference, obedience, form, hygiene, round trip.",
        examples=_EXAMPLES,
    )
    parser.add_argument("generated", nargs="?", metavar="GENERATED", help="folder of sound files, or one file")
    parser.add_argument("--reference", metavar="FOLDER", help="music that it should be like")
    parser.add_argument(
        "--prompts", metavar="FILE",
        help="what was requested of each file: .csv or .jsonl (file, prompt, bpm, keyscale, genre), or text lines; "
        "default what riff wrote into the files",
    )  # fmt: skip
    parser.add_argument("--training", metavar="FOLDER", help="music the model was trained on, searched for copies")
    parser.add_argument("--round-trip", metavar="AUDIO", help="music that goes down the ladder and back; any music")
    parser.add_argument(
        "--embedding", dest="embeddings", action="append", default=[], metavar="NAME",
        help="mel, descriptors, latents, tagger, clap, encodec; may be given many times; default the first four",
    )  # fmt: skip
    parser.add_argument("--checkpoint", metavar="MODEL", help="whose latents are meant; default riff-mini")
    parser.add_argument("--download", action="store_true", help="weights of clap and encodec may be fetched")
    parser.add_argument("--workers", type=number(1, 1024, whole=True), help="processes; default one a core")
    parser.add_argument("-o", "--output", metavar="REPORT", help="folder for index.html and report.json")
    parser.add_argument("--force", action="store_true", help="replace a report that is there")


def run_eval(args: argparse.Namespace) -> None:
    """Measure, print the table or JSON, and write the report."""
    if args.generated is None and args.round_trip is None:
        raise RiffError("there is nothing to measure; give a folder of sounds, or one with --round-trip")
    if args.generated is None:
        for name in ("reference", "prompts", "training"):
            if getattr(args, name) is not None:
                raise RiffError(f"--{name} goes with a folder of generated sounds; give one before it")
    output = None if args.output is None else _prepare_output(Path(args.output), force=args.force)

    from riff.evaluate.run import EvaluationRequest, evaluate

    request = EvaluationRequest(**options_of(EvaluationRequest, args) | {"embeddings": tuple(args.embeddings)})
    result = evaluate(request, workers=args.workers, progress=not args.quiet)
    if output is not None:
        _write(output, result)
    if args.json:
        print(json.dumps(result.to_dict(), allow_nan=False))
    else:
        for line in result.lines():
            print(line if line.isprintable() else repr(line))
        if output is not None:
            print(output / "index.html")
    if not args.quiet:
        for problem in result.problems[:20]:
            print(f"left out: {problem if problem.isprintable() else repr(problem)}", file=sys.stderr)
        if len(result.problems) > 20:
            print(f"left out: {len(result.problems) - 20} more; the report names all", file=sys.stderr)
    if not result.measured:
        raise RiffError("nothing could be measured; the lines above say why")


def _prepare_output(folder: Path, *, force: bool) -> Path:
    """The folder, made, unless a report or another page is in it."""
    from riff.utils.errors import SystemProblem

    for name in ("index.html", "report.json"):
        if (folder / name).exists() and not force:
            raise RiffError(f"{folder / name} exists; use --force to replace it, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise RiffError(f"-o {folder} is a file; give a folder") from error
    except OSError as error:
        raise SystemProblem(f"-o {folder} cannot be made ({(error.strerror or str(error)).lower()})") from error
    return folder


def _write(folder: Path, result: "Evaluation") -> None:
    from riff.evaluate.report import write_page
    from riff.utils.files import write_json

    write_json(folder / "report.json", result.to_dict())
    write_page(folder / "index.html", result)

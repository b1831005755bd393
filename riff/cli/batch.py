"""One input to one output, or many to a folder: a bad file is named and passed over, a finished one is not redone."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from riff.errors import RiffError, SystemProblem

# Does one piece of work: input, output, and whether the output may be replaced. Returns facts about the result.
Work = Callable[[Path, Path, bool], dict[str, Any]]


def add_files(parser: argparse.ArgumentParser, kind: str, result: str) -> None:
    """Add the arguments that say what is read and where the results go."""
    parser.add_argument("inputs", nargs="+", metavar=kind, help="files, or folders that are searched for such files")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help=f"{result}, or a folder for the results of many inputs"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist; else a folder's are kept")


def run_batch(args: argparse.Namespace, work: Work, *, reads: tuple[str, ...], writes: tuple[str, ...]) -> None:
    """Work through the inputs and print each result's path.

    Args:
        args: parsed arguments with those of :func:`add_files`; ``args.suffix`` is that of results in a folder.
        work: see :data:`Work`.
        reads: suffixes that are looked for in folders.
        writes: suffixes that a single result may have.

    Raises:
        RiffError: wrong arguments, or some inputs could not be used; the others are done all the same.
    """
    inputs, output = _find(args.inputs, reads), Path(args.output)
    single = len(inputs) == 1 and output.suffix.lower() in writes and not output.is_dir()
    if single:
        outputs = [output]
    else:
        if output.suffix and not output.is_dir():
            raise RiffError(f"-o {output} is one file for {len(inputs)} inputs; give a folder, or one of {writes}")
        outputs = _names(inputs, output, args.suffix)
        output.mkdir(parents=True, exist_ok=True)
    results, problems, kept = [], [], 0
    for source, target in zip(inputs, outputs, strict=True):
        if not single and target.exists() and not args.force:
            kept += 1
            continue
        try:
            results.append({"path": str(target), "from": str(source), **work(source, target, args.force)})
        except SystemProblem:
            raise
        except RiffError as error:
            if single:
                raise
            problems.append(f"{source}: {error}")
            continue
        if not args.json:
            print(target, flush=True)
    if args.json:
        print(json.dumps({"results": results, "kept": kept, "problems": problems}))
    elif kept and not args.quiet:
        print(f"kept {kept} that were there already (--force makes them anew)", file=sys.stderr)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RiffError(f"{len(problems)} of {len(inputs)} inputs could not be used: {problems[0]}{more}")


def _find(inputs: list[str], suffixes: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes)
            if not inside:
                raise RiffError(f"{path} holds no file with one of the suffixes {', '.join(suffixes)}")
            found += inside
        else:
            found.append(path)
    return found


def _names(inputs: list[Path], folder: Path, suffix: str) -> list[Path]:
    """A name in ``folder`` for each input; inputs of one name from different folders are numbered apart."""
    names: list[Path] = []
    taken: set[Path] = set()
    for source in inputs:
        name, number = folder / f"{source.stem}{suffix}", 1
        while name in taken:
            number += 1
            name = folder / f"{source.stem}-{number}{suffix}"
        taken.add(name)
        names.append(name)
    return names

"""One input to one output, or many to a folder: a bad file is named and passed over, a finished one is not redone."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from riff.errors import RiffError, SystemProblem

# Does one piece of work: input, output, whether the output may be replaced, and which of an input's results it is.
# Returns facts about the result.
Work = Callable[[Path, Path, bool, int], dict[str, Any]]


def add_files(parser: argparse.ArgumentParser, kind: str, result: str) -> None:
    """Add the arguments that say what is read and where the results go."""
    parser.add_argument("inputs", nargs="+", metavar=kind, help="files, or folders that are searched for such files")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help=f"{result}, or a folder for the results of many inputs"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist; else a folder's are kept")


def run_batch(
    args: argparse.Namespace, work: Work, *, reads: tuple[str, ...], writes: tuple[str, ...], copies: int | None = None
) -> None:
    """Work through the inputs and print each result's path.

    Args:
        args: parsed arguments with those of :func:`add_files`; ``args.suffix`` is that of results in a folder.
        work: see :data:`Work`.
        reads: suffixes that are looked for in folders.
        writes: suffixes that a single result may have.
        copies: results per input, all into a folder; None is one, wherever.

    Raises:
        RiffError: wrong arguments, or some inputs could not be used; the others are done all the same.
    """
    inputs, output = _find(args.inputs, reads), Path(args.output)
    single = copies is None and len(inputs) == 1 and output.suffix.lower() in writes and not output.is_dir()
    if single:
        outputs = [output]
    else:
        if output.suffix and not output.is_dir():
            allowed = f"a folder, or for one result one of {', '.join(writes)}"
            raise RiffError(f"-o {output} has the suffix {output.suffix!r}; give {allowed}")
        outputs = _names(inputs, output, args.suffix, copies)
        inputs = [source for source in inputs for _ in range(copies or 1)]
        output.mkdir(parents=True, exist_ok=True)
    results, problems, kept = [], [], 0
    for number, (source, target) in enumerate(zip(inputs, outputs, strict=True)):
        if not single and target.exists() and not args.force:
            kept += 1
            continue
        try:
            results.append(
                {"path": str(target), "from": str(source), **work(source, target, args.force, number % (copies or 1))}
            )
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


def _names(inputs: list[Path], folder: Path, suffix: str, copies: int | None) -> list[Path]:
    """Names in ``folder`` for each input's results; inputs of one name from different folders are numbered apart."""
    names: list[Path] = []
    taken: set[str] = set()
    for source in inputs:
        stem, number = source.stem, 1
        while stem in taken:
            number += 1
            stem = f"{source.stem}-{number}"
        taken.add(stem)
        ends = [suffix] if copies is None else [f"-{copy:04d}{suffix}" for copy in range(copies)]
        names += [folder / f"{stem}{end}" for end in ends]
    return names

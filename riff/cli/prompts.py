"""``riff render --prompts``: a list of prompts becomes a folder of clips with a contact sheet; restartable."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from riff.checks import MAX_SEED
from riff.cli.arguments import SUFFIXES, number
from riff.cli.drawing import choose_seed, describe, load_pipeline, progress, tell_lost_words, tell_seed
from riff.cli.engine import add_engine, check_engine
from riff.cli.promptlist import FIELDS, Item, read_items, slug
from riff.errors import RiffError, SystemProblem

if TYPE_CHECKING:
    from riff.clip import Clip
    from riff.pipeline import RiffPipeline
    from riff.sheet import Sheet

WRITE_EVERY = 5.0  # seconds between two writings of the sheet while the list is played
_TOLD = 20  # problems that get a line of their own


@dataclasses.dataclass(frozen=True)
class Job:
    """One clip to make.

    Attributes:
        item: what its line says.
        seed: its own.
        output: its file.
    """

    item: Item
    seed: int
    output: Path


def add_list(parser: argparse.ArgumentParser) -> None:
    """Options of a list in place of prompts."""
    many = parser.add_argument_group("many prompts")
    many.add_argument(
        "--prompts", dest="prompts_file", metavar="LIST",
        help="a file with one prompt on each line, or .jsonl with objects that have prompt and any of "
        f"{', '.join(FIELDS[1:])}; -o is a folder, where clips that are there are kept and index.html shows them all",
    )  # fmt: skip
    many.add_argument("--format", choices=[suffix[1:] for suffix in SUFFIXES], help="of files in a folder; default wav")
    many.add_argument(
        "--workers", type=number(1, 1024, whole=True), help="of --engine ray; default by its cores or GPUs"
    )
    add_engine(many)


def check_no_list(args: argparse.Namespace) -> None:
    """Raise RiffError if there is neither a prompt nor a list, or an option that only a list has."""
    if not args.prompts:
        raise RiffError("there is no prompt; give one, or a list of them with --prompts")
    if args.format is not None:
        raise RiffError(f"--format {args.format} goes with --prompts; here the suffix of -o says it")
    if args.engine == "ray" or args.address is not None:
        raise RiffError("--engine ray goes with --prompts, a list; leave it out")
    if args.workers is not None:
        raise RiffError(f"--workers {args.workers} goes with --prompts and --engine ray; leave it out")


def run_prompts(args: argparse.Namespace) -> None:
    """Play a list of prompts into a folder, and leave what is there already.

    Raises:
        RiffError: wrong arguments; or some lines could not be played, and the others were.
    """
    began = time.monotonic()
    folder = _check_arguments(args)
    items = [_check_seed(item, args.count) for item in read_items(args.prompts_file)]
    run = _Run(args)
    for item in items:
        if item.problem:
            run.note(item, item.problem)
    if len(run.problems) < len(items):
        from riff.sheet import Sheet, check_sheet

        check_sheet(folder, force=args.force)
        _make_folder(folder)
        seed = _base_seed(items, folder, args)
        jobs = _plan(items, folder, seed, args)
        todo = [job for job in jobs if args.force or not job.output.exists()]
        _tell_changed([job for job in jobs if job not in todo], args)
        if any(job.item.seed is None for job in todo):
            tell_seed(seed, args)
        run.play(todo, Sheet(folder))
        run.report(folder, seed, kept=len(jobs) - len(todo), seconds=time.monotonic() - began)
    if run.problems:
        first = next(iter(run.problems.values()))
        more = f" (and {len(run.problems) - 1} more)" if len(run.problems) > 1 else ""
        raise RiffError(f"{len(run.problems)} of {len(items)} prompts could not be played: {first}{more}")


class _Run:
    """The work itself, and what came of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.results: list[dict[str, Any]] = []
        self.problems: dict[int, str] = {}  # by line
        self.load_seconds = 0.0

    def note(self, item: Item, problem: str) -> None:
        """Name and count a line that could not be played."""
        self.problems[item.line] = f"line {item.line}: {problem}"
        if not self.args.quiet and len(self.problems) <= _TOLD:
            more = "; more are only counted" if len(self.problems) == _TOLD else ""
            _say(f"skipped {self.problems[item.line]}{more}", sys.stderr)

    def play(self, jobs: list[Job], sheet: "Sheet") -> None:
        """Make every clip. The sheet lists what is there at the end, also at an early one."""
        written = time.monotonic()
        try:
            if not jobs:
                return
            for job, made in self._on_cluster(jobs) if self.args.engine == "ray" else self._here(jobs):
                self._take(job, made)
                if time.monotonic() - written > WRITE_EVERY:
                    sheet.write()
                    written = time.monotonic()
        finally:
            sheet.write()

    def _here(self, jobs: list[Job]) -> Iterator[tuple[Job, dict[str, Any] | RiffError]]:
        began = time.monotonic()
        pipe = load_pipeline(self.args)
        self.load_seconds = time.monotonic() - began
        with progress(self.args, total=self.args.steps * len(jobs)) as step_done:
            for job in jobs:
                try:
                    clip = draw(pipe, job, self.args, step_done)
                    clip.save(job.output, force=self.args.force, metadata=not self.args.no_metadata)
                except SystemProblem:
                    raise
                except RiffError as error:
                    yield job, error
                else:
                    yield job, describe(clip, job.output)

    def _on_cluster(self, jobs: list[Job]) -> Iterator[tuple[Job, Any]]:
        from riff.cli.promptcluster import draw_on_cluster

        return draw_on_cluster(jobs, self.args)

    def _take(self, job: Job, made: dict[str, Any] | BaseException) -> None:
        if isinstance(made, RiffError) and not isinstance(made, SystemProblem):
            self.note(job.item, str(made))
            return
        if isinstance(made, BaseException):
            raise made
        result = {**made, "line": job.item.line}
        tell_lost_words(result, self.args)
        self.results.append(result)
        if not self.args.json:
            _say(str(job.output), sys.stdout)

    def report(self, folder: Path, seed: int, *, kept: int, seconds: float) -> None:
        """Say what came of it all."""
        sheet = folder / "index.html"
        if self.args.json:
            summary = {
                "results": self.results,
                "kept": kept,
                "problems": list(self.problems.values()),
                "seed": seed,
                "sheet": str(sheet),
                "seconds": round(seconds, 3),
                "load_seconds": round(self.load_seconds, 3),
            }
            print(json.dumps(summary))
        elif not self.args.quiet:
            there = f", kept {kept} that were there already (--force makes them anew)" if kept else ""
            _say(f"made {len(self.results)}{there}; to look and listen: {sheet}", sys.stderr)


def draw(pipe: "RiffPipeline", job: Job, args: argparse.Namespace, step_done: Any) -> "Clip":
    """One clip as its line and the options ask for it."""
    from riff.cli.render import render_clip

    return render_clip(pipe, job.item.prompt, job.seed, _with_wishes(args, job.item), step_done)


def _check_arguments(args: argparse.Namespace) -> Path:
    """The folder to write into."""
    check_engine(args)
    if args.workers is not None and args.engine != "ray":
        raise RiffError(f"--workers {args.workers} goes with --engine ray; leave it out")
    if args.prompts:
        raise RiffError(f"a prompt ({args.prompts[0]!r}) and --prompts were given; give one of them")
    folder = Path(args.output)
    if folder.suffix.lower() in SUFFIXES and not folder.is_dir():
        raise RiffError(
            f"-o {folder} is a file; with --prompts give a folder, and --format {folder.suffix[1:].lower()}"
        )
    if folder.exists() and not folder.is_dir():
        raise RiffError(f"-o {folder} is a file; with --prompts give a folder")
    return folder


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SystemProblem(f"cannot make the folder {folder}: {reason}; choose another") from error


def _check_seed(item: Item, count: int) -> Item:
    if item.problem is None and item.seed is not None and item.seed + count - 1 > MAX_SEED:
        return dataclasses.replace(
            item, problem=f"seed {item.seed} leaves no room for {count} clips; use a smaller one"
        )
    return item


def _spread(items: list[Item], folder: Path, args: argparse.Namespace) -> Iterator[tuple[int, int, Item, Path]]:
    """Index, copy, item and file of every clip; a bad line keeps its numbers, so mending it moves no other clip."""
    for place, item in enumerate(items):
        name = slug(item.name or item.prompt)
        for copy in range(0 if item.problem else args.count):
            index = place * args.count + copy
            yield index, copy, item, folder / f"{index:04d}-{name}.{args.format or 'wav'}"


def _base_seed(items: list[Item], folder: Path, args: argparse.Namespace) -> int:
    """The asked seed; without one that of the clips that are there, so that a restart goes on with it; else any."""
    total = len(items) * args.count
    if args.seed is None and not args.force:
        from riff.cards import how_made

        for index, _, item, output in _spread(items, folder, args):
            if item.seed is None and output.exists():
                found = how_made(output).get("seed", "")
                if found.isdecimal() and index <= int(found) <= MAX_SEED - total + index:
                    return int(found) - index
    seed = choose_seed(args)
    if seed + total - 1 > MAX_SEED:
        raise RiffError(f"--seed {seed} leaves no room for {total} clips; use a smaller one")
    return seed


def _plan(items: list[Item], folder: Path, seed: int, args: argparse.Namespace) -> list[Job]:
    return [
        Job(item, seed + index if item.seed is None else item.seed + copy, output)
        for index, copy, item, output in _spread(items, folder, args)
    ]


def _with_wishes(args: argparse.Namespace, item: Item) -> argparse.Namespace:
    """The command's options, with those that the line gives in their place."""
    wishes = dict(item.wishes)
    if "bars" in wishes or "duration" in wishes:
        wishes = {"bars": None, "duration": None, **wishes}
    return argparse.Namespace(**{**vars(args), **wishes})


def _tell_changed(kept: list[Job], args: argparse.Namespace) -> None:
    """Say which clips are kept although the list now asks for something else."""
    from riff.cards import how_made

    changed = []
    for job in kept:
        made = how_made(job.output)
        wanted = {"prompt": job.item.prompt, "seed": str(job.seed)}
        if made and any(made.get(field) != value for field, value in wanted.items()):
            changed.append(job.output.name)
    if changed and not args.quiet:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        _say(f"kept {changed[0]}{more}, made from another prompt or seed; --force makes all anew", sys.stderr)


def _say(line: str, stream: TextIO) -> None:
    """Print a line; a progress bar makes room for it."""
    from tqdm import tqdm

    tqdm.write(line, file=stream)
    stream.flush()

"""``riff render --prompts``: a list of prompts becomes a folder of clips with a contact sheet; restartable."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from riff.apps.cli.generate import (
    ListJob,
    Made,
    choose_seed,
    describe,
    generate,
    load_pipeline,
    print_seed,
    progress,
    steps_of,
    warn_unknown_words,
)
from riff.apps.cli.lists import NAMES, Item, read_items, slug
from riff.apps.cli.options import (
    MOST_PROBLEMS,
    SUFFIXES,
    line_problem,
    make_request,
    noted_warnings,
    number,
    shell_text,
)
from riff.tasks.requests import RenderRequest
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import make_folder, remove_leftovers
from riff.utils.validation import MAX_SEED

if TYPE_CHECKING:
    from riff.tasks.gallery import ContactSheet

WRITE_EVERY = 5.0  # seconds between two writings of the sheet while the list is played


def add_list(parser: argparse.ArgumentParser) -> None:
    """Options of a list in place of prompts."""
    many = parser.add_argument_group("many prompts")
    many.add_argument(
        "--prompts", dest="list", metavar="LIST",
        help="a file with one prompt on each line, or .jsonl with objects that have prompt and any of "
        f"{', '.join(NAMES[1:])}; -o is a folder, where existing clips are kept and index.html shows them all",
    )  # fmt: skip
    many.add_argument("--format", choices=[suffix[1:] for suffix in SUFFIXES], help="of files in a folder; default wav")
    many.add_argument(
        "--workers", type=number(1, 1024, whole=True), help="of --engine ray; default by its cores or GPUs"
    )
    add_engine(many)


def add_engine(group: Any) -> None:
    """Options that say where the work is done."""
    group.add_argument(
        "--engine", choices=["local", "ray"], default="local",
        help="local (default), or ray: the processes of a Ray cluster; one that is lost costs no work",
    )  # fmt: skip
    group.add_argument(
        "--address", metavar="HOST:PORT",
        help="of the Ray cluster, ray://HOST:PORT or auto; default $RAY_ADDRESS, else one is started on this machine",
    )  # fmt: skip


def check_engine(args: argparse.Namespace) -> None:
    """Raise RiffError if an option of the cluster was given without it, or the other way round."""
    if args.address is not None and args.engine != "ray":
        raise RiffError(f"--address {args.address} goes with --engine ray; give both or neither")
    if args.engine == "ray" and args.workers == 0:
        raise RiffError("--workers 0 works in this process, but --engine ray in others; use 1 or more")


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


def run_list(args: argparse.Namespace) -> None:
    """Render a list of prompts into a folder, and leave what is there already.

    Raises:
        RiffError: wrong arguments; or some lines could not be played, and the others were.
    """
    began = time.monotonic()
    folder = _check_arguments(args)
    items = read_items(args.list)
    run = _Run(args)
    planned = [(place, item) for place, item in enumerate(items) if item.problem is None or run.note(item)]
    if planned:
        from riff.tasks.gallery import ContactSheet, check_sheet

        seed = _base_seed(items, folder, args)
        jobs = run.plan(planned, folder, seed)
        if jobs:
            check_sheet(folder, force=args.force)
            make_folder(folder)
            remove_leftovers(folder)
            kept = [job for job in jobs if not args.force and job.output.exists()]
            kept_outputs = {job.output for job in kept}
            todo = [job for job in jobs if job.output not in kept_outputs]
            _print_changed(kept, args)
            if any("seed" not in items[place].fields for place, _ in planned) and todo:
                print_seed(seed, args)
            run.play(todo, ContactSheet(folder))
            run.report(folder, seed, kept=len(kept), seconds=time.monotonic() - began)
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

    def note(self, item: Item) -> bool:
        """Name and count a line that cannot be played; always False."""
        self.problems[item.line] = f"line {item.line}: {item.problem}"
        if not self.args.quiet and len(self.problems) <= MOST_PROBLEMS:
            more = "; more are only counted" if len(self.problems) == MOST_PROBLEMS else ""
            _say(f"skipped {self.problems[item.line]}{more}", sys.stderr)
        return False

    def plan(self, items: list[tuple[int, Item]], folder: Path, seed: int) -> list[ListJob]:
        """A job for each clip. A bad line keeps its numbers, so that mending it moves no other clip."""
        jobs: list[ListJob] = []
        for place, item in items:
            first = place * self.args.count
            try:
                for index in range(first, first + self.args.count):
                    own = seed + index if "seed" not in item.fields else item.fields["seed"] + index - first
                    request, output = _request(self.args, item, own), _output(folder, index, item, self.args)
                    jobs.append(ListJob(item.line, request, output))
            except RiffError as error:
                self.note(dataclasses.replace(item, problem=shell_text(error)))
        return jobs

    def play(self, jobs: list[ListJob], sheet: "ContactSheet") -> None:
        """Make every clip. The sheet lists what is there at the end, also at an early one."""
        written = time.monotonic()
        try:
            for job, made in self._make(jobs) if jobs else ():
                self._take(job, made)
                if time.monotonic() - written > WRITE_EVERY:
                    sheet.write()
                    written = time.monotonic()
        finally:
            sheet.write()

    def _make(self, jobs: list[ListJob]) -> Iterator[tuple[ListJob, Made]]:
        if self.args.engine == "ray":
            from riff.apps.cli.lists import render_on_cluster

            yield from render_on_cluster(jobs, self.args)
            return
        began = time.monotonic()
        pipe = load_pipeline(self.args)
        self.load_seconds = time.monotonic() - began
        with progress(self.args, total=sum(steps_of(job.request) for job in jobs)) as bar:
            for job in jobs:
                try:
                    with noted_warnings() as noted:
                        clip = generate(pipe, job.request, bar.callback(job.request.num_inference_steps))
                        clip.save(job.output, overwrite=self.args.force, metadata=not self.args.no_metadata)
                except (SystemProblem, OSError):
                    raise
                except Exception as error:
                    yield job, error
                else:
                    yield job, describe(clip, job.output) | noted

    def _take(self, job: ListJob, made: Made) -> None:
        """Count and print a result; what is wrong with one line ends no list, but a full disk does."""
        if isinstance(made, SystemProblem | OSError) or not isinstance(made, Exception | dict):
            raise made
        if isinstance(made, Exception):
            self.note(Item(job.line, problem=shell_text(line_problem(made))))
            return
        result = {**made, "line": job.line}
        warn_unknown_words(result, self.args)
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
            there = f", kept {kept} that were there already (--force makes them again)" if kept else ""
            _say(f"made {len(self.results)}{there}; to look and listen: {sheet}", sys.stderr)


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


def _request(args: argparse.Namespace, item: Item, seed: int) -> RenderRequest:
    """The command's options, with those that the line gives in their place."""
    fields = dict(item.fields)
    for pair in RenderRequest.exclusive:
        if any(name in fields for name in pair):
            fields = dict.fromkeys(pair) | fields
    return make_request(RenderRequest, args, **fields | {"seed": seed})


def _output(folder: Path, index: int, item: Item, args: argparse.Namespace) -> Path:
    """The file of a clip, numbered over the whole list."""
    name = slug(item.name or item.fields.get("prompt", ""))
    return folder / f"{index:04d}-{name}.{args.format or 'wav'}"


def _base_seed(items: list[Item], folder: Path, args: argparse.Namespace) -> int:
    """The given seed; else that of the clips that exist, so that a restart goes on with it; else a random one."""
    total = len(items) * args.count
    if args.seed is None and not args.force and folder.is_dir():
        from riff.tasks.gallery import how_made

        for index, item in (
            (place * args.count + copy, item) for place, item in enumerate(items) for copy in range(args.count)
        ):
            output = _output(folder, index, item, args)
            if item.problem is None and "seed" not in item.fields and output.exists():
                found = how_made(output).get("seed", "")
                # A file may say anything, for example 5,000 digits.
                if found.isdecimal() and len(found) < 20 and index <= int(found) <= MAX_SEED - total + index:
                    return int(found) - index
    seed = choose_seed(args)
    if seed + total - 1 > MAX_SEED:
        raise RiffError(f"--seed {seed} leaves no room for {total} clips; use a smaller one")
    return seed


def _print_changed(kept: list[ListJob], args: argparse.Namespace) -> None:
    """Name the clips that are kept although the list now says something else."""
    from riff.tasks.gallery import how_made

    changed = []
    for job in kept:
        made = how_made(job.output)
        wanted = {"prompt": job.request.prompt, "seed": str(job.request.seed)}
        if made and any(made.get(field) != value for field, value in wanted.items()):
            changed.append(job.output.name)
    if changed and not args.quiet:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        _say(f"kept {changed[0]}{more}, made from another prompt or seed; --force makes all of them again", sys.stderr)


def _say(line: str, stream: TextIO) -> None:
    """Print a line; a progress bar makes room for it."""
    from tqdm import tqdm

    tqdm.write(line, file=stream)
    stream.flush()

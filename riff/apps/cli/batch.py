"""``riff render --prompts``: a list of prompts becomes a folder of clips with a contact sheet; restartable."""

import argparse
import dataclasses
import json
import re
import sys
import time
import unicodedata
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
    warn_unknown_words,
)
from riff.apps.cli.options import MOST_PROBLEMS, SUFFIXES, make_request, number, shell_text, utf8_text
from riff.tasks.requests import OLD_NAMES, RenderRequest
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import check_readable, make_folder, remove_leftovers
from riff.utils.schema import describe_fields, rename, suggest
from riff.utils.validation import MAX_SEED, show

if TYPE_CHECKING:
    from riff.tasks.gallery import ContactSheet

MAX_BYTES = 64_000_000
WRITE_EVERY = 5.0  # seconds between two writings of the sheet while the list is played
# What an object of a list may hold, spelled as the command's options are, and the request's field for each.
FIELDS = {field.flag[2:].replace("-", "_") or field.name: field.name for field in describe_fields(RenderRequest)}
NAMES = ("prompt", *(name for name in FIELDS if name != "prompt"), "name")
_JSON_LINES = (".jsonl", ".ndjson")
_NOT_LISTS = (".json", ".yaml", ".yml", ".csv", ".tsv", ".wav", ".flac", ".ogg", ".mp3", ".png")


@dataclasses.dataclass(frozen=True)
class Item:
    """One line of the list.

    Attributes:
        line: its number in the file, from 1.
        fields: of :class:`riff.tasks.requests.RenderRequest` that it gives; the others are the command's.
        name: what its files are called; None is the prompt.
        problem: why it cannot be played; None if it can.
    """

    line: int
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    name: str | None = None
    problem: str | None = None


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


# Reading


def read_items(path: str | Path) -> list[Item]:
    """The items of a list, the bad ones with their problem; blank lines and lines that begin with # hold none.

    Args:
        path: ``.jsonl`` or ``.ndjson`` for JSON objects; anything else is one prompt per line.

    Raises:
        RiffError: no such file, too large, not UTF-8, or nothing in it.
    """
    path = Path(path)
    if path.suffix.lower() in _NOT_LISTS:
        raise RiffError(
            f"--prompts {path} has the suffix {path.suffix!r}; give a .txt file, one prompt per line, or .jsonl"
        )
    check_readable(path, expected="a list of prompts, one per line")
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RiffError(f"{path} has more than {MAX_BYTES:,} bytes; split the list")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RiffError(f"{path} is not UTF-8 text (line {line}); save it as UTF-8") from error
    read = _read_object if path.suffix.lower() in _JSON_LINES else _read_line
    # Not splitlines, which also splits at form feeds and the like, and so counts other lines than an editor.
    lines = ((number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1))
    items = [_read(read, number, line) for number, line in lines if line and not line.startswith("#")]
    if not items:
        raise RiffError(f"{path} holds no prompt; write one per line")
    return items


def _read(read: Any, number: int, line: str) -> Item:
    """An item whose fields are checked; one that is wrong has its problem."""
    try:
        fields, name = read(line)
        request = RenderRequest(**fields)
    except RiffError as error:
        return Item(number, problem=_shell_words(str(error)))
    except (ValueError, RecursionError) as error:
        return Item(number, problem=f"this is not JSON ({' '.join(str(error).split())[:120]})")
    return Item(number, {field: getattr(request, field) for field in fields}, name)


def _read_line(line: str) -> tuple[dict[str, Any], str | None]:
    return {"prompt": utf8_text(line)}, None


def _read_object(line: str) -> tuple[dict[str, Any], str | None]:
    given = json.loads(line, parse_constant=_refuse_constant, parse_int=_whole_number)
    if not isinstance(given, dict):
        raise RiffError(f'{show(given)} is not an object; write {{"prompt": "mellow jazz"}}')
    given = {name: value for name, value in rename(given, OLD_NAMES).items() if value is not None}
    for name in given:
        if name not in NAMES and name not in FIELDS.values():
            raise RiffError(f"unknown key {show(name)}; {suggest(name, NAMES)}known are {', '.join(NAMES)}")
    name = given.pop("name", None)
    if "prompt" not in given:
        raise RiffError("prompt is missing; say what to play")
    if name is not None and not (isinstance(name, str) and name.isprintable()):
        raise RiffError(f"name is {show(name)}; use text")
    return {FIELDS.get(key, key): value for key, value in given.items()}, name


def _shell_words(problem: str) -> str:
    """A request's message with the list's spelling of the field."""
    for ours, field in FIELDS.items():
        if problem.startswith(f"{field} "):
            return f"{ours}{problem.removeprefix(field)}"
    return problem


def _refuse_constant(name: str) -> float:
    raise RiffError(f"{name} is not a number; use a finite one")


def _whole_number(digits: str) -> int:
    """An integer of JSON; one of thousands of digits, which Python does not read, is out of every range anyway."""
    return int(digits[:400])


def slug(text: str) -> str:
    """A prompt as a part of a file name: its letters and digits, forty of them at most."""
    # Letters of every alphabet stay, Latin accents go; what a file system or a shell might take amiss is a hyphen.
    plain = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text.casefold()))
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", plain))
    made = ""
    for word in words:
        if made and len(made) + 1 + len(word) > 40:
            break
        made = f"{made}-{word}" if made else word[:40]
    return made or "clip"


# A run


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
            todo = [job for job in jobs if args.force or not job.output.exists()]
            _print_changed([job for job in jobs if job not in todo], args)
            if any("seed" not in items[place].fields for place, _ in planned) and todo:
                print_seed(seed, args)
            run.play(todo, ContactSheet(folder))
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
            for job, made in (
                (self._on_cluster(jobs) if self.args.engine == "ray" else self._here(jobs)) if jobs else ()
            ):
                self._take(job, made)
                if time.monotonic() - written > WRITE_EVERY:
                    sheet.write()
                    written = time.monotonic()
        finally:
            sheet.write()

    def _here(self, jobs: list[ListJob]) -> Iterator[tuple[ListJob, Made]]:
        began = time.monotonic()
        pipe = load_pipeline(self.args)
        self.load_seconds = time.monotonic() - began
        with progress(self.args, total=sum(job.request.num_inference_steps for job in jobs)) as bar:
            for job in jobs:
                try:
                    clip = generate(pipe, job.request, bar.callback(job.request.num_inference_steps))
                    clip.save(job.output, overwrite=self.args.force, metadata=not self.args.no_metadata)
                except SystemProblem:
                    raise
                except RiffError as error:
                    yield job, error
                else:
                    yield job, describe(clip, job.output)

    def _on_cluster(self, jobs: list[ListJob]) -> Iterator[tuple[ListJob, Made]]:
        from riff.apps.cli.ray import render_on_cluster

        return render_on_cluster(jobs, self.args)

    def _take(self, job: ListJob, made: Made) -> None:
        if isinstance(made, RiffError) and not isinstance(made, SystemProblem):
            self.note(Item(job.line, problem=shell_text(made)))
            return
        if isinstance(made, BaseException):
            raise made
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

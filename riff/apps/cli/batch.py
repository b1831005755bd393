"""``riff render --prompts``: a list of prompts becomes a folder of clips with a contact sheet; restartable."""

import argparse
import dataclasses
import difflib
import functools
import json
import re
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from riff.apps.cli.options import (
    SUFFIXES,
    check_prompt,
    check_stated_tempo,
    choose_seed,
    describe,
    load_pipeline,
    number,
    print_seed,
    progress,
    warn_unknown_words,
)
from riff.music.theory import canonical_key
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import check_readable, write_bytes
from riff.utils.validation import BPM_RANGE, MAX_PROMPT, MAX_SEED, show

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline
    from riff.tasks.clip import Clip
    from riff.tasks.gallery import ContactSheet

WRITE_EVERY = 5.0  # seconds between two writings of the sheet while the list is played
_TOLD = 20  # problems that get a line of their own


# WAS riff/cli/promptlist.py: A list of prompts: a text file with one on each line, or JSON objects, one on each
# line. A bad line is one line.


@dataclasses.dataclass(frozen=True)
class Item:
    """One line of the list.

    Attributes:
        line: its number in the file, from 1.
        prompt: what to play.
        seed: its own, or None.
        name: what its files are called; None is the prompt.
        wishes: what it says of ``bpm, bars, duration, key, negative, guidance, loop``; the rest is the command's.
        problem: why it cannot be played; None if it can.
    """

    line: int
    prompt: str = ""
    seed: int | None = None
    name: str | None = None
    wishes: dict[str, Any] = dataclasses.field(default_factory=dict)
    problem: str | None = None


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
        from riff.tasks.gallery import ContactSheet, check_sheet

        check_sheet(folder, force=args.force)
        _make_folder(folder)
        seed = _base_seed(items, folder, args)
        jobs = _plan(items, folder, seed, args)
        todo = [job for job in jobs if args.force or not job.output.exists()]
        _tell_changed([job for job in jobs if job not in todo], args)
        if any(job.item.seed is None for job in todo):
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

    def note(self, item: Item, problem: str) -> None:
        """Name and count a line that could not be played."""
        self.problems[item.line] = f"line {item.line}: {problem}"
        if not self.args.quiet and len(self.problems) <= _TOLD:
            more = "; more are only counted" if len(self.problems) == _TOLD else ""
            _say(f"skipped {self.problems[item.line]}{more}", sys.stderr)

    def play(self, jobs: list[Job], sheet: "ContactSheet") -> None:
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
        pass

        return draw_on_cluster(jobs, self.args)

    def _take(self, job: Job, made: dict[str, Any] | BaseException) -> None:
        if isinstance(made, RiffError) and not isinstance(made, SystemProblem):
            self.note(job.item, str(made))
            return
        if isinstance(made, BaseException):
            raise made
        result = {**made, "line": job.item.line}
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
            there = f", kept {kept} that were there already (--force makes them anew)" if kept else ""
            _say(f"made {len(self.results)}{there}; to look and listen: {sheet}", sys.stderr)


def draw(pipe: "RiffPipeline", job: Job, args: argparse.Namespace, step_done: Any) -> "Clip":
    """One clip as its line and the options ask for it."""
    from riff.apps.cli.options import render_clip

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
        from riff.tasks.gallery import how_made

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
    from riff.tasks.gallery import how_made

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


# WAS riff/cli/engine.py: Where the work of a command is done: on this machine, or on a Ray cluster.


def add_engine(group: Any) -> None:
    """Options that choose it."""
    group.add_argument(
        "--engine", choices=["local", "ray"], default="local",
        help="local (default), or ray: processes of a Ray cluster, which one may lose without losing work",
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


# WAS riff/cli/promptcluster.py: Prompts drawn on a Ray cluster: each worker loads the model once, this process
# writes the files.

Made = dict[str, Any] | BaseException


def draw_on_cluster(jobs: list["Job"], args: argparse.Namespace) -> Iterator[tuple["Job", Made]]:
    """Draw and save every clip.

    Args:
        jobs: what is drawn.
        args: the command's options.

    Yields:
        A job and its result's facts, or what went wrong, in the order in which they are done.

    Raises:
        ModelError: the model cannot be loaded.
        SystemProblem: there is no cluster, or the disk is full.
    """
    import torch
    from tqdm import tqdm

    from riff.utils.cluster import connected, gpus, run_on_actors

    args = _with_whole_paths(args)
    with connected(args.address, workers=args.workers):
        gpu = args.device not in ("cpu", "mps") and gpus() > 0
        threads = torch.get_num_threads()
        drawer = functools.partial(Drawer, args, threads)
        found = run_on_actors(drawer, jobs, workers=args.workers, gpu=gpu, threads=threads)
        quiet = True if args.quiet else None
        with tqdm(total=len(jobs), unit="clip", leave=False, disable=quiet, dynamic_ncols=True) as bar:
            for number, result in found:
                yield jobs[number], _saved(jobs[number], result, args)
                bar.update()


class Drawer:
    """What a worker does: loads the model once, then draws.

    Args:
        args: the command's options.
        threads: as many as this machine would draw with, since a sum's last bits depend on their number.

    Raises:
        ModelError: the model cannot be loaded.
    """

    def __init__(self, args: argparse.Namespace, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._args = args
        self._pipe = load_pipeline(args)

    def __call__(self, job: "Job") -> tuple[dict[str, Any], bytes]:
        """A clip's facts and the bytes of its file."""
        pass

        clip = draw(self._pipe, job, self._args, None)
        with tempfile.TemporaryDirectory(prefix="riff-") as folder:
            path = Path(folder) / f"clip{job.output.suffix}"
            clip.save(path, metadata=not self._args.no_metadata)
            return describe(clip, job.output), path.read_bytes()


def _saved(job: "Job", result: Any, args: argparse.Namespace) -> Made:
    """The facts of a clip once it is on the disk."""
    if isinstance(result, BaseException):
        return result
    facts, content = result
    try:
        write_bytes(job.output, content, force=args.force)
    except SystemProblem:
        raise
    except RiffError as error:
        return error
    return facts


def _with_whole_paths(args: argparse.Namespace) -> argparse.Namespace:
    """Paths that mean the same in a worker's folder."""
    model = args.model
    if model is not None and Path(model).exists():
        model = str(Path(model).absolute())
    lora = [(str(Path(path).absolute()), weight) for path, weight in args.lora]
    return argparse.Namespace(**{**vars(args), "model": model, "lora": lora})


MAX_BYTES = 64_000_000
FIELDS = ("prompt", "seed", "bpm", "bars", "duration", "key", "negative", "guidance", "loop", "name")
_JSON_LINES = (".jsonl", ".ndjson")
_NOT_LISTS = (".json", ".yaml", ".yml", ".csv", ".tsv", ".wav", ".flac", ".ogg", ".mp3", ".png")
_RANGES = {"seed": (0, MAX_SEED), "bpm": BPM_RANGE, "bars": (1, 512), "duration": (0.1, 600), "guidance": (0, 50)}
_WHOLE = ("seed", "bars")


def read_items(path: str | Path) -> list[Item]:
    """The items of a list, the bad ones with their problem; blank lines and lines that begin with # are none.

    Args:
        path: ``.jsonl`` or ``.ndjson`` for JSON objects; anything else is one prompt per line.

    Raises:
        RiffError: no such file, too large, no UTF-8, or nothing in it.
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
    items = [read(number, line) for number, line in lines if line and not line.startswith("#")]
    if not items:
        raise RiffError(f"{path} holds no prompt; write one per line")
    return items


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


def _read_line(number: int, line: str) -> Item:
    return _checked(Item(number, line))


def _read_object(number: int, line: str) -> Item:
    try:
        fields = json.loads(line, parse_constant=_no_constant)
        if not isinstance(fields, dict):
            raise RiffError(f'{show(fields)} is no object; write {{"prompt": "mellow jazz"}}')
        _check_fields(fields)
    except RiffError as error:
        return Item(number, problem=str(error))
    except (ValueError, RecursionError) as error:
        return Item(number, problem=f"no JSON ({' '.join(str(error).split())[:120]})")
    given = {name: value for name, value in fields.items() if value is not None}
    prompt, seed, name = given.pop("prompt"), given.pop("seed", None), given.pop("name", None)
    return _checked(Item(number, prompt, seed, name, given))


def _check_fields(fields: dict[str, Any]) -> None:
    for name in fields:
        if name not in FIELDS:
            near = difflib.get_close_matches(name[:40].lower(), FIELDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ";"
            raise RiffError(f"unknown key {show(name)}{hint} known are {', '.join(FIELDS)}")
    if fields.get("prompt") is None:
        raise RiffError("prompt is missing; say what to play")
    for name in ("prompt", "key", "negative", "name"):
        value = fields.get(name)
        if value is not None and not isinstance(value, str):
            raise RiffError(f"{name} is {show(value)}; use text")
        if value is not None and len(value) > MAX_PROMPT:
            raise RiffError(f"{name} has {len(value)} characters; use at most {MAX_PROMPT}")
    if not isinstance(fields.get("loop") or False, bool):
        raise RiffError(f"loop is {show(fields['loop'])}; use true or false")
    for name, (low, high) in _RANGES.items():
        if fields.get(name) is not None:
            _check_number(name, fields[name], low, high)
    if fields.get("bars") is not None and fields.get("duration") is not None:
        raise RiffError("bars and duration are given; give one of them")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    kinds = (int,) if name in _WHOLE else (int, float)
    valid = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
    if not valid:
        kind = "a whole number" if name in _WHOLE else "a number"
        # 2^63-1 has no honest short form.
        top = str(int(high)) if name == "seed" else f"{high:g}"
        raise RiffError(f"{name} is {show(value)}; use {kind} from {low:g} to {top}")


def _checked(item: Item) -> Item:
    """The item with its texts in the form that the pipeline takes, or with its problem."""
    wishes = dict(item.wishes)
    try:
        for text in (item.prompt, item.name or "", wishes.get("negative", "")):
            text.encode("utf-8")
        prompt = check_prompt(item.prompt)
        check_stated_tempo(prompt)
        if "key" in wishes:
            wishes["key"] = canonical_key(wishes["key"])
    except UnicodeEncodeError:
        return dataclasses.replace(item, problem="it holds half a character (a lone surrogate); remove it")
    except RiffError as error:
        return dataclasses.replace(item, problem=str(error))
    return dataclasses.replace(item, prompt=prompt, wishes=wishes)


def _no_constant(name: str) -> float:
    raise RiffError(f"{name} is no number; use a finite one")

"""A list of prompts: a text file with one on each line, or JSON objects, one on each line."""

import argparse
import dataclasses
import functools
import json
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riff.apps.cli.generate import ListJob, Made, describe, generate, load_pipeline
from riff.apps.cli.options import utf8_text
from riff.tasks.requests import OLD_NAMES, RenderRequest
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import check_readable, write_bytes
from riff.utils.schema import describe_fields, rename
from riff.utils.validation import show, suggest

MAX_BYTES = 64_000_000
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


# ``riff render --prompts --engine ray``: each process of a Ray cluster loads the model once, this one writes
# the files.


def render_on_cluster(jobs: list[ListJob], args: argparse.Namespace) -> Iterator[tuple[ListJob, Made]]:
    """Generate and save every clip.

    Args:
        jobs: what is generated.
        args: the command's options.

    Yields:
        A job and its result's facts, or what went wrong, in the order in which they are done.

    Raises:
        ModelError: the model cannot be loaded.
        SystemProblem: there is no cluster, or the disk is full.
    """
    import torch
    from tqdm import tqdm

    from riff.utils.cluster import connected, gpus, map_on_cluster

    options = {name: getattr(args, name) for name in _LOADED}
    with connected(args.address, workers=args.workers):
        gpu = args.device not in ("cpu", "mps") and gpus() > 0
        threads = torch.get_num_threads()
        renderer = functools.partial(Renderer, _with_whole_paths(options), threads)
        found = map_on_cluster(renderer, jobs, workers=args.workers, gpu=gpu, threads=threads)
        with tqdm(total=len(jobs), unit="clip", leave=False, disable=args.quiet or None, dynamic_ncols=True) as bar:
            for number, result in found:
                yield jobs[number], _saved(jobs[number], result, args)
                bar.update()


# The options that a worker needs: those of load_pipeline, and how a clip is saved.
_LOADED = ("model", "device", "scheduler", "guidance_interval", "lora", "compile", "no_metadata")


class Renderer:
    """What a worker does: loads the model once, then generates clips.

    Args:
        options: those of ``_LOADED``.
        threads: as many as this machine would use, since a sum's last bits depend on their number.

    Raises:
        ModelError: the model cannot be loaded.
    """

    def __init__(self, options: dict[str, Any], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._metadata = not options["no_metadata"]
        self._pipe = load_pipeline(argparse.Namespace(**options))

    def __call__(self, job: ListJob) -> tuple[dict[str, Any], bytes]:
        """A clip's facts and the bytes of its file."""
        clip = generate(self._pipe, job.request, None)
        with tempfile.TemporaryDirectory(prefix="riff-") as folder:
            path = Path(folder) / f"clip{job.output.suffix}"
            clip.save(path, overwrite=True, metadata=self._metadata)
            return describe(clip, job.output), path.read_bytes()


def _saved(job: ListJob, result: Any, args: argparse.Namespace) -> Made:
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
    return dict(facts)


def _with_whole_paths(options: dict[str, Any]) -> dict[str, Any]:
    """Paths that mean the same in a worker's folder."""
    model = options["model"]
    if model is not None and Path(model).exists():
        model = str(Path(model).absolute())
    return options | {
        "model": model,
        "lora": [(str(Path(path).absolute()), weight) for path, weight in options["lora"]],
    }

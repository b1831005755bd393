"""The clips of an evaluation: sound files read at their own rate, with what riff wrote into them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.audio.channels import to_mono
from riff.audio.formats import SUFFIXES
from riff.music.theory import canonical_key
from riff.tasks.provenance import read_sound_tags
from riff.utils.errors import RiffError
from riff.utils.files import check_readable
from riff.utils.validation import BPM_RANGE

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 600.0  # seconds that are read of a file


@dataclasses.dataclass(frozen=True)
class Sound:
    """A clip in memory.

    Attributes:
        path: where it was read; used in messages and to name clips.
        waveform: (C, T) float32 in [-1, 1].
        sample_rate: samples per second, in Hz.
        metadata: what riff wrote of its making (prompt, bpm, keyscale, seed …); empty for other files.
    """

    path: Path
    waveform: Tensor
    sample_rate: int
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def mono(self) -> Tensor:
        """All channels as one, (T,)."""
        return to_mono(self.waveform)[0]

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.waveform.shape[-1] / self.sample_rate

    def middle(self, seconds: float) -> Sound:
        """Itself, or the middle ``seconds`` of it if it is longer."""
        size = round(seconds * self.sample_rate)
        start = (self.waveform.shape[-1] - size) // 2
        return self if start <= 0 else dataclasses.replace(self, waveform=self.waveform[..., start : start + size])


def find_sounds(source: str | Path) -> list[Path]:
    """The sound files of a folder and the folders in it, in the order of their names; hidden ones are left out.

    Args:
        source: a folder, or one file.

    Raises:
        RiffError: it is missing or holds none.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise RiffError(f"{source} is no file or folder; give a folder of sound files")
    found = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(source).parts)]
    if not found:
        raise RiffError(f"{source} holds no sound file; use {', '.join(SUFFIXES)}")
    return found


def load_sound(path: str | Path) -> Sound:
    """Read a file at its own rate, its first ten minutes if it is longer.

    Raises:
        RiffError: it is missing, damaged or no sound.
    """
    from riff.audio.io import load_audio, read_metadata

    with warnings.catch_warnings():
        # A cut file is measured as what is left of it would mislead; it counts as corrupt.
        warnings.filterwarnings("error", message=".*is damaged", category=UserWarning)
        try:
            waveform, rate = load_audio(path, duration=LONGEST)
        except UserWarning as warning:
            raise RiffError(f"{warning}; repair it or leave it out") from warning
    return Sound(Path(path), waveform, rate, read_sound_tags(read_metadata(path)))


def load_sounds(paths: Sequence[str | Path]) -> Iterator[Sound | RiffError]:
    """Read files one after another; one that cannot be read gives its error, which names it, in its place.

    Args:
        paths: the files.
    """
    for path in paths:
        try:
            yield load_sound(path)
        except RiffError as error:
            yield error


# What each clip of a folder should have been: read from a list of prompts, if the files do not say it themselves.

FIELDS = ("prompt", "bpm", "keyscale", "genre")
MAX_BYTES = 64_000_000
_FILE_FIELDS = ("file", "file_name", "path", "filename", "name", "audio")
_ALIASES = {"text": "prompt", "caption": "prompt", "key": "keyscale", "tempo": "bpm"}


def read_requests(
    path: str | Path, files: Sequence[Path], folder: Path
) -> tuple[dict[Path, dict[str, str]], list[str]]:
    """Which clip was requested what.

    A line names its file by the path inside the folder, the name, or the name without its suffix. If no line names a
    file, the lines belong to the files in the order of their names, and there must be as many.

    Args:
        path: ``.jsonl`` or ``.ndjson`` (objects with ``file`` and any of prompt, bpm, keyscale or key, genre), ``.csv``
            or ``.tsv`` (the same as columns), else text: a prompt on each line, or file, tab, prompt.
        files: the sound files there are.
        folder: in which they are.

    Returns:
        File to requested values as text, and lines that could not be used, one message each.

    Raises:
        RiffError: no such list, no UTF-8, nothing in it, or nothing in it that fits the files.
    """
    path = Path(path)
    rows = list(_read_rows(path))
    if not rows:
        raise RiffError(f"--prompts {path} holds no prompt; write one per line, with its file or in the files' order")
    named = [_file_of(row) for _, row in rows]
    if not any(named):
        if len(rows) != len(files):
            raise RiffError(
                f"--prompts {path} holds {len(rows)} prompts and {folder} {len(files)} sounds, and no line names its "
                "file; write file, tab, prompt on each line"
            )
        return _check_all(path, [(line, row, file) for (line, row), file in zip(rows, files, strict=True)])
    places = _places(files, folder)
    found, problems = [], []
    for (line, row), name in zip(rows, named, strict=True):
        file = places.get(name.replace("\\", "/").removeprefix("./")) if name else None
        if file is None:
            missing = f"{name!r} is not in {folder}" if name else "names no file"
            problems.append(f"{path.name} line {line}: {missing}")
        else:
            found.append((line, row, file))
    if not found:
        raise RiffError(f"--prompts {path} fits none of the {len(files)} sounds: {problems[0]}")
    requested, wrong = _check_all(path, found)
    return requested, problems + wrong


def _check_all(
    path: Path, rows: list[tuple[int, dict[str, Any], Path]]
) -> tuple[dict[Path, dict[str, str]], list[str]]:
    requested, problems = {}, []
    for line, row, file in rows:
        try:
            requested[file] = _check(row)
        except RiffError as error:
            problems.append(f"{path.name} line {line}: {error}")
    if not requested:
        raise RiffError(f"--prompts {path} has no line that can be used: {problems[0]}")
    return requested, problems


def _check(row: dict[str, Any]) -> dict[str, str]:
    values = {_ALIASES.get(name, name): value for name, value in row.items()}
    requested = {name: str(values[name]).strip() for name in FIELDS if values.get(name) not in (None, "")}
    if "keyscale" in requested:
        requested["keyscale"] = canonical_key(requested["keyscale"])
    if "bpm" in requested:
        low, high = BPM_RANGE
        try:
            fits = low <= float(requested["bpm"]) <= high
        except ValueError:
            fits = False
        if not fits:
            raise RiffError(f"bpm is {requested['bpm']!r}; use a number from {low:g} to {high:g}")
    return requested


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = _read_text(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        reader = csv.DictReader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ",")
        for row in reader:
            yield reader.line_num, {str(name).strip().lower(): value for name, value in row.items() if name}
        return
    # Not splitlines, which also splits at form feeds, and so counts other lines than an editor.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if suffix in (".jsonl", ".ndjson"):
            yield number, _read_object(path, number, line)
        else:
            name, tab, prompt = line.partition("\t")
            yield number, {"file": name.strip(), "prompt": prompt.strip()} if tab else {"prompt": line.strip()}


def _read_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RiffError(f"--prompts {path} line {number} is no JSON ({' '.join(str(error).split())[:100]})") from error
    if not isinstance(fields, dict):
        raise RiffError(f'--prompts {path} line {number} is no object; write {{"file": "a.wav", "prompt": "jazz"}}')
    return {str(name).lower(): value for name, value in fields.items()}


def _read_text(path: Path) -> str:
    check_readable(path, expected="a list of prompts")
    if path.stat().st_size > MAX_BYTES:
        raise RiffError(f"--prompts {path} has more than {MAX_BYTES:,} bytes; split the list")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RiffError(f"--prompts {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _file_of(row: dict[str, Any]) -> str:
    return next((str(row[name]).strip() for name in _FILE_FIELDS if row.get(name)), "")


def _places(files: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Every way to name each file, the exact ones winning; ``riff render --prompts`` puts a number before a name."""
    root = folder if folder.is_dir() else folder.parent
    bare = {re.sub(r"^\d{4,}-", "", file.stem): file for file in files}
    exact = {file.relative_to(root).as_posix(): file for file in files}
    whole = {file.as_posix(): file for file in files}
    return bare | {file.stem: file for file in files} | {file.name: file for file in files} | whole | exact

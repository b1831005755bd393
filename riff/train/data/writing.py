"""The data set on the disk: images in folders with their metadata, put in place from the work folder."""

import base64
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.nn import functional

from riff.train.data.settings import PrepareSettings, differing_settings
from riff.train.data.shards import Row, place_shards, shard_names
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import write_json, write_text

SPLITS = ("train", "validation")


def split_of(source: str, validation: float) -> str:
    """The split of a source by a hash of its name, so that it stays where it is when others come."""
    share = int.from_bytes(hashlib.sha256(f"riff split {source}".encode()).digest()[:8], "big") / 2.0**64
    return "validation" if share < validation else "train"


def split_rows(rows: Iterable[Row], validation: float) -> dict[str, list[Row]]:
    """Rows by split; where all of them would be held out, none is."""
    found: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in rows:
        found[split_of(row["source"], validation)].append(row)
    if not found["train"]:
        return {"train": found["validation"], "validation": []}
    return found


def present(dataset: Path, work: Path) -> set[str]:
    """File names of the clips whose images are there: in the work folder, in their folders or in shards."""
    names = {path.name for path in (work / "clips").glob("*.png")}
    for split in SPLITS:
        names |= {path.name for path in (dataset / split).glob("*.png")}
    return names | shard_names(dataset)


def place(dataset: Path, work: Path, rows: dict[str, list[Row]], *, shards: bool) -> None:
    """Make the data set hold exactly these rows; killed at any instant, it can be called again.

    Args:
        dataset: its folder.
        work: the work folder, whose ``clips/`` holds the images that are not in place yet.
        rows: by split.
        shards: whether they are packed in Parquet.

    Raises:
        SystemProblem: the disk is full or cannot be written.
    """
    if shards:
        place_shards(dataset, work, rows)
        return
    staged = work / "clips"
    for split in SPLITS:
        folder, wanted = dataset / split, {row["file_name"] for row in rows[split]}
        if not wanted and not folder.is_dir():
            continue
        folder.mkdir(exist_ok=True)
        other = dataset / SPLITS[1 - SPLITS.index(split)]
        for name in sorted(wanted):
            for origin in (staged / name, other / name):
                if origin.is_file() and (origin.parent == staged or not (folder / name).exists()):
                    origin.replace(folder / name)
                    break
        _write_metadata(folder / "metadata.jsonl", rows[split])
        # What was in place and is no longer wanted waits in the work folder.
        for path in folder.glob("*.png"):
            if path.name not in wanted:
                path.replace(staged / path.name)
        if not wanted:
            (folder / "metadata.jsonl").unlink(missing_ok=True)


def clear_stale(work: Path, records: Iterable[Row]) -> None:
    """Delete images in the work folder that belong to a known source of which no record names them any more."""
    prefixes, names = set(), set()
    for record in records:
        prefixes.add(record["prefix"])
        names |= {row["file_name"] for row in record["clips"]}
    for path in (work / "clips").glob("*.png"):
        if path.name not in names and path.stem.rpartition("-")[0] in prefixes:
            path.unlink()


def _write_metadata(path: Path, rows: list[Row]) -> None:
    # All but the fingerprint, which only the search for copies needs.
    shown = ({name: value for name, value in row.items() if name != "print"} for row in rows)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in shown)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


# Clips that are nearly copies of one another: a loop that repeats, a song that is there twice in two formats.

ROWS, COLUMNS = 32, 32
RANGE = 50.0  # decibels below a clip's loudest cell that count; what is softer differs between two encodings
# Cosine from which two clips are one: copies through MP3 or Vorbis have 0.998, repeated bars 0.99,
# clips of different composed songs at most 0.45.
ALIKE = 0.99
_PART = 1024  # clips compared at once


def fingerprint(mel: Tensor) -> np.ndarray:
    """What is compared of a clip: 32 x 32 cells of its level, 0 at ``RANGE`` below the loudest, 255 at the loudest.

    Args:
        mel: (C, M, N) magnitudes; loudness does not matter.

    Returns:
        uint8, shape (1024,).
    """
    power = functional.adaptive_avg_pool2d(mel.float().square().mean(0, keepdim=True), (ROWS, COLUMNS))[0]
    level = 10.0 * torch.log10(power / power.max().clamp_min(1e-30) + 1e-12)
    return ((level / RANGE + 1.0).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy().reshape(-1)


def directions(prints: Iterable[str]) -> np.ndarray:
    """Fingerprints in base64 as vectors of length 1, whose products are how much clips resemble each other.

    Each row's mean over time is taken off by half: the timbre of a song is in all its clips.
    """
    cells = np.stack([np.frombuffer(base64.b64decode(text), dtype=np.uint8) for text in prints]).astype(np.float32)
    cells = cells.reshape(-1, ROWS, COLUMNS)
    cells = (cells - 0.5 * cells.mean(2, keepdims=True)).reshape(len(cells), -1)
    cells -= cells.mean(1, keepdims=True)
    return np.asarray(cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def repeated(vectors: np.ndarray, *, alike: float = ALIKE) -> dict[int, int]:
    """Clips that resemble an earlier one that is kept, each with that one.

    Args:
        vectors: of :func:`directions`, shape (n, 1024), in the order in which clips are to be kept.
        alike: cosine from which two clips are one.

    Returns:
        Index of each repeated clip to the index of the kept clip it repeats.
    """
    found: dict[int, int] = {}
    kept = np.empty((len(vectors),), dtype=np.int64)
    count = 0
    for start in range(0, len(vectors), _PART):
        part = vectors[start : start + _PART]
        best, where = np.full(len(part), -1.0, dtype=np.float32), np.zeros(len(part), dtype=np.int64)
        for first in range(0, count, _PART):
            alikeness = part @ vectors[kept[first : min(first + _PART, count)]].T
            top = alikeness.argmax(1)
            value = alikeness[np.arange(len(part)), top]
            better = value > best
            best[better], where[better] = value[better], kept[first + top[better]]
        inside = part @ part.T
        fresh: list[int] = []
        for index in range(len(part)):
            if best[index] >= alike:
                found[start + index] = int(where[index])
                continue
            near = next((other for other in fresh if inside[index, other] >= alike), None)
            if near is not None:
                found[start + index] = start + near
                continue
            fresh.append(index)
        kept[count : count + len(fresh)] = start + np.array(fresh, dtype=np.int64)
        count += len(fresh)
    return found


def without_copies(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without those that are nearly copies of earlier ones of the same metre."""
    left: set[int] = set()
    for metre in {row["beats_per_bar"] for row in rows}:
        places = [index for index, row in enumerate(rows) if row["beats_per_bar"] == metre]
        left |= {places[index] for index in repeated(directions(rows[place]["print"] for place in places))}
    return [row for index, row in enumerate(rows) if index not in left]


# The work folder of a data set: for one process at a time, and for clips of one set of settings.

WORK = ".riff-prepare"


@contextmanager
def locked_work_folder(dataset: Path, settings: PrepareSettings, *, force: bool) -> Iterator[Path]:
    """The work folder of a data set, for this process alone.

    Raises:
        RiffError: it was made with other settings, is not riff's, or another process works on it.
        SystemProblem: it cannot be written.
    """
    work = dataset / WORK
    known, now = work / "settings.json", json.loads(json.dumps(settings.to_dict()))
    if not work.is_dir() and dataset.is_dir() and any(dataset.iterdir()) and not force:
        raise RiffError(f"{dataset} is not empty and not one of riff prepare's; choose another folder, or --force")
    lock = FileLock(work / "lock", timeout=0)
    try:
        for each in (work, work / "clips", work / "records"):
            each.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RiffError(f"another riff prepare works on {dataset}; wait for it, or choose another folder") from error
    except OSError as error:
        raise SystemProblem(f"cannot write {dataset} ({(error.strerror or str(error)).lower()})") from error
    try:
        if known.is_file():
            differing = differing_settings(_read_settings(known), now)
            if differing and not force:
                raise RiffError(
                    f"{dataset} was made with other settings: {differing}; use those, another folder or --force"
                )
            if differing:
                _empty(dataset, work)
        _remove_unfinished(dataset, work)
        write_json(known, now)
        settings.config.save(dataset)
        yield work
    finally:
        lock.release()


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RiffError(f"{path} is damaged ({error}); use --force to make the data set again") from error


def _remove_unfinished(dataset: Path, work: Path) -> None:
    """Remove the unfinished files of a run that was killed."""
    for folder in (
        dataset,
        work,
        work / "clips",
        work / "records",
        *(dataset / n for n in ("train", "validation", "data")),
    ):
        for path in folder.glob(".riff-*"):
            if path.is_file():
                path.unlink(missing_ok=True)


def _empty(dataset: Path, work: Path) -> None:
    """Remove the clips of earlier settings: the images that records name, and the shards."""
    names = {row["file_name"] for record in read_records(work).values() for row in record["clips"]}
    for split in ("train", "validation"):
        for path in (dataset / split).glob("*.png"):
            if path.name in names:
                path.unlink()
        (dataset / split / "metadata.jsonl").unlink(missing_ok=True)
    for path in (dataset / "data").glob("*-of-*.parquet"):
        path.unlink()
    for name in ("train", "validation", "data"):
        if (dataset / name).is_dir() and not any((dataset / name).iterdir()):
            (dataset / name).rmdir()
    (work / "shards.json").unlink(missing_ok=True)
    for name in ("clips", "records"):
        shutil.rmtree(work / name)
        (work / name).mkdir()


def read_records(work: Path) -> dict[str, dict[str, Any]]:
    """The records of finished sources by name; one that is damaged counts as none."""
    found = {}
    for path in (work / "records").glob("*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found[record["source"]] = record
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found

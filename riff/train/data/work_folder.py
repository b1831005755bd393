"""The work folder of a data set: for one process at a time, and for clips of one set of settings."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from riff.train.data.settings import PrepareSettings, differing_settings
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import write_json

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

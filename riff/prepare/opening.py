"""The folder of a data set being made: for one process at a time, and for clips of one set of settings."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riff.errors import RiffError, SystemProblem
from riff.files import write_json
from riff.prepare.settings import PrepareSettings, differing_settings
from riff.prepare.work import Record

WORK = ".riff-prepare"


@contextmanager
def opened(dataset: Path, settings: PrepareSettings, *, force: bool) -> Iterator[Path]:
    """The work folder of a data set, for this process alone.

    Raises:
        RiffError: it was made with other settings, is not riff's, or another process works on it.
        SystemProblem: it cannot be written.
    """
    place_of_work = dataset / WORK
    known, now = place_of_work / "settings.json", json.loads(json.dumps(settings.to_dict()))
    if not place_of_work.is_dir() and dataset.is_dir() and any(dataset.iterdir()) and not force:
        raise RiffError(f"{dataset} is not empty and not one of riff prepare's; choose another folder, or --force")
    try:
        for each in (place_of_work, place_of_work / "clips", place_of_work / "records"):
            each.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemProblem(f"cannot make {dataset} ({(error.strerror or str(error)).lower()})") from error
    with _locked(place_of_work / "lock", dataset):
        if known.is_file():
            differing = differing_settings(json.loads(known.read_text(encoding="utf-8")), now)
            if differing and not force:
                raise RiffError(
                    f"{dataset} was made with other settings: {differing}; use those, another folder or --force"
                )
            if differing:
                _empty(dataset, place_of_work)
        _sweep(dataset, place_of_work)
        write_json(known, now)
        settings.config.save(dataset)
        yield place_of_work


@contextmanager
def _locked(path: Path, dataset: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RiffError(
                f"another riff prepare works on {dataset}; wait for it, or choose another folder"
            ) from error
        yield


def _sweep(dataset: Path, place_of_work: Path) -> None:
    """Remove the unfinished files of a run that was killed."""
    inside = ("train", "validation", "data")
    for folder in (
        dataset,
        place_of_work,
        *(place_of_work / n for n in ("clips", "records")),
        *(dataset / n for n in inside),
    ):
        for path in folder.glob(".riff-*"):
            if path.is_file():
                path.unlink(missing_ok=True)


def _empty(dataset: Path, place_of_work: Path) -> None:
    """Remove the clips of earlier settings: the pictures that records name, and the shards."""
    names = {row["file_name"] for record in read_records(place_of_work).values() for row in record["clips"]}
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
    (place_of_work / "shards.json").unlink(missing_ok=True)
    for name in ("clips", "records"):
        shutil.rmtree(place_of_work / name)
        (place_of_work / name).mkdir()


def read_records(place_of_work: Path) -> dict[str, Record]:
    """The records of finished sources by name; one that is damaged counts as none."""
    found = {}
    for path in (place_of_work / "records").glob("*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found[record["source"]] = record
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found

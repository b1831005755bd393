"""A folder of music to a data set: list, cut on all cores, leave out copies, put in place, report."""

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from riff.train.data.report import Report, make_report
from riff.train.data.settings import PrepareSettings, differing_settings
from riff.train.data.sources import Listing, Source, apart, is_data_set, is_elsewhere, list_folder, list_rows
from riff.train.data.worker import Record, record_key, record_path, work
from riff.train.data.writing import clear_stale, directions, place, present, repeated, split_rows
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import write_json
from riff.utils.parallel import WorkerDied, run_all

Cut = Callable[[list[Source], PrepareSettings, Path], dict[str, str]]


def prepare(
    music: str | Path,
    dataset: str | Path,
    settings: PrepareSettings | None = None,
    *,
    workers: int | None = None,
    force: bool = False,
    progress: bool = False,
) -> Report:
    """Make a data set of captioned spectrogram pictures from music.

    A source that an earlier run has finished is not read again; a run that was killed is taken up by the next one.

    Args:
        music: a folder, searched with all below it; a sound file; ``hf:NAME``, a data set of Hugging Face's, or a
            folder with one.
        dataset: the folder to make or to add to.
        settings: how; default riff-mini's pictures, two bars each.
        workers: processes; default one for each core, 0 works in this one.
        force: make it anew where it was made with other settings, or into a folder with other things in it.
        progress: whether a bar is shown on a terminal.

    Returns:
        What became of the music. It is in ``report.json`` and ``index.html`` as well.

    Raises:
        RiffError: there is no music; or ``dataset`` was made with other settings, is in use or is not riff's; or no
            clip came out.
        ModelError: the CLAP asked for is not there.
        SystemProblem: the disk is full, or a package is missing.
    """
    settings, folder = settings or PrepareSettings(), Path(dataset)
    for given in (music, dataset):
        if is_elsewhere(given):
            raise RiffError(f"{given} is a URL; --engine ray (prepare_on_ray) reads and writes those")
    listing = list_music(music, settings, without=folder)
    return make(folder, listing, settings, functools.partial(_work_through, workers, progress), force=force)


def make(
    dataset: Path,
    listing: Listing,
    settings: PrepareSettings,
    cut: Cut,
    *,
    force: bool = False,
    name: str | None = None,
    fetch: Callable[[list[Path]], None] | None = None,
) -> Report:
    """Make a data set of music that was listed, whoever cuts it; errors as in :func:`prepare`.

    Args:
        dataset: the folder to make or to add to.
        listing: the music.
        settings: how.
        cut: called with the sources to be done, the settings and the work folder, in which it leaves a record of each;
            returns those it could not do and why.
        force: as in :func:`prepare`.
        name: of the data set in its report; default its folder.
        fetch: called with the pictures that the report's page shows, before it is written.
    """
    if settings.clap is not None:
        from riff.train.data.auto_caption import check_clap

        check_clap(settings.clap)
    with opened(dataset, settings, force=force) as place_of_work:
        records = read_records(place_of_work)
        todo = missing(listing.sources, records, settings, present(dataset, place_of_work))
        crashed = cut(todo, settings, place_of_work)
        for source in todo:
            path = record_path(place_of_work, source.name)
            if source.name not in crashed and path.is_file():
                records[source.name] = json.loads(path.read_text(encoding="utf-8"))
        listing = dataclasses.replace(listing, unused=listing.unused | crashed)
        report = finish(dataset, records, settings, listing, name=name, fetch=fetch)
    if not report.clips:
        first, why = next(iter(report.unused.items()))
        raise RiffError(f"no clip came out of {report.sources} files; {first!r}, the first: {why} (all: report.json)")
    return report


def list_music(music: str | Path, settings: PrepareSettings, *, without: Path | None = None) -> Listing:
    """Find the music: in a folder, or in a ``datasets`` data set; see :func:`prepare`."""
    return list_rows(music, settings) if is_data_set(music) else list_folder(Path(music), without=without)


def missing(
    sources: list[Source], records: dict[str, Record], settings: PrepareSettings, there: set[str]
) -> list[Source]:
    """Sources that are still to be cut, each with the prefix that it has had before or that is free.

    Args:
        sources: found.
        records: of earlier runs.
        settings: of this one.
        there: file names of the pictures that are there.
    """
    owner = {record["prefix"]: name for name, record in records.items()}
    found = []
    for source in sources:
        record = records.get(source.name)
        if record is not None:
            source = dataclasses.replace(source, prefix=record["prefix"])
            # What could not be read is tried again: it may have been mended without a trace in its stamp.
            whole = record["problem"] is None or record["skipped"]
            whole = whole and all(row["file_name"] in there for row in record["clips"])
            if whole and record["key"] == record_key(source, settings):
                continue
        elif owner.get(source.prefix, source.name) != source.name:
            source = dataclasses.replace(source, prefix=apart(source.name))
        found.append(source)
    return found


def _work_through(
    workers: int | None, progress: bool, todo: list[Source], settings: PrepareSettings, place_of_work: Path
) -> dict[str, str]:
    """Cut all that is to be done; the sources whose worker failed and why."""
    from tqdm import tqdm

    crashed: dict[str, str] = {}
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    tasks = [(source, settings, str(place_of_work)) for source in todo]
    total, clips = sum(source.size for source in todo), 0
    with tqdm(total=total, unit="B", unit_scale=True, desc="prepare", disable=None if progress else True) as bar:
        for number, result in run_all(work, tasks, workers=workers):
            if isinstance(result, SystemProblem):
                raise result
            if isinstance(result, WorkerDied):
                crashed[todo[number].name] = str(result)
            elif isinstance(result, BaseException):
                crashed[todo[number].name] = f"a defect in riff: {type(result).__name__}: {result}"
            else:
                clips += len(result["clips"])
            bar.update(todo[number].size)
            bar.set_postfix_str(f"{clips} clips", refresh=False)
    return crashed


def finish(
    dataset: Path,
    records: dict[str, Record],
    settings: PrepareSettings,
    listing: Listing,
    *,
    name: str | None = None,
    fetch: Callable[[list[Path]], None] | None = None,
) -> Report:
    """Make the data set hold what the records say, and report.

    Args:
        dataset: its folder, with the work folder in it.
        records: of all sources by name.
        settings: how.
        listing: what was found in MUSIC, with what failed among its ``unused``.
        name: as in :func:`make`.
        fetch: as in :func:`make`.
    """
    from riff.train.data.report import shown_rows, write_page

    place_of_work = dataset / WORK
    ordered = [records[name] for name in sorted(records)]
    rows = [row for record in ordered for row in record["clips"]]
    chosen = rows if settings.duplicates else without_copies(rows)
    by_split = split_rows(chosen, settings.validation)
    place(dataset, place_of_work, by_split, shards=settings.shards)
    clear_stale(place_of_work, ordered)
    found = {source.name for source in listing.sources}
    report = make_report(
        name or str(dataset),
        ordered,
        by_split,
        len(rows) - len(chosen),
        settings,
        unused={source: why for source, why in listing.unused.items() if source not in records},
        no_audio=listing.no_audio,
        ignored=listing.ignored,
        kept=sorted(set(records) - found),
    )
    if fetch is not None:
        shown = {row["file_name"] for row in shown_rows(by_split)}
        fetch(
            [
                dataset / split / row["file_name"]
                for split in by_split
                for row in by_split[split]
                if row["file_name"] in shown
            ]
        )
    write_page(dataset, report, by_split)
    write_json(dataset / "report.json", report.to_dict())
    return report


def without_copies(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without those that are nearly copies of earlier ones of the same metre."""
    left: set[int] = set()
    for metre in {row["beats_per_bar"] for row in rows}:
        places = [index for index, row in enumerate(rows) if row["beats_per_bar"] == metre]
        left |= {places[index] for index in repeated(directions(rows[place]["print"] for place in places))}
    return [row for index, row in enumerate(rows) if index not in left]


# WAS riff/prepare/opening.py: The folder of a data set being made: for one process at a time, and for clips of
# one set of settings.

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

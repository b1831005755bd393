"""A folder of music to a data set: list, cut on all cores, leave out copies, put in place, report."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from riff.train.data.report import Report, make_report, write_page
from riff.train.data.rows import is_data_set, list_rows
from riff.train.data.settings import PrepareSettings
from riff.train.data.sources import Listing, MusicSource, list_folder, unique_prefix
from riff.train.data.worker import Record, cut_source, record_key, record_path
from riff.train.data.writing import (
    WORK,
    clear_stale,
    locked_work_folder,
    place,
    present,
    read_records,
    split_rows,
    without_copies,
)
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import write_json
from riff.utils.parallel import WorkerDied, run_all, usable_cores

CutAll = Callable[[list[MusicSource], PrepareSettings, Path], dict[str, str]]


def prepare(
    music: str | Path,
    dataset: str | Path,
    settings: PrepareSettings | None = None,
    *,
    workers: int | None = None,
    force: bool = False,
    progress: bool = False,
) -> Report:
    """Make a data set of captioned spectrograms from music.

    A source that an earlier run has finished is not read again; a run that was killed is continued by the next one.

    Args:
        music: a folder, searched with all below it; a sound file; ``hf:NAME``, a data set of Hugging Face's, or a
            folder with one.
        dataset: the folder to make or to add to.
        settings: how; default riff-mini's spectrograms, two bars each.
        workers: processes; default one for each core, 0 works in this one.
        force: replace it where it was made with other settings, or write into a folder with other things in it.
        progress: whether a bar is shown on a terminal.

    Returns:
        What became of the music. It is in ``report.json`` and ``index.html`` as well.

    Raises:
        RiffError: there is no music; or ``dataset`` was made with other settings, is in use or is not riff's; or no
            clip came out.
        ModelError: the CLAP of ``settings`` is not there.
        SystemProblem: the disk is full, or a package is missing.
    """
    settings, folder = settings or PrepareSettings(), Path(dataset)
    for given in (music, dataset):
        if is_url(given):
            raise RiffError(f"{given} is a URL; --engine ray (prepare_on_ray) reads and writes those")
    listing = list_music(music, settings, without=folder)
    return make(folder, listing, settings, functools.partial(_cut_all, workers, progress), force=force)


def make(
    dataset: Path,
    listing: Listing,
    settings: PrepareSettings,
    cut_all: CutAll,
    *,
    force: bool = False,
    name: str | None = None,
) -> Report:
    """Make a data set of music that was listed; errors as in :func:`prepare`.

    Args:
        dataset: the folder to make or to add to.
        listing: the music.
        settings: how.
        cut_all: called with the sources to be cut, the settings and the work folder, in which it leaves a record of
            each; returns those that failed and why.
        force: as in :func:`prepare`.
        name: of the data set in its report; default its folder.
    """
    if settings.clap is not None:
        from riff.train.data.wording import check_clap

        check_clap(settings.clap)
    with locked_work_folder(dataset, settings, force=force) as work:
        records = read_records(work)
        todo = missing(listing.sources, records, settings, present(dataset, work))
        crashed = cut_all(todo, settings, work)
        for source in todo:
            path = record_path(work, source.name)
            if source.name not in crashed and path.is_file():
                records[source.name] = json.loads(path.read_text(encoding="utf-8"))
        listing = dataclasses.replace(listing, unused=listing.unused | crashed)
        report = _finish(dataset, records, settings, listing, name or str(dataset))
    if not report.clips:
        first, why = next(iter(report.unused.items()))
        raise RiffError(f"no clip came out of {report.sources} files; {first!r}, the first: {why} (all: report.json)")
    return report


def is_url(place: str | Path) -> bool:
    """Whether a place is the URL of an fsspec file system (``s3://bucket/folder``, ``file:///folder``)."""
    return "://" in str(place)


def list_music(music: str | Path, settings: PrepareSettings, *, without: Path | None = None) -> Listing:
    """Find the music: in a folder, or in a ``datasets`` data set; see :func:`prepare`."""
    if is_data_set(music):
        return list_rows(music, settings)
    return list_folder(Path(music), without=without, text_column=settings.text_column)


def missing(
    sources: list[MusicSource], records: dict[str, Record], settings: PrepareSettings, there: set[str]
) -> list[MusicSource]:
    """Sources that are still to be cut, each with the prefix that it has had before or that is free.

    Args:
        sources: found.
        records: of earlier runs.
        settings: of this one.
        there: file names of the images that are there.
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
            source = dataclasses.replace(source, prefix=unique_prefix(source.name))
        found.append(source)
    return found


def _make_work() -> Callable[..., Record]:
    """For :func:`riff.utils.parallel.run_all`."""
    return cut_source


def _cut_all(
    workers: int | None, progress: bool, todo: list[MusicSource], settings: PrepareSettings, work: Path
) -> dict[str, str]:
    tasks = [(source, settings, str(work)) for source in todo]
    done = run_all(_make_work, tasks, workers=usable_cores() if workers is None else workers)
    return count_failures(todo, done, progress)


def count_failures(todo: list[MusicSource], done: Any, progress: bool) -> dict[str, str]:
    """Wait for the work behind a bar; the sources that failed and why.

    Args:
        todo: the sources.
        done: yields the number of each and its record, or the exception that it ended with.
        progress: whether a bar is shown on a terminal.

    Raises:
        SystemProblem: a source ended with one; no other source would fare better.
    """
    from tqdm import tqdm

    failed: dict[str, str] = {}
    total, clips = sum(source.size for source in todo), 0
    with tqdm(total=total, unit="B", unit_scale=True, desc="prepare", disable=None if progress else True) as bar:
        for number, result in done:
            if isinstance(result, SystemProblem):
                raise result
            if isinstance(result, RiffError | WorkerDied):
                failed[todo[number].name] = " ".join(str(result).split())
            elif isinstance(result, BaseException):
                failed[todo[number].name] = f"a defect in riff: {type(result).__name__}: {result}"
            else:
                clips += len(result["clips"])
            bar.update(todo[number].size)
            bar.set_postfix_str(f"{clips} clips", refresh=False)
    return failed


def _finish(
    dataset: Path, records: dict[str, Record], settings: PrepareSettings, listing: Listing, name: str
) -> Report:
    """Make the data set hold what the records say, and report."""
    ordered = [records[source] for source in sorted(records)]
    rows = [row for record in ordered for row in record["clips"]]
    chosen = rows if settings.duplicates else without_copies(rows)
    by_split = split_rows(chosen, settings.validation)
    place(dataset, dataset / WORK, by_split, shards=settings.shards)
    clear_stale(dataset / WORK, ordered)
    report = make_report(name, records, by_split, len(rows) - len(chosen), settings, listing)
    write_page(dataset, report, by_split)
    write_json(dataset / "report.json", report.to_dict())
    return report

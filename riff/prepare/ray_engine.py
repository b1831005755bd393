"""``riff prepare --engine ray``: the same work as a Ray Data pipeline, from and to any file system of fsspec."""

import contextlib
import dataclasses
import functools
import logging
import os
import pickle
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riff.cluster import MOST_TRIES, connected, does_not_run, portable
from riff.errors import RiffError, SystemProblem
from riff.files import write_json
from riff.prepare.elsewhere import Elsewhere, Mirror, is_elsewhere
from riff.prepare.listing import list_elsewhere
from riff.prepare.opening import WORK
from riff.prepare.report import Report
from riff.prepare.rows import MARK
from riff.prepare.run import list_music, make
from riff.prepare.settings import PrepareSettings
from riff.prepare.sources import Listing, Source
from riff.prepare.work import Record, record_path, work


def prepare_on_ray(
    music: str | Path,
    dataset: str | Path,
    settings: PrepareSettings | None = None,
    *,
    address: str | None = None,
    workers: int | None = None,
    force: bool = False,
    progress: bool = False,
) -> Report:
    """As :func:`riff.prepare.prepare`, with the cutting done by the processes of a Ray cluster.

    The result is the same. A process or a machine that dies costs no music: what it worked on is given to another.
    Local folders must be seen by every machine of the cluster under the same path. Of a ``dataset`` elsewhere, this
    machine holds the names, the metadata and the pictures on the report's page; with ``settings.shards``, which it
    packs, all pictures. Two runs at once are told from each other in a local ``dataset`` only.

    Args:
        music: a folder or a sound file, by its path or its fsspec URL (``s3://bucket/music``), or ``hf:NAME``.
        dataset: the folder to make or to add to, by its path or its URL.
        settings: how.
        address: of the cluster, as for :func:`riff.cluster.connected`; default one that is started on this machine.
        workers: tasks at once; default one for each core of the cluster.
        force: make it anew where it was made with other settings, or into a folder with other things in it.
        progress: whether a bar is shown on a terminal.

    Returns:
        What became of the music.

    Raises:
        RiffError: as for ``prepare``; or an address or URL is none.
        SystemProblem: as for ``prepare``; or ray is not installed, or cluster or file system cannot be reached.
    """
    settings = settings or PrepareSettings()
    listing = _listed(music, dataset, settings)
    cut = functools.partial(_cut_all, address, workers, progress)
    if not is_elsewhere(dataset):
        folder = Path(dataset).absolute()
        return make(folder, listing, settings, functools.partial(cut, None), force=force, name=str(dataset))
    return _make_elsewhere(str(dataset), listing, settings, cut, force=force)


def _listed(music: str | Path, dataset: str | Path, settings: PrepareSettings) -> Listing:
    if is_elsewhere(music):
        return list_elsewhere(str(music))
    if not str(music).startswith(MARK):
        music = Path(music).absolute()  # a worker's own folder is another
    return list_music(music, settings, without=None if is_elsewhere(dataset) else Path(dataset))


def _make_elsewhere(
    url: str, listing: Listing, settings: PrepareSettings, cut: functools.partial[dict[str, str]], *, force: bool
) -> Report:
    place = Elsewhere(url)
    with tempfile.TemporaryDirectory(prefix="riff-") as temporary:
        folder = Path(temporary) / (place.url.rpartition("/")[2] or "dataset")
        mirror = Mirror(place, folder, functools.partial(_is_small, settings.shards))
        mirror.pull(place.files())
        try:
            return make(
                folder, listing, settings, functools.partial(cut, mirror), force=force, name=url, fetch=mirror.fetch
            )
        except RiffError as error:
            raise type(error)(str(error).replace(str(folder), url)) from error
        finally:
            if (folder / WORK / "settings.json").is_file():
                mirror.push()


def _is_small(shards: bool, name: str, size: int) -> bool:
    """Whether this machine needs a file of the data set itself."""
    folder, _, file = name.rpartition("/")
    if file.endswith(".png"):
        return shards and folder == f"{WORK}/clips"
    if folder in ("", "data", "train", "validation"):
        known = ("metadata.jsonl", "spectrogram_config.json", "report.json", "index.html")
        return file in known or (folder == "data" and file.endswith(".parquet"))
    return folder.startswith(WORK)


def _cut_all(
    address: str | None,
    workers: int | None,
    progress: bool,
    mirror: Mirror | None,
    todo: list[Source],
    settings: PrepareSettings,
    place_of_work: Path,
) -> dict[str, str]:
    """Cut all that is to be done; the sources that could not be and why."""
    from tqdm import tqdm

    if not todo:
        return {}
    if mirror is not None:
        mirror.push()  # a run that is killed from here on can be gone on with
    target = str(place_of_work) if mirror is None else f"{mirror.place.url}/{WORK}"
    failed: dict[str, str] = {}
    total, clips = sum(source.size for source in todo), 0
    with (
        connected(address, workers=workers),
        tqdm(total=total, unit="B", unit_scale=True, desc="prepare", disable=None if progress else True) as bar,
    ):
        for number, answer in _pipeline(todo, settings, target, workers):
            source = todo[number]
            if isinstance(answer, SystemProblem):
                raise answer
            if isinstance(answer, BaseException):
                told = str(answer) if isinstance(answer, RiffError) else f"a defect in riff: {answer}"
                failed[source.name] = " ".join(told.split())
            else:
                clips += len(answer["clips"])
                if mirror is not None:
                    _note(answer, mirror, place_of_work, shards=settings.shards)
            bar.update(source.size)
            bar.set_postfix_str(f"{clips} clips", refresh=False)
    return failed


def _pipeline(
    todo: list[Source], settings: PrepareSettings, target: str, workers: int | None
) -> Iterator[tuple[int, Record | BaseException]]:
    """Number of each source and its record, or what it ended with, as they are done."""
    import ray

    tries = ray.remote(_Tries).options(num_cpus=0).remote()
    cut = functools.partial(_cut_row, tries, settings, target)
    rows = [{"number": number, "source": pickle.dumps(source)} for number, source in enumerate(todo)]
    with _quiet_data() as data:
        # One source a block, so that each is a task of its own, which Ray gives to another process if its own dies.
        sources = data.from_items(rows, override_num_blocks=len(rows))
        made = sources.map(cut, num_cpus=1, compute=data.TaskPoolStrategy(workers)).iter_rows()
        while True:
            try:
                row = next(made)
            except StopIteration:
                return
            except ray.exceptions.RayError as error:
                raise does_not_run(error) from error
            yield row["number"], pickle.loads(row["answer"])


@contextlib.contextmanager
def _quiet_data() -> Iterator[Any]:
    """``ray.data`` without its own bars and lines, its buffers small: what travels is records, not sound."""
    from ray import data

    context, log = data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.target_max_block_size, log.level
    context.enable_progress_bars, context.target_max_block_size = False, 1 << 20
    log.setLevel(logging.CRITICAL)
    try:
        yield data
    finally:
        context.enable_progress_bars, context.target_max_block_size = before[:2]
        log.setLevel(before[2])


class _Tries:
    """How often each source was begun, of which Ray itself would never tire."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """Count one more."""
        self._count[number] += 1
        return self._count[number]


def _cut_row(tries: Any, settings: PrepareSettings, target: str, row: dict[str, Any]) -> dict[str, Any]:
    """What a worker does with one source; what goes wrong is part of the answer."""
    import ray
    import torch

    torch.set_num_threads(1)  # the workers are as many as the cores
    number = int(row["number"])
    answer: Record | Exception
    try:
        if ray.get(tries.begin.remote(number)) > MOST_TRIES:
            raise RiffError(f"the process that worked on it ended {MOST_TRIES} times")
        answer = cut_source(pickle.loads(row["source"]), settings, target)
    except Exception as error:
        answer = portable(error)
    return {"number": number, "answer": pickle.dumps(answer)}


def cut_source(source: Source, settings: PrepareSettings, target: str) -> Record:
    """As :func:`riff.prepare.work.work`, from and to any file system.

    Args:
        source: whose path may be a URL.
        settings: how to cut.
        target: the work folder, by its path or its URL.

    Raises:
        RiffError: the source cannot be fetched.
        SystemProblem: the work folder cannot be written, or a package is missing.
    """
    with tempfile.TemporaryDirectory(prefix="riff-") as temporary:
        place = Path(temporary)
        if is_elsewhere(source.path):
            local = place / f"sound{os.path.splitext(source.path)[1]}"
            try:
                Elsewhere(source.path).fetch("", local)
            except SystemProblem as error:
                raise RiffError(f"it cannot be fetched: {error}") from error
            source = dataclasses.replace(source, path=str(local))
        if not is_elsewhere(target):
            if not Path(target).is_dir():
                raise SystemProblem(f"a worker does not see {target}; give a folder that all share, or a URL")
            return work(source, settings, target)
        for name in ("clips", "records"):
            (place / name).mkdir()
        record = work(source, settings, temporary)
        there = Elsewhere(target)
        for row in record["clips"]:
            there.store(place / "clips" / row["file_name"], f"clips/{row['file_name']}")
        path = record_path(place, source.name)
        there.store(path, f"records/{path.name}")
        return record


def _note(record: Record, mirror: Mirror, place_of_work: Path, *, shards: bool) -> None:
    """Take a finished source into the mirror as the workers left it there."""
    for row in record["clips"]:
        name = f"{WORK}/clips/{row['file_name']}"
        mirror.stand_in(name)
        if shards:
            mirror.fetch([mirror.folder / name])
    path = record_path(place_of_work, record["source"])
    write_json(path, record)

"""``riff prepare --engine ray``: the same work as a Ray Data pipeline, from and to any file system of fsspec."""

import contextlib
import dataclasses
import functools
import logging
import os
import pickle
import posixpath
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from riff.train.data.prepare import WORK, list_music, make
from riff.train.data.report import Report
from riff.train.data.settings import PrepareSettings
from riff.train.data.sources import MARK, METADATA, READS, Listing, Source, is_elsewhere, list_folder
from riff.train.data.worker import Record, record_path, work
from riff.utils.cluster import MOST_TRIES, connected, does_not_run, portable
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import atomic_path, write_json


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
    """As :func:`riff.train.data.prepare.prepare`, with the cutting done by the processes of a Ray cluster.

    The result is the same. A process or a machine that dies costs no music: what it worked on is given to another.
    Local folders must be seen by every machine of the cluster under the same path. Of a ``dataset`` elsewhere, this
    machine holds the names, the metadata and the pictures on the report's page; with ``settings.shards``, which it
    packs, all pictures. Two runs at once are told from each other in a local ``dataset`` only.

    Args:
        music: a folder or a sound file, by its path or its fsspec URL (``s3://bucket/music``), or ``hf:NAME``.
        dataset: the folder to make or to add to, by its path or its URL.
        settings: how.
        address: of the cluster, as for :func:`riff.utils.cluster.connected`; default one that is started on this machine.
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


# WAS riff/prepare/elsewhere.py: Folders on any file system that fsspec knows, and local ones with the same
# names, of which most are stand-ins.


class Elsewhere:
    """A folder or file by its URL.

    Args:
        url: such as ``"s3://bucket/music"``; who may read it is the file system's own business (its environment
            variables and configuration files).

    Raises:
        RiffError: no such file system.
        SystemProblem: it needs a package, or cannot be reached.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise SystemProblem(f"{url} needs fsspec; install it: python -m pip install 'riff-music[ray]'") from error
        self.url = url.rstrip("/")
        try:
            self.system, self.root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise SystemProblem(f"{url} needs a package: {_reason(error)}") from error
        except ValueError as error:
            raise RiffError(f"{url} is on no file system that fsspec knows ({_reason(error)})") from error
        except Exception as error:  # each file system raises its own kinds
            raise SystemProblem(f"{url} cannot be reached ({_reason(error)})") from error
        names = {self.system.protocol} if isinstance(self.system.protocol, str) else set(self.system.protocol)
        self._whole = bool(names & _WHOLE)

    @property
    def is_file(self) -> bool:
        """Whether it is one file."""
        return bool(self._asked(self.system.isfile, self.root))

    def files(self, *, deep: bool = True) -> dict[str, dict[str, Any]]:
        """Names below the folder to what the file system says of them; none if there is no such folder."""
        self.system.invalidate_cache()
        depth = {} if deep else {"maxdepth": 1}
        try:
            found = self.system.find(self.root, detail=True, **depth)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise SystemProblem(f"{self.url} cannot be listed ({_reason(error)})") from error
        root = self.root.rstrip("/") + "/"
        named = {path[len(root) :]: about for path, about in found.items() if path.startswith(root)}
        # Names that would lead out of a local folder are no names of files.
        return {name: about for name, about in named.items() if name and not {"", ".", ".."} & set(name.split("/"))}

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file from there; wholly or not at all."""
        with atomic_path(path) as temporary:
            self._asked(self.system.get_file, self._at(name), str(temporary))

    def store(self, path: Path, name: str) -> None:
        """Copy a file to there; wholly or not at all."""
        target = self._at(name)
        self._asked(self.system.makedirs, target.rpartition("/")[0], exist_ok=True)
        if self._whole:
            self._asked(self.system.put_file, str(path), target)
            return
        beside = f"{target.rpartition('/')[0]}/.riff-{secrets.token_hex(6)}"
        self._asked(self.system.put_file, str(path), beside)
        self._asked(self.system.mv, beside, target)

    def move(self, name: str, to: str) -> None:
        """Give a file another name."""
        self._asked(self.system.makedirs, self._at(to).rpartition("/")[0], exist_ok=True)
        self._asked(self.system.mv, self._at(name), self._at(to))

    def remove(self, name: str) -> None:
        """Delete a file."""
        self._asked(self.system.rm_file, self._at(name))

    def _at(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def _asked(self, what: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return what(*arguments, **options)
        except (RiffError, ImportError):
            raise
        except Exception as error:
            raise SystemProblem(f"{self.url}: {arguments[0]} cannot be used ({_reason(error)})") from error


class Mirror:
    """A local folder with the same names: small files as they are, stand-ins of the same size in place of the others.

    Args:
        place: what it mirrors.
        folder: an empty folder.
        real: whether a file, by its name and size, is fetched.

    Attributes:
        refused: names that no local file can have, to the reason.
    """

    def __init__(self, place: Elsewhere, folder: Path, real: Callable[[str, int], bool]) -> None:
        self.place, self.folder, self._real = place, folder, real
        self._origins: list[str] = []
        self._known: dict[str, tuple[int, int]] = {}
        self.refused: dict[str, str] = {}

    def pull(self, names: dict[str, dict[str, Any]]) -> None:
        """Take in files that :meth:`Elsewhere.files` found."""
        for name, about in names.items():
            path = self.folder / name
            size = int(about.get("size") or 0)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.stand_in(name, size)
            except OSError as error:  # too long a name, or one that is a folder's as well
                self.refused[name] = f"no file can have that name ({_reason(error).lower()})"
                continue
            if self._real(name, size):
                self.fetch([path])

    def stand_in(self, name: str, size: int = 0) -> None:
        """Note a file that is there, and leave its name here."""
        path = self.folder / name
        with open(path, "wb") as file:
            file.truncate(size)
        number = len(self._origins) + 1
        os.utime(path, (number, number))
        self._origins.append(name)
        self._known[name] = _stamp_elsewhere(path)

    def fetch(self, paths: list[Path]) -> None:
        """Put real files in place of stand-ins, wherever those have been moved to."""
        for path in paths:
            origin = self._origin(path) if path.is_file() else None
            if origin is not None:
                self.place.fetch(origin, path)
                if path == self.folder / origin:
                    self._known[origin] = _stamp_elsewhere(path)

    def push(self) -> None:
        """Make the folder there like this one: files moved, pictures before what speaks of them; last, deletions."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != "lock")
        here = {path.relative_to(self.folder).as_posix(): path for path in paths}
        moved = {name: origin for name, path in here.items() if (origin := self._origin(path)) not in (None, name)}
        for name, origin in moved.items():
            self.place.move(str(origin), name)
        changed = [
            name for name, path in here.items() if name not in moved and self._known.get(name) != _stamp_elsewhere(path)
        ]
        for name in sorted(changed, key=lambda name: (PurePosixPath(name).suffix not in (".png", ".parquet"), name)):
            self.place.store(here[name], name)
        for name in set(self._known) - set(here) - set(moved.values()):
            self.place.remove(name)
        for name in moved:
            number = int(here[name].stat().st_mtime)
            self._origins[number - 1] = name
        self._known = {name: _stamp_elsewhere(path) for name, path in here.items()}

    def _origin(self, path: Path) -> str | None:
        """Where the file is that a stand-in stands for; None of a real file."""
        number = int(path.stat().st_mtime)
        return self._origins[number - 1] if number < _STAND_IN else None


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
    """As :func:`riff.train.data.worker.work`, from and to any file system.

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


# Of these a file appears when it is whole; of the others it is written beside its place and moved there.
_WHOLE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory", "hf", "oci", "oss"}
# A stand-in's time of modification is its number, which stays with it when it is moved: no other file is that old.
_STAND_IN = 10**8


def _stamp_elsewhere(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300].rstrip(".")


# WAS riff/prepare/listing.py: Music on a file system elsewhere: listed as a local folder of the same names
# would be.

_MOST_CAPTION = 1 << 20  # bytes of a text file that may be a caption


def list_elsewhere(url: str) -> Listing:
    """Find the sound files in a folder and below, or a single one, with the words that stand beside them.

    Args:
        url: of the folder or file, as fsspec has it.

    Returns:
        The listing, in which each source's path is its URL.

    Raises:
        RiffError: it does not exist or holds no sound.
        SystemProblem: it cannot be reached.
    """
    place, single = Elsewhere(url), ""
    if place.is_file:
        folder, _, single = place.url.rpartition("/")
        place = Elsewhere(folder)
    found = place.files(deep=not single)
    if single:
        beside = (single, f"{posixpath.splitext(single)[0]}.txt", "metadata.jsonl", "metadata.csv")
        found = {name: about for name, about in found.items() if name in beside}
    if not found:
        raise RiffError(f"{url} does not exist or is empty; give a folder of music")
    with tempfile.TemporaryDirectory(prefix="riff-") as temporary:
        mirror = Mirror(place, Path(temporary), _is_caption)
        mirror.pull(found)
        try:
            listing = list_folder(mirror.folder / single)
        except RiffError as error:
            raise RiffError(str(error).replace(str(mirror.folder), place.url)) from error
    sources = []
    for source in listing.sources:
        name = Path(source.path).relative_to(mirror.folder).as_posix()
        sources.append(dataclasses.replace(source, path=f"{place.url}/{name}", stamp=_stamp_listing(found[name])))
    lines = [line.replace(temporary, place.url) for line in listing.no_audio]
    unused = listing.unused | {repr(name): why for name, why in mirror.refused.items() if _is_sound(name)}
    return dataclasses.replace(listing, sources=sources, unused=unused, no_audio=lines)


def _is_sound(name: str) -> bool:
    return name.lower().endswith(READS)


def _is_caption(name: str, size: int) -> bool:
    file = posixpath.basename(name)
    return file in METADATA or (file.lower().endswith(".txt") and size <= _MOST_CAPTION)


def _stamp_listing(about: dict[str, Any]) -> str:
    """What changes with a file's content, as its file system tells it."""
    known = ("ETag", "etag", "md5Hash", "checksum", "mtime", "LastModified", "last_modified", "created")
    return f"{about.get('size')}:{next((about[key] for key in known if about.get(key)), '')}"

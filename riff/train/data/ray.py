"""``riff prepare --engine ray``: the same work on a Ray cluster, from and to any file system of fsspec."""

import dataclasses
import functools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from riff.train.data.prepare import count_failures, is_url, list_music, make
from riff.train.data.report import Report
from riff.train.data.settings import PrepareSettings
from riff.train.data.sources import Listing, MusicSource, list_folder
from riff.train.data.tables import TABLES
from riff.train.data.worker import cut_source, record_path
from riff.train.data.writing import WORK
from riff.utils.cluster import connected, map_on_cluster
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import write_bytes

Send = Callable[[list[str]], None]


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

    Music and data set may also be at fsspec URLs (``s3://bucket/music``); local music must be seen by every machine
    under
    the same path. Of a data set at a URL this machine holds a copy while it works. ``address`` is as for
    :func:`riff.utils.cluster.connected`; ``workers`` are by default as many as the cluster has cores.
    """
    settings, place, name = settings or PrepareSettings(), Path(dataset).absolute(), str(dataset)
    with tempfile.TemporaryDirectory(prefix="riff-") as temporary:
        if is_url(music):
            listing = list_remote(str(music), Path(temporary) / "music", settings.text_column)
        else:
            local = music if str(music).startswith("hf:") else Path(music).absolute()
            listing = list_music(local, settings, without=None if is_url(dataset) else place)
        cut_all = functools.partial(_cut_all, address, workers, progress)
        if not is_url(dataset):
            return make(place, listing, settings, functools.partial(cut_all, None), force=force, name=name)
        with _copied(name, Path(temporary) / (name.rstrip("/").rpartition("/")[2] or "dataset")) as (place, send):
            return make(place, listing, settings, functools.partial(cut_all, send), force=force, name=name)


def list_remote(url: str, here: Path, text_column: str | None = None) -> Listing:
    """As :func:`riff.train.data.sources.list_folder`, of a folder or file at a URL; each source's path is a URL.

    Captions are fetched into the folder ``here``, where empty files stand for the sounds.
    """
    refused = {}
    with _reached(url) as (system, root):
        single = root.rpartition("/")[2] if system.isfile(root) else ""
        url, root = (each.rstrip("/").removesuffix(f"/{single}") for each in (url, root))
        found = _files(system, root)
        for name in found:
            try:
                (here / name).parent.mkdir(parents=True, exist_ok=True)
                (here / name).touch()
            except OSError as error:  # too long a name, or one that is a folder's as well
                refused[repr(name)] = f"no file can have that name ({(error.strerror or '').lower()})"
                continue
            if Path(name).name.lower() in TABLES or name.lower().endswith((".txt", ".caption")):
                system.get_file(f"{root}/{name}", str(here / name))
    if not found:
        raise RiffError(f"{url} does not exist or is empty; give a folder of music")
    listing = list_folder(here / single, text_column=text_column)
    sources = [
        dataclasses.replace(each, path=f"{url}/{each.name}", stamp=found[each.name][1], size=found[each.name][0])
        for each in listing.sources
    ]
    return dataclasses.replace(listing, sources=sources, unused=listing.unused | refused)


@contextmanager
def _reached(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL and the path there; what goes wrong with it in the block is one line."""
    try:
        import fsspec

        system, root = fsspec.core.url_to_fs(url.rstrip("/"))
        system.invalidate_cache()
        yield system, str(root)
    except RiffError:
        raise
    except ImportError as error:
        raise SystemProblem(f"{url} needs a package ({error}); python -m pip install 'riff-music[ray]'") from error
    except Exception as error:  # each file system raises its own kinds; ValueError: there is no such one
        kind = RiffError if isinstance(error, ValueError) else SystemProblem
        reason = " ".join(str(error).split())[:300]
        raise kind(f"{url} is on no file system that fsspec knows, or cannot be reached ({reason})") from error


def _files(system: Any, root: str) -> dict[str, tuple[int, str]]:
    """Names below a folder to their sizes and what changes with their content."""
    found = system.find(root, detail=True) if system.exists(root) else {}
    known = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    return {
        path.removeprefix(f"{root}/"): (int(facts.get("size") or 0), str([facts.get(name) for name in known]))
        for path, facts in found.items()
        if path.startswith(f"{root}/") and not {".", ".."} & set(path.split("/"))  # which would lead out of a folder
    }


@contextmanager
def _copied(url: str, here: Path) -> Iterator[tuple[Path, Send]]:
    """A copy of a folder, and what sends files of it back by their names; at the end all changes are sent."""

    def send(names: list[str]) -> None:
        with _reached(url) as (system, root):
            for name in names:
                system.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
                system.put_file(str(here / name), f"{root}/{name}")

    def stamps() -> dict[str, int]:
        paths = [path for path in here.rglob("*") if path.is_file() and path.name != "lock"]
        return {path.relative_to(here).as_posix(): path.stat().st_mtime_ns for path in paths}

    with _reached(url) as (system, root):
        for name in _files(system, root):
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            system.get_file(f"{root}/{name}", str(here / name))
    before = stamps()
    try:
        yield here, send
    except RiffError as error:
        raise type(error)(str(error).replace(str(here), url)) from error
    finally:
        now = stamps()
        changed = [name for name in now if before.get(name) != now[name] and f"{WORK}/settings.json" in now]
        for images in (True, False):  # before what names them
            send([name for name in changed if name.endswith((".png", ".parquet")) == images])
        with _reached(url) as (system, root):
            for name in _files(system, root).keys() - now.keys() if changed else ():
                system.rm_file(f"{root}/{name}")


def _cut_all(
    address: str | None,
    workers: int | None,
    progress: bool,
    send: Send | None,
    todo: list[MusicSource],
    settings: PrepareSettings,
    work: Path,
) -> dict[str, str]:
    """Cut all sources on the cluster; those that failed and why."""

    def done() -> Iterator[tuple[int, Any]]:
        for number, files in map_on_cluster(functools.partial(Cutter, settings), todo, workers=workers):
            for name, content in () if isinstance(files, BaseException) else files.items():
                write_bytes(work / name, content)
            if send is not None and not isinstance(files, BaseException):  # a run that is killed can be continued
                send([f"{WORK}/{name}" for name in ("settings.json", *files)])
            yield number, files if isinstance(files, BaseException) else json.loads(content)

    if not todo:
        return {}
    with connected(address, workers=workers):
        return count_failures(todo, done(), progress)


@dataclasses.dataclass
class Cutter:
    """What a worker does with a source; it gives the files of the work folder that come of it, the record last."""

    settings: PrepareSettings

    def __call__(self, source: MusicSource) -> dict[str, bytes]:
        import torch

        torch.set_num_threads(1)  # the workers are as many as the cores
        with tempfile.TemporaryDirectory(prefix="riff-") as temporary:
            place = Path(temporary)
            if is_url(source.path):
                local = str(place / f"sound{os.path.splitext(source.path)[1]}")
                try:
                    with _reached(source.path) as (system, root):
                        system.get_file(root, local)
                except RiffError as error:
                    raise RiffError(f"it cannot be fetched: {error}") from error
                source = dataclasses.replace(source, path=local)
            for name in ("clips", "records"):
                (place / name).mkdir()
            record = cut_source(source, self.settings, temporary)
            names = [f"clips/{row['file_name']}" for row in record["clips"]]
            names.append(record_path(Path(), source.name).as_posix())
            return {name: (place / name).read_bytes() for name in names}

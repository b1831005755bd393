"""Folders on any file system that fsspec knows, and local ones with the same names, of which most are stand-ins."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from riff.errors import RiffError, SystemProblem
from riff.files import atomic_path

# Of these a file appears when it is whole; of the others it is written beside its place and moved there.
_WHOLE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory", "hf", "oci", "oss"}
# A stand-in's time of modification is its number, which stays with it when it is moved: no other file is that old.
_STAND_IN = 10**8


def is_elsewhere(place: str | Path) -> bool:
    """Whether a place is the URL of an fsspec file system (``s3://bucket/folder``, ``file:///folder``)."""
    return "://" in str(place)


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
        self._known[name] = _stamp(path)

    def fetch(self, paths: list[Path]) -> None:
        """Put real files in place of stand-ins, wherever those have been moved to."""
        for path in paths:
            origin = self._origin(path) if path.is_file() else None
            if origin is not None:
                self.place.fetch(origin, path)
                if path == self.folder / origin:
                    self._known[origin] = _stamp(path)

    def push(self) -> None:
        """Make the folder there like this one: files moved, pictures before what speaks of them; last, deletions."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != "lock")
        here = {path.relative_to(self.folder).as_posix(): path for path in paths}
        moved = {name: origin for name, path in here.items() if (origin := self._origin(path)) not in (None, name)}
        for name, origin in moved.items():
            self.place.move(str(origin), name)
        changed = [name for name, path in here.items() if name not in moved and self._known.get(name) != _stamp(path)]
        for name in sorted(changed, key=lambda name: (PurePosixPath(name).suffix not in (".png", ".parquet"), name)):
            self.place.store(here[name], name)
        for name in set(self._known) - set(here) - set(moved.values()):
            self.place.remove(name)
        for name in moved:
            number = int(here[name].stat().st_mtime)
            self._origins[number - 1] = name
        self._known = {name: _stamp(path) for name, path in here.items()}

    def _origin(self, path: Path) -> str | None:
        """Where the file is that a stand-in stands for; None of a real file."""
        number = int(path.stat().st_mtime)
        return self._origins[number - 1] if number < _STAND_IN else None


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300].rstrip(".")

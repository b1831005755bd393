"""The clips that a page can play and save: kept in memory, written to a folder of its own when they are asked for."""

import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from riff.clip import Clip
from riff.errors import RiffError

FORMATS = ("wav", "flac", "ogg", "mp3", "png")
_NAME = re.compile(rf"([0-9a-f]{{16}})\.({'|'.join(FORMATS)})")


class Shelf:
    """Clips and other files by id, the oldest of which make room for new ones.

    A file's name on the page is ``ID.FORMAT`` and never a path, so that nothing else can be asked for.
    """

    def __init__(self, limit: int = 48) -> None:
        self.limit = limit
        self._folder = tempfile.TemporaryDirectory(prefix="riff-play-")
        self._clips: dict[str, Clip | None] = {}  # None has files only
        self._lock = threading.Lock()

    def put(self, clip: Clip) -> str:
        """Keep a clip; returns its id."""
        return self._add(clip, {})

    def put_files(self, writers: Mapping[str, Callable[[Path], object]]) -> str:
        """Keep files that are no clip; returns their id.

        Args:
            writers: of each format, what writes it to a path.
        """
        return self._add(None, writers)

    def _add(self, clip: Clip | None, writers: Mapping[str, Callable[[Path], object]]) -> str:
        name = secrets.token_hex(8)
        for kind, write in writers.items():
            write(Path(self._folder.name) / f"{name}.{kind}")
        with self._lock:
            self._clips[name] = clip
            while len(self._clips) > self.limit:
                oldest = next(iter(self._clips))
                del self._clips[oldest]
                for path in Path(self._folder.name).glob(f"{oldest}.*"):
                    path.unlink(missing_ok=True)
        return name

    def __contains__(self, name: str) -> bool:
        return name in self._clips

    def get(self, name: str) -> Clip:
        """The clip with this id.

        Raises:
            RiffError: it has made room for newer ones.
        """
        clip = self._clips.get(name)
        if clip is None:
            raise RiffError("that clip is no longer kept; make it again")
        return clip

    def file(self, name: str) -> Path:
        """A clip as a file.

        Args:
            name: ``ID.wav``, or another of :data:`FORMATS`.

        Raises:
            RiffError: there is no such clip or format.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise RiffError(f"a clip's file is named ID.FORMAT, with a format of {', '.join(FORMATS)}")
        path = Path(self._folder.name) / name
        with self._lock:
            return path if path.exists() else self.get(found[1]).save(path)

    def close(self) -> None:
        """Remove the files."""
        self._folder.cleanup()

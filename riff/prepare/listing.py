"""Music on a file system elsewhere: listed as a local folder of the same names would be."""

import dataclasses
import posixpath
import tempfile
from pathlib import Path
from typing import Any

from riff.errors import RiffError
from riff.prepare.captions import METADATA
from riff.prepare.elsewhere import Elsewhere, Mirror
from riff.prepare.sources import READS, Listing, list_folder

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
        sources.append(dataclasses.replace(source, path=f"{place.url}/{name}", stamp=_stamp(found[name])))
    lines = [line.replace(temporary, place.url) for line in listing.no_audio]
    unused = listing.unused | {repr(name): why for name, why in mirror.refused.items() if _is_sound(name)}
    return dataclasses.replace(listing, sources=sources, unused=unused, no_audio=lines)


def _is_sound(name: str) -> bool:
    return name.lower().endswith(READS)


def _is_caption(name: str, size: int) -> bool:
    file = posixpath.basename(name)
    return file in METADATA or (file.lower().endswith(".txt") and size <= _MOST_CAPTION)


def _stamp(about: dict[str, Any]) -> str:
    """What changes with a file's content, as its file system tells it."""
    known = ("ETag", "etag", "md5Hash", "checksum", "mtime", "LastModified", "last_modified", "created")
    return f"{about.get('size')}:{next((about[key] for key in known if about.get(key)), '')}"

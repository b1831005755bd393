"""Music in a ``datasets`` data set: its rows as sources, their sound read by soundfile, never by datasets."""

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from riff.errors import RiffError, SystemProblem
from riff.prepare.captions import words_of
from riff.prepare.settings import PrepareSettings
from riff.prepare.sources import READS, Listing, Source, with_prefixes

MARK = "hf:"
TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description")
_SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")
_TABLES = (".parquet", ".arrow")


def is_data_set(music: str | Path) -> bool:
    """Whether MUSIC is read with ``datasets``: ``hf:NAME``, a folder it saved, or one with tables and no sound."""
    if str(music).startswith(MARK):
        return True
    folder = Path(music)
    if not folder.is_dir():
        return False
    if any((folder / name).is_file() for name in _SAVED):
        return True
    names = [os.path.splitext(name)[1].lower() for _, _, files in os.walk(folder) for name in files]
    tables = any(ending in _TABLES for ending in names)
    return tables and not any(ending in READS for ending in names)


def list_rows(music: str | Path, settings: PrepareSettings) -> Listing:
    """Find the music in a data set.

    Args:
        music: as for :func:`is_data_set`.
        settings: may name the column of the captions.

    Raises:
        RiffError: it cannot be loaded, or has no column of sound or not the column named.
        SystemProblem: datasets is not installed.
    """
    place = str(music)
    sources: list[Source] = []
    unused: dict[str, str] = {}
    names: set[str] = set()
    for split, table in _splits(place).items():
        audio, text = _columns(table, place, settings.text_column)
        stamp = table._fingerprint  # changes with the content of the data set
        texts = table.select_columns([name for name in (text, "captions") if name in table.column_names])
        paths = table.select_columns([audio])
        for number in range(len(table)):
            words = words_of(_text_row(texts[number]), text or "text")
            sound = paths[number][audio]
            name = f"{split}/{_name(sound, number)}"
            if name in names:
                name = f"{split}/{number:06d}-{_name(sound, number)}"
            names.add(name)
            if not isinstance(sound, dict) or not (sound.get("bytes") or sound.get("path")):
                unused[name] = "the row holds no sound"
                continue
            size = len(sound["bytes"] or b"") or 1
            sources.append(Source(name, place, f"{stamp}:{number}", "", words, size, f"{split}:{number}"))
    if not sources:
        raise RiffError(f"{place} holds no row with sound; give a data set with a column of audio")
    return Listing(with_prefixes(sources), unused)


@contextmanager
def row_file(source: Source, folder: Path) -> Iterator[Path]:
    """The sound of a row as a file, which for the time of the block may be a temporary one in ``folder``.

    Raises:
        RiffError: the row's file is not there.
    """
    split, _, number = source.row.rpartition(":")
    table = _splits(source.path)[split]
    sound = table.select_columns([_columns(table, source.path, None)[0]])[int(number)]
    content = next(iter(sound.values()))
    if not content.get("bytes"):
        yield Path(content["path"])
        return
    handle, name = tempfile.mkstemp(prefix=".riff-", suffix=_suffix(content), dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content["bytes"])
        yield Path(name)
    finally:
        os.unlink(name)


@functools.lru_cache(maxsize=2)
def _splits(place: str) -> dict[str, Any]:
    """The data set's splits, their sound undecoded; a worker keeps them open."""
    try:
        import datasets
    except ImportError as error:
        raise SystemProblem(f"{place} needs datasets; install it: python -m pip install 'riff-music[data]'") from error
    name = place.removeprefix(MARK)
    try:
        if any((Path(name) / file).is_file() for file in _SAVED):
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name)
    except Exception as error:  # the loaders of datasets raise every kind
        reason = " ".join(str(error).split())[:300]
        raise RiffError(f"{place} cannot be loaded by datasets ({type(error).__name__}: {reason}); check it") from error
    tables = dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
    return {split: _undecoded(table) for split, table in tables.items()}


def _undecoded(table: Any) -> Any:
    from datasets import Audio

    for name, feature in table.features.items():
        if isinstance(feature, Audio):
            table = table.cast_column(name, Audio(decode=False))
    return table


def _columns(table: Any, place: str, text_column: str | None) -> tuple[str, str | None]:
    """The columns of the sound and of the captions."""
    from datasets import Audio

    names = list(table.column_names)
    audio = next((name for name in names if isinstance(table.features[name], Audio)), None)
    if audio is None:
        audio = next((name for name in ("audio", "sound", "file") if name in names), None)
    if audio is None:
        raise RiffError(f"{place} has the columns {', '.join(names)} and none of sound; give a data set with audio")
    if text_column is not None and text_column not in names:
        raise RiffError(f"{place} has no column {text_column!r}; use one of {', '.join(names)}")
    return audio, text_column or next((name for name in TEXT_COLUMNS if name in names), None)


def _text_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if isinstance(value, str | list)}


def _name(sound: Any, number: int) -> str:
    path = sound.get("path") if isinstance(sound, dict) else None
    return Path(str(path)).name if path else f"{number:06d}"


def _suffix(content: dict[str, Any]) -> str:
    """The suffix that the row says its file had; libsndfile tells MP3 by its content in any case."""
    suffix = os.path.splitext(str(content.get("path") or ""))[1].lower()
    return suffix if suffix in READS else ".sound"

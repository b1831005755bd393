"""Music in a ``datasets`` data set: its rows as sources, their sound read by riff, never by datasets."""

import functools
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from riff.audio.formats import SUFFIXES
from riff.train.data.settings import PrepareSettings
from riff.train.data.sources import Listing, MusicSource, with_prefixes
from riff.train.data.tables import TEXT_COLUMNS, captions_of
from riff.utils.errors import RiffError, SystemProblem

MARK = "hf:"
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
    return any(ending in _TABLES for ending in names) and not any(ending in SUFFIXES for ending in names)


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
    sources: list[MusicSource] = []
    unused: dict[str, str] = {}
    notes: list[str] = []
    names: set[str] = set()
    for split, table in _splits(place).items():
        audio, text = _columns(table, place, settings.text_column)
        if text is None:
            known = ", ".join(name for name in table.column_names if name != audio)
            notes.append(f"{split}: no caption: of its columns ({known}) none is called {' or '.join(TEXT_COLUMNS)}")
        stamp = table._fingerprint  # changes with the content of the data set
        texts = table.select_columns([name for name in (text, "captions") if name in table.column_names])
        paths = table.select_columns([audio])
        for number in range(len(table)):
            sound = paths[number][audio]
            sound = {"path": sound} if isinstance(sound, str) else sound
            name = f"{split}/{_name(sound, number)}"
            if name in names:
                name = f"{split}/{number:06d}-{_name(sound, number)}"
            names.add(name)
            if not isinstance(sound, dict) or not (sound.get("bytes") or sound.get("path")):
                unused[name] = "the row holds no sound"
                continue
            words = captions_of(texts[number], text)
            size = len(sound.get("bytes") or b"") or 1
            sources.append(MusicSource(name, place, f"{stamp}:{number}", "", words, size, f"{split}:{number}"))
    if not sources:
        raise RiffError(f"{place} holds no row with sound; give a data set with a column of audio")
    return Listing(with_prefixes(sources), unused, notes)


@contextmanager
def row_file(source: MusicSource, folder: Path) -> Iterator[Path]:
    """The sound of a row as a file, which during the block may be a temporary one in ``folder``.

    Raises:
        RiffError: the row names a file outside of the data set.
    """
    split, _, number = source.row.rpartition(":")
    table = _splits(source.path)[split]
    sound = table.select_columns([_columns(table, source.path, None)[0]])[int(number)]
    content = next(iter(sound.values()))
    content = {"path": content} if isinstance(content, str) else content
    if not content.get("bytes"):
        yield _inside(source.path, str(content["path"]))
        return
    handle, name = tempfile.mkstemp(prefix=".riff-", suffix=_suffix(content), dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content["bytes"])
        yield Path(name)
    finally:
        os.unlink(name)


def _inside(place: str, name: str) -> Path:
    """A row's file, which must be in the data set's folder, or in the cache of what came from the Hub."""
    if place.startswith(MARK):
        from datasets import config
        from huggingface_hub.constants import HF_HUB_CACHE

        roots = [Path(HF_HUB_CACHE), Path(config.HF_CACHE_HOME)]
    else:
        roots = [Path(place)]
    path = Path(os.path.realpath(roots[0] / name))
    if not any(path.is_relative_to(os.path.realpath(root)) for root in roots):
        raise RiffError(f"its sound {name} is a file outside of the data set; put it into that folder, or embed it")
    return path


@functools.lru_cache(maxsize=2)
def _splits(place: str) -> dict[str, Any]:
    """The data set's splits, their sound undecoded; a worker keeps them open."""
    try:
        import datasets
    except ImportError as error:
        raise SystemProblem(f"{place} needs datasets; install it: python -m pip install 'riff-music[data]'") from error
    try:
        if place.startswith(MARK):
            loaded = datasets.load_dataset(place.removeprefix(MARK))
        elif any((Path(place) / file).is_file() for file in _SAVED):
            _check_saved(Path(place))
            loaded = datasets.load_from_disk(place)
        else:
            loaded = _load_tables(Path(place))
    except RiffError:
        raise
    except Exception as error:  # the loaders of datasets raise every kind
        reason = " ".join(str(error).split())[:300]
        raise RiffError(f"{place} cannot be loaded by datasets ({type(error).__name__}: {reason}); check it") from error
    tables = dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
    return {split: _undecoded(table) for split, table in tables.items()}


def _load_tables(folder: Path) -> Any:
    """The Parquet and Arrow files of a folder, by name: the ``data_files`` of its README may be URLs."""
    import datasets

    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _TABLES)
    suffix = found[0].suffix.lower()
    files: dict[str, list[str]] = {}
    for path in found:
        if path.suffix.lower() == suffix and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            word = path.stem.lower().replace("_", "-").split("-")[0]
            split = {"valid": "validation", "val": "validation", "dev": "validation"}.get(word, word)
            files.setdefault(split if split in ("validation", "test") else "train", []).append(str(path))
    return datasets.load_dataset(suffix[1:], data_files=files)


def _check_saved(folder: Path) -> None:
    """Refuse a saved data set whose description names tables elsewhere."""
    for path in folder.rglob("state.json"):
        described = json.loads(path.read_text(encoding="utf-8"))
        for each in described.get("_data_files") or []:
            name = str(each.get("filename", ""))
            if Path(name).name != name:
                raise RiffError(f"{path} names the table {name!r}, which is not in its folder; save the data set again")


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
    lower = {name.lower(): name for name in reversed(names)}
    return audio, text_column or next((lower[name] for name in TEXT_COLUMNS if name in lower), None)


def _name(sound: Any, number: int) -> str:
    path = sound.get("path") if isinstance(sound, dict) else None
    return Path(str(path)).name if path else f"{number:06d}"


def _suffix(content: dict[str, Any]) -> str:
    """The suffix that the row says its file had; libsndfile knows MP3 by its content in any case."""
    suffix = os.path.splitext(str(content.get("path") or ""))[1].lower()
    return suffix if suffix in SUFFIXES else ".sound"

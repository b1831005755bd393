"""The data set on the disk: pictures in folders with their metadata, put in place from the work folder."""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from riff.utils.errors import SystemProblem
from riff.utils.files import atomic_path, write_bytes, write_json, write_text

if TYPE_CHECKING:
    import pyarrow

SPLITS = ("train", "validation")
Row = dict[str, Any]


def split_of(source: str, validation: float) -> str:
    """The split of a source by a hash of its name, so that it stays where it is when others come."""
    share = int.from_bytes(hashlib.sha256(f"riff split {source}".encode()).digest()[:8], "big") / 2.0**64
    return "validation" if share < validation else "train"


def split_rows(rows: Iterable[Row], validation: float) -> dict[str, list[Row]]:
    """Rows by split; where all of them would be held out, none is."""
    found: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in rows:
        found[split_of(row["source"], validation)].append(row)
    if not found["train"]:
        return {"train": found["validation"], "validation": []}
    return found


def present(dataset: Path, work: Path) -> set[str]:
    """File names of the clips whose pictures are there: in the work folder, in their folders or in shards."""
    names = {path.name for path in (work / "clips").glob("*.png")}
    for split in SPLITS:
        names |= {path.name for path in (dataset / split).glob("*.png")}
    return names | shard_names(dataset)


def place(dataset: Path, work: Path, rows: dict[str, list[Row]], *, shards: bool) -> None:
    """Make the data set hold exactly these rows; killed at any instant, it can be called again.

    Args:
        dataset: its folder.
        work: the work folder, whose ``clips/`` holds the pictures that are not in place yet.
        rows: by split.
        shards: whether they are packed in Parquet.

    Raises:
        SystemProblem: the disk is full or cannot be written.
    """
    if shards:
        place_shards(dataset, work, rows)
        return
    staged = work / "clips"
    for split in SPLITS:
        folder, wanted = dataset / split, {row["file_name"] for row in rows[split]}
        if not wanted and not folder.is_dir():
            continue
        folder.mkdir(exist_ok=True)
        other = dataset / SPLITS[1 - SPLITS.index(split)]
        for name in sorted(wanted):
            for origin in (staged / name, other / name):
                if origin.is_file() and (origin.parent == staged or not (folder / name).exists()):
                    origin.replace(folder / name)
                    break
        _write_metadata(folder / "metadata.jsonl", rows[split])
        # What was in place and is no longer wanted waits in the work folder.
        for path in folder.glob("*.png"):
            if path.name not in wanted:
                path.replace(staged / path.name)
        if not wanted:
            (folder / "metadata.jsonl").unlink(missing_ok=True)


def clear_stale(work: Path, records: Iterable[dict[str, Any]]) -> None:
    """Delete pictures in the work folder that belong to a known source of which no record names them any more."""
    prefixes, names = set(), set()
    for record in records:
        prefixes.add(record["prefix"])
        names |= {row["file_name"] for row in record["clips"]}
    for path in (work / "clips").glob("*.png"):
        if path.name not in names and path.stem.rpartition("-")[0] in prefixes:
            path.unlink()


def public(row: Row) -> Row:
    """A row as the data set has it, without what only riff's work needs."""
    return {name: value for name, value in row.items() if name != "print"}


def _write_metadata(path: Path, rows: list[Row]) -> None:
    text = "".join(json.dumps(public(row), ensure_ascii=False) + "\n" for row in rows)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


# WAS riff/prepare/duplicates.py: Clips that are nearly copies of one another: a loop that repeats, a song that
# is there twice in two formats.

ROWS, COLUMNS = 32, 32
RANGE = 50.0  # decibels below a clip's loudest cell that count; what lies deeper differs between two encodings
# Cosine from which two clips are one: copies through MP3 or Vorbis have 0.998, repeated bars 0.99,
# clips of different composed songs at most 0.45.
ALIKE = 0.99
_PART = 1024  # clips compared at once


def fingerprint(mel: Tensor) -> np.ndarray:
    """What is compared of a clip: 32 x 32 cells of its level, 0 at ``RANGE`` below the loudest, 255 at the loudest.

    Args:
        mel: (C, M, N) magnitudes; loudness does not matter.

    Returns:
        uint8, shape (1024,).
    """
    power = functional.adaptive_avg_pool2d(mel.float().square().mean(0, keepdim=True), (ROWS, COLUMNS))[0]
    level = 10.0 * torch.log10(power / power.max().clamp_min(1e-30) + 1e-12)
    return ((level / RANGE + 1.0).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy().reshape(-1)


def directions(prints: Iterable[str]) -> np.ndarray:
    """Fingerprints in base64 as vectors of length 1, whose products are how much clips resemble each other.

    Each row's mean over time is taken off by half: the timbre of a song is in all its clips.
    """
    cells = np.stack([np.frombuffer(base64.b64decode(text), dtype=np.uint8) for text in prints]).astype(np.float32)
    cells = cells.reshape(-1, ROWS, COLUMNS)
    cells = (cells - 0.5 * cells.mean(2, keepdims=True)).reshape(len(cells), -1)
    cells -= cells.mean(1, keepdims=True)
    return np.asarray(cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def repeated(vectors: np.ndarray, *, alike: float = ALIKE) -> dict[int, int]:
    """Clips that resemble an earlier one that is kept, each with that one.

    Args:
        vectors: of :func:`directions`, shape (n, 1024), in the order in which clips are to be kept.
        alike: cosine from which two clips are one.

    Returns:
        Index of each repeated clip to the index of the kept clip it repeats.
    """
    found: dict[int, int] = {}
    kept = np.empty((len(vectors),), dtype=np.int64)
    count = 0
    for start in range(0, len(vectors), _PART):
        part = vectors[start : start + _PART]
        best, where = np.full(len(part), -1.0, dtype=np.float32), np.zeros(len(part), dtype=np.int64)
        for first in range(0, count, _PART):
            alikeness = part @ vectors[kept[first : min(first + _PART, count)]].T
            top = alikeness.argmax(1)
            value = alikeness[np.arange(len(part)), top]
            better = value > best
            best[better], where[better] = value[better], kept[first + top[better]]
        inside = part @ part.T
        fresh: list[int] = []
        for index in range(len(part)):
            if best[index] >= alike:
                found[start + index] = int(where[index])
                continue
            near = next((other for other in fresh if inside[index, other] >= alike), None)
            if near is not None:
                found[start + index] = start + near
                continue
            fresh.append(index)
        kept[count : count + len(fresh)] = start + np.array(fresh, dtype=np.int64)
        count += len(fresh)
    return found


# WAS riff/prepare/shards.py: Clips packed in Parquet shards, as Hugging Face's ``datasets`` reads them, and
# unpacked again when some are added.

ROWS_PER_SHARD = 4096  # of some 40 kB each: about 160 MB
ROWS_PER_GROUP = 64  # read at once
RowShards = dict[str, Any]


def shard_names(dataset: Path) -> set[str]:
    """File names of the clips in a data set's shards, which are read without their pictures."""
    paths = sorted((dataset / "data").glob("*.parquet"))
    if not paths:
        return set()
    parquet = _parquet()
    return {name for path in paths for name in parquet.read_table(path, columns=["file_name"])["file_name"].to_pylist()}


def place_shards(dataset: Path, work: Path, rows: dict[str, list[RowShards]]) -> None:
    """Write shards that hold exactly these rows.

    The pictures of the shards that are there are unpacked into the work folder before any of those is replaced, and
    deleted when the last of the new ones is in place, so that at every instant each picture is somewhere.

    Raises:
        SystemProblem: the disk is full or cannot be written, or pyarrow is missing.
    """
    folder, staged, manifest = dataset / "data", work / "clips", work / "shards.json"
    wanted = {name: chunk for split, members in rows.items() for name, chunk in _shares(split, members)}
    content = {name: [_digestible(row) for row in chunk] for name, chunk in wanted.items()}
    there = {path.name for path in folder.glob("*.parquet")}
    if there == set(wanted) and manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8")) == content:
        return
    manifest.unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    for name in sorted(there):
        _unpack(folder / name, staged)
    for name, chunk in wanted.items():
        _pack(folder / name, chunk, staged)
    for name in there - set(wanted):
        (folder / name).unlink()
    write_json(manifest, content)
    for chunk in wanted.values():
        for row in chunk:
            (staged / row["file_name"]).unlink(missing_ok=True)


def _shares(split: str, members: list[RowShards]) -> Iterator[tuple[str, list[RowShards]]]:
    count = -(-len(members) // ROWS_PER_SHARD)
    for number in range(count):
        share = members[number * len(members) // count : (number + 1) * len(members) // count]
        yield f"{split}-{number:05d}-of-{count:05d}.parquet", share


def _digestible(row: RowShards) -> list[Any]:
    return [value for name, value in row.items() if name != "print"]


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise SystemProblem(
            "Parquet shards need pyarrow; install it (python -m pip install 'riff-music[data]') or leave out --shards"
        ) from error
    return parquet


def _schema() -> "pyarrow.Schema":
    """Columns of a shard; the metadata tell ``datasets`` that ``image`` is one."""
    import pyarrow as pa

    text, number = (pa.string(), "string"), (pa.float64(), "float64")
    kinds = {
        "image": (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), ""),
        "file_name": text,
        "text": text,
        "captions": (pa.list_(pa.string()), ""),
        "bpm": number,
        "keyscale": text,
        "beats_per_bar": (pa.int64(), "int64"),
        "source": text,
        "start_s": number,
        "duration_s": number,
        "max_value": number,
    }
    features: dict[str, Any] = {name: {"dtype": dtype, "_type": "Value"} for name, (_, dtype) in kinds.items()}
    features["image"] = {"_type": "Image"}
    features["captions"] = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
    told = json.dumps({"info": {"features": features}})
    return pa.schema([(name, kind) for name, (kind, _) in kinds.items()], metadata={"huggingface": told})


def _pack(path: Path, rows: list[RowShards], staged: Path) -> None:
    import pyarrow as pa

    parquet, schema = _parquet(), _schema()
    with atomic_path(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for first in range(0, len(rows), ROWS_PER_GROUP):
            group = [
                {
                    **{name: row.get(name) for name in schema.names if name != "image"},
                    "image": {"bytes": (staged / row["file_name"]).read_bytes(), "path": row["file_name"]},
                }
                for row in rows[first : first + ROWS_PER_GROUP]
            ]
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _unpack(path: Path, staged: Path) -> None:
    """Put the pictures of a shard into the work folder, those that are there already excepted."""
    file = _parquet().ParquetFile(path)
    for number in range(file.num_row_groups):
        for image in file.read_row_group(number, columns=["image"]).column("image").to_pylist():
            target = staged / Path(image["path"]).name
            if not target.exists():
                write_bytes(target, image["bytes"])


def read_pictures(dataset: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """File names and PNG bytes of those clips that are in shards."""
    paths = sorted((dataset / "data").glob("*.parquet"))
    for path in paths if names else []:
        table = _parquet().read_table(path, columns=["image", "file_name"], filters=[("file_name", "in", names)])
        for image in table.column("image").to_pylist():
            yield Path(image["path"]).name, image["bytes"]

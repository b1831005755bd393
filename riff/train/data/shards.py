"""Clips packed in Parquet shards, as Hugging Face's ``datasets`` reads them, and unpacked again when some are added."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.train.data.images import ImageFile, clip_of
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import atomic_path, write_bytes, write_json

if TYPE_CHECKING:
    import pyarrow

ROWS_PER_SHARD = 4096  # of some 40 kB each: about 160 MB
ROWS_PER_GROUP = 64  # read at once
Row = dict[str, Any]


def shard_names(dataset: Path) -> set[str]:
    """File names of the clips in a data set's shards, which are read without their images."""
    paths = sorted((dataset / "data").glob("*.parquet"))
    if not paths:
        return set()
    parquet = _parquet()
    return {name for path in paths for name in parquet.read_table(path, columns=["file_name"])["file_name"].to_pylist()}


def place_shards(dataset: Path, work: Path, rows: dict[str, list[Row]]) -> None:
    """Write shards that hold exactly these rows.

    The images of the shards that are there are unpacked into the work folder before any of those is replaced, and
    deleted when the last of the new ones is in place, so that at every instant each image is somewhere.

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


def _shares(split: str, members: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    count = -(-len(members) // ROWS_PER_SHARD)
    for number in range(count):
        share = members[number * len(members) // count : (number + 1) * len(members) // count]
        yield f"{split}-{number:05d}-of-{count:05d}.parquet", share


def _digestible(row: Row) -> list[Any]:
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
    features_json = json.dumps({"info": {"features": features}})
    return pa.schema([(name, kind) for name, (kind, _) in kinds.items()], metadata={"huggingface": features_json})


def _pack(path: Path, rows: list[Row], staged: Path) -> None:
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
    """Put the images of a shard into the work folder, those that are there already excepted."""
    file = _parquet().ParquetFile(path)
    for number in range(file.num_row_groups):
        for image in file.read_row_group(number, columns=["image"]).column("image").to_pylist():
            target = staged / Path(image["path"]).name
            if not target.exists():
                write_bytes(target, image["bytes"])


def read_images(dataset: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """File names and PNG bytes of those clips that are in shards."""
    paths = sorted((dataset / "data").glob("*.parquet"))
    for path in paths if names else []:
        table = _parquet().read_table(path, columns=["image", "file_name"], filters=[("file_name", "in", names)])
        for image in table.column("image").to_pylist():
            yield Path(image["path"]).name, image["bytes"]


def list_shard(shard: Path) -> list[ImageFile]:
    """The clips of a shard to train on; images are read by row group, of which the last one is kept."""
    parquet = _parquet()
    try:
        file = parquet.ParquetFile(shard)
        names = [name for name in file.schema_arrow.names if name != "image"]
        if "image" not in file.schema_arrow.names:
            raise RiffError(f"{shard} has no column image; make the data set again with riff prepare --shards")
        groups = [file.read_row_group(number, columns=names).to_pylist() for number in range(file.num_row_groups)]
    except RiffError:
        raise
    except Exception as error:  # pyarrow's are of many kinds
        raise RiffError(f"{shard} cannot be read ({error}); restore it or make the data set again") from error

    @functools.lru_cache(maxsize=1)
    def images(group: int) -> list[Any]:
        return list(file.read_row_group(group, columns=["image"]).column("image").to_pylist())

    def content(group: int, row: int) -> bytes:
        return bytes((images(group)[row] or {}).get("bytes") or b"")

    return [
        ImageFile(f"{shard}, row {row} of group {group}", clip_of(fields), functools.partial(content, group, row))
        for group, rows in enumerate(groups)
        for row, fields in enumerate(rows)
    ]

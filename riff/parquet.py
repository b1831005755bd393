"""Pictures in Parquet shards, as Hugging Face's ``datasets`` writes them: one row a clip, the picture among them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from riff.errors import RiffError, SystemProblem
from riff.pictures import Listed, with_captions


def list_shard(shard: Path) -> list[Listed]:
    """The clips of a Parquet shard; pictures are read by row group, the last one is kept."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        remedy = "install it: python -m pip install 'riff-music[data]'"
        raise SystemProblem(f"Parquet shards need pyarrow; {remedy}") from error
    try:
        file = parquet.ParquetFile(shard)
        names = [name for name in file.schema_arrow.names if name != "image"]
        if "image" not in file.schema_arrow.names:
            raise RiffError(f"{shard} has no column image; make the data set again with riff prepare --shards")
        groups = [file.read_row_group(number, columns=names).to_pylist() for number in range(file.num_row_groups)]
    except (OSError, pyarrow.ArrowException) as error:
        raise RiffError(f"{shard} cannot be read ({error}); restore it or make the data set again") from error
    kept: dict[int, list[Any]] = {}

    def picture(group: int, row: int) -> bytes:
        if group not in kept:
            kept.clear()
            kept[group] = file.read_row_group(group, columns=["image"]).column("image").to_pylist()
        return bytes((kept[group][row] or {}).get("bytes") or b"")

    return [
        Listed(f"{shard}, row {row} of group {group}", with_captions(fields), _later(picture, group, row))
        for group, rows in enumerate(groups)
        for row, fields in enumerate(rows)
    ]


def _later(picture: Callable[[int, int], bytes], group: int, row: int) -> Callable[[], bytes]:
    return lambda: picture(group, row)

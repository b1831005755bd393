"""The data set on the disk: images in folders with their metadata, put in place from the work folder."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from riff.train.data.shards import Row, place_shards, shard_names
from riff.utils.files import write_text

SPLITS = ("train", "validation")


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
    """File names of the clips whose images are there: in the work folder, in their folders or in shards."""
    names = {path.name for path in (work / "clips").glob("*.png")}
    for split in SPLITS:
        names |= {path.name for path in (dataset / split).glob("*.png")}
    return names | shard_names(dataset)


def place(dataset: Path, work: Path, rows: dict[str, list[Row]], *, shards: bool) -> None:
    """Make the data set hold exactly these rows; killed at any instant, it can be called again.

    Args:
        dataset: its folder.
        work: the work folder, whose ``clips/`` holds the images that are not in place yet.
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


def clear_stale(work: Path, records: Iterable[Row]) -> None:
    """Delete images in the work folder that belong to a known source of which no record names them any more."""
    prefixes, names = set(), set()
    for record in records:
        prefixes.add(record["prefix"])
        names |= {row["file_name"] for row in record["clips"]}
    for path in (work / "clips").glob("*.png"):
        if path.name not in names and path.stem.rpartition("-")[0] in prefixes:
            path.unlink()


def _write_metadata(path: Path, rows: list[Row]) -> None:
    # All but the fingerprint, which only the search for copies needs.
    shown = ({name: value for name, value in row.items() if name != "print"} for row in rows)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in shown)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)

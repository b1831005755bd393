"""A set of captioned spectrograms to train on: a folder of PNGs, Parquet shards, or riff's own arrays."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riff.spectrogram.config import CONFIG_NAME, SpectrogramConfig
from riff.train.data.images import ImageFile, ImageSet, clip_of, load_image_sets
from riff.train.data.shards import list_shard
from riff.train.data.tables import TABLES, file_of, read_table
from riff.utils.errors import RiffError
from riff.utils.files import check_readable

SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "heldout", "test")}


@dataclasses.dataclass(frozen=True)
class ClipSet:
    """Clips of one image width, whose images are read on demand.

    Attributes:
        width: columns of each image, N.
        clips: what is known of each clip; ``captions`` is a list of texts, ``file_name`` names it.
        content: the bytes that make clip i's image what it is, for hashing.
        read: clip i's image as (C, M, N) float32 in [0, 1], row 0 the highest frequency.
    """

    width: int
    clips: list[dict[str, Any]]
    content: Callable[[int], bytes]
    read: Callable[[int], Tensor]

    def __len__(self) -> int:
        return len(self.clips)


def load_dataset(folder: str | Path) -> tuple[list[ClipSet], list[ClipSet], SpectrogramConfig]:
    """Open a data set that ``riff prepare`` wrote, or any ``imagefolder`` of riff's or Riffusion's spectrograms.

    Images stay on the disk until they are read; what is checked here is that each is there and of the right height.
    Nothing outside of the folder is read.

    Args:
        folder: holds ``train/`` and ``validation/`` with ``metadata.jsonl`` (or ``.csv``, ...) and images, or these
            files themselves, or ``data/*.parquet``, or the ``.npy`` shards of ``training.recipes.dataset``.

    Returns:
        Training sets and validation sets, one per image width, the widest first, and the config of all of them:
        the folder's, else the first image's own.

    Raises:
        RiffError: there are no clips, an image is missing, damaged or of another kind than the rest.
        SystemProblem: Parquet shards without pyarrow.
    """
    root = Path(folder)
    if not root.is_dir():
        raise RiffError(f"{root} is not a folder; give one that riff prepare wrote")
    config = SpectrogramConfig.load(root) if (root / CONFIG_NAME).is_file() else None
    shards = sorted([*root.glob("*.parquet"), *(root / "data").glob("*.parquet")])
    if shards := [path for path in shards if path.name.lower() not in TABLES]:
        files = _files_of_shards(root, shards)
    else:
        places = {name: _split_folder(root, names) for name, names in SPLITS.items()}
        places["train"] = places["train"] or (root if _table_of(root) else None)
        train, validation = places["train"], places["validation"]
        if train is None:
            raise RiffError(
                f"{root} holds no clips: neither train/metadata.jsonl nor data/*.parquet; "
                "make a data set with riff prepare"
            )
        if any(train.glob("pictures-*.npy")):
            sets = [] if validation is None else load_image_sets(validation)[0]
            own, config = load_image_sets(train)
            return [_array_set(each) for each in own], [_array_set(each) for each in sets], config
        files = {name: [] if place is None else _files_of_folder(root, place) for name, place in places.items()}
    if not files["train"]:
        raise RiffError(f"{root} has Parquet shards, but no clip to train on; make the data set again")
    config = config or files["train"][0].config()
    return _by_width(files["train"], root, config), _by_width(files["validation"], root, config), config


def _table_of(folder: Path) -> Path | None:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((path for path in paths if path.name.lower() in TABLES and path.is_file()), None)


def _split_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    places = (root / name for name in names)
    return next((place for place in places if _table_of(place) or any(place.glob("pictures-*.npy"))), None)


def _files_of_shards(root: Path, shards: list[Path]) -> dict[str, list[ImageFile]]:
    files: dict[str, list[ImageFile]] = {"train": [], "validation": []}
    for shard in shards:
        split = shard.name.partition("-")[0].removesuffix(".parquet")
        name = next((name for name, known in SPLITS.items() if split in known), "train")
        files[name] += list_shard(_inside(root, shard))
    return files


def _files_of_folder(root: Path, place: Path) -> list[ImageFile]:
    """The images of one ``imagefolder``."""
    table = _table_of(place)
    assert table is not None
    try:
        rows, faults = read_table(table)
    except RiffError as error:
        raise type(error)(f"{table} cannot be read: {error}") from error
    if faults := [fault for fault in faults if not fault.startswith("not UTF-8")]:
        raise RiffError(f"{table} cannot be read ({faults[0]}); restore it or make the data set again")
    files = []
    for number, row in enumerate(rows, 1):
        name = file_of(row)
        if name is None:
            raise RiffError(f"{table}, entry {number}, has no file_name; give each clip the name of its image")
        path = _inside(root, place / name)
        check_readable(path, expected=f"the image that {table.name} names, or remove its line")
        files.append(ImageFile(str(place / name), clip_of({**row, "file_name": name}), path.read_bytes))
    if not files:
        raise RiffError(f"{table} lists no clips; make the data set again with riff prepare")
    return files


def _inside(root: Path, path: Path) -> Path:
    """A file of the data set; links may lead to other places of its folder, and to the blobs of the Hub's cache."""
    here = Path(os.path.realpath(root))
    roots = [here, *([here.parent.parent / "blobs"] if here.parent.name == "snapshots" else [])]
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(each) for each in roots):
        raise RiffError(f"{path} is outside of the data set {root}; copy it into that folder, or remove it")
    return path


def _by_width(files: list[ImageFile], root: Path, config: SpectrogramConfig) -> list[ClipSet]:
    widths: dict[int, list[ImageFile]] = {}
    for each in files:
        width, height = each.size()
        if height != config.n_mels:
            raise RiffError(
                f"{each.name} is {height} pixels high and the data set's images have {config.n_mels} rows; "
                "images are never rescaled, so make it with the data set's config or remove it"
            )
        widths.setdefault(width, []).append(each)
    return [_clip_set(width, members, config) for width, members in sorted(widths.items(), reverse=True)]


def _clip_set(width: int, members: list[ImageFile], config: SpectrogramConfig) -> ClipSet:
    return ClipSet(
        width,
        [each.clip for each in members],
        lambda index: members[index].content(),
        lambda index: members[index].decode(config),
    )


def _array_set(images: ImageSet) -> ClipSet:
    return ClipSet(
        int(images.pixels.shape[-1]),
        images.clips,
        lambda index: images.pixels[index].numpy().tobytes(),
        lambda index: images.images(torch.tensor([index]))[0],
    )

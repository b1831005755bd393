"""A set of captioned spectrogram pictures: a folder of PNGs, Parquet shards, or riff's own arrays."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riff.config import CONFIG_NAME, SpectrogramConfig
from riff.errors import RiffError
from riff.files import check_readable
from riff.parquet import list_shard
from riff.pictures import Listed, decode_picture, described_by, picture_size, with_captions

METADATA = ("metadata.jsonl", "metadata.csv")
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "heldout", "test")}


@dataclasses.dataclass
class PictureSet:
    """Pictures of one width and the truth about each.

    Attributes:
        pictures: (n, C * M, N) uint8, row 0 the highest frequency, 255 the image value 1.
        clips: one mapping per picture; ``captions`` holds its captions.
    """

    pictures: Tensor
    clips: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.clips)

    def images(self, indices: Tensor) -> Tensor:
        """The pictures at ``indices`` as (B, 1, M, N) float32 in [0, 1]."""
        return self.pictures[indices].float().div_(255.0)[:, None]

    def caption(self, index: int, choice: int) -> str:
        """One of the clip's captions; ``choice`` may be any whole number."""
        captions = self.clips[index]["captions"]
        return str(captions[choice % len(captions)])


@dataclasses.dataclass(frozen=True)
class ClipSet:
    """Clips of one picture width, whose pictures are read when they are asked for.

    Attributes:
        width: columns of each picture, N.
        clips: what is known of each clip; ``captions`` is a list of texts, ``file_name`` names it.
        content: the bytes that make clip i's picture what it is, for hashing.
        read: clip i's picture as (C, M, N) float32 in [0, 1], row 0 the highest frequency.
    """

    width: int
    clips: list[dict[str, Any]]
    content: Callable[[int], bytes]
    read: Callable[[int], Tensor]

    def __len__(self) -> int:
        return len(self.clips)


def load_dataset(folder: str | Path) -> tuple[list[ClipSet], list[ClipSet], SpectrogramConfig]:
    """Open a data set that ``riff prepare`` wrote, or any ``imagefolder`` of riff's or Riffusion's pictures.

    Pictures stay on the disk until they are read; what is checked here is that each is there and of the right height.

    Args:
        folder: holds ``train/`` and ``validation/`` with ``metadata.jsonl`` (or ``.csv``) and pictures, or these files
            themselves, or ``data/*.parquet``, or the ``.npy`` shards of ``training.make_dataset``.

    Returns:
        Training sets and validation sets, one per picture width, the widest first, and the config of all of them:
        the folder's, else the first picture's own.

    Raises:
        RiffError: there are no clips, a picture is missing, damaged or of another kind than the rest.
        SystemProblem: Parquet shards without pyarrow.
    """
    root = Path(folder)
    if not root.is_dir():
        raise RiffError(f"{root} is not a folder; give one that riff prepare wrote")
    if shards := sorted([*root.glob("*.parquet"), *(root / "data").glob("*.parquet")]):
        return _load_parquet(root, shards)
    found = {name: _split_folder(root, places) for name, places in SPLITS.items()}
    if found["train"] is None and any((root / name).is_file() for name in METADATA):
        found["train"] = root
    train = found["train"]
    if train is None:
        raise RiffError(
            f"{root} holds no clips: neither train/metadata.jsonl nor data/*.parquet; make a data set with riff prepare"
        )
    if any(train.glob("pictures-*.npy")):
        return _from_arrays(train), _from_arrays(found["validation"]), SpectrogramConfig.load(root)
    listed = {name: [] if place is None else _list_files(place) for name, place in found.items()}
    config = _own_config(root)
    return (
        _by_width(listed["train"], root, config),
        _by_width(listed["validation"], root, config) if listed["validation"] else [],
        config or described_by(listed["train"][0]),
    )


def _split_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    for name in names:
        place = root / name
        if any((place / each).is_file() for each in METADATA) or any(place.glob("pictures-*.npy")):
            return place
    return None


def _list_files(place: Path) -> list[Listed]:
    """The clips of one ``imagefolder``."""
    source = next(place / name for name in METADATA if (place / name).is_file())
    listed = []
    for number, fields in enumerate(_rows(source), 1):
        name = fields.get("file_name")
        if not isinstance(name, str) or not name:
            raise RiffError(f"{source}, entry {number}, has no file_name; give each clip the name of its picture")
        path = place / name
        check_readable(path, expected=f"the picture that {source.name} names, or take its line out")
        listed.append(Listed(str(path), with_captions(fields), path.read_bytes))
    if not listed:
        raise RiffError(f"{source} lists no clips; make the data set again with riff prepare")
    return listed


def _rows(source: Path) -> list[dict[str, Any]]:
    try:
        text = source.read_text(encoding="utf-8-sig")
        if source.suffix == ".csv":
            return list(csv.DictReader(io.StringIO(text)))
        return [dict(json.loads(line)) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RiffError(f"{source} cannot be read ({error}); restore it or make the data set again") from error


def _by_width(listed: list[Listed], root: Path, config: SpectrogramConfig | None) -> list[ClipSet]:
    config = config or described_by(listed[0])
    widths: dict[int, list[Listed]] = {}
    for each in listed:
        width, height = picture_size(each)
        if height != config.n_mels:
            raise RiffError(
                f"{each.name} is {height} pixels high and the data set's pictures have {config.n_mels} rows; "
                "pictures are never rescaled, so make it with the data set's config or take it out"
            )
        widths.setdefault(width, []).append(each)
    return [_clip_set(width, members, config) for width, members in sorted(widths.items(), reverse=True)]


def _clip_set(width: int, members: list[Listed], config: SpectrogramConfig) -> ClipSet:
    return ClipSet(
        width,
        [each.clip for each in members],
        lambda index: members[index].content(),
        lambda index: decode_picture(members[index].content(), members[index].name, config),
    )


def _own_config(root: Path) -> SpectrogramConfig | None:
    return SpectrogramConfig.load(root) if (root / CONFIG_NAME).is_file() else None


def _load_parquet(root: Path, shards: list[Path]) -> tuple[list[ClipSet], list[ClipSet], SpectrogramConfig]:
    listed: dict[str, list[Listed]] = {"train": [], "validation": []}
    for shard in shards:
        split = shard.name.partition("-")[0].removesuffix(".parquet")
        name = next((name for name, known in SPLITS.items() if split in known), "train")
        listed[name] += list_shard(shard)
    if not listed["train"]:
        raise RiffError(f"{root} has Parquet shards, but no clip to train on; make the data set again")
    config = _own_config(root)
    sets = {name: _by_width(members, root, config) if members else [] for name, members in listed.items()}
    return sets["train"], sets["validation"], config or described_by(listed["train"][0])


def _from_arrays(folder: Path | None) -> list[ClipSet]:
    return [] if folder is None else [_array_set(pictures) for pictures in load_picture_sets(folder)[0]]


def _array_set(pictures: PictureSet) -> ClipSet:
    return ClipSet(
        int(pictures.pictures.shape[-1]),
        pictures.clips,
        lambda index: pictures.pictures[index].numpy().tobytes(),
        lambda index: pictures.images(torch.tensor([index]))[0],
    )


def load_picture_sets(folder: str | Path, *, limit: int | None = None) -> tuple[list[PictureSet], SpectrogramConfig]:
    """Read a folder of shards that ``training.make_dataset`` wrote.

    Args:
        folder: holds ``pictures-*.npy`` and ``clips-*.jsonl``; the config lies there or one folder up.
        limit: at most so many pictures of each width.

    Returns:
        One set per picture width, the widest first, and the config of all of them.

    Raises:
        RiffError: no shards, or a shard whose pictures and clips disagree.
    """
    folder = Path(folder)
    by_width: dict[int, list[tuple[np.ndarray, list[dict[str, Any]]]]] = {}
    for path in sorted(folder.glob("pictures-*.npy")):
        pictures = np.load(path, allow_pickle=False)
        lines = path.with_name(path.name.replace("pictures-", "clips-")).with_suffix(".jsonl").read_text("utf-8")
        clips = [json.loads(line) for line in lines.splitlines()]
        if len(clips) != len(pictures):
            raise RiffError(f"{path} has {len(pictures)} pictures but {len(clips)} clips; delete it and make it again")
        if clips:
            by_width.setdefault(pictures.shape[-1], []).append((pictures, clips))
    if not by_width:
        raise RiffError(f"{folder} holds no pictures-*.npy shards; make them with python -m training.make_dataset")
    sets = []
    for _, shards in sorted(by_width.items(), reverse=True):
        pictures = torch.from_numpy(np.concatenate([shard for shard, _ in shards])[:limit])
        sets.append(PictureSet(pictures, [clip for _, clips in shards for clip in clips][:limit]))
    config_folder = folder if (folder / "spectrogram_config.json").exists() else folder.parent
    return sets, SpectrogramConfig.load(config_folder)

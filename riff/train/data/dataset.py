"""A set of captioned spectrogram pictures: a folder of PNGs, Parquet shards, or riff's own arrays."""

import csv
import dataclasses
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from riff.spectrogram.config import CONFIG_NAME, SpectrogramConfig
from riff.spectrogram.image import MAX_PIXELS, pil_to_image
from riff.spectrogram.png import exif_to_config
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import check_readable

if TYPE_CHECKING:
    from PIL.Image import Image

METADATA = ("metadata.jsonl", "metadata.csv")
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "heldout", "test")}


@dataclasses.dataclass
class PictureSet:
    """Pictures of one width and the truth about each.

    Attributes:
        pictures: (n, C * M, N) uint8, row 0 the highest frequency, 255 the image value 1.
        clips: one mapping per picture; ``captions`` holds its captions.
        channels: C, 1 mono or 2 stereo.
    """

    pictures: Tensor
    clips: list[dict[str, Any]]
    channels: int = 1

    def __len__(self) -> int:
        return len(self.clips)

    def images(self, indices: Tensor) -> Tensor:
        """The pictures at ``indices`` as (B, C, M, N) float32 in [0, 1]."""
        return self.pictures[indices].float().div_(255.0).unflatten(1, (self.channels, -1))

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
            themselves, or ``data/*.parquet``, or the ``.npy`` shards of ``training.recipes.dataset``.

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


# WAS riff/pictures.py: Picture files as a data set holds them: their size and their description without their
# pixels, and these.


@dataclasses.dataclass(frozen=True)
class Listed:
    """A clip of which it is known where its picture is.

    Attributes:
        name: of the picture, for messages.
        clip: what is known of it; ``captions`` is a list of texts.
        content: reads the picture file's bytes.
    """

    name: str
    clip: dict[str, Any]
    content: Callable[[], bytes]


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
    """Read a folder of shards that ``training.recipes.dataset`` wrote.

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
        raise RiffError(f"{folder} holds no pictures-*.npy shards; make them with python -m training.recipes.dataset")
    config = SpectrogramConfig.load(folder if (folder / "spectrogram_config.json").exists() else folder.parent)
    sets = []
    for _, shards in sorted(by_width.items(), reverse=True):
        pictures = torch.from_numpy(np.concatenate([shard for shard, _ in shards])[:limit])
        clips = [clip for _, clips in shards for clip in clips][:limit]
        sets.append(PictureSet(pictures, clips, config.channels))
    return sets, config


# WAS riff/parquet.py: Pictures in Parquet shards, as Hugging Face's ``datasets`` writes them: one row a clip,
# the picture among them.


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


def with_captions(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with ``captions``: their own, else the ``text``, else one that is empty."""
    captions = fields.get("captions")
    if not isinstance(captions, list) or not captions:
        captions = [fields.get("text") or ""]
    return {**fields, "captions": [str(text) for text in captions]}


def open_picture(content: bytes, name: str) -> "Image":
    """A picture file, of which only the header has been read.

    Raises:
        RiffError: it is damaged, no PNG, JPEG or WebP, or too large.
    """
    import PIL.Image

    try:
        picture = PIL.Image.open(io.BytesIO(content), formats=["PNG", "JPEG", "WEBP"])
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise RiffError(f"{name} is damaged or no PNG, JPEG or WebP picture; restore it or take it out") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise RiffError(f"{name} is {picture.width} x {picture.height} pixels large; at most {MAX_PIXELS} are read")
    return picture


def picture_size(listed: Listed) -> tuple[int, int]:
    """Columns and rows of a picture, from its header."""
    with open_picture(listed.content(), listed.name) as picture:
        return picture.size


def describe_picture(picture: "Image", name: str) -> SpectrogramConfig | None:
    """The config that a picture carries: riff's text chunk or Riffusion's EXIF tags."""
    try:
        if text := picture.info.get("riff"):
            return SpectrogramConfig.from_dict(json.loads(text)["config"])
        tagged = exif_to_config(dict(picture.getexif()))
    except (RiffError, KeyError, TypeError, ValueError, OSError, SyntaxError, struct.error) as error:
        raise RiffError(f"{name} describes itself wrongly ({error}); make it anew or take it out") from error
    return None if tagged is None else tagged[0]


def described_by(listed: Listed) -> SpectrogramConfig:
    """The config of a folder without one: its first picture's, else Riffusion's with as many rows."""
    with open_picture(listed.content(), listed.name) as picture:
        own = describe_picture(picture, listed.name)
        return own or dataclasses.replace(SpectrogramConfig.riffusion(), n_mels=picture.height)


def decode_picture(content: bytes, name: str, config: SpectrogramConfig) -> Tensor:
    """A picture file's bytes as (C, M, N) in [0, 1].

    Raises:
        RiffError: it is damaged, or made with another config than the data set's.
    """
    with open_picture(content, name) as picture:
        own = describe_picture(picture, name)
        if own is not None and (wrong := differing_fields(own, config)):
            raise RiffError(f"{name} was made with another config than the data set: {wrong}; take it out or remake it")
        try:
            picture.load()
        except (OSError, SyntaxError, ValueError, struct.error) as error:
            raise RiffError(f"{name} is damaged ({error}); restore it or take it out") from error
        return pil_to_image(picture, config)


def differing_fields(one: SpectrogramConfig, other: SpectrogramConfig) -> str:
    """How two configs' pictures differ, "n_mels 512 and 256, ..."; empty where they mean the same.

    The usual width is no difference: pictures of several widths are trained on side by side.
    """
    first, second = one.to_dict(), other.to_dict()
    ignored = {"width"}
    if one.amplitude == other.amplitude == "decibel":
        ignored |= {"power"}
    if one.amplitude == other.amplitude == "power":
        ignored |= {"reference", "db_range"}
    if one.channels == other.channels == 1:
        ignored |= {"stereo"}
    if one.grid == other.grid == "seconds":
        ignored |= {"frames_per_beat"}
    names = [name for name in first if name not in ignored and first[name] != second[name]]
    return ", ".join(f"{name} {first[name]} and {second[name]}" for name in names)

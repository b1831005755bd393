"""Spectrogram files as a data set holds them: size and description without the pixels, and the pixels."""

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

from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import MAX_PIXELS, pil_to_image
from riff.spectrogram.png import exif_to_config
from riff.train.data.tables import Row, captions_of
from riff.utils.errors import RiffError
from riff.utils.validation import positive_number

if TYPE_CHECKING:
    from PIL.Image import Image

_DAMAGE = (OSError, SyntaxError, ValueError, struct.error)


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A clip's image that is read on demand.

    Attributes:
        name: for messages.
        clip: what is known of the clip; ``captions`` is a list of texts.
        content: reads the file's bytes.
    """

    name: str
    clip: dict[str, Any]
    content: Callable[[], bytes]

    def open(self) -> "Image":
        """The image, of which only the header has been read.

        Raises:
            RiffError: it is damaged, no PNG, JPEG or WebP, or too large.
        """
        import PIL.Image

        try:
            image = PIL.Image.open(io.BytesIO(self.content()), formats=["PNG", "JPEG", "WEBP"])
        except _DAMAGE as error:
            raise RiffError(f"{self.name} is damaged or no PNG, JPEG or WebP image; restore it or remove it") from error
        if image.width * image.height > MAX_PIXELS:
            raise RiffError(
                f"{self.name} is {image.width} x {image.height} pixels large; at most {MAX_PIXELS} are read"
            )
        return image

    def size(self) -> tuple[int, int]:
        """Columns and rows, from its header."""
        with self.open() as image:
            return image.size

    def config(self) -> SpectrogramConfig:
        """The config that it carries, else Riffusion's with as many rows."""
        with self.open() as image:
            own = self._described(image)
            return own or dataclasses.replace(SpectrogramConfig.riffusion(), n_mels=image.height)

    def decode(self, config: SpectrogramConfig) -> Tensor:
        """(C, M, N) in [0, 1].

        Raises:
            RiffError: it is damaged, or made with another config than the data set's.
        """
        with self.open() as image:
            own = self._described(image)
            if own is not None and (wrong := differing_fields(own, config)):
                raise RiffError(
                    f"{self.name} was made with another config than the data set: {wrong}; remove it or make it again"
                )
            try:
                image.load()
            except _DAMAGE as error:
                raise RiffError(f"{self.name} is damaged ({error}); restore it or remove it") from error
            return pil_to_image(image, config)

    def _described(self, image: "Image") -> SpectrogramConfig | None:
        """The config in riff's text chunk or Riffusion's EXIF tags."""
        try:
            if text := image.info.get("riff"):
                return SpectrogramConfig.from_dict(json.loads(text)["config"])
            tagged = exif_to_config(dict(image.getexif()))
        except (RiffError, KeyError, TypeError, *_DAMAGE) as error:
            raise RiffError(f"{self.name} describes itself wrongly ({error}); make it again or remove it") from error
        return None if tagged is None else tagged[0]


def clip_of(row: Row) -> dict[str, Any]:
    """What a metadata row says of a clip, with ``captions``: its own list, else its caption, else an empty one."""
    own = row.get("captions")
    captions = [str(text) for text in own] if isinstance(own, list) and own else list(captions_of(row)) or [""]
    # In a CSV numbers are text.
    numbers = {name: positive_number(row[name]) for name in ("bpm", "duration_s") if isinstance(row.get(name), str)}
    return {**row, **numbers, "captions": captions}


def differing_fields(one: SpectrogramConfig, other: SpectrogramConfig) -> str:
    """How two configs' images differ, "n_mels 512 and 256, ..."; empty where they mean the same.

    The usual width is no difference: images of several widths are trained on side by side.
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


# Images in riff's own arrays, as ``training.recipes.dataset`` writes them.


@dataclasses.dataclass
class ImageSet:
    """Images of one width and the truth about each.

    Attributes:
        pixels: (n, C * M, N) uint8, row 0 the highest frequency, 255 the image value 1.
        clips: one mapping per image; ``captions`` holds its captions.
        channels: C, 1 mono or 2 stereo.
    """

    pixels: Tensor
    clips: list[dict[str, Any]]
    channels: int = 1

    def __len__(self) -> int:
        return len(self.clips)

    def images(self, indices: Tensor) -> Tensor:
        """The images at ``indices`` as (B, C, M, N) float32 in [0, 1]."""
        return self.pixels[indices].float().div_(255.0).unflatten(1, (self.channels, -1))

    def caption(self, index: int, choice: int) -> str:
        """One of the clip's captions; ``choice`` may be any whole number."""
        captions = self.clips[index]["captions"]
        return str(captions[choice % len(captions)])


def load_image_sets(folder: str | Path, *, limit: int | None = None) -> tuple[list[ImageSet], SpectrogramConfig]:
    """Read a folder of shards that ``training.recipes.dataset`` wrote.

    Args:
        folder: holds ``pictures-*.npy`` and ``clips-*.jsonl``; the config is there or one folder up.
        limit: at most so many images of each width.

    Returns:
        One set per image width, the widest first, and the config of all of them.

    Raises:
        RiffError: no shards, or a shard whose images and clips disagree.
    """
    folder = Path(folder)
    by_width: dict[int, list[tuple[np.ndarray, list[dict[str, Any]]]]] = {}
    for path in sorted(folder.glob("pictures-*.npy")):
        pixels = np.load(path, allow_pickle=False)
        lines = path.with_name(path.name.replace("pictures-", "clips-")).with_suffix(".jsonl").read_text("utf-8")
        clips = [json.loads(line) for line in lines.splitlines()]
        if len(clips) != len(pixels):
            raise RiffError(f"{path} has {len(pixels)} images but {len(clips)} clips; delete it and make it again")
        if clips:
            by_width.setdefault(pixels.shape[-1], []).append((pixels, clips))
    if not by_width:
        raise RiffError(f"{folder} holds no pictures-*.npy shards; make them with python -m training.recipes.dataset")
    config = SpectrogramConfig.load(folder if (folder / "spectrogram_config.json").exists() else folder.parent)
    sets = []
    for _, shards in sorted(by_width.items(), reverse=True):
        pixels = torch.from_numpy(np.concatenate([shard for shard, _ in shards])[:limit])
        clips = [clip for _, clips in shards for clip in clips][:limit]
        sets.append(ImageSet(pixels, clips, config.channels))
    return sets, config

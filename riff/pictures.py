"""Picture files as a data set holds them: their size and their description without their pixels, and these."""

import dataclasses
import io
import json
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.exif import exif_to_config
from riff.image import MAX_PIXELS, pil_to_image

if TYPE_CHECKING:
    from PIL.Image import Image


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

"""A spectrogram config in the EXIF tags of Riffusion's pictures."""

import dataclasses
import io
import json
import math
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from torch import Tensor

from riff.audio.tags import MACHINE_MADE, SOURCE_TYPE, xmp_packet
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import (
    _CHUNK,
    _ORIENTATION,
    MAX_PIXELS,
    image_to_pil,
    pil_to_image,
)
from riff.utils.errors import RiffError
from riff.utils.files import check_readable, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

EXIF_TAGS = {
    "SAMPLE_RATE": 11000,
    "STEREO": 11005,
    "STEP_SIZE_MS": 11010,
    "WINDOW_DURATION_MS": 11020,
    "PADDED_DURATION_MS": 11030,
    "NUM_FREQUENCIES": 11040,
    "MIN_FREQUENCY": 11050,
    "MAX_FREQUENCY": 11060,
    "POWER_FOR_IMAGE": 11070,
    "MAX_VALUE": 11080,
}


def config_to_exif(config: SpectrogramConfig, *, max_value: float | None = None) -> dict[int, int | float]:
    """The tags that have a meaning for ``config``: all of them for a power scale on the seconds grid.

    Args:
        config: what to describe. A column on the beats grid has no duration, and the decibel scale no power,
            so Riffusion refuses such a picture rather than misread it.
        max_value: mel magnitude of black on the power scale, if known.

    Returns:
        Tag number to value: whole numbers, but floats for the power, the maximum and what is not whole.
    """
    rate = config.sample_rate
    tags: dict[str, int | float] = {
        "SAMPLE_RATE": rate,
        "STEREO": int(config.channels == 2),
        "WINDOW_DURATION_MS": _milliseconds(config.win_length, rate),
        "PADDED_DURATION_MS": _milliseconds(config.n_fft, rate),
        "NUM_FREQUENCIES": config.n_mels,
        "MIN_FREQUENCY": _whole(config.f_min),
        "MAX_FREQUENCY": _whole(config.f_max),
    }
    if config.grid == "seconds":
        tags["STEP_SIZE_MS"] = _milliseconds(config.hop_length, rate)
    if config.amplitude == "power":
        tags["POWER_FOR_IMAGE"] = float(config.power)
        if max_value is not None:
            tags["MAX_VALUE"] = float(max_value)
    return {EXIF_TAGS[name]: value for name, value in tags.items()}


def exif_to_config(tags: Mapping[int, Any]) -> tuple[SpectrogramConfig, float | None] | None:
    """The inverse of :func:`config_to_exif` for Riffusion's pictures.

    Args:
        tags: tag number to value; numbers that are not Riffusion's are ignored.

    Returns:
        The config and the mel magnitude of black (None if not stored, or not a number greater than 0, as for
        a silent picture of Riffusion's); or None if there is no tag of Riffusion's at all.

    Raises:
        RiffError: some of the nine tags are missing, or a value is not a number or out of range.
    """
    values = {name: tags[number] for name, number in EXIF_TAGS.items() if number in tags}
    if not values:
        return None
    missing = [name for name in EXIF_TAGS if name not in values and name != "MAX_VALUE"]
    if missing:
        raise RiffError(f"its EXIF tags lack {', '.join(missing)}; make the picture anew")
    try:
        numbers = {name: float(value) for name, value in values.items()}
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise RiffError(f"an EXIF tag of Riffusion's is not a number ({error}); make the picture anew") from error
    maximum = numbers.pop("MAX_VALUE", 0.0)
    if not all(math.isfinite(number) for number in numbers.values()):
        raise RiffError("an EXIF tag of Riffusion's is not finite; make the picture anew")
    # Durations are cut, not rounded, to samples: so does Riffusion.
    per_millisecond = numbers["SAMPLE_RATE"] / 1000.0
    lengths = {name: int(round(numbers[name] * per_millisecond, 6)) for name in numbers if name.endswith("_MS")}
    config = SpectrogramConfig(
        sample_rate=int(numbers["SAMPLE_RATE"]),
        n_fft=lengths["PADDED_DURATION_MS"],
        win_length=lengths["WINDOW_DURATION_MS"],
        hop_length=lengths["STEP_SIZE_MS"],
        n_mels=int(numbers["NUM_FREQUENCIES"]),
        f_min=numbers["MIN_FREQUENCY"],
        f_max=numbers["MAX_FREQUENCY"],
        amplitude="power",
        power=numbers["POWER_FOR_IMAGE"],
        channels=2 if numbers["STEREO"] else 1,
        stereo="left-right",
        grid="seconds",
        width=SpectrogramConfig.riffusion().width,
    )
    return config, maximum if 0.0 < maximum < math.inf else None


def _milliseconds(samples: int, sample_rate: int) -> int | float:
    exact = 1000.0 * samples / sample_rate
    # Half a sample more, so that cutting to samples on the way back cannot lose one.
    return _whole(exact) if exact.is_integer() else exact + 500.0 / sample_rate


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


# WAS riff/image.py: The rung between mel and image: the amplitude scale, with the 8-bit PNG at the disk edge.


def write_png(
    path: str | Path,
    image: Tensor,
    config: SpectrogramConfig,
    *,
    metadata: dict[str, Any] | None = None,
    force: bool = True,
) -> Path:
    """Write a picture as an 8-bit PNG with its config, wholly or not at all.

    The config and the metadata are JSON in the text chunk ``riff``; Riffusion's EXIF tags say what they can. A picture
    whose metadata says ``origin`` as riff's own clips do gets IPTC's mark of what a trained model made, in XMP.

    Args:
        path: a file with the suffix .png.
        image: ``(C, M, N)`` in [0, 1], as :func:`mel_to_image` gives; rounded to 256 levels.
        config: what the picture means.
        metadata: JSON values by name. ``max_value`` is the mel magnitude of black on the power scale.
        force: False refuses a ``path`` that exists.

    Returns:
        The path written.

    Raises:
        RiffError: a wrong suffix or shape, NaN pixels, metadata that JSON cannot hold, or a file that exists.
        SystemProblem: the disk is full or the folder cannot be written.
    """
    import PIL.Image

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise RiffError(f"{path} has the suffix {path.suffix!r}; spectrogram pictures are written as .png")
    picture = image_to_pil(image, config)
    max_value = (metadata or {}).get("max_value")
    if max_value is not None and not isinstance(max_value, (int, float)):
        raise RiffError(f"max_value in the metadata is {max_value!r}; use a number")
    try:
        text = json.dumps({"config": config.to_dict(), "metadata": metadata or {}}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RiffError(f"{path}: no JSON can be made of the metadata ({error}); use text and numbers") from error
    chunks = _chunks(text, metadata or {})
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    for number, value in config_to_exif(config, max_value=max_value).items():
        exif[number] = value
    picture.save(buffer, format="PNG", pnginfo=chunks, exif=exif)
    write_bytes(path, buffer.getvalue(), force=force)
    return path


def _chunks(description: str, metadata: dict[str, Any]) -> "PngInfo":
    """The text chunks: riff's own, the standard ones that other software shows, and the mark."""
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_text(_CHUNK, description)
    for keyword, name in (("Software", "software"), ("Description", "prompt")):
        if isinstance(metadata.get(name), str):
            told = metadata[name].replace("\0", "").encode("utf-8", "replace").decode("utf-8")
            chunks.add_itxt(keyword, told)
    if metadata.get("origin") == MACHINE_MADE:
        chunks.add_itxt("XML:com.adobe.xmp", xmp_packet(SOURCE_TYPE))
    return chunks


def read_png(path: str | Path) -> tuple[Tensor, SpectrogramConfig, dict[str, Any]]:
    """Read a spectrogram picture of riff's or Riffusion's; JPEG and WebP are read as well.

    Args:
        path: the picture.

    Returns:
        ``(C, M, N)`` float32 in [0, 1]; its config, from the ``riff`` chunk, else from Riffusion's EXIF tags,
        else Riffusion's defaults with as many mels as the picture is high; and its metadata, in which
        ``max_value`` is for :func:`image_to_mel`.

    Raises:
        RiffError: the file is missing, damaged, no picture or too large, or contradicts its description.
    """
    import PIL.Image

    check_readable(path, expected="a PNG, JPEG or WebP picture")
    try:
        with PIL.Image.open(path, formats=["PNG", "JPEG", "WEBP"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                size = f"{picture.width} x {picture.height}"
                raise RiffError(f"{path} is {size} pixels large; at most {MAX_PIXELS} pixels are read")
            picture.load()
            _note_losses(picture, path)
            config, metadata = _read_description(picture, path)
            return pil_to_image(picture, config), config, metadata
    except RiffError:
        raise
    except (OSError, SyntaxError, ValueError, struct.error, PIL.Image.DecompressionBombError) as error:
        reason = "it is damaged or no picture" if isinstance(error, PIL.UnidentifiedImageError) else error
        raise RiffError(f"{path} cannot be read as a PNG, JPEG or WebP picture: {reason}") from error


def _read_description(picture: "Image", path: str | Path) -> tuple[SpectrogramConfig, dict[str, Any]]:
    text = getattr(picture, "text", {}).get(_CHUNK)
    try:
        if text is not None:
            description = json.loads(text)
            return SpectrogramConfig.from_dict(description["config"]), dict(description.get("metadata", {}))
        tagged = exif_to_config(_exif(picture))
    except RiffError as error:
        raise RiffError(f"{path} describes itself wrongly: {error}") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RiffError(f"{path} has a damaged riff description; make the picture anew") from error
    if tagged is None:
        config = SpectrogramConfig.riffusion(stereo=_looks_stereo(picture))
        return dataclasses.replace(config, n_mels=picture.height), {}
    config, max_value = tagged
    return config, {} if max_value is None else {"max_value": max_value}


def _note_losses(picture: "Image", path: str | Path) -> None:
    """Say what about a picture may be heard or was not heeded."""
    if picture.format in ("JPEG", "WEBP"):
        warnings.warn(f"{path} is a {picture.format}: detail that it lost may be audible; PNG loses none", stacklevel=3)
    if "A" in picture.getbands():
        warnings.warn(f"{path} has transparency, which is ignored", stacklevel=3)
    if _exif(picture).get(_ORIENTATION, 1) != 1:
        warnings.warn(f"{path} has an EXIF tag that turns it; its rows are read as they are stored", stacklevel=3)


def _exif(picture: "Image") -> dict[int, Any]:
    try:
        return dict(picture.getexif())
    except (OSError, SyntaxError, ValueError, struct.error):
        # Somebody's damaged EXIF does not stand in the way of the pixels.
        return {}


def _looks_stereo(picture: "Image") -> bool:
    """Whether a picture without tags has an empty red plane, which read as mono would be loud noise."""
    if picture.mode not in ("P", "RGB", "RGBA"):
        return False
    red, green, blue = numpy.asarray(picture.convert("RGB"), dtype=numpy.float32).mean(axis=(0, 1))
    return bool(4.0 * red < max(green, blue))

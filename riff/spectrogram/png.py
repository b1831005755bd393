"""Spectrogram images as PNG files: riff's own description in a text chunk, and Riffusion's EXIF tags."""

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
from riff.spectrogram.image import MAX_PIXELS, image_to_pil, pil_to_image
from riff.utils.errors import RiffError
from riff.utils.files import check_readable, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

_CHUNK = "riff"
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_DAMAGE = (OSError, SyntaxError, ValueError, ArithmeticError, MemoryError, struct.error)
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


def write_png(
    path: str | Path,
    image: Tensor,
    config: SpectrogramConfig,
    *,
    metadata: dict[str, Any] | None = None,
    force: bool = True,
) -> Path:
    """Write a spectrogram as an 8-bit PNG with its config, wholly or not at all.

    The config and the metadata are JSON in the text chunk ``riff``; Riffusion's EXIF tags say what they can. An image
    whose metadata has riff's ``origin`` gets IPTC's mark of what a trained model made, in XMP.

    Args:
        path: a file with the suffix .png.
        image: ``(C, M, N)`` in [0, 1], as :func:`mel_to_image` gives; rounded to 256 levels.
        config: what the image means.
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
        raise RiffError(f"{path} has the suffix {path.suffix!r}; spectrograms are written as .png")
    pixels = image_to_pil(image, config)
    max_value = (metadata or {}).get("max_value")
    if max_value is not None and not isinstance(max_value, (int, float)):
        raise RiffError(f"max_value in the metadata is {max_value!r}; use a number")
    try:
        text = json.dumps({"config": config.to_dict(), "metadata": metadata or {}}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RiffError(f"{path}: the metadata cannot be written as JSON ({error}); use text and numbers") from error
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    for number, value in config_to_exif(config, max_value=max_value).items():
        exif[number] = value
    pixels.save(buffer, format="PNG", pnginfo=_chunks(text, metadata or {}), exif=exif)
    write_bytes(path, buffer.getvalue(), force=force)
    return path


def _chunks(description: str, metadata: dict[str, Any]) -> "PngInfo":
    """The text chunks: riff's own, the standard ones that other software shows, and the mark."""
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_text(_CHUNK, description)
    for keyword, name in (("Software", "software"), ("Description", "prompt")):
        if isinstance(metadata.get(name), str):
            chunks.add_itxt(keyword, metadata[name].replace("\0", "").encode("utf-8", "replace").decode("utf-8"))
    if metadata.get("origin") == MACHINE_MADE:
        chunks.add_itxt("XML:com.adobe.xmp", xmp_packet(SOURCE_TYPE))
    return chunks


def read_png(
    path: str | Path, *, preset: SpectrogramConfig | None = None
) -> tuple[Tensor, SpectrogramConfig, dict[str, Any]]:
    """Read a spectrogram image of riff's or Riffusion's; JPEG and WebP are read as well.

    Args:
        path: the image.
        preset: what the image is, whatever it says itself; the numbers of mels and channels are the image's.

    Returns:
        ``(C, M, N)`` float32 in [0, 1]; its config, from the ``riff`` chunk, else from Riffusion's EXIF tags,
        else Riffusion's defaults with as many mels as the image has rows; and its metadata, in which
        ``max_value`` is for :func:`image_to_mel`.

    Raises:
        RiffError: the file is missing, damaged, no image or too large, or contradicts its description; or it has no
            description and is as high as riff's own images, which would be noise if read as Riffusion's.
    """
    import PIL.Image

    check_readable(path, expected="a PNG, JPEG or WebP image")
    try:
        with open(path, "rb") as file, PIL.Image.open(file, formats=["PNG", "JPEG", "WEBP"]) as pixels:
            if pixels.width * pixels.height > MAX_PIXELS:
                size = f"{pixels.width} x {pixels.height}"
                raise RiffError(f"{path} has {size} pixels; at most {MAX_PIXELS:,} are read")
            config, metadata = _description(pixels, path, preset)
            pixels.load()
            _warn_of_losses(pixels, path)
            return pil_to_image(pixels, config), config, metadata
    except RiffError:
        raise
    except (*_DAMAGE, PIL.Image.DecompressionBombError) as error:
        reason = "it is damaged or no image" if isinstance(error, PIL.UnidentifiedImageError) else error
        raise RiffError(f"{path} cannot be read as a PNG, JPEG or WebP image: {reason}") from error


def _description(
    pixels: "Image", path: str | Path, preset: SpectrogramConfig | None
) -> tuple[SpectrogramConfig, dict[str, Any]]:
    """Config and metadata."""
    try:
        found = _own_description(pixels, path)
    except RiffError:
        if preset is None:
            raise
        found = None
    if preset is not None:
        stereo = found[0].channels == 2 if found else _looks_stereo(pixels)
        config = dataclasses.replace(preset, n_mels=pixels.height, channels=2 if stereo else 1)
        return config, found[1] if found else {}
    if found is not None:
        return found
    if pixels.height == SpectrogramConfig().n_mels:
        raise RiffError(
            f"{path} does not say what it is, and has {pixels.height} rows as riff's own images have: an editor may "
            "have removed the description; use --preset riff and --bpm (preset=SpectrogramConfig()), or --preset riffusion"  # noqa: E501
        )
    config = SpectrogramConfig.riffusion(stereo=_looks_stereo(pixels))
    if pixels.height != config.n_mels:
        warnings.warn(
            f"{path} does not say what it is; it is read as Riffusion's, where white is silence", stacklevel=4
        )
    return dataclasses.replace(config, n_mels=pixels.height), {}


def _own_description(pixels: "Image", path: str | Path) -> tuple[SpectrogramConfig, dict[str, Any]] | None:
    """What the image says about itself, or None if it says nothing."""
    text = getattr(pixels, "text", {}).get(_CHUNK)
    try:
        if text is not None:
            description = json.loads(text)
            return SpectrogramConfig.from_dict(description["config"]), dict(description.get("metadata", {}))
        tagged = exif_to_config(_exif(pixels))
    except RiffError as error:
        raise RiffError(f"{path} describes itself wrongly: {error}") from error
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise RiffError(f"{path} has a damaged riff description; make the image again") from error
    if tagged is None:
        return None
    config, max_value = tagged
    return config, {} if max_value is None else {"max_value": max_value}


def _warn_of_losses(pixels: "Image", path: str | Path) -> None:
    """Name what about an image may be audible, or has no effect."""
    if pixels.format in ("JPEG", "WEBP"):
        warnings.warn(f"{path} is a {pixels.format}: detail that it lost may be audible; PNG loses none", stacklevel=3)
    if (frames := getattr(pixels, "n_frames", 1)) > 1:
        warnings.warn(f"{path} holds {frames} images; the first one is read", stacklevel=3)
    if "A" in pixels.getbands():
        warnings.warn(f"{path} has transparency, which is ignored", stacklevel=3)
    if _exif(pixels).get(_ORIENTATION, 1) != 1:
        warnings.warn(f"{path} has an EXIF tag that turns it; its rows are read as they are stored", stacklevel=3)


def _exif(pixels: "Image") -> dict[int, Any]:
    try:
        return dict(pixels.getexif())
    except _DAMAGE:
        # Damaged EXIF does not stand in the way of the pixels.
        return {}


def _looks_stereo(pixels: "Image") -> bool:
    """Whether an image without tags has an empty red plane, which read as mono would be loud noise."""
    if pixels.mode not in ("P", "RGB", "RGBA"):
        return False
    red, green, blue = numpy.asarray(pixels.convert("RGB")).mean(axis=(0, 1))
    return bool(4.0 * red < max(green, blue))


def config_to_exif(config: SpectrogramConfig, *, max_value: float | None = None) -> dict[int, int | float]:
    """The tags that have a meaning for ``config``: all of them for a power scale on the seconds grid.

    Args:
        config: what to describe. A column on the beats grid has no duration, and the decibel scale no power,
            so Riffusion refuses such an image rather than misread it.
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
    """The inverse of :func:`config_to_exif` for Riffusion's images.

    Args:
        tags: tag number to value; numbers that are not Riffusion's are ignored.

    Returns:
        The config and the mel magnitude of black (None if not stored, or not a number greater than 0, as for
        a silent image of Riffusion's); or None if there is no tag of Riffusion's at all.

    Raises:
        RiffError: some of the nine tags are missing, or a value is not a number or out of range.
    """
    values = {name: tags[number] for name, number in EXIF_TAGS.items() if number in tags}
    if not values:
        return None
    missing = [name for name in EXIF_TAGS if name not in values and name != "MAX_VALUE"]
    if missing:
        raise RiffError(
            f"its EXIF tags lack {', '.join(missing)}, as those of riff's own images do; use --preset riff and --bpm"
        )
    try:
        numbers = {name: float(value) for name, value in values.items()}
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise RiffError(f"an EXIF tag of Riffusion's is not a number ({error}); make the image again") from error
    maximum = numbers.pop("MAX_VALUE", 0.0)
    if not all(math.isfinite(number) for number in numbers.values()):
        raise RiffError("an EXIF tag of Riffusion's is not finite; make the image again")
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

"""The rung between mel and image: the amplitude scale, with the 8-bit PNG at the disk edge."""

import dataclasses
import io
import json
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.exif import config_to_exif, exif_to_config
from riff.files import check_readable, write_bytes
from riff.tags import MACHINE_MADE, SOURCE_TYPE, xmp_packet

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

RIFFUSION_MAX_VALUE = 30e6
MAX_PIXELS = 1 << 26
_CHUNK = "riff"
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright


def mel_to_image(mel: Tensor, config: SpectrogramConfig, *, max_value: float | None = None) -> Tensor:
    """Draw a mel spectrogram as a picture, row 0 at the highest frequency.

    Decibel scale: ``clip(1 + 20 log10(mel / reference) / db_range, 0, 1)``, louder is brighter, silence is 0.
    Power scale (Riffusion, Forsgren and Martiros 2022): ``1 - (mel / max) ** power``, louder is darker,
    silence is 1.

    Args:
        mel: ``(..., C, M, N)`` magnitudes, >= 0.
        config: names the scale.
        max_value: mel magnitude drawn black on the power scale; the default is each clip's own maximum over
            its channels, bins and frames. The decibel scale has a fixed reference and does not use it.

    Returns:
        ``(..., C, M, N)`` in [0, 1], float32 or wider.

    Raises:
        RiffError: a magnitude is negative, NaN or infinite, or the shape or ``max_value`` is wrong.
    """
    _check_shape(mel, "mel")
    mel = mel if mel.dtype == torch.float64 else mel.float()
    if not bool(torch.isfinite(mel).all()) or bool((mel < 0).any()):
        raise RiffError("the mel spectrogram holds negative, NaN or infinite values; use finite ones >= 0")
    mel = mel.flip(-2)
    if config.amplitude == "decibel":
        # Smaller than any floor, so that silence is clipped to exactly 0 rather than rounded to almost 0.
        level = 20.0 * torch.log10((mel / config.reference).clamp_min(1e-30))
        return (1.0 + level / config.db_range).clamp(0.0, 1.0)
    if max_value is None:
        loudest = mel.amax(dim=(-3, -2, -1), keepdim=True)
        # A silent clip has no maximum to divide by; any positive number draws it white.
        ratio = mel / torch.where(loudest > 0, loudest, torch.ones_like(loudest))
    else:
        ratio = (mel / _check_max_value(max_value)).clamp_max(1.0)
    return 1.0 - ratio**config.power


def image_to_mel(image: Tensor, config: SpectrogramConfig, *, max_value: float | None = None) -> Tensor:
    """Read a picture back as a mel spectrogram: the inverse of :func:`mel_to_image`.

    Args:
        image: ``(..., C, M, N)`` in [0, 1], row 0 at the highest frequency; values outside are clipped.
        config: names the scale.
        max_value: mel magnitude of black on the power scale; default 30e6, as in Riffusion.

    Returns:
        ``(..., C, M, N)`` magnitudes >= 0, float32 or wider. What the picture shows as silence is exactly 0.

    Raises:
        RiffError: a value is NaN, or the shape or ``max_value`` is wrong.
    """
    _check_shape(image, "image")
    image = image if image.dtype == torch.float64 else image.float()
    if bool(torch.isnan(image).any()):
        raise RiffError("the picture holds NaN values; pixel values must be numbers in [0, 1]")
    image = image.clamp(0.0, 1.0).flip(-2)
    if config.amplitude == "decibel":
        mel = config.reference * 10.0 ** ((image - 1.0) * (config.db_range / 20.0))
        return torch.where(image > 0, mel, torch.zeros_like(mel))
    loudest = RIFFUSION_MAX_VALUE if max_value is None else _check_max_value(max_value)
    return (1.0 - image) ** (1.0 / config.power) * loudest


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


def image_to_pil(image: Tensor, config: SpectrogramConfig) -> "Image":
    """Round a picture to 8 bits.

    Mono is grey (mode L) on the decibel scale, and RGB with three equal planes on the power scale, as in
    Riffusion. Stereo is RGB on both: red is 0, the first channel is green and the second blue.

    Args:
        image: ``(C, M, N)`` in [0, 1].
        config: its description.

    Raises:
        RiffError: the shape differs from the config's, there are NaN pixels, or too many pixels.
    """
    import PIL.Image

    if image.ndim != 3 or image.shape[:2] != (config.channels, config.n_mels) or image.shape[2] == 0:
        wanted = f"({config.channels}, {config.n_mels}, frames)"
        raise RiffError(f"the image has shape {tuple(image.shape)}; its config says {wanted}")
    if image[0].numel() > MAX_PIXELS:
        raise RiffError(f"the image has {image[0].numel()} pixels; at most {MAX_PIXELS} are written, so cut it")
    if bool(torch.isnan(image).any()):
        raise RiffError("the image holds NaN pixels; nothing was written")
    planes = (image.detach().float().cpu().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy()
    if config.channels == 2:
        return PIL.Image.fromarray(numpy.stack([numpy.zeros_like(planes[0]), *planes], axis=-1))
    if config.amplitude == "decibel":
        return PIL.Image.fromarray(planes[0])
    return PIL.Image.fromarray(numpy.repeat(planes[0][..., None], 3, axis=-1))


def pil_to_image(picture: "Image", config: SpectrogramConfig) -> Tensor:
    """Read the planes of a picture of any mode: the inverse of :func:`image_to_pil`.

    Args:
        picture: mono is read from red (or grey), stereo from green and blue; transparency is ignored.
        config: its description.

    Returns:
        ``(C, M, N)`` float32 in [0, 1].

    Raises:
        RiffError: the picture is not ``config.n_mels`` high.
    """
    if picture.height != config.n_mels:
        raise RiffError(f"the picture is {picture.height} pixels high and its description says {config.n_mels} mels")
    if picture.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255 rather than scale it.
        grey = torch.from_numpy(numpy.asarray(picture, dtype=numpy.float32) / 65535.0)
        return grey.clamp(0.0, 1.0).expand(config.channels, -1, -1).clone()
    pixels = numpy.asarray(picture.convert("RGB"), dtype=numpy.float32) / 255.0
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    return (planes[1:] if config.channels == 2 else planes[:1]).contiguous()


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


def _check_shape(tensor: Tensor, name: str) -> None:
    if tensor.ndim < 3 or tensor.numel() == 0:
        raise RiffError(f"the {name} has shape {tuple(tensor.shape)}; use (..., channels, mels, frames), none 0")


def _check_max_value(max_value: float) -> float:
    if not 0.0 < max_value < float("inf"):
        raise RiffError(f"max_value is {max_value!r}; use a finite number greater than 0")
    return max_value

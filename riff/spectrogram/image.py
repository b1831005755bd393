"""The rung between mel and image: the amplitude scale, the 8-bit pixels, and a change of pitch."""

from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor

from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from PIL.Image import Image

RIFFUSION_MAX_VALUE = 30e6
MAX_PIXELS = 1 << 26
MAX_SEMITONES = 12


def mel_to_image(mel: Tensor, config: SpectrogramConfig, *, max_value: float | None = None) -> Tensor:
    """The spectrogram image of a mel, row 0 at the highest frequency.

    Decibel scale: ``clip(1 + 20 log10(mel / reference) / db_range, 0, 1)``, louder is brighter, silence is 0.
    Power scale (Riffusion, Forsgren and Martiros 2022): ``1 - (mel / max) ** power``, louder is darker,
    silence is 1.

    Args:
        mel: ``(..., C, M, N)`` magnitudes, >= 0.
        config: names the scale.
        max_value: mel magnitude that is black on the power scale; the default is each clip's own maximum over
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
        # A silent clip has no maximum to divide by; any positive number makes it white.
        ratio = mel / torch.where(loudest > 0, loudest, torch.ones_like(loudest))
    else:
        ratio = (mel / _check_max_value(max_value)).clamp_max(1.0)
    return 1.0 - ratio**config.power


def image_to_mel(image: Tensor, config: SpectrogramConfig, *, max_value: float | None = None) -> Tensor:
    """The mel of a spectrogram image: the inverse of :func:`mel_to_image`.

    Args:
        image: ``(..., C, M, N)`` in [0, 1], row 0 at the highest frequency; values outside are clipped.
        config: names the scale.
        max_value: mel magnitude of black on the power scale; default 30e6, as in Riffusion.

    Returns:
        ``(..., C, M, N)`` magnitudes >= 0, float32 or wider. What the image shows as silence is exactly 0.

    Raises:
        RiffError: a value is NaN, or the shape or ``max_value`` is wrong.
    """
    _check_shape(image, "image")
    image = image if image.dtype == torch.float64 else image.float()
    if bool(torch.isnan(image).any()):
        raise RiffError("the image holds NaN values; pixel values must be numbers in [0, 1]")
    mel = image.clamp(0.0, 1.0).flip(-2)  # from here on in place: a long image is hundreds of megabytes
    if config.amplitude == "decibel":
        silent = mel == 0
        mel.sub_(1.0).mul_(config.db_range / 20.0)
        torch.pow(10.0, mel, out=mel)
        return mel.mul_(config.reference).masked_fill_(silent, 0.0)
    loudest = RIFFUSION_MAX_VALUE if max_value is None else _check_max_value(max_value)
    return mel.neg_().add_(1.0).pow_(1.0 / config.power).mul_(loudest)


def image_to_pil(image: Tensor, config: SpectrogramConfig) -> "Image":
    """Round an image to 8 bits.

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


def pil_to_image(pixels: "Image", config: SpectrogramConfig) -> Tensor:
    """Read the planes of an image of any mode: the inverse of :func:`image_to_pil`.

    Args:
        pixels: mono is read from red (or grey), stereo from green and blue; transparency is ignored.
        config: its description.

    Returns:
        ``(C, M, N)`` float32 in [0, 1].

    Raises:
        RiffError: the image is not ``config.n_mels`` high.
    """
    if pixels.height != config.n_mels:
        raise RiffError(f"the image is {pixels.height} pixels high and its description says {config.n_mels} mels")
    if pixels.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255 rather than scale it.
        grey = torch.from_numpy(numpy.asarray(pixels, dtype=numpy.float32) / 65535.0)
        return grey.clamp(0.0, 1.0).expand(config.channels, -1, -1).clone()
    if pixels.mode != "L" and pixels.mode != "RGB":
        pixels = pixels.convert("RGB")
    planes = ["G", "B"] if config.channels == 2 else ["R"]
    levels = [numpy.asarray(pixels if pixels.mode == "L" else pixels.getchannel(plane)) for plane in planes]
    return torch.from_numpy(numpy.stack(levels).astype(numpy.float32)).div_(255.0)


def _check_shape(tensor: Tensor, name: str) -> None:
    if tensor.ndim < 3 or tensor.numel() == 0:
        raise RiffError(f"the {name} has shape {tuple(tensor.shape)}; use (..., channels, mels, frames), none 0")


def _check_max_value(max_value: float) -> float:
    if not 0.0 < max_value < float("inf"):
        raise RiffError(f"max_value is {max_value!r}; use a finite number greater than 0")
    return max_value


def transpose_image(image: Tensor, config: SpectrogramConfig, semitones: float) -> Tensor:
    """An image whose sound is ``semitones`` higher.

    The row of frequency f shows what was at f / 2^(semitones / 12), read between the rows on the image's own scale.
    What would come from above or below the image is its outermost row.

    Args:
        image: ``(..., C, M, N)`` in [0, 1], row 0 the highest frequency.
        config: names the rows' frequencies.
        semitones: -12 to 12.

    Returns:
        The same shape.

    Raises:
        RiffError: more than an octave.
    """
    if not -MAX_SEMITONES <= semitones <= MAX_SEMITONES:
        raise RiffError(f"semitones is {semitones!r}; use a number from -{MAX_SEMITONES} to {MAX_SEMITONES}")
    if image.shape[-2] != config.n_mels:
        raise RiffError(f"the image has {image.shape[-2]} rows; this config's have {config.n_mels}")
    centres = torch.tensor(config.mel_corners()[1:-1], dtype=torch.float64)  # rising
    wanted = centres / 2.0 ** (semitones / 12.0)
    above = torch.searchsorted(centres, wanted).clamp(1, len(centres) - 1)
    share = ((wanted - centres[above - 1]) / (centres[above] - centres[above - 1])).clamp(0.0, 1.0)
    rising = image.flip(-2)
    low, high = rising[..., above - 1, :], rising[..., above, :]
    return torch.lerp(low, high, share.to(image)[:, None]).flip(-2)

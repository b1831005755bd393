"""Measuring spectrogram images: an embedding, sharpness, round-trip error, copies."""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from riff.utils.errors import RiffError

_BANDS = 32
_BROAD_BANDS = 8
_CYCLES_PER_BEAT = (0.5, 1.0, 2.0, 4.0)
_COPY_SIZE = 32


def mel_statistics(images: Tensor, *, frames_per_beat: int = 32) -> np.ndarray:
    """Embed images by 96 fixed statistics, for Fréchet distances that need no downloaded weights.

    32 band levels (mean over time), 32 band spreads (standard deviation over time), and for each of 8 broad
    bands the modulation amplitude at half a cycle, 1, 2 and 4 cycles per beat. All are in image units
    times 10, so that distances are of order 1. Not a perceptual embedding: call the result FAD-DSP, never
    FAD.

    Args:
        images: images, shape (n, M, N) or (n, C, M, N), values in [0, 1] or uint8; channels are averaged.
        frames_per_beat: columns per beat.

    Returns:
        Features, shape (n, 96), float64.

    Raises:
        RiffError: the shape does not fit, or the images are shorter than two beats.
    """
    images = _grey(images)
    columns = images.shape[-1]
    if columns < 2 * frames_per_beat:
        raise RiffError(f"images of {columns} columns are too short; use at least {2 * frames_per_beat} (2 beats)")
    bands = functional.adaptive_avg_pool2d(images, (_BANDS, columns))
    broad = functional.adaptive_avg_pool2d(images, (_BROAD_BANDS, columns))
    spectrum = torch.fft.rfft(broad, dim=-1).abs() * (2.0 / columns)
    bins = [round(cycles * columns / frames_per_beat) for cycles in _CYCLES_PER_BEAT]
    parts = [bands.mean(-1), bands.std(-1), spectrum[..., bins].flatten(1)]
    return (10.0 * torch.cat(parts, dim=1)).numpy().astype(np.float64)


def sharpness(images: Tensor) -> float:
    """Mean absolute difference between neighbouring rows: harmonics that are lines score high, blurs low.

    Args:
        images: images, shape (..., M, N), values in [0, 1].

    Returns:
        The mean over all images, in image units per row.
    """
    return float(images.double().diff(dim=-2).abs().mean())


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio of images in [0, 1]: ``-10 log10(mean squared difference)``.

    Args:
        a: images of any shape, values in [0, 1].
        b: images of the same shape.

    Returns:
        Decibels; infinite for equal images.

    Raises:
        RiffError: the shapes differ.
    """
    if a.shape != b.shape:
        raise RiffError(f"images have shapes {tuple(a.shape)} and {tuple(b.shape)}; they must be equal")
    error = float((a.double() - b.double()).square().mean())
    return math.inf if error == 0 else -10.0 * math.log10(error)


@dataclasses.dataclass(frozen=True)
class NearCopies:
    """Which generated images lie much nearer to a training image than any held-out real one does.

    Attributes:
        similarity: highest cosine similarity of each generated image to a training image, shape (n,).
        nearest: index of that training image, shape (n,).
        held_out: the same similarity for each held-out real image.
        threshold: similarity above which a image is called a near-copy: halfway from the highest of
        ``held_out``
            to 1 (the highest itself would call one real clip in ``len(held_out)`` a copy).
    """

    similarity: np.ndarray
    nearest: np.ndarray
    held_out: np.ndarray
    threshold: float

    @property
    def copies(self) -> np.ndarray:
        """Indices of the generated images above the threshold."""
        return np.flatnonzero(self.similarity > self.threshold)


def near_copies(generated: Tensor, training: Tensor, *, held_out: Tensor) -> NearCopies:
    """Compare each generated image with every training image, and held-out ones alike for the scale.

    Pictures are averaged down to 32 x 32 cells, the mean training image is taken off (what all music
    shares is no copy) and then each image's own mean (nor does loudness hide one), and the cosine to the
    nearest training image is kept.

    Args:
        generated: images, shape (n, M, N) or (n, C, M, N), values in [0, 1], or uint8 in 0..255.
        training: images of the same M and N, shape (m, ...).
        held_out: real images never trained on, shape (k, ...), k >= 1.

    Returns:
        Similarities in [-1, 1], the nearest training images, and the threshold.

    Raises:
        RiffError: a set is empty or the sizes of the images differ.
    """
    sizes = {tuple(images.shape[-2:]) for images in (generated, training, held_out)}
    if len(sizes) != 1 or min(len(generated), len(training), len(held_out)) < 1:
        raise RiffError(f"image sizes are {sorted(sizes)}; use three non-empty sets of one size")
    mean = _shrink(training).mean(0)
    reference = _direction(training, mean)
    best, nearest = (_direction(generated, mean) @ reference.T).max(1)
    real = (_direction(held_out, mean) @ reference.T).max(1).values
    return NearCopies(best.numpy(), nearest.numpy(), real.numpy(), 0.5 + 0.5 * float(real.max()))


def _grey(images: Tensor) -> Tensor:
    if images.ndim not in (3, 4) or len(images) < 1:
        raise RiffError(f"images have shape {tuple(images.shape)}; use (n, M, N) or (n, C, M, N) with n >= 1")
    images = images.detach().cpu().float() / (255.0 if images.dtype == torch.uint8 else 1.0)
    return images.mean(1) if images.ndim == 4 else images


def _shrink(images: Tensor) -> Tensor:
    # In parts: a training set of uint8 images would not fit in memory as floats.
    size = (_COPY_SIZE, _COPY_SIZE)
    return torch.cat([functional.adaptive_avg_pool2d(_grey(part), size) for part in images.split(256)]).flatten(1)


def _direction(images: Tensor, mean: Tensor) -> Tensor:
    cells = _shrink(images) - mean
    return functional.normalize(cells - cells.mean(1, keepdim=True), dim=1)

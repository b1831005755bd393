"""The mel filterbank: triangles equally wide on the mel scale, on any transform's bins."""

import functools
import math

import torch
from torch import Tensor

from riff.config import SpectrogramConfig


def _hz_to_mel(hz: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 2595.0 * torch.log10(1.0 + hz / 700.0)
    linear = hz * 3.0 / 200.0
    return torch.where(hz < 1000.0, linear, 15.0 + 27.0 * torch.log(hz.clamp(min=1e-9) / 1000.0) / math.log(6.4))


def _mel_to_hz(mel: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return torch.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * torch.exp((mel - 15.0) * math.log(6.4) / 27.0))


@functools.lru_cache(maxsize=8)
def mel_filterbank(config: SpectrogramConfig, n_fft: int | None = None) -> Tensor:
    """Triangular filters that are equally spaced on the mel scale.

    Args:
        config: band, scale and norm.
        n_fft: transform length whose bins the filters weigh; default ``config.n_fft``.

    Returns:
        (M, F) weights, F = n_fft // 2 + 1, float32. HTK scale: O'Shaughnessy (1987); Slaney scale and area norm:
        Slaney (1998).
    """
    size = n_fft or config.n_fft
    bins = torch.linspace(0.0, config.sample_rate / 2, size // 2 + 1, dtype=torch.float64)
    limits = torch.tensor([config.f_min, config.f_max], dtype=torch.float64)
    low, high = _hz_to_mel(limits, config.mel_scale)
    points = torch.linspace(float(low), float(high), config.n_mels + 2, dtype=torch.float64)
    corners = _mel_to_hz(points, config.mel_scale)
    rising = (bins - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins) / (corners[2:] - corners[1:-1])[:, None]
    weights = torch.minimum(rising, falling).clamp(min=0.0)
    if config.norm == "slaney":
        weights = weights * (2.0 / (corners[2:] - corners[:-2]))[:, None]
    return weights.float()

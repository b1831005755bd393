"""The mel filterbank: triangles equally wide on the mel scale, on any transform's bins."""

import functools

import torch
from torch import Tensor

from riff.config import SpectrogramConfig


@functools.lru_cache(maxsize=8)
def mel_filterbank(config: SpectrogramConfig, n_fft: int | None = None) -> Tensor:
    """Triangular filters that are equally spaced on the mel scale.

    Args:
        config: band, scale and norm.
        n_fft: transform length whose bins the filters weigh; default ``config.n_fft``.

    Returns:
        (M, F) weights, F = n_fft // 2 + 1, float32. Area norm: Slaney (1998).
    """
    size = n_fft or config.n_fft
    bins = torch.linspace(0.0, config.sample_rate / 2, size // 2 + 1, dtype=torch.float64)
    corners = torch.tensor(config.mel_corners(), dtype=torch.float64)
    rising = (bins - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins) / (corners[2:] - corners[1:-1])[:, None]
    weights = torch.minimum(rising, falling).clamp(min=0.0)
    if config.norm == "slaney":
        weights = weights * (2.0 / (corners[2:] - corners[:-2]))[:, None]
    return weights.float()

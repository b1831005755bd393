"""The mel filterbank: triangles equally wide on the mel scale, on any transform's bins."""

import functools

import torch
from torch import Tensor

from riff.config import SpectrogramConfig

_CHUNK = 32


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
    weights = torch.empty(config.n_mels, len(bins))
    # A few at a time: in double precision all of them are ten times the sound.
    for start in range(0, config.n_mels, _CHUNK):
        low, peak, high = (corners[start + corner :][:_CHUNK, None] for corner in range(3))
        low, peak = low[: len(high)], peak[: len(high)]
        triangles = torch.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)).clamp(min=0.0)
        weights[start : start + _CHUNK] = triangles * (2.0 / (high - low)) if config.norm == "slaney" else triangles
    return weights

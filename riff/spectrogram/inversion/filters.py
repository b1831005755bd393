"""The geometry of inversion: the low rate that holds a config's band, and the mel filters on its bins."""

import dataclasses
import functools
import math

import numpy as np
import torch
from torch import Tensor

from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.inversion.kernels import CHUNK, compiled, sparse_matmul
from riff.spectrogram.inversion.stft import CircularSTFT, fourier_resample
from riff.spectrogram.mel import mel_filterbank
from riff.utils.errors import checkpoint
from riff.utils.parallel import Map

TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class InversionGeometry:
    """The geometry of one config's inversion.

    Attributes:
        low: ring of one window's transform at the low rate.
        full: the same at the output's rate.
    """

    low: CircularSTFT
    full: CircularSTFT

    @property
    def n_bins(self) -> int:
        """Bins of the low ring's transform."""
        return self.low.n_fft // 2 + 1

    def doubled(self) -> CircularSTFT:
        """The low ring with transforms of two windows, which sample the filters finely enough."""
        return dataclasses.replace(self.low, n_fft=2 * self.low.win_length)

    def at_full(self, ring: Tensor) -> Tensor:
        """A sound (B, N * low hop) at the output's rate, (B, N * full hop).

        Magnitudes are those of the output's windows, which hold more samples, so the same ones sound louder here.
        """
        n_frames = ring.shape[1] // self.low.hop_length
        share = self.low.hop_length / self.full.hop_length
        return fourier_resample(ring, n_frames * self.full.hop_length) * share


@functools.lru_cache(maxsize=16)
def inversion_geometry(config: SpectrogramConfig) -> InversionGeometry:
    """The inversion geometry of a config: the least whole hop whose rate holds the band and leaves a whole, fast window."""  # noqa: E501
    hop, win = config.hop_length, config.win_length
    # A fortieth more than the band's two samples a period: the window smears a tone over its neighbours.
    least = min(hop, math.ceil(hop * 2.05 * config.f_max / config.sample_rate))
    low = next((h for h in range(least, hop) if win * h % hop == 0 and is_fast(win * h // hop)), hop)
    low_win = win * low // hop
    return InversionGeometry(CircularSTFT(low_win, low_win, low), CircularSTFT(win, win, hop))


def is_fast(n: int) -> bool:
    """Whether transforms of this length are fast: even, with no prime factor above 7."""
    odd = n
    for prime in (2, 3, 5, 7):
        while odd % prime == 0:
            odd //= prime
    return odd == 1 and n % 2 == 0


@functools.lru_cache(maxsize=16)
def mel_basis(config: SpectrogramConfig, padding: int, stretch: float = 1.0) -> Tensor:
    """(M, F) mel weights for transforms of ``padding`` windows at the low rate.

    The mel was measured on the config's own bins; each of those is written as a mixture of two of these.

    Args:
        config: geometry.
        padding: windows per transform.
        stretch: ring samples per sample of the sound; a loop is stretched to whole frames.
    """
    n_fft = padding * config.win_length
    fine = mel_filterbank(config)
    position = torch.arange(fine.shape[1], dtype=torch.float64) * (n_fft / (config.n_fft * stretch))
    below = position.floor().long().clamp(max=n_fft // 2)
    above = (below + 1).clamp(max=n_fft // 2)
    share = (position - below).clamp(0.0, 1.0).to(fine)
    basis = torch.zeros(fine.shape[0], n_fft // 2 + 1, dtype=torch.float32)
    basis.index_add_(1, below, fine * (1 - share))
    basis.index_add_(1, above, fine * share)
    return basis[:, : padding * (inversion_geometry(config).n_bins - 1) + 1].contiguous()


@dataclasses.dataclass(frozen=True)
class Filters:
    """A filterbank and its normalised transpose.

    Attributes:
        basis: (M, F) weights.
        back: (M, F), columns that sum to 1, or to 0 where a bin reaches no mel.
    """

    basis: Tensor
    back: Tensor

    @classmethod
    def of(cls, basis: Tensor) -> "Filters":
        """From weights (M, F)."""
        return cls(basis, basis / basis.sum(0).clamp(min=TINY))

    def gather(self, linear: Tensor) -> Tensor:
        """The mel (..., M) of linear magnitudes (..., F)."""
        return linear @ self.basis.T

    def spread(self, mel: Tensor) -> Tensor:
        """(..., M) to (..., F): each bin the mean of the mels that it reaches, 0 where it reaches none."""
        return mel @ self.back


@dataclasses.dataclass(frozen=True)
class Sparse:
    """A matrix (I, J) whose rows have few values, one after the other, for :mod:`riff.spectrogram.inversion.kernels`.

    Attributes:
        starts, stops: (I,) the columns that each row reaches.
        offsets: (I,) where its values begin.
        values: all of them.
    """

    starts: np.ndarray
    stops: np.ndarray
    offsets: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> "Sparse":
        """From a whole one."""
        there = matrix != 0
        some = there.any(1)
        starts = np.where(some, there.argmax(1), 0)
        stops = np.where(some, matrix.shape[1] - there[:, ::-1].argmax(1), 0)
        rows = [row[start:stop] for row, start, stop in zip(matrix, starts, stops, strict=True)]
        return cls(starts, stops, np.cumsum([0, *map(len, rows[:-1])]), np.concatenate(rows))

    def times(self, dense: np.ndarray) -> np.ndarray:
        """(J, C) float32 to (I, C)."""
        result = np.empty((len(self.starts), dense.shape[1]), np.float32)
        compiled(sparse_matmul)(self.starts, self.stops, self.offsets, self.values, dense, result)
        return result


@dataclasses.dataclass(frozen=True)
class SparseFilters:
    """The same for frames that lie in columns: 0.5 % of a filterbank is not zero.

    Attributes:
        basis: (M, F) weights.
        back: (F, M), rows that sum to 1, or to 0 where a bin reaches no mel.
    """

    basis: Sparse
    back: Sparse

    @classmethod
    def of(cls, filters: Filters) -> "SparseFilters":
        """From whole matrices."""
        return cls(Sparse.of(filters.basis.numpy()), Sparse.of(filters.back.numpy().T))

    def gather(self, linear: np.ndarray) -> np.ndarray:
        """The mel (M, C) of linear magnitudes (F, C)."""
        return self.basis.times(linear)

    def spread(self, mel: np.ndarray) -> np.ndarray:
        """(M, C) to (F, C): each bin the mean of the mels that it reaches, 0 where it reaches none."""
        return self.back.times(mel)


@functools.lru_cache(maxsize=16)
def filters_of(config: SpectrogramConfig, padding: int, stretch: float, device: torch.device) -> Filters:
    """The filters of :func:`mel_basis` on a device."""
    return Filters.of(mel_basis(config, padding, stretch).to(device))


@functools.lru_cache(maxsize=16)
def sparse_filters_of(config: SpectrogramConfig, padding: int, stretch: float) -> SparseFilters:
    """The same for the compiled loops."""
    return SparseFilters.of(filters_of(config, padding, stretch, torch.device("cpu")))


def mel_to_linear(mel: Tensor, filters: Filters, *, n_iter: int = 5) -> Tensor:
    """Non-negative linear magnitudes whose mel is close to the given one.

    Multiplicative updates A <- A * D B' (m / B A)^1.5 with D = 1 / B'1 (after Richardson, 1972, and Lucy, 1974; the
    exponent over-relaxes).

    Args:
        mel: (..., N, M) >= 0.
        filters: B, and D B'.
        n_iter: corrections.

    Returns:
        (..., N, F).
    """
    linear = filters.spread(mel / filters.basis.sum(1).clamp(min=TINY))
    for _ in range(n_iter):
        checkpoint()
        ratio = mel / filters.gather(linear).clamp(min=TINY)
        linear = linear * filters.spread(ratio * ratio.sqrt())
    return linear


def mel_to_linear_compiled(mel: Tensor, filters: SparseFilters, *, n_iter: int = 5, each: Map = map) -> Tensor:
    """The same on a CPU, (B, N, M) to (B, N, F), many times faster; ``each`` is the ``map`` that does the work."""

    def some(wanted: Tensor, few: Tensor) -> None:
        columns = wanted.T.contiguous().numpy()
        linear = np.ones((len(filters.back.starts), columns.shape[1]), np.float32)
        for iteration in range(n_iter + 1):
            ratio = columns / np.maximum(filters.gather(linear), np.float32(TINY))
            linear *= filters.spread(ratio * np.sqrt(ratio) if iteration else ratio)
        few.copy_(torch.from_numpy(linear).T)

    found = mel.new_empty(*mel.shape[:2], len(filters.back.starts))
    for _ in each(some, mel.flatten(0, 1).split(CHUNK), found.flatten(0, 1).split(CHUNK)):
        pass
    return found

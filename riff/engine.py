"""The geometry of inversion: the low rate that holds a config's band, and the mel filters on its bins."""

import dataclasses
import functools
import math

import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.filterbank import mel_filterbank
from riff.ring import Ring

TINY = 1e-12
_BLOCKS = 12


@dataclasses.dataclass(frozen=True)
class Engine:
    """The geometry of one config's inversion.

    Attributes:
        low: ring of one window's transform at the low rate.
        full: the same at the output's rate.
    """

    low: Ring
    full: Ring

    @property
    def n_bins(self) -> int:
        """Bins of the low ring's transform."""
        return self.low.n_fft // 2 + 1

    def doubled(self) -> Ring:
        """The low ring with transforms of two windows, which sample the filters finely enough."""
        return dataclasses.replace(self.low, n_fft=2 * self.low.win_length)


@functools.lru_cache(maxsize=16)
def engine_of(config: SpectrogramConfig) -> Engine:
    """The engine of a config: the least whole hop whose rate holds the band and leaves a whole, fast window."""
    hop, win = config.hop_length, config.win_length
    # A fortieth more than the band's two samples a period: the window smears a tone over its neighbours.
    least = min(hop, math.ceil(hop * 2.05 * config.f_max / config.sample_rate))
    low = next((h for h in range(least, hop) if win * h % hop == 0 and _is_fast(win * h // hop)), hop)
    low_win = win * low // hop
    return Engine(Ring(low_win, low_win, low), Ring(win, win, hop))


def _is_fast(n: int) -> bool:
    """Whether transforms of this length are fast: even, with no prime factor above 7."""
    odd = n
    for prime in (2, 3, 5, 7):
        while odd % prime == 0:
            odd //= prime
    return odd == 1 and n % 2 == 0


@functools.lru_cache(maxsize=16)
def mel_basis(config: SpectrogramConfig, padding: int, stretch: float = 1.0) -> Tensor:
    """(M, F) mel weights for transforms of ``padding`` windows at the engine's low rate.

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
    basis = torch.zeros(fine.shape[0], n_fft // 2 + 1)
    basis.index_add_(1, below, fine * (1 - share))
    basis.index_add_(1, above, fine * share)
    return basis[:, : padding * (engine_of(config).n_bins - 1) + 1].contiguous()


@dataclasses.dataclass(frozen=True)
class Filters:
    """A filterbank and its normalised transpose, as dense blocks along the diagonal: 0.5 % of it is not zero.

    Attributes:
        n_mels: M.
        blocks: for bins [start, stop) the mels that they reach, [first, last): weights (bins, mels), and the
            transpose with columns that sum to 1.
    """

    n_mels: int
    blocks: tuple[tuple[int, int, int, int, Tensor, Tensor], ...]

    @classmethod
    def of(cls, basis: Tensor, *, n_blocks: int = _BLOCKS) -> "Filters":
        """Cut a filterbank (M, F) into blocks that reach about equally many mels."""
        n_mels, n_bins = basis.shape
        back = basis / basis.sum(0).clamp(min=TINY)
        centre = (basis * torch.arange(n_mels)[:, None]).sum(0) / basis.sum(0).clamp(min=TINY)
        reached = torch.cummax(centre, 0).values
        cuts = [int(torch.searchsorted(reached, n_mels * i / n_blocks)) for i in range(1, n_blocks)]
        blocks = []
        for start, stop in zip([0, *cuts], [*cuts, n_bins], strict=True):
            mels = torch.nonzero(basis[:, start:stop].sum(1)).flatten()
            if start < stop and len(mels):
                first, last = int(mels[0]), int(mels[-1]) + 1
                part = slice(first, last), slice(start, stop)
                blocks.append((start, stop, first, last, basis[part].T.contiguous(), back[part].contiguous()))
        return cls(n_mels, tuple(blocks))

    def to(self, device: torch.device) -> "Filters":
        """The same on a device."""
        moved = ((*block[:4], block[4].to(device), block[5].to(device)) for block in self.blocks)
        return dataclasses.replace(self, blocks=tuple(moved))

    def gather(self, linear: Tensor) -> Tensor:
        """The mel (..., M) of linear magnitudes (..., F)."""
        mel = linear.new_zeros(*linear.shape[:-1], self.n_mels)
        for start, stop, first, last, weights, _ in self.blocks:
            mel[..., first:last] += linear[..., start:stop] @ weights
        return mel

    def spread(self, mel: Tensor) -> Tensor:
        """(..., M) to (..., F): each bin the mean of the mels that it reaches, 0 where it reaches none."""
        n_bins = self.blocks[-1][1]
        linear = mel.new_zeros(*mel.shape[:-1], n_bins) if self._has_gaps else mel.new_empty(*mel.shape[:-1], n_bins)
        for start, stop, first, last, _, back in self.blocks:
            linear[..., start:stop] = mel[..., first:last] @ back
        return linear

    @functools.cached_property
    def _has_gaps(self) -> bool:
        starts, stops = [block[0] for block in self.blocks], [block[1] for block in self.blocks]
        return starts != [0, *stops[:-1]]

    @functools.cached_property
    def sums(self) -> Tensor:
        """(M,) what a filter gives for magnitudes of 1."""
        return self.gather(self.blocks[0][4].new_ones(self.blocks[-1][1]))


@functools.lru_cache(maxsize=16)
def filters_of(config: SpectrogramConfig, padding: int, stretch: float, device: torch.device) -> Filters:
    """The filters of :func:`mel_basis`; in one piece on a GPU, which likes few large products."""
    basis = mel_basis(config, padding, stretch)
    return Filters.of(basis, n_blocks=_BLOCKS if device.type == "cpu" else 1).to(device)


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
    linear = filters.spread(mel / filters.sums.clamp(min=TINY))
    for _ in range(n_iter):
        ratio = mel / filters.gather(linear).clamp(min=TINY)
        linear = linear * filters.spread(ratio * ratio.sqrt())
    return linear

"""The short-time Fourier transform on a ring of frames, and back by least squares."""

import dataclasses
import functools

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class CircularSTFT:
    """An STFT on a ring: frame n covers ``win_length`` samples from ``n * hop_length`` on, and the end meets the start.

    Attributes:
        n_fft: transform length in samples, ``>= win_length``.
        win_length: Hann window in samples.
        hop_length: samples between frames.
    """

    n_fft: int
    win_length: int
    hop_length: int

    @functools.cached_property
    def window(self) -> Tensor:
        """(win_length,) on the CPU."""
        return torch.hann_window(self.win_length, dtype=torch.float32)

    @property
    def overlap(self) -> int:
        """Frames that cover a sample, rounded up."""
        return -(-self.win_length // self.hop_length)

    def to_frames(self, ring: Tensor) -> Tensor:
        """(B, N * hop_length) to (B, N, n_fft // 2 + 1) complex."""
        padded = torch.cat([ring, ring[:, : self.win_length]], dim=1)
        while padded.shape[1] < ring.shape[1] + self.win_length:  # a ring shorter than a window goes round again
            padded = torch.cat([padded, ring], dim=1)
        n = ring.shape[1] // self.hop_length
        frames = padded.unfold(1, self.win_length, self.hop_length)[:, :n]
        return torch.fft.rfft(frames * self.window.to(ring), n=self.n_fft)

    def to_ring(self, frames: Tensor, weight: Tensor) -> Tensor:
        """(B, N, n_fft // 2 + 1) complex to (B, N * hop_length), the least squares inverse (Griffin & Lim, 1984)."""
        return self.add(frames) / weight

    def add(self, frames: Tensor) -> Tensor:
        """The windowed frames (B, N, n_fft // 2 + 1), added up to (B, N * hop_length)."""
        pieces = torch.fft.irfft(frames, n=self.n_fft)[..., : self.win_length]
        return self._overlap(pieces * self.window.to(pieces))

    def weight(self, active: Tensor) -> Tensor:
        """(N,) bool to (N * hop_length,): the squared windows over each sample, of the active frames alone."""
        squares = torch.nn.functional.pad(self.window.square(), (0, self.overlap * self.hop_length - self.win_length))
        covers = torch.stack([active.roll(later) for later in range(self.overlap)], 1).float()
        total = (covers @ squares.unflatten(0, (self.overlap, self.hop_length)).to(covers)).flatten()
        return total.clamp(min=1e-3 * float(total.max().clamp(min=1e-6)))

    def _overlap(self, pieces: Tensor) -> Tensor:
        """Overlap and add (B, N, win_length) pieces round the ring."""
        hop = self.hop_length
        padded = torch.nn.functional.pad(pieces, (0, self.overlap * hop - self.win_length))
        blocks = padded.unflatten(2, (self.overlap, hop))
        total = blocks[:, :, 0].clone()
        for later in range(1, self.overlap):
            shift = later % pieces.shape[1]
            total[:, shift:] += blocks[:, : pieces.shape[1] - shift, later]
            total[:, :shift] += blocks[:, pieces.shape[1] - shift :, later]
        return total.flatten(1)


def fourier_resample(ring: Tensor, n_samples: int) -> Tensor:
    """(B, T) to (B, n_samples): one period of a periodic sound at another rate, exact below either's Nyquist."""
    n_old = ring.shape[-1]
    if n_old == n_samples:
        return ring
    spectrum = torch.fft.rfft(ring)[..., : min(n_old, n_samples) // 2 + 1]
    return torch.fft.irfft(spectrum, n=n_samples) * (n_samples / n_old)

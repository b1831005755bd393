"""One iteration of the inversion: from a sound to its frames, which are scaled to the wanted mel, and back.

Two classes do the same: plain tensors for any device, compiled loops for a CPU. Frames may be visited in interleaved
subsets; the sound is the least squares inverse of those visited (Griffin & Lim, 1984).
"""

import abc
import dataclasses
import functools

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from riff.spectrogram.inversion.filters import Filters, SparseFilters
from riff.spectrogram.inversion.kernels import (
    CHUNK,
    add_frames,
    compiled,
    compute_magnitude,
    cut_frames,
    impose_magnitude,
)
from riff.spectrogram.inversion.stft import CircularSTFT
from riff.utils.parallel import Map


class Iteration(abc.ABC):
    """What the two have in common.

    Attributes:
        mel: (B, N, M) wanted.
        ring: transform in which it is held; two windows long, it samples the filters finely enough.
        active: numbers of the frames that sound.
        least: (B, 1, 1) magnitude under which ratios mean nothing.
        before: (B, N, F) what the frames were at their last visit.
    """

    def __init__(self, mel: Tensor, ring: CircularSTFT, active: Tensor) -> None:
        self.mel, self.ring = mel, ring
        self.active = torch.nonzero(active)[:, 0]
        self.least = 1e-6 * mel.amax((1, 2), keepdim=True) + 1e-30
        n_bins = ring.n_fft // 2 + 1
        self.before = torch.zeros(*mel.shape[:2], n_bins, dtype=torch.complex64, device=mel.device)
        self._weights: dict[tuple[int, int], Tensor] = {}

    def synthesize(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        """The sound (B, N * hop) of all frames, given on one window's bins (B, N, F)."""
        one = dataclasses.replace(self.ring, n_fft=self.ring.win_length)
        return self._synthesize(one, magnitude, phase) / one.weight(self._chosen(self.active))

    def step(self, sound: Tensor, *, first: int = 0, stride: int = 1, momentum: float = 0.0) -> Tensor:
        """A sound (B, N * hop) whose visited frames have the wanted mel and nearly the phases that ``sound``'s have.

        Args:
            sound: (B, N * hop).
            first: where the subset starts.
            stride: every which frame is visited.
            momentum: how far past ``sound``'s frames the phases are taken, in changes since the subset's last visit
                (Perraudin, Balazs & Søndergaard, 2013).
        """
        index, fresh = self.active[first::stride], (first, stride) not in self._weights
        if len(index) == 0:  # fewer frames than subsets
            return sound
        if fresh:
            self._weights[first, stride] = self.ring.weight(self._chosen(index))
        return self._visit(sound, index, 0.0 if fresh else momentum) / self._weights[first, stride]

    def _chosen(self, index: Tensor) -> Tensor:
        chosen = torch.zeros(self.mel.shape[1], dtype=torch.bool, device=self.mel.device)
        chosen[index] = True
        return chosen

    @abc.abstractmethod
    def _synthesize(self, ring: CircularSTFT, magnitude: Tensor, phase: Tensor) -> Tensor:
        """The windowed frames of :meth:`synthesize`, added up."""

    @abc.abstractmethod
    def _visit(self, sound: Tensor, index: Tensor, momentum: float) -> Tensor:
        """The windowed frames of :meth:`step`, added up."""


class TensorIteration(Iteration):
    """On any device."""

    def __init__(self, mel: Tensor, ring: CircularSTFT, active: Tensor, filters: Filters) -> None:
        super().__init__(mel, ring, active)
        self.filters = filters

    def _synthesize(self, ring: CircularSTFT, magnitude: Tensor, phase: Tensor) -> Tensor:
        return ring.add(_polar(magnitude, phase))

    def _visit(self, sound: Tensor, index: Tensor, momentum: float) -> Tensor:
        now = self.ring.to_frames(sound)[:, index]
        magnitude = _square(now).sqrt_()
        ratio = (self.mel[:, index] + self.least) / (self.filters.gather(magnitude) + self.least)
        magnitude *= self.filters.spread(ratio * ratio.sqrt())
        ahead = now + momentum * (now - self.before[:, index])
        self.before[:, index] = now
        frames = torch.zeros_like(self.before)
        frames[:, index] = _with_magnitude(magnitude, ahead)
        return self.ring.add(frames)


class CompiledIteration(Iteration):
    """On a CPU: a few frames at a time from the sound through both transforms to the next sound.

    ``each`` is the ``map`` that does it. However many threads it has, frames are added up in order, to the same bits;
    with Python's own the last digits differ.
    """

    def __init__(
        self, mel: Tensor, ring: CircularSTFT, active: Tensor, filters: SparseFilters, each: Map = map
    ) -> None:
        super().__init__(mel, ring, active)
        self.filters, self.each = filters, each

    def _synthesize(self, ring: CircularSTFT, magnitude: Tensor, phase: Tensor) -> Tensor:
        window, hop = ring.window.numpy(), ring.hop_length
        found = magnitude.new_zeros(len(magnitude), magnitude.shape[1] * hop)
        for row in range(len(magnitude)):
            for few in self.active.split(CHUNK):
                spectra = _polar(magnitude[row, few], phase[row, few])
                pieces = torch.fft.irfft(spectra, n=ring.n_fft)
                compiled(add_frames)(pieces.numpy(), window, few.numpy(), hop, found[row].numpy())
        return found

    def _visit(self, sound: Tensor, index: Tensor, momentum: float) -> Tensor:
        window, hop = self.ring.window.numpy(), self.ring.hop_length
        found = torch.zeros_like(sound)
        chunks = index.split(CHUNK)
        for row, samples in enumerate(sound.contiguous().numpy()):
            visit = functools.partial(self._pieces, row, samples, momentum)
            for few, pieces in zip(chunks, self.each(visit, chunks), strict=True):
                compiled(add_frames)(pieces, window, few.numpy(), hop, found[row].numpy())
        return found

    def _pieces(self, row: int, samples: np.ndarray, momentum: float, few: Tensor) -> np.ndarray:
        """Frames of one sound (T,) with their new magnitudes: (n, n_fft)."""
        frames = np.empty((len(few), self.ring.win_length), np.float32)
        compiled(cut_frames)(samples, self.ring.window.numpy(), few.numpy(), self.ring.hop_length, frames)
        spectra = self._rfft(frames)
        self._impose(row, few, spectra.view(np.float32).reshape(*spectra.shape, 2), momentum)
        return self._irfft(spectra)

    def _rfft(self, frames: np.ndarray) -> np.ndarray:
        """torch's is a tenth quicker, but would have every one of several threads transform on all threads."""
        if self.each is map:
            return torch.fft.rfft(torch.from_numpy(frames), n=self.ring.n_fft).numpy()
        spectra: np.ndarray = scipy.fft.rfft(frames, n=self.ring.n_fft)
        return spectra

    def _irfft(self, spectra: np.ndarray) -> np.ndarray:
        if self.each is map:
            return torch.fft.irfft(torch.from_numpy(spectra), n=self.ring.n_fft).numpy()
        pieces: np.ndarray = scipy.fft.irfft(spectra, n=self.ring.n_fft, overwrite_x=True)
        return pieces

    def _impose(self, row: int, index: Tensor, spectra: np.ndarray, momentum: float) -> None:
        magnitude = np.empty((spectra.shape[1], len(index)), np.float32)
        compiled(compute_magnitude)(spectra, magnitude)
        wanted, least = self.mel[row, index].T.contiguous().numpy(), np.float32(float(self.least[row]))
        ratio = (wanted + least) / (self.filters.gather(magnitude) + least)
        gain = self.filters.spread(ratio * np.sqrt(ratio))
        before = torch.view_as_real(self.before[row]).numpy()
        compiled(impose_magnitude)(spectra, before, index.numpy(), np.float32(momentum), magnitude, gain)


def _polar(magnitude: Tensor, phase: Tensor) -> Tensor:
    """Complex numbers; several times faster than ``torch.polar``."""
    return torch.view_as_complex(torch.stack([phase.cos(), phase.sin()], -1) * magnitude[..., None])


def _square(numbers: Tensor) -> Tensor:
    """Squared moduli; several times faster than ``abs``, which guards against overflow."""
    real, imaginary = torch.view_as_real(numbers).unbind(-1)
    return torch.addcmul(real * real, imaginary, imaginary)


def _with_magnitude(magnitude: Tensor, direction: Tensor) -> Tensor:
    """Complex numbers of the given magnitude and of another's phase."""
    scale = magnitude * _square(direction).add_(1e-30).rsqrt_()
    return torch.view_as_complex(torch.view_as_real(direction) * scale[..., None])

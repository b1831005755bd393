"""The inversion's loops for one thread of a CPU, compiled when they are first needed.

They work on a few frames at a time, so that what lies between two Fourier transforms stays in the cache. Where bins
meet mels, frames lie in columns: every weight is then multiplied with all of them at once.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

CHUNK = 64  # frames


@functools.cache
def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """A loop as machine code; numba takes half a second to import, so only those who need it do."""
    import numba

    def compile_it(*, cache: bool) -> Callable[..., Any]:
        decorate: Any = numba.njit(cache=cache, nogil=True, fastmath=True)
        found: Callable[..., Any] = decorate(loop)
        return found

    try:
        return compile_it(cache=True)
    except RuntimeError:  # no folder for the compiled code can be written
        return compile_it(cache=False)


def cut_frames(ring, window, index, hop, frames):  # type: ignore[no-untyped-def]
    """Windowed frames of a ring: (T,) and numbers (n,) to the first W samples of ``frames`` (n, n_fft)."""
    total, width = ring.shape[0], window.shape[0]
    for row in range(index.shape[0]):
        start = index[row] * hop
        done = 0
        while done < width:  # a ring shorter than a window goes round again
            here = (start + done) % total
            count = min(width - done, total - here)
            piece, share, frame = (
                ring[here : here + count],
                window[done : done + count],
                frames[row, done : done + count],
            )
            for i in range(count):
                frame[i] = piece[i] * share[i]
            done += count


def add_frames(frames, window, index, hop, ring):  # type: ignore[no-untyped-def]
    """The other way: add the first W samples of frames (n, n_fft), windowed, to a ring (T,)."""
    total, width = ring.shape[0], window.shape[0]
    for row in range(index.shape[0]):
        start = index[row] * hop
        done = 0
        while done < width:
            here = (start + done) % total
            count = min(width - done, total - here)
            piece, share, frame = (
                ring[here : here + count],
                window[done : done + count],
                frames[row, done : done + count],
            )
            for i in range(count):
                piece[i] += frame[i] * share[i]
            done += count


def compute_magnitude(spectra, magnitude):  # type: ignore[no-untyped-def]
    """Magnitudes of spectra (n, F, 2), real and imaginary parts, to the first n columns of ``magnitude`` (F, C)."""
    for row in range(spectra.shape[0]):
        for k in range(spectra.shape[1]):
            real, imaginary = spectra[row, k, 0], spectra[row, k, 1]
            magnitude[k, row] = math.sqrt(real * real + imaginary * imaginary)


def sparse_matmul(starts, stops, offsets, values, dense, result):  # type: ignore[no-untyped-def]
    """A matrix that has few values in each row, one after the other, times a dense one (F, C) to ``result`` (M, C)."""
    for m in range(starts.shape[0]):
        for column in range(dense.shape[1]):
            result[m, column] = np.float32(0.0)
        for k in range(starts[m], stops[m]):
            value = values[offsets[m] + k - starts[m]]
            for column in range(dense.shape[1]):
                result[m, column] += value * dense[k, column]


def impose_magnitude(spectra, before, index, momentum, magnitude, gain):  # type: ignore[no-untyped-def]
    """Give spectra their new magnitudes, and the phases of a step past them.

    Args:
        spectra: (n, F, 2) real and imaginary parts, changed in place.
        before: (N, F, 2) the spectra of the last visit; replaced by the present ones.
        index: (n,) their frames in ``before``.
        momentum: length of the step, of the change since the last time.
        magnitude: (F, C) their magnitudes in the first n columns.
        gain: (F, C) factors on those.
    """
    for row in range(index.shape[0]):
        frame = index[row]
        for k in range(spectra.shape[1]):
            real, imaginary = spectra[row, k, 0], spectra[row, k, 1]
            ahead_real = real + momentum * (real - before[frame, k, 0])
            ahead_imaginary = imaginary + momentum * (imaginary - before[frame, k, 1])
            before[frame, k, 0] = real
            before[frame, k, 1] = imaginary
            square = ahead_real * ahead_real + ahead_imaginary * ahead_imaginary + np.float32(1e-30)
            scale = magnitude[k, row] * gain[k, row] / math.sqrt(square)
            spectra[row, k, 0] = ahead_real * scale
            spectra[row, k, 1] = ahead_imaginary * scale

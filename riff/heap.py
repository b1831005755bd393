"""Phase gradient heap integration: the phase that an STFT's magnitudes imply, summed along their loudest paths."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

# A Hann window of W samples is closest to a Gaussian exp(-pi t^2 / gamma) with gamma = 0.25645 W^2
# (Průša, Balazs & Søndergaard, 2017).
HANN_GAMMA = 0.25645
# Bins this many nepers under the loudest one carry no usable slope; they keep their random phase.
TOLERANCE = 14.0
N_BUCKETS = 2048


@functools.cache
def _integrate() -> Callable[..., None]:
    """The compiled loop; numba takes half a second to import, so only those who need it do."""
    import numba

    def compile_it(*, cache: bool) -> Callable[..., None]:
        decorate: Any = numba.njit(cache=cache, nogil=True, fastmath=True)
        compiled: Callable[..., None] = decorate(_integrate_in_order)
        return compiled

    try:
        return compile_it(cache=True)
    except RuntimeError:  # no folder for the compiled code can be written
        return compile_it(cache=False)


def _integrate_in_order(log, along_time, along_frequency, phase, known, bucket_of, n_buckets):  # type: ignore[no-untyped-def]
    """Spread phases from the loudest bins to their neighbours, always the loudest waiting bin first.

    Arrays have shape (N, F); ``phase`` is changed in place. ``bucket_of`` holds the rank of a bin's magnitude, 0 the
    loudest, ``n_buckets`` for bins to leave alone. A queue of buckets takes the place of a heap: every bin is put in
    and taken out in constant time, and bins of one bucket differ by less than 0.07 dB.
    """
    n_frames, n_bins = log.shape
    size = n_frames * n_bins
    # All bins in order of magnitude, by counting: where a new island starts when a queue has run dry.
    start = np.zeros(n_buckets + 2, np.int64)
    for n in range(n_frames):
        for k in range(n_bins):
            start[bucket_of[n, k] + 1] += 1
    for b in range(n_buckets + 1):
        start[b + 1] += start[b]
    total = start[n_buckets]
    order = np.empty(size, np.int32)
    for n in range(n_frames):
        for k in range(n_bins):
            b = bucket_of[n, k]
            order[start[b]] = n * n_bins + k
            start[b] += 1
    head = np.full(n_buckets + 1, -1, np.int32)
    following = np.empty(size, np.int32)
    done = np.zeros(size, np.bool_)
    current = n_buckets
    for n in range(n_frames):
        if known[n]:
            for k in range(n_bins):
                b = bucket_of[n, k]
                done[n * n_bins + k] = True
                if b < n_buckets:
                    following[n * n_bins + k] = head[b]
                    head[b] = n * n_bins + k
                    current = min(current, b)
    next_island = 0
    while True:
        while current < n_buckets and head[current] < 0:
            current += 1
        if current >= n_buckets:
            while next_island < total and done[order[next_island]]:
                next_island += 1
            if next_island >= total:
                return
            here = order[next_island]
            done[here] = True
            current = bucket_of[here // n_bins, here % n_bins]
        else:
            here = head[current]
            head[current] = following[here]
        n, k = here // n_bins, here % n_bins
        for way in range(4):
            m, j = n, k
            if way == 0:
                m = n + 1 if n + 1 < n_frames else 0
            elif way == 1:
                m = n - 1 if n > 0 else n_frames - 1
            elif way == 2:
                j = k + 1
            else:
                j = k - 1
            if j < 0 or j >= n_bins or (m == n and j == k):
                continue
            there = m * n_bins + j
            b = bucket_of[m, j]
            if done[there] or b >= n_buckets:
                continue
            if way < 2:
                step = 0.5 * (along_time[n, k] + along_time[m, j])
                phase[m, j] = phase[n, k] + (step if way == 0 else -step)
            else:
                step = 0.5 * (along_frequency[n, k] + along_frequency[m, j])
                phase[m, j] = phase[n, k] + (step if way == 2 else -step)
            done[there] = True
            following[there] = head[b]
            head[b] = there
            current = min(current, b)


def heap_phase(
    magnitude: np.ndarray,
    phase: np.ndarray,
    *,
    n_fft: int,
    hop_length: int,
    win_length: int,
    known: np.ndarray | None = None,
    attack: float = 1.2,
) -> np.ndarray:
    """Phases for STFT magnitudes on a ring of frames, after Průša, Balazs & Søndergaard (2017).

    For a Gaussian window the phase's slopes are those of the log-magnitude with the axes exchanged (Portnoff, 1979):
    with s = log A, dphi/dn = 2 pi H k / L + (H L / gamma) ds/dk and dphi/dk = -(gamma / (H L)) ds/dn. They are
    integrated from the loudest bins outwards.

    Args:
        magnitude: (N, F) float32 >= 0; the frame after the last one is the first. Frames of zeros part what should
            not meet.
        phase: (N, F) float32, the phases of islands' first bins, of bins too faint to tell, and of known frames.
        n_fft: transform length L; F = n_fft // 2 + 1 or fewer.
        hop_length: samples H between frames.
        win_length: Hann window in samples.
        known: (N,) bool, frames whose phase is given and only spreads.
        attack: factor on dphi/dk; the central difference underestimates the slope of an attack.

    Returns:
        (N, F) float32 phases in radians, counted from the window's centre.
    """
    peak = float(magnitude.max())
    result = phase.astype(np.float32, copy=True)
    if peak <= 0.0:
        return result
    log = np.log(magnitude + np.float32(1e-7 * peak))
    gamma = HANN_GAMMA * win_length**2
    n_bins = magnitude.shape[1]
    turn = np.remainder(2.0 * math.pi * hop_length / n_fft * np.arange(n_bins), 2.0 * math.pi).astype(np.float32)
    along_time = np.gradient(log, axis=1) * np.float32(hop_length * n_fft / gamma) + turn
    along_frequency = np.roll(log, -1, 0) - np.roll(log, 1, 0)
    along_frequency *= np.float32(-0.5 * attack * gamma / (hop_length * n_fft))
    below = (math.log(peak) - log) * np.float32(N_BUCKETS / TOLERANCE)
    bucket_of = np.clip(below, 0, N_BUCKETS).astype(np.int16)
    if known is None:
        known = np.zeros(len(magnitude), np.bool_)
    _integrate()(log, along_time, along_frequency, result, known, bucket_of, N_BUCKETS)
    return result

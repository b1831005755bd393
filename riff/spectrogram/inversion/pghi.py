"""Phase gradient heap integration: the phase that an STFT's magnitudes imply, summed along their loudest paths."""

import math

import numpy as np

from riff.spectrogram.inversion.kernels import compiled

# A Hann window of W samples is closest to a Gaussian exp(-pi t^2 / gamma) with gamma = 0.25645 W^2
# (Průša, Balazs & Søndergaard, 2017).
HANN_GAMMA = 0.25645
# Bins this many nepers under the loudest one carry no usable slope; they keep their random phase.
TOLERANCE = 14.0
N_BUCKETS = 2048


def _integrate(cells, known, head, following):  # type: ignore[no-untyped-def]
    """Spread phases from the loudest bins to their neighbours, always the loudest waiting bin first.

    ``cells`` (N, F, 4) hold all of a bin, so that it is fetched once: its step to the next frame's phase, the one to
    the next bin's, the phase, which is changed in place, and the bucket. A bucket is
    the rank of a bin's magnitude, 0 the loudest; bins that are done or to be left alone are in the one after the last.
    A queue of buckets takes the place of a heap: every bin is put in and taken out in constant time, and bins of one
    bucket differ by less than 0.07 dB. ``head`` holds the first bin of each, ``following`` the one after each bin.
    """
    n_frames, n_bins = cells.shape[:2]
    n_buckets = head.shape[0]
    done = np.float32(n_buckets)
    current, loudest, first = n_buckets, done, 0
    for n in range(n_frames):
        for k in range(n_bins):
            if known[n] and cells[n, k, 3] < done:
                bucket = int(cells[n, k, 3])
                following[n * n_bins + k] = head[bucket]
                head[bucket] = n * n_bins + k
                current = min(current, bucket)
                cells[n, k, 3] = done
            elif cells[n, k, 3] < loudest:
                loudest, first = cells[n, k, 3], n * n_bins + k
    if current == n_buckets and loudest < done:  # nothing is known: begin with the loudest
        current = int(loudest)
        head[current], following[first] = first, -1
        cells[first // n_bins, first % n_bins, 3] = done
    order, island, total = np.empty(0, np.int32), 0, -1
    while True:
        while current < n_buckets and head[current] < 0:
            current += 1
        if current < n_buckets:
            here = head[current]
            head[current] = following[here]
            n, k = here // n_bins, here % n_bins
        else:
            if total < 0:
                # The bins that are left in order of magnitude, by counting: where new islands start.
                start = np.zeros(n_buckets + 2, np.int64)
                for n in range(n_frames):
                    for k in range(n_bins):
                        start[int(cells[n, k, 3]) + 1] += 1
                for bucket in range(n_buckets + 1):
                    start[bucket + 1] += start[bucket]
                total = start[n_buckets]
                order = np.empty(total, np.int32)
                for n in range(n_frames):
                    for k in range(n_bins):
                        bucket = int(cells[n, k, 3])
                        if bucket < n_buckets:
                            order[start[bucket]] = n * n_bins + k
                            start[bucket] += 1
            while island < total and cells[order[island] // n_bins, order[island] % n_bins, 3] >= done:
                island += 1
            if island >= total:
                return
            here = order[island]
            n, k = here // n_bins, here % n_bins
            current = int(cells[n, k, 3])
            cells[n, k, 3] = done
        for way in range(4):
            m, j = n, k
            if way == 0:
                m = n + 1 if n + 1 < n_frames else 0
            elif way == 1:
                m = n - 1 if n > 0 else n_frames - 1
            else:
                j = k + 1 if way == 2 else k - 1
                if j < 0 or j >= n_bins:
                    continue
            if cells[m, j, 3] >= done:
                continue
            if way == 0:
                step = np.float32(0.5) * (cells[n, k, 0] + cells[m, j, 0])
            elif way == 1:
                step = np.float32(-0.5) * (cells[n, k, 0] + cells[m, j, 0])
            elif way == 2:
                step = cells[n, k, 1]
            else:
                step = -cells[m, j, 1]
            cells[m, j, 2] = cells[n, k, 2] + step
            bucket = int(cells[m, j, 3])
            cells[m, j, 3] = done
            there = m * n_bins + j
            following[there] = head[bucket]
            head[bucket] = there
            current = min(current, bucket)


def _prepare(log, phase, every, bend, rate, reach, turn, peak, scale, n_buckets, cells):  # type: ignore[no-untyped-def]
    """Fill cells from log-magnitudes (N, F); ``bend`` and ``rate`` scale their slopes along frequency and time.

    ``reach`` is the step to the next bin's phase that a click at the window's edge makes, over pi / 2. ``turn`` (F',)
    is a bin's own step to the next frame; buckets are ``scale`` times the nepers under ``peak``.
    """
    n_frames, fine = log.shape
    for n in range(n_frames):
        before, after = n - 1 if n > 0 else n_frames - 1, n + 1 if n + 1 < n_frames else 0
        for k in range(phase.shape[1]):
            here = k * every
            low, high = max(here - 1, 0), min(here + 1, fine - 1)
            cells[n, k, 0] = turn[k] + bend * (log[n, high] - log[n, low]) / np.float32(high - low)
            rise = np.float32(0.0)
            if here + every < fine:
                for i in range(every + 1):
                    share = np.float32(0.5 if i == 0 or i == every else 1.0)
                    rise += share * (log[after, here + i] - log[before, here + i])
            cells[n, k, 1] = reach * math.atan(rate * rise)
            cells[n, k, 2] = phase[n, k]
            cells[n, k, 3] = math.floor(min(max((peak - log[n, here]) * scale, np.float32(0.0)), np.float32(n_buckets)))


def pghi(
    magnitude: np.ndarray,
    phase: np.ndarray,
    *,
    n_fft: int,
    hop_length: int,
    win_length: int,
    known: np.ndarray | None = None,
    every: int = 1,
) -> np.ndarray:
    """Phases for STFT magnitudes on a ring of frames, after Průša, Balazs & Søndergaard (2017).

    For a Gaussian window the phase's slopes are those of the log-magnitude with the axes exchanged (Portnoff, 1979):
    with s = log A, dphi/dn = 2 pi H k / L + (H L / gamma) ds/dk and dphi/dk = -(gamma / (H L)) ds/dn. Along time the
    Hann window's own relation is as simple, and holds for steep attacks too: a click t samples after the middle of a
    window of W has A = cos^2(pi t / W), so ds/dn = (2 pi H / W) tan(pi t / W), and dphi/dk = -2 pi t / L. The slopes
    are integrated from the loudest bins outwards.

    Args:
        magnitude: (N, F) float32 >= 0; the frame after the last one is the first. Frames of zeros part what should
            not meet.
        phase: (N, F') float32, the phases of islands' first bins, of bins too faint to tell, and of known frames.
        n_fft: transform length L; F = n_fft // 2 + 1 or fewer.
        hop_length: samples H between frames.
        win_length: Hann window in samples.
        known: (N,) bool, frames whose phase is given and only spreads.
        every: 1, or 2 to give every second bin its phase: slopes are taken between finer bins than the paths' then,
            which is quicker and comes closer. F' = (F - 1) / every + 1.

    Returns:
        (N, F') float32 phases in radians, counted from the window's centre.
    """
    peak = float(magnitude.max())
    if peak <= 0.0:
        return phase.astype(np.float32, copy=True)
    log = magnitude + np.float32(1e-7 * peak)
    np.log(log, out=log)
    gamma = HANN_GAMMA * win_length**2
    turn = np.remainder(2.0 * math.pi * hop_length / n_fft * every * np.arange(phase.shape[1]), 2.0 * math.pi)
    bend = hop_length * n_fft / gamma
    rate, reach = 0.25 * win_length / (math.pi * hop_length * every), -2.0 * win_length * every / n_fft
    numbers = (np.float32(number) for number in (bend, rate, reach))
    cells = np.empty((*phase.shape, 4), np.float32)
    scale = np.float32(N_BUCKETS / TOLERANCE)
    loudest = np.float32(math.log(peak))
    compiled(_prepare)(log, phase, every, *numbers, turn.astype(np.float32), loudest, scale, N_BUCKETS, cells)
    if known is None:
        known = np.zeros(len(magnitude), np.bool_)
    head, following = np.full(N_BUCKETS, -1, np.int32), np.empty(phase.size, np.int32)
    compiled(_integrate)(cells, known, head, following)
    return cells[..., 2].copy()

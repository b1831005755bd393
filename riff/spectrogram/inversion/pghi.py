"""Phase gradient heap integration: the phase that an STFT's magnitudes imply, summed along their loudest paths.

For a Gaussian window the phase's slopes are those of the log-magnitude with the axes exchanged (Portnoff, 1979): with
s = log A, dphi/dn = 2 pi H k / L + (H L / gamma) ds/dk and dphi/dk = -(gamma / (H L)) ds/dn. Along time the Hann
window's own relation is as simple, and holds for steep attacks too: a click t samples after the middle of a window of
W has A = cos^2(pi t / W), so ds/dn = (2 pi H / W) tan(pi t / W), and dphi/dk = -2 pi t / L.

A slope is known to some share of itself, and where the magnitude is small it is mostly noise. So each bin takes its
phase from its loudest neighbour that has one: the paths from a peak run along the partial first, and only then down
its flanks (Průša, Balazs & Søndergaard, 2017).
"""

import math

import numpy as np
import torch
from torch import Tensor

from riff.spectrogram.inversion.kernels import compiled
from riff.spectrogram.inversion.stft import CircularSTFT

# A Hann window of W samples is closest to a Gaussian exp(-pi t^2 / gamma) with gamma = 0.25645 W^2
# (Průša, Balazs & Søndergaard, 2017).
HANN_GAMMA = 0.25645
# Bins this many nepers under the loudest one carry no usable slope; they keep their random phase.
TOLERANCE = 14.0
N_BUCKETS = 2048
# What a cell (N, F, 4) holds of a bin, side by side, so that it is fetched once: its step to the next frame's phase,
# the
# one to the next bin's, the phase, and the bucket: the rank of its magnitude, 0 the loudest. Bins that are done, or too
# faint, are in the bucket after the last.
TO_FRAME, TO_BIN, PHASE, BUCKET = 0, 1, 2, 3


def pghi(
    magnitude: np.ndarray, phase: np.ndarray, stft: CircularSTFT, *, known: np.ndarray | None = None, every: int = 1
) -> np.ndarray:
    """Phases for STFT magnitudes on a ring of frames.

    Args:
        magnitude: (N, F) float32 >= 0; the frame after the last one is the first. Frames of zeros part what should
            not meet.
        phase: (N, F') float32, the phases of islands' first bins, of bins too faint to tell, and of known frames.
        stft: their transform; F = n_fft // 2 + 1 or fewer.
        known: (N,) bool, frames whose phase is given and only spreads.
        every: 1, or 2 to give every second bin its phase: slopes are taken between finer bins than the paths' then,
            which is quicker and comes closer. F' = (F - 1) / every + 1.

    Returns:
        (N, F') float32 phases in radians, counted from the window's centre.
    """
    peak = float(magnitude.max())
    if peak <= 0.0:
        return phase.astype(np.float32, copy=True)
    n_fft, hop, win = stft.n_fft, stft.hop_length, stft.win_length
    log = magnitude + np.float32(1e-7 * peak)
    np.log(log, out=log)
    turn = np.remainder(2.0 * math.pi * hop / n_fft * every * np.arange(phase.shape[1]), 2.0 * math.pi)
    bend = hop * n_fft / (HANN_GAMMA * win**2)
    rate, reach = 0.25 * win / (math.pi * hop * every), -2.0 * win * every / n_fft
    numbers = np.array([bend, rate, reach, math.log(peak), N_BUCKETS / TOLERANCE], np.float32)
    cells = np.empty((*phase.shape, 4), np.float32)
    compiled(_fill_cells)(log, phase, every, turn.astype(np.float32), numbers, cells)
    known = np.zeros(len(magnitude), np.bool_) if known is None else known
    head, following = np.full(N_BUCKETS, -1, np.int32), np.empty(phase.size, np.int32)
    compiled(_queue_first)(cells, known, head, following)
    compiled(_spread)(cells, head, following, np.empty(0, np.int32))
    compiled(_spread)(cells, head, following, compiled(_islands)(cells, N_BUCKETS))
    return cells[..., PHASE].copy()


def _fill_cells(log, phase, every, turn, numbers, cells):  # type: ignore[no-untyped-def]
    """Fill cells from log-magnitudes (N, F).

    ``turn`` (F',) is a bin's own step to the next frame. The numbers: ``bend`` and ``rate`` scale the slopes along
    frequency and time; ``reach`` is the step to the next bin's phase that a click at the window's edge makes, over
    pi / 2; buckets are ``scale`` times the nepers under ``peak``.
    """
    n_frames, fine = log.shape
    bend, rate, reach, peak, scale = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    for n in range(n_frames):
        before, after = n - 1 if n > 0 else n_frames - 1, n + 1 if n + 1 < n_frames else 0
        for k in range(phase.shape[1]):
            here = k * every
            low, high = max(here - 1, 0), min(here + 1, fine - 1)
            cells[n, k, TO_FRAME] = turn[k] + bend * (log[n, high] - log[n, low]) / np.float32(high - low)
            # The slope along time over all fine bins from this one to the next, by the trapezoid rule.
            rise = np.float32(0.0)
            if here + every < fine:
                for i in range(every + 1):
                    share = np.float32(0.5 if i == 0 or i == every else 1.0)
                    rise += share * (log[after, here + i] - log[before, here + i])
            cells[n, k, TO_BIN] = reach * math.atan(rate * rise)
            cells[n, k, PHASE] = phase[n, k]
            bucket = min(max((peak - log[n, here]) * scale, np.float32(0.0)), np.float32(N_BUCKETS))
            cells[n, k, BUCKET] = math.floor(bucket)


def _queue_first(cells, known, head, following):  # type: ignore[no-untyped-def]
    """Queue the bins of known frames, or else the loudest bin.

    The queue has a list for each bucket: ``head`` holds its first bin, ``following`` the one after each bin. Put in and
    taken out in constant time, it takes the place of a heap; bins of one bucket differ by less than 0.07 dB.
    """
    n_frames, n_bins = cells.shape[:2]
    done = np.float32(head.shape[0])
    loudest, first, queued = done, 0, False
    for n in range(n_frames):
        for k in range(n_bins):
            here = n * n_bins + k
            if known[n] and cells[n, k, BUCKET] < done:
                bucket = int(cells[n, k, BUCKET])
                following[here] = head[bucket]
                head[bucket] = here
                cells[n, k, BUCKET] = done
                queued = True
            elif cells[n, k, BUCKET] < loudest:
                loudest, first = cells[n, k, BUCKET], here
    if not queued and loudest < done:
        head[int(loudest)], following[first] = first, -1
        cells[first // n_bins, first % n_bins, BUCKET] = done


def _islands(cells, n_buckets):  # type: ignore[no-untyped-def]
    """The bins that no path has reached, loudest first, by counting: where new paths start."""
    n_frames, n_bins = cells.shape[:2]
    start = np.zeros(n_buckets + 2, np.int64)
    for n in range(n_frames):
        for k in range(n_bins):
            start[int(cells[n, k, BUCKET]) + 1] += 1
    for bucket in range(n_buckets + 1):
        start[bucket + 1] += start[bucket]
    order = np.empty(start[n_buckets], np.int32)
    for n in range(n_frames):
        for k in range(n_bins):
            bucket = int(cells[n, k, BUCKET])
            if bucket < n_buckets:
                order[start[bucket]] = n * n_bins + k
                start[bucket] += 1
    return order


def _spread(cells, head, following, islands):  # type: ignore[no-untyped-def]
    """Give neighbours their phases, always from the loudest waiting bin; when none waits, begin at the next island."""
    n_frames, n_bins = cells.shape[:2]
    n_buckets = head.shape[0]
    done = np.float32(n_buckets)
    current, island = 0, 0
    while True:
        while current < n_buckets and head[current] < 0:
            current += 1
        if current < n_buckets:
            here = head[current]
            head[current] = following[here]
            n, k = here // n_bins, here % n_bins
        else:
            while island < islands.size and cells[islands[island] // n_bins, islands[island] % n_bins, BUCKET] >= done:
                island += 1
            if island >= islands.size:
                return
            here = islands[island]
            n, k = here // n_bins, here % n_bins
            current = int(cells[n, k, BUCKET])
            cells[n, k, BUCKET] = done
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
            if cells[m, j, BUCKET] >= done:
                continue
            if way == 0:
                step = np.float32(0.5) * (cells[n, k, TO_FRAME] + cells[m, j, TO_FRAME])
            elif way == 1:
                step = np.float32(-0.5) * (cells[n, k, TO_FRAME] + cells[m, j, TO_FRAME])
            else:
                step = cells[n, k, TO_BIN] if way == 2 else -cells[m, j, TO_BIN]
            cells[m, j, PHASE] = cells[n, k, PHASE] + step
            bucket = int(cells[m, j, BUCKET])
            cells[m, j, BUCKET] = done
            there = m * n_bins + j
            following[there] = head[bucket]
            head[bucket] = there
            current = min(current, bucket)


def pghi_framewise(magnitude: Tensor, stft: CircularSTFT, *, known: Tensor, given: Tensor) -> Tensor:
    """Phases from the same slopes as :func:`pghi`, summed frame by frame, all bins at once, as suits a GPU.

    Each bin turns on from the frame before at its instantaneous frequency, then leans on its louder neighbours through
    the phase's slope along frequency, which lines up the bins of an attack. The heap's order comes closer to the truth.

    Args:
        magnitude: (B, N, F) >= 0.
        stft: their transform; F = n_fft // 2 + 1 or fewer.
        known: (N,) bool, frames whose phase is given.
        given: (B, N, F) phases of those, in radians.

    Returns:
        (B, N, F) phases in radians, counted from the window's centre.
    """
    n_fft, hop, win = stft.n_fft, stft.hop_length, stft.win_length
    log = (magnitude + 1e-7 * magnitude.amax((1, 2), keepdim=True).clamp(min=1e-30)).log()
    bins = torch.arange(magnitude.shape[2], device=magnitude.device, dtype=torch.float64)
    turn = (2.0 * math.pi * hop / n_fft * bins).remainder(2.0 * math.pi).to(log)
    turn = turn + hop * n_fft / (HANN_GAMMA * win**2) * torch.gradient(log, dim=2)[0]
    rate = 0.25 * win / (math.pi * hop)
    lean = -2.0 * win / n_fft * (rate * (log.roll(-1, 1) - log.roll(1, 1))).atan()
    step = torch.polar(torch.ones_like(turn), torch.cat([turn[:, :1], (turn[:, 1:] + turn[:, :-1]) / 2], dim=1))
    slope = torch.polar(torch.ones_like(lean[..., 1:]), (lean[..., 1:] + lean[..., :-1]) / 2)
    settled = torch.polar(torch.ones_like(given), given)
    power = magnitude.square()
    phase = torch.empty_like(step)
    current = torch.ones_like(step[:, 0])
    for frame, is_known in enumerate(known.tolist()):
        if is_known:
            current = settled[:, frame]
        else:
            loud = power[:, frame] * current * step[:, frame]
            leaning = loud.clone()
            leaning[:, 1:] += loud[:, :-1] * slope[:, frame]
            leaning[:, :-1] += loud[:, 1:] * slope[:, frame].conj()
            current = torch.sgn(leaning + 1e-20)
        phase[:, frame] = current
    return phase.angle()

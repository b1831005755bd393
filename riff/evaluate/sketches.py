"""Music that a model draws from memory: the same picture, coarsely, though no peak of it is where it was.

Landmarks (:mod:`riff.evaluate.copies`) find a recording again, but not what has been through an autoencoder. That has
the same levels in the same broad bands from tenth to tenth of a second; these are looked for at every shift in time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from riff.evaluate.figures import Figure, share_figure
from riff.evaluate.sounds import Sound

RATE = 22050
BANDS, FRAMES = 48, 24  # of a window: 40 to 8000 Hz, 2.4 s
_HOP = RATE // 10
_RANGE = 50.0  # decibels below a sound's loudest cell that count
# Cosine of a window from which it is a copy. Of 160 composed clips the most alike two had 0.73; copies that had been
# through riff-mini's autoencoder and shifted had 0.60 to 0.97, three quarters of them more than this.
COPY = 0.85
_LEAST_SPREAD = 0.05  # of a window's cells about their bands' means, below which it is silence or a held tone


def sketch(sound: Sound) -> np.ndarray:
    """Levels of a sound in 48 bands, ten a second, (48, N) float32 in [0, 1]; 0 lies 50 dB below the loudest."""
    from riff.audio import resample

    mono = resample(sound.mono[None], sound.sample_rate, RATE)[0].double()
    mono = functional.pad(mono, (0, max(0, 2 * _HOP - mono.numel())))
    window = torch.hann_window(2 * _HOP, dtype=torch.float64)
    power = torch.stft(mono, 2 * _HOP, _HOP, window=window, return_complex=True).abs().square().numpy()
    hertz = np.fft.rfftfreq(2 * _HOP, 1.0 / RATE)
    mel = 2595.0 * np.log10(1.0 + np.array([40.0, 8000.0]) / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(mel[0], mel[1], BANDS + 1) / 2595.0) - 1.0)
    bands = np.add.reduceat(power, np.searchsorted(hertz, edges), axis=0)[:-1]
    level = 10.0 * np.log10(bands / max(float(bands.max()), 1e-20) + 1e-12)
    cells: np.ndarray = np.clip(level / _RANGE + 1.0, 0.0, 1.0) if mono.abs().max() > 1e-4 else np.zeros_like(level)
    return cells.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Likeness:
    """What a sound looks most like.

    Attributes:
        index: of the sound in the searched set; -1 where none can be compared.
        similarity: cosine of their best 2.4 s, -1..1, each band's mean taken off.
    """

    index: int
    similarity: float


class Sketches:
    """Sketches of many sounds in a row, searchable at every shift.

    Args:
        sketches: of :func:`sketch`; those shorter than 2.4 s are repeated up to it.
    """

    def __init__(self, sketches: Sequence[np.ndarray]) -> None:
        whole = [_long_enough(each) for each in sketches]
        self.cells = torch.from_numpy(np.concatenate([*whole, np.zeros((BANDS, FRAMES), np.float32)], axis=1))
        owner = np.concatenate([np.repeat(np.arange(len(whole)), [each.shape[1] for each in whole]), [-1] * FRAMES])
        self.owner = torch.from_numpy(owner[: len(owner) - FRAMES + 1].astype(np.int64))
        self.inside = torch.from_numpy(owner[: len(owner) - FRAMES + 1] == owner[FRAMES - 1 :]) & (self.owner >= 0)
        sums = _moving_sum(self.cells)
        spread = (_moving_sum(self.cells.square()) - sums.square() / FRAMES).sum(0).clamp_min(0.0)
        self.norm = spread.sqrt()

    def search(self, found: np.ndarray, *, leave_out: int | None = None) -> Likeness:
        """The sound that looks most alike in any 2.4 s of the one looked for.

        Args:
            found: its sketch.
            leave_out: index of a sound that does not count: itself.
        """
        windows = _windows(_long_enough(found))
        usable = self.inside & (self.norm >= _least_norm())
        if leave_out is not None:
            usable = usable & (self.owner != leave_out)
        if not len(windows) or not bool(usable.any()):
            return Likeness(-1, 0.0)
        products = functional.conv1d(self.cells[None], windows)[0]  # (windows, places)
        norms = windows.flatten(1).norm(dim=1)[:, None] * self.norm.clamp_min(1e-9)
        best = torch.where(usable, products / norms, -1.0).amax(0)
        place = int(best.argmax())
        return Likeness(int(self.owner[place]), float(best[place]))


def threshold(held_out: Sequence[Likeness] = ()) -> float:
    """Similarity from which a clip is a copy: 0.85, or halfway from the highest of honest clips to 1 if that is more.

    Args:
        held_out: of music that surely is no copy, such as a reference, to the same training set.
    """
    honest = [one.similarity for one in held_out]
    return max(COPY, 0.5 + 0.5 * max(honest)) if honest else COPY


def sketch_figures(
    within: Sequence[Likeness], training: Sequence[Likeness] | None = None, held_out: Sequence[Likeness] = ()
) -> list[Figure]:
    """Shares of clips that look like others.

    Args:
        within: each clip among the others of its set.
        training: each clip among the training set; None if there was none.
        held_out: of a reference among the training set, for the scale.
    """
    how = f"Any {FRAMES / 10:g} s whose levels in {BANDS} bands, ten a second, have a cosine of"
    hits = [one.similarity >= COPY for one in within]
    figures = [share_figure("Look-alikes within the set", hits, f"{how} {COPY:g} or more with those of another clip.")]
    if training is not None:
        least = threshold(held_out)
        definition = f"{how} {least:.2f} or more with those of a clip of the training set, at any shift."
        hits = [one.similarity >= least for one in training]
        figures.append(share_figure("Look-alikes of the training set", hits, definition))
    return figures


def _long_enough(cells: np.ndarray) -> np.ndarray:
    times = -(-FRAMES // cells.shape[1])
    repeated: np.ndarray = np.tile(cells, (1, times))[:, :FRAMES] if times > 1 else cells
    return repeated


def _windows(cells: np.ndarray) -> torch.Tensor:
    """(n, BANDS, FRAMES) with each band's mean taken off, every 0.8 s and the last; empty ones left out."""
    count = cells.shape[1]
    starts = sorted({*range(0, count - FRAMES + 1, FRAMES // 3), count - FRAMES})
    windows = torch.stack([torch.from_numpy(cells[:, start : start + FRAMES].copy()) for start in starts])
    windows = windows - windows.mean(2, keepdim=True)
    return windows[windows.flatten(1).norm(dim=1) >= _least_norm()]


def _least_norm() -> float:
    return _LEAST_SPREAD * float(BANDS * FRAMES) ** 0.5


def _moving_sum(cells: torch.Tensor) -> torch.Tensor:
    sums = functional.pad(cells.double().cumsum(1), (1, 0))
    return (sums[:, FRAMES:] - sums[:, :-FRAMES]).float()

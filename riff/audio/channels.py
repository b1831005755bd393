"""Channels: what each one is, and how many become two or one without losing what they hold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from riff.utils.errors import RiffError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# The bits of WAV's channel mask, in order; FFmpeg has the same names.
MASK_NAMES = (
    "FL",
    "FR",
    "FC",
    "LFE",
    "BL",
    "BR",
    "FLC",
    "FRC",
    "BC",
    "SL",
    "SR",
    "TC",
    "TFL",
    "TFC",
    "TFR",
    "TBL",
    "TBC",
    "TBR",
)
# What a file with so many channels holds that does not say so (FLAC's order, which is WAV's).
_USUAL = {
    3: ("FL", "FR", "FC"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
_HALF = 0.5**0.5
# Gains into the left and the right channel (ITU-R BS.775-3, annex 4): 3 dB less for what belongs to both or comes from
# the sides, nothing of the low frequency effects.
_LEFT = {"FL": 1.0, "FLC": 1.0, "FC": _HALF, "BL": _HALF, "SL": _HALF, "BC": 0.5, "TFL": _HALF, "TBL": _HALF}
_RIGHT = {"FR": 1.0, "FRC": 1.0, "FC": _HALF, "BR": _HALF, "SR": _HALF, "BC": 0.5, "TFR": _HALF, "TBR": _HALF}
# The mean of two channels may be this much weaker than they are, as a share of their power, before they count as out
# of phase: 20 dB. Independent channels lose 3 dB.
_OPPOSED = 0.01


def names_of_mask(mask: int, channels: int) -> tuple[str, ...] | None:
    """The channels that a WAV file's mask names, or None if it does not name each."""
    names = tuple(name for bit, name in enumerate(MASK_NAMES) if mask >> bit & 1)
    return names if len(names) == channels else None


def mix(waveform: Tensor, channels: int, layout: Sequence[str] | None = None) -> Tensor:
    """Two channels or one out of any number.

    One channel is doubled; two become their mean, or the louder of them where they cancel (:func:`to_mono`); more are
    mixed by ITU-R BS.775, scaled so that full scale in every channel stays full scale.

    Args:
        waveform: ``(C, T)``.
        channels: 1 or 2.
        layout: a name for each channel, as in :data:`MASK_NAMES`; the default is the usual order of so many.

    Returns:
        ``(channels, T)``.

    Raises:
        RiffError: two channels are wanted of an unknown layout.
    """
    count = len(waveform)
    if count == channels:
        return waveform
    if count == 1:
        return waveform.repeat(2, 1)
    if count == 2:
        return to_mono(waveform)
    return waveform.new_tensor(mix_gains(count, channels, layout)) @ waveform


def mix_gains(count: int, channels: int, layout: Sequence[str] | None = None) -> list[list[float]]:
    """The matrix of :func:`mix` for more than two channels; each row sums to 1."""
    if channels == 2 and layout is None:
        raise RiffError(f"there are {count} channels and no word of what each is; use channels=1")
    names = layout or _USUAL.get(count)
    if names is None:
        return [[1.0 / count] * count]
    rows = [[gains.get(name, 0.0) for name in names] for gains in (_LEFT, _RIGHT)]
    if channels == 1:
        rows = [[left + right for left, right in zip(*rows, strict=True)]]
    if not all(map(sum, rows)):  # no channel of these rooms
        return [[1.0 / count] * count] * channels
    return [[gain / sum(row) for gain in row] for row in rows]


def to_mono(waveform: Tensor, *, name: str | Path | None = None) -> Tensor:
    """The mean of the channels; where they cancel, the loudest of them.

    Right = -left, as one cable turned round makes it, has a mean of silence although every speaker plays it.

    Args:
        waveform: ``(C, T)``.
        name: of the sound, for a warning where the channels cancel; None is silent about it.

    Returns:
        ``(1, T)``.
    """
    loudest = cancelling(waveform)
    if loudest is None:
        return waveform.mean(dim=0, keepdim=True)
    if name is not None:
        warnings.warn(f"{name}: its channels are out of phase and cancel; channel {loudest + 1} is used", stacklevel=3)
    return waveform[loudest : loudest + 1]


def cancelling(waveform: Tensor) -> int | None:
    """The number of the loudest of channels ``(C, T)`` whose mean is next to silence although they are not; else None."""  # noqa: E501
    if len(waveform) < 2 or waveform.shape[-1] == 0:
        return None
    powers = waveform.double().square().mean(dim=1)
    mean = waveform.double().mean(dim=0).square().mean()
    return None if float(mean) >= _OPPOSED * float(powers.mean()) else int(powers.argmax())


def mono_row(waveform: Tensor | np.ndarray) -> np.ndarray:
    """:func:`to_mono` of ``(C, T)`` or ``(T,)`` as a float64 row ``(T,)``, for measurements."""
    import torch

    row: np.ndarray = to_mono(torch.atleast_2d(torch.as_tensor(waveform).detach().double().cpu()))[0].numpy()
    return row

"""Moving a picture's pitch along its frequency axis; time, and so the tempo, stays."""

import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.errors import RiffError

MOST = 12


def transpose_image(image: Tensor, config: SpectrogramConfig, semitones: float) -> Tensor:
    """A picture whose sound is ``semitones`` higher.

    The row of frequency f shows what was at f / 2^(semitones / 12), read between the rows on the picture's own scale.
    What would come from above or below the picture is its outermost row.

    Args:
        image: ``(..., C, M, N)`` in [0, 1], row 0 the highest frequency.
        config: names the rows' frequencies.
        semitones: -12 to 12.

    Returns:
        The same shape.

    Raises:
        RiffError: more than an octave.
    """
    if not -MOST <= semitones <= MOST:
        raise RiffError(f"semitones is {semitones!r}; use a number from -{MOST} to {MOST}")
    if image.shape[-2] != config.n_mels:
        raise RiffError(f"the picture has {image.shape[-2]} rows; this config's have {config.n_mels}")
    centres = torch.tensor(config.mel_corners()[1:-1], dtype=torch.float64)  # rising
    wanted = centres / 2.0 ** (semitones / 12.0)
    above = torch.searchsorted(centres, wanted).clamp(1, len(centres) - 1)
    share = ((wanted - centres[above - 1]) / (centres[above] - centres[above - 1])).clamp(0.0, 1.0)
    rising = image.flip(-2)
    low, high = rising[..., above - 1, :], rising[..., above, :]
    return torch.lerp(low, high, share.to(image)[:, None]).flip(-2)

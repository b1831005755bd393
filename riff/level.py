"""Filling the dips in level on the way between two prompts."""

import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.image import image_to_mel

MOST_DB = 6.0


def fill_dips(image: Tensor, place: Tensor, bar: int, config: SpectrogramConfig) -> Tensor:
    """A picture that is nowhere quieter, bar by bar, than on a straight line between its stations' levels.

    What a model makes of two prompts at once is often thinner than either. Only the way is raised, by 6 dB at most;
    where the music stays at a station the picture is what it was.

    Args:
        image: ``(C, M, N)`` in [0, 1] on the decibel scale.
        place: (N,) the station at each column: whole numbers where the music stays, from 0 to their count.
        bar: columns of a bar, over which levels are taken.
        config: names the scale.

    Returns:
        The same shape; the same picture where a station has no bar of its own.
    """
    power = image_to_mel(image, config).square().sum((0, 1))
    level = 10.0 * (_mean_over(power, bar) + 1e-12).log10()
    stays = (place - place.round()).abs() < 1e-6
    count = int(place.max().ceil()) + 1
    owned = [stays & (place.round() == station) for station in range(count)]
    if not bool(owned[-1].any()):
        owned[-1] = owned[0]  # a loop goes back to the first
    if any(int(columns.sum()) < bar for columns in owned):
        return image
    levels = torch.stack([10.0 * (power[columns].mean() + 1e-12).log10() for columns in owned])
    below = place.floor().long().clamp(max=count - 1)
    above = (below + 1).clamp(max=count - 1)
    line = torch.lerp(levels[below], levels[above], place - below)
    # Nothing at the stations, all of it from a tenth of the way on.
    on_the_way = ((place - place.round()).abs() / 0.1).clamp(max=1.0)
    gain = _mean_over((line - level).clamp(0.0, MOST_DB), bar) * on_the_way
    return torch.where(image > 0, image + gain / config.db_range, image).clamp(0.0, 1.0)


def _mean_over(values: Tensor, width: int) -> Tensor:
    """(N,) moving mean over ``width`` places, the ends continued."""
    before = width // 2
    padded = torch.nn.functional.pad(values[None, None], (before, width - 1 - before), mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, width, stride=1)[0, 0]

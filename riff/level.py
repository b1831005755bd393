"""Filling the dips in level on the way between two prompts."""

import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.image import image_to_mel
from riff.loudness import k_power

MOST_DB = 6.0
ROUNDS = 4  # what a gain that moves no faster than a bar leaves of a short dip, the next one takes


def fill_dips(image: Tensor, place: Tensor, bar: int, config: SpectrogramConfig) -> Tensor:
    """A picture that is nowhere quieter than on a straight line between its stations' levels.

    What a model makes of two prompts at once is often thinner than either. Two bars together are brought up to the line
    between the stations' means, and each bar to that between their quietest bars, so that a pattern of a loud and a
    quiet bar stays one. Only the way is raised, by 6 dB at most and evenly over a bar, so that nothing pumps; where the
    music stays at a station the picture is what it was. Rows count as their frequencies do in loudness, since two
    stations' levels are else not comparable.

    Args:
        image: ``(C, M, N)`` in [0, 1] on the decibel scale.
        place: (N,) the station at each column: whole numbers where the music stays, from 0 to their count.
        bar: columns of a bar.
        config: names the scale.

    Returns:
        The same shape; the same picture where a station has no bar of its own.
    """
    power = (image_to_mel(image, config).square() * _heard(config).to(image)[:, None]).sum((0, 1))
    stays = (place - place.round()).abs() < 1e-6
    count = int(place.max().ceil()) + 1
    owned = [stays & (place.round() == station) for station in range(count)]
    loops = not bool(owned[-1].any())
    if loops:
        owned[-1] = owned[0]  # it goes back to the first
    if any(int(columns.sum()) < bar for columns in owned):
        return image
    level = _decibels(_mean_over(power, bar, loops))
    means = torch.stack([_decibels(power[columns].mean()) for columns in owned])
    quietest = torch.stack([level[_inner(columns, bar, loops)].min() for columns in owned])
    # Nothing at the stations, all of it from half a bar beside them on.
    on_the_way = (2.0 * _mean_over((~stays).float(), bar, loops) - 1.0).clamp(min=0.0) * ~stays
    gain = torch.zeros_like(power)
    for _ in range(ROUNDS):
        for levels, width in ((means, 2 * bar), (quietest, bar)):
            now = _decibels(_mean_over(power * 10.0 ** (gain / 10.0), width, loops))
            lack = (_between(levels, place) - now).clamp(min=0.0)
            gain = (gain + _mean_over(lack, bar, loops) * on_the_way).clamp(max=MOST_DB)
    return torch.where(image > 0, image + gain / config.db_range, image).clamp(0.0, 1.0)


def _between(levels: Tensor, place: Tensor) -> Tensor:
    """(N,) on straight lines from one station's level to the next one's."""
    below = place.floor().long().clamp(max=len(levels) - 1)
    above = (below + 1).clamp(max=len(levels) - 1)
    return torch.lerp(levels[below], levels[above], place - below)


def _inner(columns: Tensor, bar: int, loops: bool) -> Tensor:
    """Those of a station's columns around which the whole bar is its own, or most of it where none is."""
    share = _mean_over(columns.float(), bar, loops)
    return share > min(float(share.max()), 1.0) - 0.5 / bar


def _decibels(power: Tensor) -> Tensor:
    return 10.0 * (power + 1e-12).log10()


def _heard(config: SpectrogramConfig) -> Tensor:
    """(M,) how much the square of each mel row counts as loudness, from the lowest on.

    A row adds up the magnitudes of all the bins of its band, so its square holds their power once for each of them.
    """
    corners = torch.tensor(config.mel_corners())
    return k_power(corners[1:-1], config.sample_rate) / (corners[2:] - corners[:-2])


def _mean_over(values: Tensor, width: int, loops: bool) -> Tensor:
    """(N,) moving mean over ``width`` places, the ends continued or joined."""
    before = width // 2
    padded = torch.nn.functional.pad(
        values[None, None], (before, width - 1 - before), mode="circular" if loops else "replicate"
    )
    return torch.nn.functional.avg_pool1d(padded, width, stride=1)[0, 0]

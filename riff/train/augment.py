"""Changes of a picture that leave it music: louder or softer, higher or lower, begun at another bar."""

import dataclasses

import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.transpose import transpose_image


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to change a picture; latents are cached for each.

    Attributes:
        gain: in decibels; a constant on the decibel scale, nothing on the power scale, whose pictures have their own
            maximum.
        semitones: of pitch, along the frequency axis.
    """

    gain: float = 0.0
    semitones: float = 0.0

    def apply(self, image: Tensor, config: SpectrogramConfig) -> Tensor:
        """A picture (C, M, N) in [0, 1], changed."""
        if self.semitones:
            image = transpose_image(image, config, self.semitones)
        if self.gain and config.amplitude == "decibel":
            # Silence is silent however loud it is played.
            louder = (image + self.gain / config.db_range).clamp(0.0, 1.0)
            image = torch.where(image > 0, louder, image)
        return image


def make_variants(gain: float, semitones: int, config: SpectrogramConfig) -> tuple[Variant, ...]:
    """The plain picture first, then softer and louder by ``gain`` decibels, then each pitch up to ``semitones`` away.

    Raises:
        RiffError: a number is out of its range, or a gain is asked of pictures that have no level.
    """
    if not 0 <= gain <= 12:
        raise RiffError(f"augment_gain is {gain:g} dB; use 0 (none) to 12")
    if not 0 <= semitones <= 3:
        raise RiffError(f"augment_pitch is {semitones} semitones; use 0 (none) to 3")
    if gain and config.amplitude == "power":
        raise RiffError("augment_gain does nothing on the power scale, where each picture is scaled to its own maximum")
    variants = [Variant()]
    variants += [Variant(gain=-gain), Variant(gain=gain)] if gain else []
    variants += [Variant(semitones=float(k)) for k in range(-semitones, semitones + 1) if k]
    return tuple(variants)


def shift_by_bars(latents: Tensor, bar: int, generator: torch.Generator) -> Tensor:
    """Each clip of (B, L, H, W) begun at a bar drawn at random, what came before it following the end.

    Args:
        latents: of clips of whole bars; a bar must be whole latent columns.
        bar: latent columns a bar.
        generator: draws the bars.
    """
    bars = latents.shape[-1] // bar
    turns = torch.randint(bars, (len(latents),), generator=generator).tolist()
    return torch.stack([each.roll(-turn * bar, dims=-1) for each, turn in zip(latents, turns, strict=True)])

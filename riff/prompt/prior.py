"""What a prompt without numbers implies: a tempo and a metre, read from its embedding."""

import dataclasses
import math
from pathlib import Path

import torch
from torch import Tensor

from riff.utils.errors import ModelError

PRIOR_NAME = "music_prior.safetensors"
BPM_RANGE = (50.0, 180.0)


@dataclasses.dataclass(frozen=True)
class MusicPrior:
    """A linear reading of the mean prompt embedding, trained beside riff's own models.

    Attributes:
        weight: ``(2, D)``; the rows give log2 of the tempo in beats per minute, and the logit of three beats
            a bar.
        bias: ``(2,)``.

    Raises:
        ModelError: the shapes are wrong or a number is not finite.
    """

    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        if self.weight.dim() != 2 or self.weight.shape[0] != 2 or tuple(self.bias.shape) != (2,):
            shapes = f"{tuple(self.weight.shape)} and {tuple(self.bias.shape)}"
            raise ModelError(f"the music prior has shapes {shapes}; weight is (2, D) and bias (2,)")
        if not bool(torch.isfinite(self.weight).all() and torch.isfinite(self.bias).all()):
            raise ModelError("the music prior holds NaN or infinite numbers; restore the checkpoint")

    def bpm(self, prompt_embeds: Tensor) -> float:
        """The tempo in whole beats per minute, 50 to 180, for one prompt's ``(L, D)`` or ``(1, L, D)``."""
        low, high = (math.log2(bpm) for bpm in BPM_RANGE)
        return float(round(2.0 ** min(max(self._read(prompt_embeds)[0], low), high)))

    def beats_per_bar(self, prompt_embeds: Tensor) -> int:
        """3 or 4 for one prompt's ``(L, D)`` or ``(1, L, D)`` embedding."""
        return 3 if self._read(prompt_embeds)[1] > 0 else 4

    def save(self, folder: str | Path) -> None:
        """Write ``music_prior.safetensors`` into ``folder``."""
        from safetensors.torch import save_file

        tensors = {"weight": self.weight.float().contiguous(), "bias": self.bias.float().contiguous()}
        save_file(tensors, Path(folder) / PRIOR_NAME)

    @classmethod
    def load(cls, folder: str | Path) -> "MusicPrior | None":
        """Read ``music_prior.safetensors`` from ``folder``; None if the checkpoint has none."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(folder) / PRIOR_NAME
        if not path.exists():
            return None
        try:
            tensors = load_file(path)
            return cls(weight=tensors["weight"].float(), bias=tensors["bias"].float())
        except (SafetensorError, KeyError, OSError) as error:
            raise ModelError(f"{path} is damaged ({error}); restore it or download the checkpoint again") from error

    def _read(self, prompt_embeds: Tensor) -> list[float]:
        mean = prompt_embeds.reshape(-1, prompt_embeds.shape[-1]).float().cpu().mean(dim=0)
        return (self.weight @ mean + self.bias).tolist()

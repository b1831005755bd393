"""What a prompt without numbers implies: tempo, metre and key, read from its embedding."""

import dataclasses
import hashlib
import math
import statistics
from pathlib import Path

import torch
from torch import Tensor

from riff.music.theory import KEYS
from riff.utils.errors import ModelError
from riff.utils.files import first_line

PRIOR_NAME = "music_prior.safetensors"
BPM_RANGE = (50.0, 180.0)
# A seed's tempo is at most so many standard deviations away from the most likely one.
FARTHEST = 2.0
_OPTIONAL = ("spread_weight", "spread_bias", "key_weight", "key_bias")


@dataclasses.dataclass(frozen=True)
class MusicPrior:
    """A linear reading of the mean prompt embedding, trained beside riff's own models.

    The last five fields came later: a file without them gives each prompt one tempo and leaves its key open.

    Attributes:
        weight: ``(2, D)``; the rows give log2 of the tempo in beats per minute, and the logit of three beats a bar.
        bias: ``(2,)``.
        spread_weight: ``(1, D)``; gives the natural logarithm of the standard deviation of log2 of the tempo.
        spread_bias: ``(1,)``.
        key_weight: ``(24, D)``; gives the logits of :data:`riff.music.theory.KEYS`.
        key_bias: ``(24,)``.
        absence_word: what the captions put before what a piece has not ("no" of "no drums"); "" if they do not say it.

    Raises:
        ModelError: the shapes are wrong or a number is not finite.
    """

    weight: Tensor
    bias: Tensor
    spread_weight: Tensor | None = None
    spread_bias: Tensor | None = None
    key_weight: Tensor | None = None
    key_bias: Tensor | None = None
    absence_word: str = ""

    def __post_init__(self) -> None:
        for prefix, rows in (("", 2), ("spread_", 1), ("key_", len(KEYS))):
            weight, bias = getattr(self, f"{prefix}weight"), getattr(self, f"{prefix}bias")
            if weight is None and bias is None and prefix:
                continue
            shapes = [None if each is None else tuple(each.shape) for each in (weight, bias)]
            width = self.weight.shape[-1] if self.weight.dim() == 2 else 0
            if shapes != [(rows, width), (rows,)]:
                raise ModelError(
                    f"the music prior has {prefix}weight and {prefix}bias of shapes {shapes[0]} and {shapes[1]}; "
                    f"they are ({rows}, D) and ({rows},)"
                )
            if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
                raise ModelError("the music prior holds NaN or infinite numbers; restore the checkpoint")

    def bpm(self, prompt_embeds: Tensor, *, seed: int | None = None) -> float:
        """The tempo in whole beats per minute, 50 to 180, for one prompt.

        Args:
            prompt_embeds: its ``(L, D)`` or ``(1, L, D)`` embedding.
            seed: chooses from the normal distribution of what suits the prompt; None takes the most likely.
        """
        octaves = self._read(self.weight, self.bias, prompt_embeds)[0]
        if seed is not None and self.spread_weight is not None and self.spread_bias is not None:
            deviation = math.exp(min(self._read(self.spread_weight, self.spread_bias, prompt_embeds)[0], 0.0))
            away = statistics.NormalDist().inv_cdf(_share_of(seed, "tempo"))
            octaves += deviation * min(max(away, -FARTHEST), FARTHEST)
        low, high = (math.log2(bpm) for bpm in BPM_RANGE)
        return float(round(2.0 ** min(max(octaves, low), high)))

    def beats_per_bar(self, prompt_embeds: Tensor) -> int:
        """3 or 4 for one prompt's ``(L, D)`` or ``(1, L, D)`` embedding."""
        return 3 if self._read(self.weight, self.bias, prompt_embeds)[1] > 0 else 4

    def key(self, prompt_embeds: Tensor, *, seed: int | None = None) -> str | None:
        """The key that a seed chooses among those that suit one prompt; None, open, without a seed or knowledge."""
        if seed is None or self.key_weight is None or self.key_bias is None:
            return None
        logits = torch.tensor(self._read(self.key_weight, self.key_bias, prompt_embeds), dtype=torch.float64)
        below = logits.softmax(0).cumsum(0)
        return KEYS[min(int(torch.searchsorted(below, _share_of(seed, "key"))), len(KEYS) - 1)]

    def save(self, folder: str | Path) -> None:
        """Write ``music_prior.safetensors`` into ``folder``."""
        from safetensors.torch import save_file

        tensors = {name: getattr(self, name) for name in ("weight", "bias", *_OPTIONAL)}
        metadata = {"absence_word": self.absence_word} if self.absence_word else None
        save_file(
            {name: tensor.float().contiguous() for name, tensor in tensors.items() if tensor is not None},
            Path(folder) / PRIOR_NAME,
            metadata=metadata,
        )

    @classmethod
    def load(cls, folder: str | Path) -> "MusicPrior | None":
        """Read ``music_prior.safetensors`` from ``folder``; None if the checkpoint has none."""
        from safetensors import SafetensorError, safe_open

        path = Path(folder) / PRIOR_NAME
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in ("weight", "bias", *_OPTIONAL) if name in ("weight", "bias", *file.keys())]
                tensors = {name: file.get_tensor(name).float() for name in names}
                return cls(**tensors, absence_word=(file.metadata() or {}).get("absence_word", ""))
        except (SafetensorError, KeyError, OSError) as error:
            message = f"{path} is damaged ({first_line(error)}); restore it or download the checkpoint again"
            raise ModelError(message) from error

    @staticmethod
    def _read(weight: Tensor, bias: Tensor, prompt_embeds: Tensor) -> list[float]:
        mean = prompt_embeds.reshape(-1, prompt_embeds.shape[-1]).float().cpu().mean(dim=0)
        values: list[float] = (weight @ mean + bias).tolist()
        return values


def _share_of(seed: int, purpose: str) -> float:
    """A number between 0 and 1 that depends on a seed and on nothing else; different for each purpose."""
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return (int.from_bytes(digest[:6], "big") + 0.5) / 2**48

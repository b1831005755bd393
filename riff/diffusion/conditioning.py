"""What conditions the model along a canvas: stations, each with one prompt or with several that are composed."""

import dataclasses

import torch
from torch import Tensor

from riff.utils.errors import RiffError


@dataclasses.dataclass(frozen=True)
class WindowConditioning:
    """What conditions the model in one window.

    Attributes:
        prompt_embeds: (P, B, S, D) of the prompts that count there.
        guidance: weight of the prompts against the negative prompt, a number or one per column (w,); up to 1 it is the
            prompts alone.
        negative_prompt_embeds: (N, B, S, D), one for each station that counts, or one where all are alike; None without
            guidance.
        shares: (P, w) of the prompts at each column, those above 0 are 1 in sum; None where there is one prompt.
        negative_shares: (N, w) of the negative prompts, 1 in sum; None where there is one.
        lora_weight: of the adapters, if any are loaded.
    """

    prompt_embeds: Tensor
    guidance: Tensor | float = 1.0
    negative_prompt_embeds: Tensor | None = None
    shares: Tensor | None = None
    negative_shares: Tensor | None = None
    lora_weight: float | None = None

    def unguided(self) -> "WindowConditioning":
        """The same without guidance."""
        return dataclasses.replace(self, negative_prompt_embeds=None, negative_shares=None)


@dataclasses.dataclass(frozen=True)
class CanvasConditioning:
    """What conditions the model along a canvas: K stations, and where between them each column is.

    Attributes:
        prompt_embeds: (B, P, S, D), P prompts; without ``blend`` one for each station.
        guidance: (K,) weight of the prompt; up to 1 there is no guidance.
        negative_prompt_embeds: (B, K, S, D); needed where guidance is above 1.
        progress: (W,) from 0 to K, the station at each latent column: 0.5 is half way from the first to the second,
            and from K - 1 on it goes back to the first. None is the first everywhere.
        lora_weights: (K,) of the adapters, if any are loaded.
        blend: (K, P) how much each prompt counts at each station; those above 0 are 1 in sum, those below steer away.
            None is one prompt for each station.
        prompt_tokens: P numbers, how many of the S tokens are each prompt's own; the rest is padding, and is left out
            where no prompt that counts needs it. None is S for all.
        negative_tokens: K numbers, the same of the negative prompts.

    Raises:
        RiffError: guidance without negative embeddings.
    """

    prompt_embeds: Tensor
    guidance: Tensor
    negative_prompt_embeds: Tensor | None = None
    progress: Tensor | None = None
    lora_weights: Tensor | None = None
    blend: Tensor | None = None
    prompt_tokens: tuple[int, ...] | None = None
    negative_tokens: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.is_guided and self.negative_prompt_embeds is None:
            raise RiffError(f"guidance is {self.guidance.max():g} without negative_prompt_embeds; pass those of ''")

    @property
    def is_guided(self) -> bool:
        """Whether any station is."""
        return bool((self.guidance > 1).any())

    def shares(self, columns: Tensor) -> Tensor:
        """(K, w): the share of each station at each of the columns; 1 in sum."""
        count = self.prompt_embeds.shape[1] if self.blend is None else len(self.blend)
        if self.progress is None or count == 1:
            return torch.ones(1, len(columns))
        place = self.progress[columns]
        below = place.floor().long().clamp(0, count - 1)
        share = (place - below).clamp(0.0, 1.0)
        found = torch.zeros(count, len(columns))
        found.scatter_add_(0, below[None], 1.0 - share[None])
        return found.scatter_add_(0, ((below + 1) % count)[None], share[None])

    def at(self, columns: Tensor) -> WindowConditioning:
        """What conditions the columns (w,) of one window."""
        by_station = self.shares(columns)
        by_prompt = by_station if self.blend is None else self.blend.T @ by_station
        stations, prompts = _that_count(by_station), _that_count(by_prompt)
        positive = torch.stack([self.prompt_embeds[:, prompt] for prompt in prompts])
        own = [] if self.prompt_tokens is None else [self.prompt_tokens[prompt] for prompt in prompts]
        negative = None
        if self.negative_prompt_embeds is not None and self.is_guided:
            negative = torch.stack([self.negative_prompt_embeds[:, station] for station in stations])
            own += [] if self.negative_tokens is None else [self.negative_tokens[station] for station in stations]
            if bool((negative == negative[:1]).all()):
                negative = negative[:1]
            negative = negative[:, :, : max(own, default=None)]
        composed = self.blend is not None and len(prompts) > 1
        return WindowConditioning(
            positive[:, :, : max(own, default=None)],
            self.guidance @ by_station,
            negative,
            by_prompt[prompts] if len(stations) > 1 or composed else None,
            None if negative is None or len(negative) == 1 else by_station[stations],
            None if self.lora_weights is None else float((self.lora_weights @ by_station).mean()),
        )


def _that_count(shares: Tensor) -> list[int]:
    """The rows that have a share at any column."""
    return torch.nonzero(shares.abs().amax(1) > 0).flatten().tolist()

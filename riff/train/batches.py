"""Which clips are in which batch: every epoch in an order of its own, without repeats, whatever was interrupted."""

import dataclasses

import torch
from torch import Tensor

from riff.train.augment import shift_by_bars
from riff.train.cache import Latents


@dataclasses.dataclass(frozen=True)
class TrainSet:
    """Clips of one width, ready to be drawn.

    Attributes:
        latents: of every clip in every variant.
        texts: for each clip the numbers of its texts.
        names: of the clips, for messages.
        bar: latent columns a bar for each clip, 0 where it cannot begin at another bar.
        keyless: (n,) whether a clip's texts name no key, so that its pitch may be changed.
        pitched: (variants,) whether a variant has another pitch.
    """

    latents: Latents
    texts: list[Tensor]
    names: list[str]
    bar: list[int]
    keyless: Tensor
    pitched: Tensor

    def __len__(self) -> int:
        return len(self.texts)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A batch: latents (B, L, H, W) float32, unscaled, and the number of each clip's text, (B,)."""

    latents: Tensor
    texts: Tensor


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of a run, each a function of its number alone.

    Attributes:
        sets: one per width; a batch is of one width.
        batch_size: clips a batch. The last batch of a width is filled up with clips from the epoch's beginning.
        seed: of the orders.
        caption_dropout: share of texts replaced by the empty one, number 0.
        shift: whether clips begin at any of their bars.
    """

    sets: list[TrainSet]
    batch_size: int
    seed: int
    caption_dropout: float = 0.0
    shift: bool = False

    @property
    def per_epoch(self) -> int:
        """Batches in which every clip is seen once."""
        return sum(-(-len(each) // self.batch_size) for each in self.sets)

    def members(self, number: int) -> tuple[int, Tensor]:
        """The set and the clips of micro-batch ``number``, counted from the run's beginning."""
        epoch, place = divmod(number, self.per_epoch)
        order = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        batches: list[tuple[int, Tensor]] = []
        for which, each in enumerate(self.sets):
            clips = torch.randperm(len(each), generator=order)
            count = -(-len(each) // self.batch_size)
            filled = clips.repeat(-(-count * self.batch_size // len(each)))[: count * self.batch_size]
            batches += [(which, part) for part in filled.split(self.batch_size)]
        return batches[int(torch.randperm(len(batches), generator=order)[place])]

    def names(self, number: int) -> str:
        """The clips of a micro-batch, for messages."""
        which, clips = self.members(number)
        return ", ".join(dict.fromkeys(self.sets[which].names[int(clip)] for clip in clips))

    def draw(self, number: int, generator: torch.Generator) -> Drawn:
        """Micro-batch ``number``: the clips are given by it, the rest is drawn with ``generator``."""
        which, clips = self.members(number)
        chosen = self.sets[which]
        variants = torch.randint(len(chosen.pitched), (len(clips),), generator=generator)
        variants[chosen.pitched[variants] & ~chosen.keyless[clips]] = 0
        latents = chosen.latents.sample(clips, variants, generator)
        bars = {chosen.bar[int(clip)] for clip in clips}
        if self.shift and len(bars) == 1 and bars != {0}:
            latents = shift_by_bars(latents, bars.pop(), generator)
        choice = torch.rand(len(clips), generator=generator)
        texts = torch.stack(
            [
                chosen.texts[clip][int(share * len(chosen.texts[clip]))]
                for clip, share in zip(clips, choice, strict=True)
            ]
        )
        texts[torch.rand(len(clips), generator=generator) < self.caption_dropout] = 0
        return Drawn(latents, texts)

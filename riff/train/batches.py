"""Which clips are in which batch, and in which variant: every epoch in an order of its own, without repeats."""

import dataclasses
import functools
import hashlib
import random
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from riff.music.theory import parse_bpm
from riff.prompt.encoder import prompt_length
from riff.prompt.vocabulary import split_known
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import transpose_image
from riff.train.data.dataset import ClipSet
from riff.utils.errors import RiffError


@dataclasses.dataclass(frozen=True)
class Latents:
    """What the autoencoder makes of clips: a normal distribution for each number, or a number.

    Attributes:
        mean: (n, variants, L, H, W) float16, unscaled.
        logvar: the same shape, or None where the autoencoder has no variance.
    """

    mean: Tensor
    logvar: Tensor | None

    def sample(self, clips: Tensor, variants: Tensor, generator: torch.Generator) -> Tensor:
        """(B, L, H, W) float32, unscaled; resampled each time where there is a variance."""
        mean = self.mean[clips, variants].float()
        if self.logvar is None:
            return mean
        spread = (0.5 * self.logvar[clips, variants].float()).exp()
        return mean + spread * torch.randn(mean.shape, generator=generator)


@dataclasses.dataclass(frozen=True)
class TrainSet:
    """Clips of one width, ready to be batched.

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
class Batch:
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

    def batch(self, number: int, generator: torch.Generator) -> Batch:
        """Micro-batch ``number``: the clips depend on it alone, the rest is random with ``generator``."""
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
        return Batch(latents, texts)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to change an image; latents are cached for each.

    Attributes:
        gain: in decibels; a constant on the decibel scale, nothing on the power scale, whose images have their own
            maximum.
        semitones: of pitch, along the frequency axis.
    """

    gain: float = 0.0
    semitones: float = 0.0

    def apply(self, image: Tensor, config: SpectrogramConfig) -> Tensor:
        """An image (C, M, N) in [0, 1], changed."""
        if self.semitones:
            image = transpose_image(image, config, self.semitones)
        if self.gain and config.amplitude == "decibel":
            # Silence is silent however loud it is played.
            louder = (image + self.gain / config.db_range).clamp(0.0, 1.0)
            image = torch.where(image > 0, louder, image)
        return image


def make_variants(gain: float, semitones: int, config: SpectrogramConfig) -> tuple[Variant, ...]:
    """The plain image first, then softer and louder by ``gain`` decibels, then each pitch up to ``semitones`` away.

    Raises:
        RiffError: a number is out of its range, or a gain for images that have no level.
    """
    if not 0 <= gain <= 12:
        raise RiffError(f"augment_gain is {gain:g} dB; use 0 (none) to 12")
    if not 0 <= semitones <= 3:
        raise RiffError(f"augment_pitch is {semitones} semitones; use 0 (none) to 3")
    if gain and config.amplitude == "power":
        raise RiffError("augment_gain does nothing on the power scale, where each image is scaled to its own maximum")
    variants = [Variant()]
    variants += [Variant(gain=-gain), Variant(gain=gain)] if gain else []
    variants += [Variant(semitones=float(k)) for k in range(-semitones, semitones + 1) if k]
    return tuple(variants)


def shift_by_bars(latents: Tensor, bar: int, generator: torch.Generator) -> Tensor:
    """Each clip of (B, L, H, W) begun at a random bar; what came before it follows the end.

    Args:
        latents: of clips of whole bars; a bar must be whole latent columns.
        bar: latent columns a bar.
        generator: chooses the bars.
    """
    bars = latents.shape[-1] // bar
    turns = torch.randint(bars, (len(latents),), generator=generator).tolist()
    return torch.stack([each.roll(-turn * bar, dims=-1) for each, turn in zip(latents, turns, strict=True)])


# What the denoiser is conditioned on for each clip: its captions, cleaned as prompts are, with trigger word and
# tempo.


@dataclasses.dataclass(frozen=True)
class Texts:
    """All texts that condition the model in a run, each once.

    Attributes:
        texts: the texts; the first is the empty one.
        input_ids: (n, tokens) int32.
    """

    texts: list[str]
    input_ids: Tensor

    def numbers(self, wanted: list[str]) -> Tensor:
        """Where each of ``wanted`` is, (len(wanted),) int64."""
        return torch.tensor([self._places[text] for text in wanted])

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {text: place for place, text in enumerate(self.texts)}


@dataclasses.dataclass(frozen=True)
class Wording:
    """How captions become the texts that condition the model.

    Attributes:
        closed: whether the model has a closed vocabulary; texts then have no unknown words, and always a tempo, as
            prompts do.
        trigger: word that every text begins with where it is not in it.
        shuffles: further texts of each caption, its tags in another order.
    """

    closed: bool
    trigger: str | None
    shuffles: int

    def texts(self, clip: dict[str, Any], tokenizer: Any) -> list[str]:
        """The texts of one clip, without repeats; always the same ones."""
        texts: dict[str, None] = {}
        for caption in clip["captions"]:
            text = self._conditioned(caption, clip.get("bpm"), tokenizer)
            texts[text] = None
            tags = text.split(", ")
            order = random.Random(hashlib.sha256(text.encode()).digest())
            for _ in range(self.shuffles if len(tags) > 2 else 0):
                texts[", ".join(order.sample(tags, len(tags)))] = None
        return list(texts)

    def _conditioned(self, caption: str, bpm: float | None, tokenizer: Any) -> str:
        text = caption.strip()
        if self.trigger is not None and self.trigger not in words_of(text):
            text = f"{self.trigger}, {text}" if text else self.trigger
        if self.closed:
            text, _ = split_known(text, tokenizer)
            if bpm and parse_bpm(text) is None:
                text = f"{text}, {round(bpm)} bpm" if text else f"{round(bpm)} bpm"
        return text


def words_of(text: str) -> set[str]:
    """The words of a text in lower case, without the signs around them."""
    return {word.strip(".,;:!?()[]\"'").lower() for word in text.split()}


def unknown_words(sets: list[ClipSet], tokenizer: Any) -> list[tuple[str, float]]:
    """Words that a closed vocabulary lacks, with the share of the clips that have them, the commonest first."""
    counts: Counter[str] = Counter()
    clips = [clip for each in sets for clip in each.clips]
    for clip in clips:
        found = {word.lower() for caption in clip["captions"] for word in split_known(caption, tokenizer)[1]}
        counts.update(found)
    return [(word, count / len(clips)) for word, count in counts.most_common()]


def collect_texts(wanted: list[str], tokenizer: Any, text_encoder: Any) -> Texts:
    """The empty text and all of ``wanted``, tokenized as prompts are."""
    texts = list(dict.fromkeys(["", *wanted]))
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=prompt_length(tokenizer, text_encoder))
    return Texts(texts, torch.tensor(encoded["input_ids"], dtype=torch.int32))

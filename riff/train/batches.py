"""Which clips are in which batch: every epoch in an order of its own, without repeats, whatever was interrupted."""

import dataclasses
import functools
import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from riff.diffusion.latents import fit_channels
from riff.music.theory import parse_bpm
from riff.prompt.encoder import prompt_length
from riff.prompt.vocabulary import split_known
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import transpose_image
from riff.train.data.dataset import ClipSet
from riff.utils.errors import ModelError, RiffError
from riff.utils.files import atomic_path

# WAS riff/train/cache.py: Latents and prompt embeddings, worked out once and kept in shards that know what they
# were made of.


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
        """(B, L, H, W) float32, unscaled; drawn anew each time where there is a variance."""
        mean = self.mean[clips, variants].float()
        if self.logvar is None:
            return mean
        spread = (0.5 * self.logvar[clips, variants].float()).exp()
        return mean + spread * torch.randn(mean.shape, generator=generator)


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


# WAS riff/train/augment.py: Changes of a picture that leave it music: louder or softer, higher or lower, begun
# at another bar.


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


SHARD = 128  # clips a shard: what a kill costs at most
PIXELS = 2**19  # encoded at a time: an autoencoder's first layers need some 2 kB for each
logger = logging.getLogger(__name__)


def weights_hash(module: nn.Module, *, without: tuple[str, ...] = ()) -> str:
    """A hash of a module's weights and names; those that begin with one of ``without`` do not count."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not name.startswith(without):
            digest.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def encode_clips(
    vae: Any, clips: ClipSet, config: SpectrogramConfig, variants: tuple[Variant, ...], folder: Path
) -> Latents:
    """Latents of every clip in every variant, from ``folder`` where they are there already.

    A shard's name is a hash of the pictures, the config, the encoder and the variants, so a stale one is never read;
    a damaged one is made again. Pictures are read one by one, not held.

    Args:
        vae: AutoencoderKL or AutoencoderTiny; its device and dtype are used.
        clips: of one width.
        config: of the pictures.
        variants: ways to change a picture; the first changes nothing.
        folder: of the shards; made where it is missing.

    Raises:
        RiffError: a picture is damaged or of another config.
        ModelError: the autoencoder gives numbers that are not finite.
    """
    recipe = json.dumps([config.to_dict(), [dataclasses.asdict(each) for each in variants]], sort_keys=True)
    base = weights_hash(vae, without=("decoder.", "post_quant_conv.")) + recipe
    parts = []
    with tqdm(total=len(clips), disable=None, unit="clip", desc=f"latents of {clips.width} columns") as bar:
        for start in range(0, len(clips), SHARD):
            numbers = range(start, min(start + SHARD, len(clips)))
            digest = hashlib.sha256(base.encode())
            for number in numbers:
                digest.update(hashlib.sha256(clips.content(number)).digest())
            path = folder / f"latents-{digest.hexdigest()[:24]}.safetensors"
            parts.append(kept(path, _encoding(vae, clips, config, variants, numbers, bar.update)))
            bar.update(numbers.stop - bar.n)
    mean = torch.cat([part["mean"] for part in parts])
    return Latents(mean, torch.cat([part["logvar"] for part in parts]) if "logvar" in parts[0] else None)


def _encoding(
    vae: Any,
    clips: ClipSet,
    config: SpectrogramConfig,
    variants: tuple[Variant, ...],
    numbers: range,
    tell: Callable[[int], Any],
) -> Callable[[], dict[str, Tensor]]:
    @torch.no_grad()
    def work() -> dict[str, Tensor]:
        parts: list[dict[str, Tensor]] = []
        size = max(1, PIXELS // (config.n_mels * clips.width * len(variants)))
        for start in range(0, len(numbers), size):
            chunk = numbers[start : start + size]
            images = torch.stack([variant.apply(clips.read(i), config) for i in chunk for variant in variants])
            parts.append(_distribution(vae, images))
            tell(len(chunk))
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return {name: value.unflatten(0, (len(numbers), len(variants))) for name, value in joined.items()}

    return work


def _distribution(vae: Any, images: Tensor) -> dict[str, Tensor]:
    pixels = fit_channels(images, vae.config.in_channels).to(device=vae.device, dtype=vae.dtype) * 2.0 - 1.0
    encoded = vae.encode(pixels)
    if hasattr(encoded, "latents"):
        found = {"mean": encoded.latents}
    else:
        found = {"mean": encoded.latent_dist.mean, "logvar": encoded.latent_dist.logvar}
    if not all(bool(torch.isfinite(value).all()) for value in found.values()):
        raise ModelError(f"the autoencoder gives numbers that are not finite in {vae.dtype}; use --mixed_precision no")
    return {name: value.cpu().half() for name, value in found.items()}


# WAS riff/train/captions.py: What the denoiser is told of each clip: its captions, cleaned as prompts are, with
# the trigger word and the tempo.


@dataclasses.dataclass(frozen=True)
class Texts:
    """All texts that a run tells the model, each once.

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


@torch.no_grad()
def embed_texts(texts: Texts, text_encoder: Any, folder: Path) -> Tensor:
    """(n, tokens, D) float16 prompt embeddings of every text, from ``folder`` where they are there already."""
    base = weights_hash(text_encoder)
    parts = []
    with tqdm(total=len(texts.texts), disable=None, unit="text", desc="prompt embeddings") as bar:
        for start in range(0, len(texts.texts), SHARD):
            ids = texts.input_ids[start : start + SHARD].long()
            key = hashlib.sha256(base.encode() + ids.numpy().tobytes()).hexdigest()[:24]
            parts.append(kept(folder / f"prompts-{key}.safetensors", _embedding(text_encoder, ids))["embeds"])
            bar.update(len(ids))
    return torch.cat(parts)


def _embedding(text_encoder: Any, ids: Tensor) -> Callable[[], dict[str, Tensor]]:
    def work() -> dict[str, Tensor]:
        rows = [text_encoder(part.to(text_encoder.device)).last_hidden_state for part in ids.split(16)]
        return {"embeds": torch.cat(rows).cpu().half()}

    return work


def kept(path: Path, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What is in ``path``, else what ``work`` makes, which is then there."""
    if path.is_file():
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            logger.warning("%s is damaged (%s) and is made again", path, error)
    made = work()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft:
        save_file({name: value.contiguous() for name, value in made.items()}, draft)
    return made


# Share of the clips that must name an unknown word before it is taken for the trigger word.
MOSTLY = 0.8


@dataclasses.dataclass(frozen=True)
class Wording:
    """How captions become what the model is told.

    Attributes:
        closed: whether the model has a closed vocabulary; it is then told no unknown words, and always a tempo, as
            when it is asked.
        trigger: word that every text begins with where it is not in it.
        shuffles: further texts of each caption, its tags in another order.
    """

    closed: bool
    trigger: str | None
    shuffles: int

    def texts(self, clip: dict[str, Any], tokenizer: Any) -> list[str]:
        """The texts of one clip, without repeats; the same ones whenever it is asked."""
        texts: dict[str, None] = {}
        for caption in clip["captions"]:
            text = self._told(caption, clip.get("bpm"), tokenizer)
            texts[text] = None
            tags = text.split(", ")
            draw = random.Random(hashlib.sha256(text.encode()).digest())
            for _ in range(self.shuffles if len(tags) > 2 else 0):
                texts[", ".join(draw.sample(tags, len(tags)))] = None
        return list(texts)

    def _told(self, caption: str, bpm: float | None, tokenizer: Any) -> str:
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

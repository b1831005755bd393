"""All that a fine-tuning run works out once: latents, the model's own clips, texts; then the model is made ready."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.dataset import ClipSet
from riff.errors import RiffError
from riff.latents import downsampling
from riff.music import parse_keyscale
from riff.train.adapter import Tuning, prepare_tuning
from riff.train.augment import Variant, make_variants
from riff.train.batches import Batches, TrainSet
from riff.train.cache import Latents, embed_texts, encode_clips
from riff.train.captions import Texts, Wording, collect_texts
from riff.train.diffusion_loss import DiffusionLoss, WordTempo
from riff.train.preservation import class_prompts, class_set, draw_class_clips
from riff.train.recipe import Recipe
from riff.train.settle import Base, Data
from riff.trigger import is_one_token

# Learning rate of a new word's embedding, whatever the rest's is.
WORD_LEARNING_RATE = 1e-3
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Material:
    """A run made ready.

    Attributes:
        loss: of its batches.
        heldout: batches of the held-out clips, or None where there are none.
        tuning: the model, with what is trained.
    """

    loss: DiffusionLoss
    heldout: Batches | None
    tuning: Tuning


def gather(recipe: Recipe, base: Base, data: Data, cache: Path) -> Material:
    """Work everything out, or read it from ``cache``.

    Args:
        recipe: settled.
        base: the model, changed in place at the end.
        data: the clips.
        cache: folder; made where it is missing.
    """
    parts = base.parts
    variants = make_variants(recipe.augment_gain, recipe.augment_pitch, data.config)
    latents = [encode_clips(parts.vae, each, data.config, variants, cache) for each in data.train]
    heldout = [encode_clips(parts.vae, each, data.config, variants[:1], cache) for each in data.validation]
    own = _own_clips(recipe, base, cache)
    tuning = _tuning(recipe, base)
    wording = Wording(base.closed, recipe.trigger, recipe.caption_shuffles)
    plain = dataclasses.replace(wording, shuffles=0)
    told = [[wording.texts(clip, parts.tokenizer) for clip in each.clips] for each in data.train]
    told_heldout = [[plain.texts(clip, parts.tokenizer) for clip in each.clips] for each in data.validation]
    flat = [text for clips in (*told, *told_heldout) for clip in clips for text in clip]
    flat += [text for words, _ in own for text in words]
    texts = collect_texts(flat, parts.tokenizer, parts.text_encoder)
    factor = downsampling(parts.vae)
    new = zip(data.train, latents, told, strict=True)
    sets = [_train_set(*each, texts, variants, factor, data.config) for each in new]
    measured = zip(data.validation, heldout, told_heldout, strict=True)
    held = [_train_set(*each, texts, variants[:1], factor, data.config) for each in measured]
    kept = [class_set(each, [texts.numbers([text]) for text in words]) for words, each in own]
    size = recipe.train_batch_size or 1
    loss = DiffusionLoss(
        parts.scheduler,
        parts.vae,
        texts,
        None if tuning.text_is_live else embed_texts(texts, parts.text_encoder, cache),
        Batches(sets, size, recipe.seed, recipe.caption_dropout, recipe.augment_shift),
        Batches(kept, max(1, size // 2), recipe.seed) if kept else None,
        recipe.prior_loss_weight,
        recipe.snr_gamma,
        _word_tempo(base, tuning, data),
        parts.text_encoder,
    )
    # Held-out clips need no gradients, so more of them fit at a time.
    size = max(size, 8 if base.closed else 1)
    return Material(loss, Batches(held, size, recipe.seed) if held else None, tuning)


def _own_clips(recipe: Recipe, base: Base, cache: Path) -> list[tuple[list[str], Latents]]:
    """Clips of the untouched model's, where its recipe keeps what it can; each width with what it was told."""
    if not recipe.with_prior_preservation:
        return []
    prompts = class_prompts(recipe.class_prompts, base.parts, closed=base.closed)
    return draw_class_clips(base.model, prompts, count=recipe.num_class_images, seed=recipe.seed, folder=cache)


def _train_set(
    clips: ClipSet,
    latents: Latents,
    told: list[list[str]],
    texts: Texts,
    variants: tuple[Variant, ...],
    factor: int,
    config: SpectrogramConfig,
) -> TrainSet:
    keyless = [all(parse_keyscale(text) is None for text in clip["captions"]) for clip in clips.clips]
    names = [str(clip.get("file_name") or f"clip {number}") for number, clip in enumerate(clips.clips)]
    return TrainSet(
        latents,
        [texts.numbers(each) for each in told],
        names,
        [_bar(clip, config, factor) for clip in clips.clips],
        torch.tensor(keyless),
        torch.tensor([bool(variant.semitones) for variant in variants]),
    )


def _bar(clip: dict[str, Any], config: SpectrogramConfig, factor: int) -> int:
    """Latent columns of a clip's bar, 0 where it is not whole or not known."""
    beats = clip.get("beats_per_bar")
    if config.grid != "beats" or beats not in (3, 4):
        return 0
    columns, rest = divmod(int(beats) * config.frames_per_beat, factor)
    return 0 if rest else columns


def _tuning(recipe: Recipe, base: Base) -> Tuning:
    parts, word = base.parts, recipe.trigger
    alone = recipe.method == "textual-inversion"
    if word is not None and is_one_token(word, parts.tokenizer) and not alone:
        logger.info("the model has the word %r already; it is taught as any other", word)
        word = None
    tuning = prepare_tuning(
        parts,
        recipe.method,  # type: ignore[arg-type]
        rank=recipe.rank,
        lora_targets=recipe.lora_targets or "attention",
        train_text_encoder=recipe.train_text_encoder,
        word=word,
        start=None if word is None else _first_embedding(recipe, base),
        word_rate=1.0 if alone else WORD_LEARNING_RATE / (recipe.learning_rate or 1.0),
        seed=recipe.seed,
    )
    if recipe.gradient_checkpointing:
        parts.unet.enable_gradient_checkpointing()
        if tuning.text_is_live:
            parts.text_encoder.gradient_checkpointing_enable()
        tuning.model.train()
    return tuning


def _first_embedding(recipe: Recipe, base: Base) -> Tensor:
    """What the new word begins with: the asked word's embedding, else the mean of all words'."""
    tokenizer = base.parts.tokenizer
    table = base.parts.text_encoder.get_input_embeddings().weight.detach().float().cpu()
    if recipe.initializer_token is not None:
        ids = tokenizer(recipe.initializer_token, add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise RiffError(f"the initializer_token {recipe.initializer_token!r} is not one word that the model knows")
        return table[ids[0]].clone()
    return (table[tokenizer.eos_token_id + 1 :] if base.closed else table).mean(dim=0)


def _word_tempo(base: Base, tuning: Tuning, data: Data) -> WordTempo | None:
    """What the music prior should read of the new word: the clips' tempo and metre."""
    tempi = [float(clip["bpm"]) for each in data.train for clip in each.clips if clip.get("bpm")]
    if base.prior is None or tuning.word is None or not tempi:
        return None
    waltzes = [clip.get("beats_per_bar") == 3 for each in data.train for clip in each.clips]
    target = torch.tensor([float(torch.tensor(tempi).median().log2()), 2.0 * sum(waltzes) / len(waltzes) - 1.0])
    ids = collect_texts([tuning.word], base.parts.tokenizer, base.parts.text_encoder).input_ids[1:]
    return WordTempo(ids.long(), base.prior.weight, base.prior.bias, target)

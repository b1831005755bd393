"""All that a fine-tuning run works out once: latents, the model's own clips, texts; then the model is made ready."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riff.diffusion.latents import downsampling
from riff.diffusion.model import DiffusionModel
from riff.music.theory import parse_key
from riff.spectrogram.config import SpectrogramConfig
from riff.train.adapter import Tuning, prepare_tuning
from riff.train.batches import Batches, Latents, TrainSet, Variant, make_variants
from riff.train.cache import embed_texts, encode_clips
from riff.train.data.dataset import ClipSet
from riff.train.loss import DiffusionLoss, WordTempo
from riff.train.preservation import class_prompts, class_set, generate_class_clips, shared_cache
from riff.train.recipe import CLASS_CLIPS, FineTuneConfig, TrainingData
from riff.train.stop import StopFlag
from riff.train.texts import Texts, Wording, collect_texts

OWN_SHARE = 1 / 3  # of the time that is left, for clips of the model's own


@dataclasses.dataclass(frozen=True)
class TrainingSetup:
    """A run made ready.

    Attributes:
        loss: of its batches.
        heldout: batches of the held-out clips, or None where there are none.
        tuning: the model, with what is trained.
        own_clips: clips of the model's own among the batches.
    """

    loss: DiffusionLoss
    heldout: Batches | None
    tuning: Tuning
    own_clips: int


def prepare_training(
    recipe: FineTuneConfig, model: DiffusionModel, data: TrainingData, cache: Path, stop: StopFlag | None = None
) -> TrainingSetup:
    """Work everything out, or read it from ``cache``.

    Args:
        recipe: resolved.
        model: changed in place at the end.
        data: the clips.
        cache: folder; made where it is missing.
        stop: looked at between pieces of work, which are kept in the cache.

    Raises:
        StopRequested: a signal came.
    """
    began, parts = time.monotonic(), model.components
    variants = make_variants(recipe.augment_gain, recipe.augment_pitch, data.config)
    latents = [encode_clips(parts.vae, each, data.config, variants, cache, stop=stop) for each in data.train]
    heldout = [encode_clips(parts.vae, each, data.config, variants[:1], cache, stop=stop) for each in data.validation]
    own = _own_clips(recipe, model, cache, began, stop)
    tuning = prepare_tuning(recipe, model)
    wording = Wording(model.prior is not None, recipe.trigger, recipe.caption_shuffles)
    plain = dataclasses.replace(wording, shuffles=0)
    new = [[wording.texts(clip, parts.tokenizer) for clip in each.clips] for each in data.train]
    measured = [[plain.texts(clip, parts.tokenizer) for clip in each.clips] for each in data.validation]
    wanted = [text for clips in (*new, *measured) for clip in clips for text in clip]
    wanted += [text for texts, _ in own for text in texts]
    texts = collect_texts(wanted, parts.tokenizer, parts.text_encoder)
    factor = downsampling(parts.vae)
    sets = [
        _train_set(*each, texts, variants, factor, data.config) for each in zip(data.train, latents, new, strict=True)
    ]
    held = [
        _train_set(*each, texts, variants[:1], factor, data.config)
        for each in zip(data.validation, heldout, measured, strict=True)
    ]
    kept = [class_set(each, [texts.numbers([text]) for text in words]) for words, each in own]
    size, seed = recipe.train_batch_size or 1, recipe.loop.seed
    loss = DiffusionLoss(
        parts.scheduler,
        parts.vae,
        texts,
        None if tuning.text_is_live else embed_texts(texts, parts.text_encoder, cache),
        Batches(sets, size, seed, recipe.caption_dropout, recipe.augment_shift),
        Batches(kept, max(1, size // 2), seed) if kept else None,
        recipe.prior_loss_weight,
        recipe.snr_gamma,
        _word_tempo(model, tuning, data),
        parts.text_encoder,
    )
    # Held-out clips need no gradients, so more of them fit at a time.
    size = max(size, 8 if model.prior is not None else 1)
    own_clips = sum(len(words) for words, _ in own)
    return TrainingSetup(loss, Batches(held, size, seed) if held else None, tuning, own_clips)


def _own_clips(
    recipe: FineTuneConfig, model: DiffusionModel, cache: Path, began: float, stop: StopFlag | None
) -> list[tuple[list[str], Latents]]:
    """Clips of the untouched model's, where it shall keep what it can; for each width texts and latents."""
    if not recipe.with_prior_preservation:
        return []
    seconds = None
    if recipe.num_class_images is None and recipe.loop.steps is None:
        seconds = max(0.0, OWN_SHARE * (60.0 * recipe.time_budget - (time.monotonic() - began)))
    return generate_class_clips(
        model,
        class_prompts(recipe.class_prompts, model.components, closed=model.prior is not None),
        count=recipe.num_class_images or CLASS_CLIPS,
        seed=recipe.loop.seed,
        folder=shared_cache(cache),
        seconds=seconds,
        stop=stop,
    )


def _train_set(
    clips: ClipSet,
    latents: Latents,
    clip_texts: list[list[str]],
    texts: Texts,
    variants: tuple[Variant, ...],
    factor: int,
    config: SpectrogramConfig,
) -> TrainSet:
    keyless = [all(parse_key(text) is None for text in clip["captions"]) for clip in clips.clips]
    names = [str(clip.get("file_name") or f"clip {number}") for number, clip in enumerate(clips.clips)]
    return TrainSet(
        latents,
        [texts.numbers(each) for each in clip_texts],
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


def _word_tempo(model: DiffusionModel, tuning: Tuning, data: TrainingData) -> WordTempo | None:
    """What the music prior should read of the new word: the clips' tempo and metre."""
    tempi = [float(clip["bpm"]) for each in data.train for clip in each.clips if clip.get("bpm")]
    if model.prior is None or tuning.word is None or not tempi:
        return None
    waltzes = [clip.get("beats_per_bar") == 3 for each in data.train for clip in each.clips]
    target = torch.tensor([float(torch.tensor(tempi).median().log2()), 2.0 * sum(waltzes) / len(waltzes) - 1.0])
    ids: Tensor = collect_texts([tuning.word], model.components.tokenizer, model.components.text_encoder).input_ids[1:]
    return WordTempo(ids.long(), model.prior.weight, model.prior.bias, target)

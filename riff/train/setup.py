"""All that a fine-tuning run works out once: latents, the model's own clips, texts; then the model is made ready."""

import dataclasses
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from riff.diffusion.latents import downsampling
from riff.diffusion.model import DiffusionModel
from riff.music.theory import parse_key
from riff.prompt.vocabulary import EMBEDS_NAME, add_token, is_one_token, write_words
from riff.spectrogram.config import SpectrogramConfig
from riff.train.batches import Batches, Latents, Texts, TrainSet, Variant, Wording, collect_texts, make_variants
from riff.train.cache import embed_texts, encode_clips
from riff.train.data.dataset import ClipSet
from riff.train.loop import StopFlag
from riff.train.loss import DiffusionLoss, WordTempo
from riff.train.preservation import class_prompts, class_set, generate_class_clips, shared_cache
from riff.train.recipe import CLASS_CLIPS, FineTuneConfig, TrainingData
from riff.utils.errors import RiffError
from riff.utils.files import atomic_path

OWN_SHARE = 1 / 3  # of the time that is left, for clips of the model's own


# What a fine-tuning run changes of a model: LoRA adapters, whole networks, the embedding of one new word.


class LearnedWord(nn.Module):
    """An embedding table of which one row is learned and the rest stays; it takes the table's place.

    Attributes:
        offset: (D,) what is learned, from zero; ``rate`` times it is added to the row's beginning, so that with Adam,
            whose steps do not depend on a parameter's scale, the word has ``rate`` times the learning rate.
    """

    def __init__(self, table: nn.Embedding, number: int, rate: float) -> None:
        super().__init__()
        self.table = table
        self.number = number
        self.rate = rate
        self.start: Tensor
        self.register_buffer("start", table.weight[number].detach().clone(), persistent=False)
        self.offset = nn.Parameter(torch.zeros_like(table.weight[number], dtype=torch.float32))

    @property
    def vector(self) -> Tensor:
        """(D,) the word's embedding."""
        return self.start.float() + self.rate * self.offset

    @property
    def weight(self) -> Tensor:
        """The table, which others ask for its type and device."""
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """(..., D) embeddings of token ids."""
        rows = functional.embedding(ids, self.table.weight)
        return torch.where((ids == self.number)[..., None], self.vector.to(rows), rows)


class TunedModel(nn.Module):
    """Text encoder and UNet as one forward pass; what of them is frozen is not in the loop's checkpoints."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, texts: Tensor) -> Tensor:
        """(B, L, H, W), (B,), and token ids (B, tokens) or prompt embeddings (B, tokens, D), to (B, L, H, W)."""
        prompt_embeds = texts if texts.is_floating_point() else self.text_encoder(texts).last_hidden_state
        return self.unet(noisy, timesteps, encoder_hidden_states=prompt_embeds).sample


@dataclasses.dataclass(frozen=True)
class Tuning:
    """A model prepared for training.

    Attributes:
        model: what the loop trains.
        components: the StableDiffusionPipeline that holds the networks.
        method: "lora", "full" or "textual-inversion".
        word: the trigger word, if it is taught as a new token.
        learned: its embedding.
        text_is_live: whether the text encoder's part in it changes, so that its embeddings cannot be kept.
    """

    model: TunedModel
    components: Any
    method: str
    word: str | None
    learned: LearnedWord | None
    text_is_live: bool

    def save(self, folder: Path) -> None:
        """Write what was trained, beside the base model and not with it: LoRA weights and the learned word."""
        if self.method == "lora":
            _save_lora(self.components, folder)
        if self.word is not None and self.learned is not None:
            write_words(folder / EMBEDS_NAME, {self.word: self.learned.vector})

    def restore_table(self) -> None:
        """Put the learned word into the text encoder's table, so that the pipeline is a plain one again."""
        if self.learned is None:
            return
        table = self.learned.table
        with torch.no_grad():
            table.weight[self.learned.number] = self.learned.vector.to(table.weight)
        self.components.text_encoder.set_input_embeddings(table)


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


WORD_LEARNING_RATE = 1e-3  # of a new word's embedding, whatever the rest's is
LORA_NAME = "pytorch_lora_weights.safetensors"
ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
# The convolutions and projections beside the attention, as kohya's and LyCORIS' trainers offer them.
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "proj_in", "proj_out", "time_emb_proj", "ff.net.0.proj", "ff.net.2")
TARGETS = {"attention": ATTENTION, "attention+conv": (*ATTENTION, *CONVOLUTIONS)}
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
logger = logging.getLogger(__name__)


def prepare_tuning(recipe: FineTuneConfig, model: DiffusionModel) -> Tuning:
    """Freeze what stays of the model, which is changed in place, and add what is trained.

    Raises:
        RiffError: the initializer_token is not one word that the model knows.
    """
    components, word = model.components, recipe.trigger
    unet, text_encoder = components.unet, components.text_encoder
    alone = recipe.method == "textual-inversion"
    if word is not None and is_one_token(word, components.tokenizer) and not alone:
        logger.info("the model has the word %r already; it is trained as any other", word)
        word = None
    number = None
    if word is not None:
        number = add_token(word, _first_embedding(recipe, model), components.tokenizer, text_encoder)
    for part in (unet, text_encoder, components.vae):
        part.requires_grad_(False)
    if recipe.method == "lora":
        _add_lora(unet, TARGETS[recipe.lora_targets or "attention"], recipe)
        if recipe.train_text_encoder:
            _add_lora(text_encoder, TEXT_TARGETS, recipe)
    if recipe.method == "full":
        unet.requires_grad_(True)
        text_encoder.requires_grad_(recipe.train_text_encoder)
    learned = None
    if number is not None:
        rate = 1.0 if alone else WORD_LEARNING_RATE / (recipe.loop.learning_rate or 1.0)
        learned = LearnedWord(text_encoder.get_input_embeddings(), number, rate)
        text_encoder.set_input_embeddings(learned)
    live = learned is not None or recipe.train_text_encoder
    tuning = Tuning(TunedModel(unet, text_encoder), components, recipe.method, word, learned, live)
    if recipe.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        if live:
            text_encoder.gradient_checkpointing_enable()
        tuning.model.train()
    return tuning


def _first_embedding(recipe: FineTuneConfig, model: DiffusionModel) -> Tensor:
    """What the new word begins with: the embedding of the initializer_token, else the mean of all words'."""
    tokenizer = model.components.tokenizer
    table = model.components.text_encoder.get_input_embeddings().weight.detach().float().cpu()
    if recipe.initializer_token is not None:
        ids = tokenizer(recipe.initializer_token, add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise RiffError(f"the initializer_token {recipe.initializer_token!r} is not one word that the model knows")
        return table[ids[0]].clone()
    return (table[tokenizer.eos_token_id + 1 :] if model.prior is not None else table).mean(dim=0)


def _add_lora(network: Any, targets: tuple[str, ...], recipe: FineTuneConfig) -> None:
    from peft import LoraConfig

    # Names that a network lacks are an error in peft, which sees every layer.
    names = [name for name, _ in network.named_modules()]
    present = [target for target in targets if any(name.endswith(f".{target}") for name in names)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.loop.seed)
        network.add_adapter(
            LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, init_lora_weights="gaussian", target_modules=present)
        )


def _save_lora(components: Any, folder: Path) -> None:
    from diffusers import StableDiffusionPipeline
    from peft import get_peft_model_state_dict

    # In peft's layout: diffusers' older one has no names for convolutions, and a mixture of the two loads by half.
    layers = {"unet_lora_layers": get_peft_model_state_dict(components.unet)}
    if getattr(components.text_encoder, "peft_config", None):
        layers["text_encoder_lora_layers"] = get_peft_model_state_dict(components.text_encoder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".lora-") as draft:
        StableDiffusionPipeline.save_lora_weights(draft, safe_serialization=True, **layers)
        with atomic_path(folder / LORA_NAME) as target:
            target.write_bytes((Path(draft) / LORA_NAME).read_bytes())

"""Fine-tuning: a data set and a model in, a LoRA or a checkpoint out, whatever interrupts it."""

import dataclasses
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riff.checkpoint import load_checkpoint
from riff.config import SpectrogramConfig
from riff.dataset import ClipSet, differing_fields, load_dataset
from riff.errors import RiffError
from riff.latents import downsampling
from riff.model import Model
from riff.prior import MusicPrior
from riff.reading import read_prompt
from riff.train.adapter import Tuning, prepare_tuning
from riff.train.augment import make_variants
from riff.train.batches import Batches, TrainSet
from riff.train.cache import embed_texts, encode_clips
from riff.train.captions import MOSTLY, Wording, collect_texts, unknown_words
from riff.train.diffusion_loss import DiffusionLoss
from riff.train.loop import train
from riff.train.micro import NumberedLoss
from riff.train.outcome import Outcome, write_outcome
from riff.train.preservation import class_prompts, class_set, draw_class_clips
from riff.train.preview import DenoiserPreview
from riff.train.recipe import Recipe, continued, prompts_of, read_recipe, save_recipe
from riff.train.settings import LoopSettings
from riff.trigger import check_word, is_one_token

# Learning rate of a new word's embedding, whatever the rest's is.
WORD_LEARNING_RATE = 1e-3
FEWEST_STEPS, MOST_STEPS = 100, 1500
logger = logging.getLogger(__name__)


@dataclasses.dataclass
class _Base:
    """The model that a run begins with."""

    parts: Any
    config: SpectrogramConfig
    prior: MusicPrior | None
    name: str

    @property
    def closed(self) -> bool:
        """Whether it is one of riff's own, whose vocabulary is closed."""
        return self.prior is not None


@dataclasses.dataclass
class _Data:
    """The clips of a data set."""

    train: list[ClipSet]
    validation: list[ClipSet]
    config: SpectrogramConfig

    def digest(self) -> str:
        """Changes whenever clips or captions do."""
        told = [[each.width, each.clips] for each in (*self.train, *self.validation)]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def fine_tune(asked: Recipe, run: str | Path, *, until: int | None = None) -> Outcome | None:
    """Fine-tune a model; the same call goes on from the last checkpoint of ``run``.

    Args:
        asked: what to do.
        run: folder of the run: ``recipe.json``, ``cache/``, checkpoints, ``logs/``, ``samples/``, and in the end
            ``model/``.
        until: stop after this step although the schedule goes on.

    Returns:
        What came out, or None where a signal or ``until`` stopped it before its end.

    Raises:
        RiffError: the data set, the recipe and the model do not fit each other, or the loss is not finite.
        ModelError: the model cannot be loaded.
        SystemProblem: the disk is full, or an extra is not installed.
    """
    from accelerate import PartialState

    state = PartialState()
    place, began = Path(run), time.time()
    saved = read_recipe(place)
    recipe = asked if saved is None else continued(asked, saved)
    data = _open_data(recipe)
    base = _load_base(recipe, data, state.device)
    recipe = recipe if saved is not None else _settle(recipe, base, data)
    if saved is not None and saved.get("data") != data.digest():
        raise RiffError(f"the data set {recipe.train_data_dir} has changed since this run began; begin a new run")
    facts = {"data": data.digest(), "base": base.name}
    if state.is_main_process:
        save_recipe(place, recipe, facts)
    with state.main_process_first():
        loss, heldout, tuning = _prepare(recipe, base, data, place / "cache")
    if recipe.max_train_steps is None:
        recipe = dataclasses.replace(recipe, max_train_steps=_choose_steps(recipe, loss, tuning, state.device))
        if state.is_main_process:
            save_recipe(place, recipe, facts)
    before = _measure(loss, heldout, tuning.model, recipe, place)
    finished = _train(recipe, base, loss, heldout, tuning, place, until)
    steps = recipe.max_train_steps or 0
    if not finished or (until is not None and until < steps):
        return None
    after = _measure(loss, heldout, tuning.model, recipe, None)
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    figures = {"validation_loss_before": before, "validation_loss_after": after, "seconds": time.time() - began}
    return write_outcome(place, recipe, tuning, base.config, base.prior, data.train, data.validation, figures)


def _open_data(recipe: Recipe) -> _Data:
    return _Data(*load_dataset(recipe.train_data_dir))


def _load_base(recipe: Recipe, data: _Data, device: torch.device) -> _Base:
    parts, config, prior = load_checkpoint(recipe.pretrained_model_name_or_path, device=device)
    if wrong := differing_fields(data.config, config):
        raise RiffError(
            f"the pictures of {recipe.train_data_dir} and those of the model {recipe.pretrained_model_name_or_path} "
            f"are of different kinds: {wrong}; prepare the music again for this model (riff prepare --model), "
            "nothing is rescaled silently"
        )
    multiple = Model(parts, config, prior, "").multiple
    for each in (*data.train, *data.validation):
        if each.width % multiple:
            raise RiffError(
                f"{len(each)} pictures are {each.width} columns wide; this model takes multiples of {multiple}, "
                "so cut them or prepare the music again"
            )
    if device.type == "cpu":
        from diffusers.models.attention_processor import AttnProcessor

        # On CPUs the fused attention's backward pass is slow: written out, a step takes 0.75 of the time.
        parts.unet.set_attn_processor(AttnProcessor())
    return _Base(parts, config, prior, recipe.pretrained_model_name_or_path)


def _settle(recipe: Recipe, base: _Base, data: _Data) -> Recipe:
    """The recipe with everything chosen that it left open, except the number of steps."""
    trigger = _choose_trigger(recipe, base, data)
    small = base.closed
    rates = {"lora": (1e-3, 1e-4), "full": (2e-4, 1e-5), "textual-inversion": (5e-3, 5e-3)}
    clips = sum(len(each) for each in data.train)
    chosen = {
        "trigger": trigger,
        "lora_targets": "attention+conv" if small else "attention",
        "train_batch_size": 8 if small else 1,
        "learning_rate": rates[recipe.method][0 if small else 1],
        "mixed_precision": _choose_precision(base.parts.unet.device),
        "with_prior_preservation": small and recipe.method != "textual-inversion",
    }
    fields: dict[str, Any] = {name: value for name, value in chosen.items() if getattr(recipe, name) is None}
    settled = dataclasses.replace(recipe, **{**fields, "trigger": trigger})
    if settled.max_train_steps is None and settled.num_train_epochs is not None:
        size = (settled.train_batch_size or 1) * settled.gradient_accumulation_steps
        settled = dataclasses.replace(settled, max_train_steps=-(-clips * settled.num_train_epochs // size))
    return settled


def _choose_trigger(recipe: Recipe, base: _Base, data: _Data) -> str | None:
    """The word asked for, else one that most captions name and that a closed vocabulary lacks."""
    if recipe.trigger is not None:
        return check_word(recipe.trigger)
    found: str | None = None
    if base.closed:
        unknown = unknown_words(data.train, base.parts.tokenizer)
        found = next((word for word, share in unknown if share >= MOSTLY), None)
        rest = [word for word, _ in unknown if word != found]
        if found is not None:
            logger.info("the word %r is new to the model and in most captions: it is taught as the trigger word", found)
        if rest:
            logger.info("the model does not know %s; those words are left out", ", ".join(rest[:20]))
    if found is None and recipe.method == "textual-inversion":
        raise RiffError("textual-inversion learns one new word; give it with --trigger")
    return found


def _choose_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    # Measured on a CPU with bfloat16 instructions: a step takes 0.6 of the time. Without them it takes longer.
    fast = device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if fast else "no"


def _prepare(recipe: Recipe, base: _Base, data: _Data, cache: Path) -> tuple[DiffusionLoss, Batches | None, Tuning]:
    """Everything that is worked out once: latents, the model's own clips, texts; then the model is made ready."""
    parts, config = base.parts, data.config
    variants = make_variants(recipe.augment_gain, recipe.augment_pitch, config)
    pitched = torch.tensor([bool(variant.semitones) for variant in variants])
    latents = [encode_clips(parts.vae, each, config, variants, cache) for each in data.train]
    heldout = [encode_clips(parts.vae, each, config, variants[:1], cache) for each in data.validation]
    own = []
    if recipe.with_prior_preservation:
        prompts = class_prompts(recipe.class_prompts, parts, closed=base.closed)
        own = draw_class_clips(
            parts, base.config, base.prior, prompts, count=recipe.num_class_images, seed=recipe.seed, folder=cache
        )
    tuning = _tuning(recipe, base)
    wording = Wording(base.closed, recipe.trigger, recipe.caption_shuffles)
    told = [[wording.texts(clip, parts.tokenizer) for clip in each.clips] for each in data.train]
    plain = dataclasses.replace(wording, shuffles=0)
    told_heldout = [[plain.texts(clip, parts.tokenizer) for clip in each.clips] for each in data.validation]
    flat = [text for each in (*told, *told_heldout) for clip in each for text in clip]
    texts = collect_texts(
        [*flat, *[text for told_own, _ in own for text in told_own]], parts.tokenizer, parts.text_encoder
    )
    embeds = None if tuning.text_is_live else embed_texts(texts, parts.text_encoder, cache)

    def batches(sets: list[TrainSet], *, size: int | None = None, plain: bool = False) -> Batches:
        return Batches(
            sets,
            size or recipe.train_batch_size or 1,
            recipe.seed,
            0.0 if plain else recipe.caption_dropout,
            recipe.augment_shift and not plain,
        )

    def numbered(clips: list[list[str]]) -> list[Tensor]:
        return [texts.numbers(each) for each in clips]

    factor = downsampling(parts.vae)
    new = [
        _train_set(clips, each, numbered(words), pitched, config, factor)
        for clips, each, words in zip(data.train, latents, told, strict=True)
    ]
    held = [
        _train_set(clips, each, numbered(words), pitched[:1], config, factor)
        for clips, each, words in zip(data.validation, heldout, told_heldout, strict=True)
    ]
    kept = [class_set(each, [texts.numbers([text]) for text in words]) for words, each in own]
    loss = DiffusionLoss(
        parts.scheduler,
        parts.vae,
        texts,
        embeds,
        batches(new),
        batches(kept, size=max(1, (recipe.train_batch_size or 1) // 2)) if kept else None,
        recipe.prior_loss_weight,
        recipe.snr_gamma,
    )
    return loss, batches(held, plain=True) if held else None, tuning


def _train_set(
    clips: ClipSet, latents: Any, texts: list[Tensor], pitched: Tensor, config: SpectrogramConfig, factor: int
) -> TrainSet:
    from riff.music import parse_keyscale

    keyless = [all(parse_keyscale(text) is None for text in clip["captions"]) for clip in clips.clips]
    names = [str(clip.get("file_name") or clip.get("id") or number) for number, clip in enumerate(clips.clips)]
    return TrainSet(
        latents, texts, names, [_bar(clip, config, factor) for clip in clips.clips], torch.tensor(keyless), pitched
    )


def _bar(clip: dict[str, Any], config: SpectrogramConfig, factor: int) -> int:
    """Latent columns of a clip's bar, 0 where it is not whole or not known."""
    beats = clip.get("beats_per_bar")
    if config.grid != "beats" or beats not in (3, 4):
        return 0
    columns, rest = divmod(int(beats) * config.frames_per_beat, factor)
    return 0 if rest else columns


def _tuning(recipe: Recipe, base: _Base) -> Tuning:
    parts = base.parts
    word = recipe.trigger
    if word is not None and is_one_token(word, parts.tokenizer) and recipe.method != "textual-inversion":
        word = None  # the model has it already: it is taught as any other
    rate = WORD_LEARNING_RATE / (recipe.learning_rate or 1.0) if recipe.method != "textual-inversion" else 1.0
    tuning = prepare_tuning(
        parts,
        recipe.method,  # type: ignore[arg-type]
        rank=recipe.rank,
        lora_targets=recipe.lora_targets or "attention",
        train_text_encoder=recipe.train_text_encoder,
        word=word,
        start=None if word is None else _first_embedding(recipe, parts, closed=base.closed),
        word_rate=rate,
        seed=recipe.seed,
    )
    if recipe.gradient_checkpointing:
        parts.unet.enable_gradient_checkpointing()
        if tuning.text_is_live:
            parts.text_encoder.gradient_checkpointing_enable()
        tuning.model.train()
    return tuning


def _first_embedding(recipe: Recipe, parts: Any, *, closed: bool) -> Tensor:
    """What the new word begins with: the asked word's embedding, else the mean of all words'."""
    table = parts.text_encoder.get_input_embeddings().weight.detach().float().cpu()
    if recipe.initializer_token is not None:
        ids = parts.tokenizer(recipe.initializer_token, add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise RiffError(f"the initializer_token {recipe.initializer_token!r} is not one word that the model knows")
        return table[ids[0]].clone()
    words = table[parts.tokenizer.eos_token_id + 1 :] if closed else table
    return words.mean(dim=0)


def _choose_steps(recipe: Recipe, loss: DiffusionLoss, tuning: Tuning, device: torch.device) -> int:
    """As many steps as the time allows, by the time that two take here."""
    seconds = 0.0
    for number in range(3):
        began = time.monotonic()
        with _autocast(recipe, device):
            value, _ = loss(tuning.model, torch.Generator().manual_seed(number), number)
        value.backward()
        seconds = time.monotonic() - began
    tuning.model.zero_grad(set_to_none=True)
    fitting = int(recipe.time_budget * 60 / (seconds * recipe.gradient_accumulation_steps * 1.1))
    steps = min(max(fitting, FEWEST_STEPS), MOST_STEPS) // 50 * 50
    logger.info("%d steps of about %.2f s each", steps, seconds * recipe.gradient_accumulation_steps)
    return steps


def _autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    kind = kinds.get(recipe.mixed_precision or "no")
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)


def _measure(
    loss: DiffusionLoss, heldout: Batches | None, model: nn.Module, recipe: Recipe, run: Path | None
) -> float | None:
    """The validation loss; that of the beginning is kept in ``run``, since a run that goes on has moved."""
    if heldout is None:
        return None
    kept = None if run is None else run / "before.json"
    if kept is not None and kept.is_file():
        return float(json.loads(kept.read_text(encoding="utf-8"))["validation_loss"])
    with _autocast(recipe, next(model.parameters()).device):
        value = loss.measure(model, heldout)
    if kept is not None:
        from riff.files import write_json

        write_json(kept, {"validation_loss": value})
    return value


def _train(
    recipe: Recipe,
    base: _Base,
    loss: DiffusionLoss,
    heldout: Batches | None,
    tuning: Tuning,
    run: Path,
    until: int | None,
) -> bool:
    settings = LoopSettings(
        steps=recipe.max_train_steps or 0,
        learning_rate=recipe.learning_rate or 0.0,
        warmup_steps=recipe.lr_warmup_steps,
        lr_scheduler=recipe.lr_scheduler,  # type: ignore[arg-type]
        max_grad_norm=recipe.max_grad_norm,
        ema_decay=recipe.ema_decay if recipe.use_ema else 0.0,
        mixed_precision=recipe.mixed_precision or "no",
        checkpointing_steps=recipe.checkpointing_steps,
        preview_steps=recipe.validation_steps,
        validation_steps=recipe.validation_steps,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        use_8bit_adam=recipe.use_8bit_adam,
        report_to=recipe.report_to,
        seed=recipe.seed,
    )

    def validate(model: nn.Module) -> float:
        return _measure(loss, heldout, model, recipe, None) or 0.0

    return train(
        tuning.model,
        NumberedLoss(loss, loss.batches.names),
        settings,
        run,
        preview=_preview(recipe, base),
        validation=validate if heldout is not None else None,
        recipe={"train_batch_size": recipe.train_batch_size, "method": recipe.method, "trigger": recipe.trigger},
        until=until,
    )


def _preview(recipe: Recipe, base: _Base) -> DenoiserPreview:
    parts = base.parts
    told = [
        read_prompt(text, bpm=None, keyscale=None, parts=parts, prior=base.prior).text for text in prompts_of(recipe)
    ]
    guidance = Model(parts, base.config, base.prior, base.name).default_guidance
    return DenoiserPreview(parts.vae, parts.tokenizer, parts.scheduler, base.config, tuple(told), guidance)

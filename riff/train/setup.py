"""All that a fine-tuning run works out once: latents, the model's own clips, texts; then the model is made ready."""

import dataclasses
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from riff.diffusion.latents import downsampling, sample_noise
from riff.diffusion.model import DiffusionModel
from riff.diffusion.sampling import PlainPrediction, denoise
from riff.diffusion.windows import training_width
from riff.music.theory import parse_key
from riff.prompt.encoder import embed_prompt
from riff.prompt.interpret import ParsedPrompt, interpret_prompt
from riff.prompt.learned_words import EMBEDS_NAME, add_token, is_one_token, write_words
from riff.prompt.vocabulary import split_known
from riff.spectrogram.config import SpectrogramConfig
from riff.train.batches import (
    Batches,
    Latents,
    Texts,
    TrainSet,
    Variant,
    Wording,
    collect_texts,
    embed_texts,
    encode_clips,
    kept,
    make_variants,
    weights_hash,
)
from riff.train.data.dataset import ClipSet
from riff.train.loss import DiffusionLoss, WordTempo
from riff.train.recipe import BaseModel, Data, FineTuneConfig
from riff.utils.errors import RiffError
from riff.utils.files import atomic_path

# Learning rate of a new word's embedding, whatever the rest's is.
WORD_LEARNING_RATE = 1e-3
logger = logging.getLogger(__name__)


# WAS riff/train/adapter.py: What a fine-tuning run changes of a model: LoRA adapters, whole networks, the
# embedding of one new word.


class LearnedWord(nn.Module):
    """An embedding table of which one row is learned and the rest stays; it stands in for the table.

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
        """The table, for those who ask for its type and device."""
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """(..., D) embeddings of token ids."""
        rows = functional.embedding(ids, self.table.weight)
        return torch.where((ids == self.number)[..., None], self.vector.to(rows), rows)


Method = Literal["lora", "full", "textual-inversion"]


class Tuned(nn.Module):
    """Text encoder and UNet as one forward pass; what of them is frozen is not in the loop's checkpoints."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, told: Tensor) -> Tensor:
        """(B, L, H, W), (B,), and token ids (B, tokens) or prompt embeddings (B, tokens, D), to (B, L, H, W)."""
        prompt_embeds = told if told.is_floating_point() else self.text_encoder(told).last_hidden_state
        return self.unet(noisy, timesteps, encoder_hidden_states=prompt_embeds).sample


@dataclasses.dataclass(frozen=True)
class Tuning:
    """A model prepared for training.

    Attributes:
        model: what the loop trains.
        parts: the StableDiffusionPipeline that holds the model's parts.
        method: "lora", "full" or "textual-inversion".
        word: the trigger word, if it is taught as a new token.
        learned: its embedding.
        text_is_live: whether the text encoder's part in it changes, so that its embeddings cannot be kept.
    """

    model: Tuned
    parts: Any
    method: Method
    word: str | None
    learned: LearnedWord | None
    text_is_live: bool

    def save(self, folder: Path) -> None:
        """Write what was trained, beside the base model and not with it: LoRA weights and the learned word."""
        if self.method == "lora":
            _save_lora(self.parts, folder)
        if self.word is not None and self.learned is not None:
            write_words(folder / EMBEDS_NAME, {self.word: self.learned.vector})

    def settle(self) -> None:
        """Put the learned word into the text encoder's table, so that the parts are a plain pipeline again."""
        if self.learned is None:
            return
        table = self.learned.table
        with torch.no_grad():
            table.weight[self.learned.number] = self.learned.vector.to(table.weight)
        self.parts.text_encoder.set_input_embeddings(table)


@dataclasses.dataclass(frozen=True)
class TrainingSetup:
    """A run made ready.

    Attributes:
        loss: of its batches.
        heldout: batches of the held-out clips, or None where there are none.
        tuning: the model, with what is trained.
    """

    loss: DiffusionLoss
    heldout: Batches | None
    tuning: Tuning


def prepare_training(recipe: FineTuneConfig, base: BaseModel, data: Data, cache: Path) -> TrainingSetup:
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
    return TrainingSetup(loss, Batches(held, size, recipe.seed) if held else None, tuning)


def _own_clips(recipe: FineTuneConfig, base: BaseModel, cache: Path) -> list[tuple[list[str], Latents]]:
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
    keyless = [all(parse_key(text) is None for text in clip["captions"]) for clip in clips.clips]
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


def _tuning(recipe: FineTuneConfig, base: BaseModel) -> Tuning:
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


def _first_embedding(recipe: FineTuneConfig, base: BaseModel) -> Tensor:
    """What the new word begins with: the asked word's embedding, else the mean of all words'."""
    tokenizer = base.parts.tokenizer
    table = base.parts.text_encoder.get_input_embeddings().weight.detach().float().cpu()
    if recipe.initializer_token is not None:
        ids = tokenizer(recipe.initializer_token, add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise RiffError(f"the initializer_token {recipe.initializer_token!r} is not one word that the model knows")
        return table[ids[0]].clone()
    return (table[tokenizer.eos_token_id + 1 :] if base.closed else table).mean(dim=0)


def _word_tempo(base: BaseModel, tuning: Tuning, data: Data) -> WordTempo | None:
    """What the music prior should read of the new word: the clips' tempo and metre."""
    tempi = [float(clip["bpm"]) for each in data.train for clip in each.clips if clip.get("bpm")]
    if base.prior is None or tuning.word is None or not tempi:
        return None
    waltzes = [clip.get("beats_per_bar") == 3 for each in data.train for clip in each.clips]
    target = torch.tensor([float(torch.tensor(tempi).median().log2()), 2.0 * sum(waltzes) / len(waltzes) - 1.0])
    ids = collect_texts([tuning.word], base.parts.tokenizer, base.parts.text_encoder).input_ids[1:]
    return WordTempo(ids.long(), base.prior.weight, base.prior.bias, target)


LORA_NAME = "pytorch_lora_weights.safetensors"
ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
# The convolutions and projections beside the attention, as kohya's and LyCORIS' trainers offer them.
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "proj_in", "proj_out", "time_emb_proj", "ff.net.0.proj", "ff.net.2")
TARGETS = {"attention": ATTENTION, "attention+conv": (*ATTENTION, *CONVOLUTIONS)}
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


def prepare_tuning(
    parts: Any,
    method: Method,
    *,
    rank: int,
    lora_targets: str,
    train_text_encoder: bool,
    word: str | None,
    start: Tensor | None,
    word_rate: float,
    seed: int,
) -> Tuning:
    """Freeze what stays, and add what is trained.

    Args:
        parts: the model, changed in place.
        method: see :class:`Tuning`.
        rank: of the LoRA.
        lora_targets: a key of :data:`TARGETS`.
        train_text_encoder: train it as the UNet is trained.
        word: trigger word to teach as a new token, or None.
        start: (D,) its first embedding.
        word_rate: its learning rate by the rest's.
        seed: of the LoRA's first weights.
    """
    unet, text_encoder = parts.unet, parts.text_encoder
    number = None
    if word is not None and start is not None:
        number = add_token(word, start, parts.tokenizer, text_encoder)
    for part in (unet, text_encoder, parts.vae):
        part.requires_grad_(False)
    if method == "lora":
        _add_lora(unet, TARGETS[lora_targets], rank, seed)
        if train_text_encoder:
            _add_lora(text_encoder, TEXT_TARGETS, rank, seed)
    if method == "full":
        unet.requires_grad_(True)
        text_encoder.requires_grad_(train_text_encoder)
    learned = None
    if number is not None:
        learned = LearnedWord(text_encoder.get_input_embeddings(), number, word_rate)
        text_encoder.set_input_embeddings(learned)
    live = learned is not None or train_text_encoder
    return Tuning(Tuned(unet, text_encoder), parts, method, word, learned, live)


def _add_lora(network: Any, targets: tuple[str, ...], rank: int, seed: int) -> None:
    from peft import LoraConfig

    # Names that a network lacks are an error in peft, which sees every layer.
    names = [name for name, _ in network.named_modules()]
    present = [target for target in targets if any(name.endswith(f".{target}") for name in names)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=present))


def _save_lora(parts: Any, folder: Path) -> None:
    import tempfile

    from diffusers import StableDiffusionPipeline
    from peft import get_peft_model_state_dict

    # In peft's layout: diffusers' older one has no names for convolutions, and a mixture of the two loads by half.
    layers = {"unet_lora_layers": get_peft_model_state_dict(parts.unet)}
    if getattr(parts.text_encoder, "peft_config", None):
        layers["text_encoder_lora_layers"] = get_peft_model_state_dict(parts.text_encoder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".lora-") as draft:
        StableDiffusionPipeline.save_lora_weights(draft, safe_serialization=True, **layers)
        with atomic_path(folder / LORA_NAME) as target:
            target.write_bytes((Path(draft) / LORA_NAME).read_bytes())


# WAS riff/train/preservation.py: What the model draws before it is fine-tuned, learned again beside the new
# clips so that it is not forgotten.

AUTO = "auto"
STEPS = 20
BATCH = 8
# Kinds of music that people ask for; a closed vocabulary is asked for those that it knows.
CLASS_PROMPTS = (
    "techno", "house", "trance", "drum and bass", "dubstep", "ambient", "lo-fi hip hop, mellow electric piano",
    "trap", "disco", "funk", "soul", "jazz, saxophone", "swing, big band", "bebop", "blues, guitar",
    "rock, electric guitar", "heavy metal, distorted guitar", "punk", "country, acoustic guitar",
    "bluegrass, banjo", "folk", "reggae", "dub", "ska", "bossa nova", "samba", "salsa, piano",
    "tango, accordion", "flamenco guitar", "waltz, strings", "classical piano", "string quartet",
    "baroque, harpsichord", "church bells", "choir", "gospel, organ", "lullaby, music box", "march, brass",
    "chiptune", "synthwave", "epic orchestra, drums", "horror, strings", "celtic, flute", "klezmer, clarinet",
    "afrobeat", "polka", "new age, harp", "video game music", "ragtime piano", "boom bap", "chinese music",
    "orchestral", "sacred music", "boogie woogie piano", "surf rock",
)  # fmt: skip
logger_preservation = logging.getLogger(__name__)


def class_prompts(source: str, parts: Any, *, closed: bool) -> list[str]:
    """The prompts of a file, one a line; "auto" is a spread of those that the model knows.

    Raises:
        RiffError: the file cannot be read or holds no prompt.
    """
    if source == AUTO:
        return [text for text in CLASS_PROMPTS if not closed or not split_known(text, parts.tokenizer)[1]]
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise RiffError(f"the class prompts {source} cannot be read ({error}); give a text file or 'auto'") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise RiffError(f"the class prompts {source} hold no line; write one prompt a line")
    return prompts


def draw_class_clips(
    model: DiffusionModel, prompts: list[str], *, count: int, seed: int, folder: Path
) -> list[tuple[list[str], Latents]]:
    """Draw ``count`` clips of the prompts, in turn, with the model as it is.

    Args:
        model: the untouched model.
        prompts: what to draw.
        count: of clips.
        seed: of the first noise.
        folder: of the cache.

    Returns:
        For each width: what the model was told of each clip, and its latents.
    """
    parts, config, prior = model.components, model.config, model.prior
    readings = [interpret_prompt(text, bpm=None, keyscale=None, parts=parts, prior=prior) for text in prompts]
    asked = [readings[number % len(readings)] for number in range(count)]
    widths: dict[int, list[tuple[int, ParsedPrompt]]] = {}
    for number, reading in enumerate(asked):
        width = training_width(config, reading.beats_per_bar) // downsampling(parts.vae)
        widths.setdefault(width, []).append((seed + number, reading))
    key = weights_hash(parts.unet) + weights_hash(parts.text_encoder) + str(parts.scheduler.config)
    drawn = []
    with tqdm(total=count, disable=None, unit="clip", desc="clips of the model as it is") as bar:
        for width, members in widths.items():
            told = [(number, reading.text) for number, reading in members]
            digest = hashlib.sha256(f"{key} {width} {told}".encode()).hexdigest()[:24]
            latents = kept(folder / f"class-{digest}.safetensors", _drawing(model, width, told, bar.update))
            drawn.append(([text for _, text in told], Latents(latents["mean"], None)))
    return drawn


def _drawing(
    model: DiffusionModel, width: int, told: list[tuple[int, str]], tell: Callable[[int], Any]
) -> Callable[[], dict[str, Tensor]]:
    parts = model.components

    @torch.no_grad()
    def work() -> dict[str, Tensor]:
        rows = []
        for start in range(0, len(told), BATCH):
            chunk = told[start : start + BATCH]
            noise = torch.stack(
                [
                    sample_noise((*model.latent_rows, width), generator=torch.Generator().manual_seed(number))
                    for number, _ in chunk
                ]
            )
            predict = PlainPrediction(
                parts.unet,
                embed_prompt([text for _, text in chunk], parts.tokenizer, parts.text_encoder),
                embed_prompt([""] * len(chunk), parts.tokenizer, parts.text_encoder),
                model.default_guidance,
                model.interval,
            )
            scheduler = type(parts.scheduler).from_config(parts.scheduler.config)
            latents = denoise(predict, scheduler, noise.to(model.device), num_inference_steps=STEPS)
            rows.append((latents / parts.vae.config.scaling_factor + _shift(parts.vae)).cpu().half())
            tell(len(chunk))
        return {"mean": torch.cat(rows)[:, None]}

    return work


def _shift(vae: Any) -> float:
    return float(getattr(vae.config, "shift_factor", None) or 0.0)


def class_set(latents: Latents, texts: list[Tensor]) -> TrainSet:
    """Drawn clips as a set to train on: one text each, as they are."""
    count = len(texts)
    return TrainSet(
        latents, texts, ["a clip of the model's own"] * count, [0] * count, torch.ones(count, dtype=torch.bool),
        torch.zeros(1, dtype=torch.bool),
    )  # fmt: skip

"""What a fine-tuning run is asked for, checked, completed to suit the model, and kept in the run's folder."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch

from riff.diffusion.checkpoint import load_checkpoint
from riff.diffusion.model import DiffusionModel
from riff.prompt.learned_words import check_word
from riff.prompt.prior import MusicPrior
from riff.spectrogram.config import SpectrogramConfig
from riff.train.batches import MOSTLY, unknown_words
from riff.train.checkpoints import choose_precision
from riff.train.data.dataset import ClipSet, differing_fields, load_dataset
from riff.utils.errors import RiffError
from riff.utils.files import write_json

RECIPE_NAME = "recipe.json"
METHODS = ("lora", "full", "textual-inversion")
# What may change from one call to the next without changing what is learned.
FREE = (
    "max_train_steps", "validation_prompt", "validation_steps", "checkpointing_steps", "report_to", "license",
    "train_data_dir",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FineTuneConfig:
    """A fine-tuning run. Names are those of diffusers' training scripts where these have one; None suits the model.

    Attributes:
        train_data_dir: the data set's folder.
        pretrained_model_name_or_path: the model, as for :meth:`riff.RiffPipeline.from_pretrained`.
        method: "lora" (Hu et al., 2021), "full" (all of the UNet), or "textual-inversion" (one word only; Gal et al.,
            2022).
        trigger: a new word for what is learned; None takes the unknown word that most captions name, if there is one.
        initializer_token: word whose embedding the new word begins with.
        train_text_encoder: train the text encoder as well.
        rank: of the LoRA.
        lora_targets: "attention", or "attention+conv", which small models need.
        train_batch_size: clips per step and process.
        gradient_accumulation_steps: batches per optimizer step.
        max_train_steps: optimizer steps in all; None takes epochs, else as many as ``time_budget`` allows.
        num_train_epochs: in place of it, how often each clip is seen.
        time_budget: minutes of training where neither is given; 100 to 1500 steps.
        learning_rate: peak rate of AdamW.
        lr_scheduler: "cosine" or "constant".
        lr_warmup_steps: steps of linear rise.
        snr_gamma: Min-SNR weighting (Hang et al., 2023); None weighs all timesteps alike, as riff-mini was
            trained: with velocities Min-SNR leaves next to nothing of the noisiest ones, which decide on the music.
        max_grad_norm: gradients are scaled down to this norm.
        mixed_precision: "no", "fp16" or "bf16".
        gradient_checkpointing: less memory for more time.
        use_ema: end with a running average of the weights.
        ema_decay: of that average.
        use_8bit_adam: bitsandbytes' AdamW.
        caption_dropout: share of captions replaced by the empty one.
        caption_shuffles: further texts of each caption with its tags in another order.
        augment_gain: decibels by which clips are also softer and louder; 0 is none.
        augment_pitch: semitones by which clips without a key in their caption are also lower and higher.
        augment_shift: let clips begin at any of their bars, the end leading back into the start.
        with_prior_preservation: learn clips that the model drew itself beside the new ones.
        class_prompts: of these clips: a text file, or "auto".
        num_class_images: how many of them.
        prior_loss_weight: of their loss.
        validation_prompt: drawn while training and at the end.
        validation_steps: steps between measurements of the validation loss, and between drawings.
        checkpointing_steps: steps between checkpoints.
        report_to: tracker of accelerate's.
        license: of what comes out, for its card.
        seed: of everything random.
    """

    train_data_dir: str
    pretrained_model_name_or_path: str = "riff-mini"
    method: str = "lora"
    trigger: str | None = None
    initializer_token: str | None = None
    train_text_encoder: bool = False
    rank: int = 16
    lora_targets: str | None = None
    train_batch_size: int | None = None
    gradient_accumulation_steps: int = 1
    max_train_steps: int | None = None
    num_train_epochs: int | None = None
    time_budget: float = 12.0
    learning_rate: float | None = None
    lr_scheduler: str = "cosine"
    lr_warmup_steps: int = 20
    snr_gamma: float | None = None
    max_grad_norm: float = 1.0
    mixed_precision: str | None = None
    gradient_checkpointing: bool = False
    use_ema: bool = True
    ema_decay: float = 0.995
    use_8bit_adam: bool = False
    caption_dropout: float = 0.0
    caption_shuffles: int = 2
    augment_gain: float = 0.0
    augment_pitch: int = 0
    augment_shift: bool = False
    with_prior_preservation: bool | None = None
    class_prompts: str = "auto"
    num_class_images: int = 96
    prior_loss_weight: float = 1.0
    validation_prompt: tuple[str, ...] = ()
    validation_steps: int = 250
    checkpointing_steps: int = 250
    report_to: str = "tensorboard"
    license: str = "other"
    seed: int = 0

    def __post_init__(self) -> None:
        choices: dict[str, tuple[Any, ...]] = {
            "method": METHODS,
            "lora_targets": (None, "attention", "attention+conv"),
            "lr_scheduler": ("cosine", "constant"),
            "mixed_precision": (None, "no", "fp16", "bf16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise RiffError(f"{name} is {getattr(self, name)!r}; use one of {[x for x in allowed if x]}")
        least = {
            "rank": 1, "train_batch_size": 1, "gradient_accumulation_steps": 1, "max_train_steps": 1,
            "num_train_epochs": 1, "validation_steps": 1, "checkpointing_steps": 1, "num_class_images": 1,
            "lr_warmup_steps": 0, "seed": 0, "time_budget": 0, "max_grad_norm": 0, "learning_rate": 0,
            "prior_loss_weight": 0, "caption_shuffles": 0, "caption_dropout": 0, "ema_decay": 0,
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not low <= value < float("inf"):
                raise RiffError(f"{name} is {value!r}; use a number of at least {low}")
        for name in ("caption_dropout", "ema_decay"):
            if getattr(self, name) >= 1:
                raise RiffError(f"{name} is {getattr(self, name)!r}; use a number below 1")
        if self.learning_rate == 0:
            raise RiffError("learning_rate is 0, with which nothing is learned; use a number such as 0.001")
        if self.method == "textual-inversion" and self.train_text_encoder:
            raise RiffError("textual-inversion learns one word and leaves the text encoder; drop train_text_encoder")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {**dataclasses.asdict(self), "validation_prompt": list(self.validation_prompt)}


@dataclasses.dataclass(frozen=True)
class SavedRecipe:
    """What a run was asked for when it began, what was settled, and a hash of the data set."""

    asked: FineTuneConfig
    settled: FineTuneConfig
    data: str

    @classmethod
    def load(cls, run: Path) -> "SavedRecipe | None":
        """That of a run; None where the run is new.

        Raises:
            RiffError: the folder holds other things than a run, or its recipe is damaged.
        """
        path = run / RECIPE_NAME
        if not path.is_file():
            if run.exists() and not run.is_dir():
                raise RiffError(f"{run} is a file; give the folder of the run")
            if run.is_dir() and any(each.name != "cache" for each in run.iterdir()):
                raise RiffError(f"{run} holds files but no {RECIPE_NAME}, so it is no run of riff train; use another")
            return None
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return cls(_from_dict(fields["asked"]), _from_dict(fields["settled"]), str(fields["data"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RiffError(f"{path} is damaged ({error}); restore it, or begin a new run elsewhere") from error

    @classmethod
    def expect(cls, run: Path) -> "SavedRecipe":
        """That of a run that has one."""
        found = cls.load(run)
        if found is None:
            raise RiffError(f"{run / RECIPE_NAME} is missing; all processes must see the same folder")
        return found

    def save(self, run: Path) -> None:
        """Write it into the run's folder."""
        run.mkdir(parents=True, exist_ok=True)
        fields = {"asked": self.asked.to_dict(), "settled": self.settled.to_dict(), "data": self.data}
        write_json(run / RECIPE_NAME, fields)

    def continued(self, asked: FineTuneConfig, data: str) -> FineTuneConfig:
        """The settled recipe, with what may change as it is asked for now.

        Raises:
            RiffError: something else has changed; every change is named.
        """
        old, new = self.asked.to_dict(), asked.to_dict()
        changed = [
            f"{name} {old[name]!r} -> {new[name]!r}" for name in old if name not in FREE and old[name] != new[name]
        ]
        if data != self.data:
            changed.append(f"the clips or captions of {asked.train_data_dir}")
        if changed:
            raise RiffError(
                f"this run was begun otherwise: {', '.join(changed)}; begin a new one in another folder, "
                "or give what it was begun with"
            )
        free = {name: getattr(asked, name) for name in FREE if new[name] != old[name] and new[name] is not None}
        return dataclasses.replace(self.settled, **free)


def _from_dict(fields: dict[str, Any]) -> FineTuneConfig:
    return FineTuneConfig(**{**fields, "validation_prompt": tuple(fields["validation_prompt"])})


def prompts_of(recipe: FineTuneConfig) -> tuple[str, ...]:
    """The validation prompts asked for, else the trigger word, else one that any model can draw."""
    return recipe.validation_prompt or ((recipe.trigger,) if recipe.trigger else ("piano",))


# WAS riff/train/settle.py: What a fine-tuning run begins with, and what of its recipe is chosen to suit it.

# Learning rates for riff's own small models and for Stable Diffusion's.
RATES = {"lora": (1e-3, 1e-4), "full": (2e-4, 1e-5), "textual-inversion": (5e-3, 5e-3)}
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """The model that a run begins with.

    Attributes:
        parts: the StableDiffusionPipeline that holds its parts.
        config: of its pictures.
        prior: the music prior of riff's own models, else None.
        name: as it was asked for.
    """

    parts: Any
    config: SpectrogramConfig
    prior: MusicPrior | None
    name: str

    @property
    def closed(self) -> bool:
        """Whether it is one of riff's own, whose vocabulary is closed."""
        return self.prior is not None

    @property
    def model(self) -> DiffusionModel:
        """The same parts, as those who draw need them."""
        return DiffusionModel(self.parts, self.config, self.prior, self.name)


@dataclasses.dataclass(frozen=True)
class Data:
    """The clips of a data set, in sets of one width.

    Attributes:
        train: to train on.
        validation: held out; may be empty.
        config: of the pictures.
    """

    train: list[ClipSet]
    validation: list[ClipSet]
    config: SpectrogramConfig

    @property
    def digest(self) -> str:
        """Changes whenever clips or captions do."""
        told = [[each.width, each.clips] for each in (*self.train, *self.validation)]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def open_data(recipe: FineTuneConfig) -> Data:
    """The recipe's data set."""
    return Data(*load_dataset(recipe.train_data_dir))


def load_base(recipe: FineTuneConfig, data: Data, device: torch.device) -> BaseModel:
    """Load the recipe's model.

    Raises:
        ModelError: it cannot be loaded.
        RiffError: its pictures are of another kind or cannot be of the width of the data set's.
    """
    parts, config, prior = load_checkpoint(recipe.pretrained_model_name_or_path, device=device)
    base = BaseModel(parts, config, prior, recipe.pretrained_model_name_or_path)
    if wrong := differing_fields(data.config, config):
        raise RiffError(
            f"the pictures of {recipe.train_data_dir} and those of the model {base.name} are of different kinds: "
            f"{wrong}; nothing is rescaled silently, so prepare the music again for this model"
        )
    multiple = base.model.multiple
    for each in (*data.train, *data.validation):
        if each.width % multiple:
            raise RiffError(
                f"{len(each)} pictures of {recipe.train_data_dir} are {each.width} columns wide; this model takes "
                f"multiples of {multiple}, so cut them or prepare the music again"
            )
    return base


def resolve_recipe(recipe: FineTuneConfig, base: BaseModel, data: Data) -> FineTuneConfig:
    """The recipe with everything chosen that it left open, except a number of steps that the time allows."""
    small = base.closed
    chosen = {
        "lora_targets": "attention+conv" if small else "attention",
        "train_batch_size": 8 if small else 1,
        "learning_rate": RATES[recipe.method][0 if small else 1],
        "mixed_precision": choose_precision(base.parts.unet.device),
        "with_prior_preservation": small and recipe.method != "textual-inversion",
    }
    fields: dict[str, Any] = {name: value for name, value in chosen.items() if getattr(recipe, name) is None}
    settled = dataclasses.replace(recipe, **fields, trigger=_choose_trigger(recipe, base, data))
    if settled.max_train_steps is None and settled.num_train_epochs is not None:
        size = (settled.train_batch_size or 1) * settled.gradient_accumulation_steps
        batches = sum(-(-len(each) // size) for each in data.train)
        settled = dataclasses.replace(settled, max_train_steps=batches * settled.num_train_epochs)
    return settled


def _choose_trigger(recipe: FineTuneConfig, base: BaseModel, data: Data) -> str | None:
    """The word asked for, else one that most captions name and that a closed vocabulary lacks."""
    asked = None if recipe.trigger is None else check_word(recipe.trigger)
    unknown = unknown_words(data.train, base.parts.tokenizer) if base.closed else []
    found = asked or next((word for word, share in unknown if share >= MOSTLY), None)
    if found is not None and asked is None:
        logger.info("the word %r is new to the model and in most captions: it is taught as the trigger word", found)
    if rest := [word for word, _ in unknown if word != found]:
        logger.info("the model does not know %s; those words are left out", ", ".join(rest[:20]))
    if found is None and recipe.method == "textual-inversion":
        raise RiffError("textual-inversion learns one new word; give it with --trigger")
    return found

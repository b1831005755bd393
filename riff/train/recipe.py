"""The request of a fine-tuning run, checked, completed to suit model and data, and kept in the run's folder."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch

from riff.diffusion.checkpoint import load_checkpoint
from riff.diffusion.model import DiffusionModel
from riff.prompt.vocabulary import check_word
from riff.spectrogram.config import SpectrogramConfig
from riff.train.batches import unknown_words
from riff.train.data.dataset import ClipSet, load_dataset
from riff.train.data.images import differing_fields
from riff.train.processes import choose_precision
from riff.train.settings import LoopSettings
from riff.utils.errors import RiffError
from riff.utils.files import write_json

RECIPE_NAME = "recipe.json"
METHODS = ("lora", "full", "textual-inversion")
MOSTLY = 0.8  # share of the clips that must name an unknown word before it is taken for the trigger word
CLASS_CLIPS = 48
# Learning rates for riff's own small models and for Stable Diffusion's.
RATES = {"lora": (1e-3, 1e-4), "full": (2e-4, 1e-5), "textual-inversion": (5e-3, 5e-3)}
# What may change from one call to the next without changing what is learned.
FREE = (
    "max_train_steps", "validation_prompt", "validation_steps", "checkpointing_steps", "report_to", "license",
    "train_data_dir",
)  # fmt: skip
# Names of diffusers' training scripts to those of the loop.
_LOOP_NAMES = {"max_train_steps": "steps", "lr_warmup_steps": "warmup_steps"} | {
    name: name
    for name in (
        "learning_rate", "lr_scheduler", "max_grad_norm", "ema_decay", "mixed_precision", "checkpointing_steps",
        "validation_steps", "gradient_accumulation_steps", "use_8bit_adam", "report_to", "seed",
    )
}  # fmt: skip
_UNRESOLVED = LoopSettings(
    steps=None, learning_rate=None, mixed_precision=None, warmup_steps=20, ema_decay=0.995, checkpointing_steps=250,
    validation_steps=250, preview_steps=250,
)  # fmt: skip
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FineTuneConfig:
    """A fine-tuning run; :meth:`from_options` takes all options flat, under the names of diffusers' training scripts.

    None suits the model.

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
        num_train_epochs: in place of a number of steps, how often each clip is seen.
        time_budget: minutes in all where neither is given, for 100 to 1500 steps.
        snr_gamma: Min-SNR weighting (Hang et al., 2023); None weighs all timesteps alike, as riff-mini was
            trained: with velocities Min-SNR leaves next to nothing of the noisiest ones, which decide on the music.
        gradient_checkpointing: less memory for more time.
        caption_dropout: share of captions replaced by the empty one.
        caption_shuffles: further texts of each caption with its tags in another order.
        augment_gain: decibels by which clips are also softer and louder; 0 is none.
        augment_pitch: semitones by which clips without a key in their caption are also lower and higher.
        augment_shift: begin clips at any of their bars.
        with_prior_preservation: learn clips of the model's own beside the new ones, so that it forgets less.
        class_prompts: their prompts: "auto", or a text file with one a line.
        num_class_images: how many of them; None as many as a third of the time allows, 48 at most.
        prior_loss_weight: of their loss.
        validation_prompt: generated during training and at the end.
        license: of what comes out, for its card.
        loop: number of steps, learning rate and all else of the training loop.
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
    num_train_epochs: int | None = None
    time_budget: float = 12.0
    snr_gamma: float | None = None
    gradient_checkpointing: bool = False
    caption_dropout: float = 0.0
    caption_shuffles: int = 2
    augment_gain: float = 0.0
    augment_pitch: int = 0
    augment_shift: bool = False
    with_prior_preservation: bool | None = None
    class_prompts: str = "auto"
    num_class_images: int | None = None
    prior_loss_weight: float = 1.0
    validation_prompt: tuple[str, ...] = ()
    license: str = "other"
    loop: LoopSettings = _UNRESOLVED

    def __post_init__(self) -> None:
        for name, allowed in (("method", METHODS), ("lora_targets", (None, "attention", "attention+conv"))):
            if getattr(self, name) not in allowed:
                raise RiffError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(filter(None, allowed))}")
        least = {
            "rank": 1, "train_batch_size": 1, "num_train_epochs": 1, "num_class_images": 1, "time_budget": 0,
            "prior_loss_weight": 0, "caption_shuffles": 0, "caption_dropout": 0,
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not low <= value < float("inf"):
                raise RiffError(f"{name} is {value!r}; use a number of at least {low}")
        if self.caption_dropout >= 1:
            raise RiffError(f"caption_dropout is {self.caption_dropout!r}; use a number below 1")
        if self.loop.learning_rate == 0:
            raise RiffError("learning_rate is 0, with which nothing is learned; use a number such as 0.001")
        if self.method == "textual-inversion" and self.train_text_encoder:
            raise RiffError("textual-inversion learns one word and leaves the text encoder; drop train_text_encoder")

    @classmethod
    def from_options(
        cls, train_data_dir: str, pretrained_model_name_or_path: str = "riff-mini", **options: Any
    ) -> "FineTuneConfig":
        """The run that options ask for, such as ``max_train_steps=500``; ``use_ema=False`` keeps no average."""
        loop = {_LOOP_NAMES[name]: options.pop(name) for name in list(options) if name in _LOOP_NAMES}
        if "validation_steps" in loop:
            loop["preview_steps"] = loop["validation_steps"]
        if not options.pop("use_ema", True):
            loop["ema_decay"] = 0.0
        if "validation_prompt" in options:
            options["validation_prompt"] = tuple(options["validation_prompt"])
        if unknown := set(options) - {field.name for field in dataclasses.fields(cls)}:
            raise RiffError(f"{sorted(unknown)[0]!r} is no option of a fine-tuning run; use {', '.join(cls.names())}")
        return cls(
            train_data_dir, pretrained_model_name_or_path, **options, loop=dataclasses.replace(_UNRESOLVED, **loop)
        )

    @classmethod
    def names(cls) -> list[str]:
        """The options of :meth:`from_options`."""
        own = [field.name for field in dataclasses.fields(cls) if field.name not in ("train_data_dir", "loop")]
        return [*own, *_LOOP_NAMES, "use_ema"]

    def to_options(self) -> dict[str, Any]:
        """The inverse of :meth:`from_options`, as plain JSON values."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "loop"}
        loop = {name: getattr(self.loop, known) for name, known in _LOOP_NAMES.items()}
        return {**own, "validation_prompt": list(self.validation_prompt), **loop}

    @property
    def prompts(self) -> tuple[str, ...]:
        """The validation prompts, else the trigger word, else a prompt for any model."""
        return self.validation_prompt or ((self.trigger,) if self.trigger else ("piano",))

    def with_loop(self, **changes: Any) -> "FineTuneConfig":
        """The same with other settings of the loop."""
        return dataclasses.replace(self, loop=dataclasses.replace(self.loop, **changes))


@dataclasses.dataclass(frozen=True)
class SavedRecipe:
    """The request that began a run, what it was resolved to, and a hash of the data set."""

    requested: FineTuneConfig
    resolved: FineTuneConfig
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
            # A run that was stopped while it prepared has these two only.
            if run.is_dir() and any(each.name not in ("cache", "summary.json") for each in run.iterdir()):
                raise RiffError(f"{run} holds files but no {RECIPE_NAME}, so it is no run of riff train; use another")
            return None
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            requested, resolved = (FineTuneConfig.from_options(**fields[name]) for name in ("asked", "settled"))
            return cls(requested, resolved, str(fields["data"]))
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
        fields = {"asked": self.requested.to_options(), "settled": self.resolved.to_options(), "data": self.data}
        write_json(run / RECIPE_NAME, fields)

    def continued(self, requested: FineTuneConfig, data: str) -> FineTuneConfig:
        """The resolved recipe, with the values that may change as they are requested now.

        Raises:
            RiffError: something else has changed; every change is named.
        """
        old, new = self.requested.to_options(), requested.to_options()
        changed = [
            f"{name} {old[name]!r} -> {new[name]!r}" for name in old if name not in FREE and old[name] != new[name]
        ]
        if data != self.data:
            changed.append(f"the clips or captions of {requested.train_data_dir}")
        if changed:
            raise RiffError(
                f"this run was begun otherwise: {', '.join(changed)}; begin a new one in another folder, "
                "or give what it was begun with"
            )
        free = {name: new[name] for name in FREE if new[name] != old[name] and new[name] is not None}
        return FineTuneConfig.from_options(**self.resolved.to_options() | free)


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The clips of a data set, in sets of one width.

    Attributes:
        train: to train on.
        validation: held out; may be empty.
        config: of the images.
    """

    train: list[ClipSet]
    validation: list[ClipSet]
    config: SpectrogramConfig

    @property
    def digest(self) -> str:
        """Changes whenever clips or captions do."""
        known = [[each.width, each.clips] for each in (*self.train, *self.validation)]
        return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]


def load_data(recipe: FineTuneConfig) -> TrainingData:
    """The recipe's data set."""
    data = TrainingData(*load_dataset(recipe.train_data_dir))
    if not any(text for each in data.train for clip in each.clips for text in clip["captions"]):
        logger.warning("no clip of %s has a caption; prepare it with some, or give --trigger", recipe.train_data_dir)
    return data


def load_base(recipe: FineTuneConfig, data: TrainingData, device: torch.device) -> DiffusionModel:
    """Load the recipe's model.

    Raises:
        ModelError: it cannot be loaded.
        RiffError: its images are of another kind or cannot be of the width of the data set's.
    """
    name = recipe.pretrained_model_name_or_path
    components, config, prior = load_checkpoint(name, device=device)
    model = DiffusionModel(components, config, prior, name)
    if wrong := differing_fields(data.config, config):
        raise RiffError(
            f"the images of {recipe.train_data_dir} and those of the model {name} are of different kinds: "
            f"{wrong}; nothing is rescaled silently, so prepare the music again for this model"
        )
    for each in (*data.train, *data.validation):
        if each.width % model.multiple:
            raise RiffError(
                f"{len(each)} images of {recipe.train_data_dir} are {each.width} columns wide; this model takes "
                f"multiples of {model.multiple}, so cut them or prepare the music again"
            )
    return model


def resolve_recipe(recipe: FineTuneConfig, model: DiffusionModel, data: TrainingData) -> FineTuneConfig:
    """The recipe with everything chosen that it left open, except what the time decides."""
    small = model.prior is not None
    chosen = {
        "lora_targets": "attention+conv" if small else "attention",
        "train_batch_size": 8 if small else 1,
        "with_prior_preservation": small and recipe.method != "textual-inversion",
    }
    loop = {"learning_rate": RATES[recipe.method][0 if small else 1], "mixed_precision": choose_precision(model.device)}
    fields: dict[str, Any] = {name: value for name, value in chosen.items() if getattr(recipe, name) is None}
    recipe = dataclasses.replace(recipe, **fields, trigger=_choose_trigger(recipe, model, data))
    recipe = recipe.with_loop(**{name: value for name, value in loop.items() if getattr(recipe.loop, name) is None})
    if recipe.loop.steps is None and recipe.num_train_epochs is not None:
        size = (recipe.train_batch_size or 1) * recipe.loop.gradient_accumulation_steps
        batches = sum(-(-len(each) // size) for each in data.train)
        recipe = recipe.with_loop(steps=batches * recipe.num_train_epochs)
    return recipe


def _choose_trigger(recipe: FineTuneConfig, model: DiffusionModel, data: TrainingData) -> str | None:
    """The trigger word that was given, else one that most captions name and that a closed vocabulary lacks."""
    given = None if recipe.trigger is None else check_word(recipe.trigger)
    unknown = unknown_words(data.train, model.components.tokenizer) if model.prior is not None else []
    found = given or next((word for word, share in unknown if share >= MOSTLY), None)
    if found is not None and given is None:
        logger.info("the word %r is new to the model and in most captions: it becomes the trigger word", found)
    if rest := [word for word, _ in unknown if word != found]:
        more = f" and {len(rest) - 20} more" if len(rest) > 20 else ""
        logger.info("the model does not know %s%s; those words are left out", ", ".join(rest[:20]), more)
    if found is None and recipe.method == "textual-inversion":
        raise RiffError("textual-inversion learns one new word; give it with --trigger")
    return found

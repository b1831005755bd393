"""What a fine-tuning run begins with, and what of its recipe is chosen to suit it."""

import dataclasses
import hashlib
import json
import logging
from typing import Any

import torch

from riff.checkpoint import load_checkpoint
from riff.config import SpectrogramConfig
from riff.dataset import ClipSet, load_dataset
from riff.errors import RiffError
from riff.model import Model
from riff.pictures import differing_fields
from riff.prior import MusicPrior
from riff.train.captions import MOSTLY, unknown_words
from riff.train.processes import choose_precision
from riff.train.recipe import Recipe
from riff.trigger import check_word

# Learning rates for riff's own small models and for Stable Diffusion's.
RATES = {"lora": (1e-3, 1e-4), "full": (2e-4, 1e-5), "textual-inversion": (5e-3, 5e-3)}
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Base:
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
    def model(self) -> Model:
        """The same parts, as those who draw need them."""
        return Model(self.parts, self.config, self.prior, self.name)


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


def open_data(recipe: Recipe) -> Data:
    """The recipe's data set."""
    return Data(*load_dataset(recipe.train_data_dir))


def load_base(recipe: Recipe, data: Data, device: torch.device) -> Base:
    """Load the recipe's model.

    Raises:
        ModelError: it cannot be loaded.
        RiffError: its pictures are of another kind or cannot be of the width of the data set's.
    """
    parts, config, prior = load_checkpoint(recipe.pretrained_model_name_or_path, device=device)
    base = Base(parts, config, prior, recipe.pretrained_model_name_or_path)
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


def settle(recipe: Recipe, base: Base, data: Data) -> Recipe:
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


def _choose_trigger(recipe: Recipe, base: Base, data: Data) -> str | None:
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

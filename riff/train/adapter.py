"""What a fine-tuning run changes of a model: LoRA adapters, whole networks, the embedding of one new word."""

import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from riff.diffusion.model import DiffusionModel
from riff.prompt.learned_words import EMBEDS_NAME, add_token, is_one_token, write_words
from riff.train.recipe import FineTuneConfig
from riff.utils.errors import RiffError
from riff.utils.files import atomic_path

WORD_LEARNING_RATE = 1e-3  # of a new word's embedding, whatever the rest's is
LORA_NAME = "pytorch_lora_weights.safetensors"
ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
# The convolutions and projections beside the attention, as kohya's and LyCORIS' trainers offer them.
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "proj_in", "proj_out", "time_emb_proj", "ff.net.0.proj", "ff.net.2")
TARGETS = {"attention": ATTENTION, "attention+conv": (*ATTENTION, *CONVOLUTIONS)}
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
logger = logging.getLogger(__name__)


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

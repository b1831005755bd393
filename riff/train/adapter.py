"""What a fine-tuning run changes of a model: LoRA adapters, whole networks, the embedding of one new word."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from riff.files import atomic_path
from riff.trigger import EMBEDS_NAME, add_word, write_words

Method = Literal["lora", "full", "textual-inversion"]
LORA_NAME = "pytorch_lora_weights.safetensors"
ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
# The convolutions and projections beside the attention, as kohya's and LyCORIS' trainers offer them.
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "proj_in", "proj_out", "time_emb_proj", "ff.net.0.proj", "ff.net.2")
TARGETS = {"attention": ATTENTION, "attention+conv": (*ATTENTION, *CONVOLUTIONS)}
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


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
        number = add_word(word, start, parts.tokenizer, text_encoder)
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

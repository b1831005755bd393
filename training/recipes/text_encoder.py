"""Teaching the text encoder what captions mean before the UNet listens to it: it predicts the truth from the words.

The composer writes captions by the thousand without playing a note, so words cost nothing here, while every
sample of the UNet's training costs a picture.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from riff.music.theory import KEYS
from riff.train.loop import train
from riff.train.settings import LoopSettings
from training.composer.arrange import HELD_OUT_SEEDS
from training.composer.captions import EvalKind, caption, eval_prompt
from training.composer.excerpt import excerpts
from training.composer.genres import GENRES
from training.composer.score import Truth

_CHOICES = ("genre", "lead", "keyscale", "mood", "density", "section", "beats_per_bar", "swing", "has_drums")
# A key is two or three words that mean nothing alone: without the weight it was still unread after 400 steps.
_KEY_WEIGHT = 4.0
_PROBES: tuple[tuple[EvalKind, str], ...] = (
    ("plain", "genre"),
    ("paraphrase", "genre"),
    ("lead", "lead"),
    ("key", "keyscale"),
)


@dataclasses.dataclass(frozen=True)
class TextObjective:
    """How captions are drawn.

    Attributes:
        pieces: pieces whose truths are captioned, anew at every step.
        batch_size: captions per step.
    """

    pieces: int = 20000
    batch_size: int = 96


class TextReader(nn.Module):
    """The text encoder with one linear reading of its mean state for everything a caption may tell.

    The mean over all tokens is what the UNet's pooled text embedding and the music prior start from as well.
    """

    def __init__(self, text_encoder: Any, truths: list[Truth]):
        super().__init__()
        self.text_encoder = text_encoder
        values = {name: sorted({getattr(truth, name) for truth in truths}, key=str) for name in _CHOICES}
        self.values = values | {"genre": sorted(GENRES), "keyscale": list(KEYS)}
        self.instruments = sorted({name for truth in truths for name in truth.instruments})
        width = text_encoder.config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(kinds)) for name, kinds in self.values.items()})
        self.sounding = nn.Linear(width, len(self.instruments))
        self.tempo = nn.Linear(width, 1)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """(B, tokens) to logits: (B, classes) for each choice, (B, I) ``instruments``, (B,) ``tempo``."""
        mean = self.text_encoder(input_ids).last_hidden_state.mean(dim=1)
        readings = {name: head(mean).float() for name, head in self.heads.items()}
        return readings | {
            "instruments": self.sounding(mean).float(),
            "tempo": self.tempo(mean).float()[:, 0],
        }

    def loss(self, readings: dict[str, Tensor], truths: list[Truth]) -> Tensor:
        """Sum of cross entropies; tempo, in octaves from 100 beats per minute, by its squared error."""
        device = readings["tempo"].device
        total = torch.zeros((), device=device)
        for name, values in self.values.items():
            wanted = [values.index(getattr(truth, name)) for truth in truths]
            error = functional.cross_entropy(readings[name], torch.tensor(wanted, device=device))
            total = total + (_KEY_WEIGHT if name == "keyscale" else 1.0) * error
        present = torch.tensor([[float(name in truth.instruments) for name in self.instruments] for truth in truths])
        sounding = functional.binary_cross_entropy_with_logits(readings["instruments"], present.to(device))
        octaves = (torch.tensor([truth.bpm for truth in truths]) / 100.0).log2().to(device)
        return total + 10.0 * sounding + 4.0 * (readings["tempo"] - octaves).pow(2).mean()


def truths_of(seeds: range) -> list[Truth]:
    """The truths of the windows that the dataset takes from the pieces with these seeds."""
    return [truth for seed in seeds for score in excerpts(seed) for truth in score.windows]


def token_ids(texts: list[str], tokenizer: Any) -> Tensor:
    """(B, tokens) int64, padded as prompts are."""
    tokens = tokenizer.model_max_length
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=tokens, return_tensors="pt")
    ids: Tensor = encoded.input_ids
    return ids


@torch.no_grad()
def understanding(reader: TextReader, tokenizer: Any, truths: list[Truth]) -> dict[str, float]:
    """Share of evaluation prompts whose asked attribute is read rightly, for each kind of prompt."""
    shares: dict[str, float] = {}
    for kind, name in _PROBES:
        rng = random.Random(f"probe {kind}")
        asked = [truth for truth in truths if getattr(truth, name)]
        prompts = [eval_prompt(truth, rng, kind=kind) for truth in asked]
        device = next(reader.parameters()).device
        guessed = reader(token_ids(prompts, tokenizer).to(device))[name].argmax(dim=1).tolist()
        values = reader.values[name]
        shares[kind] = sum(values[g] == getattr(t, name) for g, t in zip(guessed, asked, strict=True)) / len(asked)
    return shares


def train_text(
    text_encoder: Any,
    tokenizer: Any,
    objective: TextObjective,
    settings: LoopSettings,
    run: Path,
    *,
    until: int | None = None,
) -> bool:
    """Train ``text_encoder`` in place on captions alone; see :func:`riff.train.loop.train`.

    ``understood/...`` in the log is the share of held-out evaluation prompts that the linear readings get right.
    """
    truths = truths_of(range(objective.pieces))
    held_out = truths_of(HELD_OUT_SEEDS[:150])
    torch.manual_seed(settings.seed)
    reader = TextReader(text_encoder, truths)

    def batch_loss(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = torch.randint(len(truths), (objective.batch_size,), generator=generator).tolist()
        rng = random.Random(int(torch.randint(2**62, (1,), generator=generator)))
        told = [truths[index] for index in chosen]
        # The longest of three captions tells the most.
        texts = [max((caption(truth, rng) for _ in range(3)), key=len) for truth in told]
        ids = token_ids(texts, tokenizer)
        return reader.loss(model(ids.to(next(model.parameters()).device)), told), {}

    def preview(model: Any, step: int, writer: Any) -> None:
        for kind, share in understanding(model, tokenizer, held_out).items():
            writer.add_scalar(f"understood/{kind}", share, step)

    return train(reader, batch_loss, settings, run, preview=preview, until=until)

"""A judge of latents, small enough to stand in the denoiser's training loop: genre, lead instrument and key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from riff.evaluate import KEYS
from riff.train.loop import LoopSettings, train

NONE = -100  # what cross_entropy leaves out


@dataclass(frozen=True)
class Lessons:
    """Latents with what is true of them.

    Attributes:
        latents: (n, L, H, W) float16.
        targets: (n, 3) int64: genre, lead (-100 where there is none) and key.
        counts: how many genres, leads and keys there are.
    """

    latents: Tensor
    targets: Tensor
    counts: tuple[int, int, int]


def make_lessons(latents: Tensor, clips: list[dict[str, Any]], known: Sequence[dict[str, Any]] = ()) -> Lessons:
    """Pair latents (n, L, H, W) with the composer's truths about them.

    Genres and leads are numbered as in the ``known`` clips, where there are any; what those lack is not told.
    """
    genres = sorted({clip["genre"] for clip in known or clips})
    leads = sorted({clip["lead"] for clip in known or clips if clip["lead"]})
    rows = [
        (
            genres.index(clip["genre"]) if clip["genre"] in genres else NONE,
            leads.index(clip["lead"]) if clip["lead"] in leads else NONE,
            KEYS.index(clip["keyscale"]),
        )
        for clip in clips
    ]
    return Lessons(latents, torch.tensor(rows), (len(genres), len(leads), len(KEYS)))


class LatentJudge(nn.Module):
    """Convolutions over latents that keep the rows, which are pitch, apart and pool over time."""

    def __init__(self, channels: int, rows: int, counts: tuple[int, int, int], width: int = 96) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _layer(channels + 1, width, (1, 1)),
            _layer(width, width, (1, 2)),
            _layer(width, width, (2, 2)),
            _layer(width, width, (1, 1)),
            _layer(width, 64, (1, 1)),
        )
        self.dropout = nn.Dropout(0.3)
        self.heads = nn.ModuleList(nn.Linear(64 * (rows // 2) * 2, count) for count in counts)

    def forward(self, latents: Tensor) -> list[Tensor]:
        """(B, L, H, W) to logits (B, genres), (B, leads), (B, keys)."""
        height = torch.linspace(1.0, -1.0, latents.shape[-2], device=latents.device)
        seen = self.body(torch.cat([latents, height[:, None].expand_as(latents[:, :1])], dim=1))
        pooled = self.dropout(torch.cat([seen.mean(-1), seen.amax(-1)], dim=1).flatten(1))
        return [head(pooled) for head in self.heads]


def _layer(inputs: int, outputs: int, stride: tuple[int, int]) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


def blemish(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, scale and noise latents a little, as an unfinished drawing is; a judge must not hang on details."""

    def draw(low: float, high: float) -> Tensor:
        shares = torch.rand(len(latents), 1, 1, 1, generator=generator)
        return (low + (high - low) * shares).to(latents)

    soft = functional.avg_pool2d(functional.pad(latents, (1, 1, 1, 1), mode="replicate"), 3, 1)
    mixed = latents + draw(-0.5, 0.8).clamp_min(0.0) * (soft - latents)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    return mixed * draw(0.85, 1.15) + noise * draw(-0.1, 0.4).clamp_min(0.0)


def train_judge(lessons: Lessons, settings: LoopSettings, run: Path, *, batch_size: int) -> LatentJudge | None:
    """Train a judge on lessons; None if it was interrupted, see :func:`riff.train.loop.train`."""
    torch.manual_seed(settings.seed)
    judge = LatentJudge(lessons.latents.shape[1], lessons.latents.shape[2], lessons.counts)

    def batch_loss(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = torch.randint(len(lessons.latents), (batch_size,), generator=generator)
        device = next(model.parameters()).device
        latents = blemish(lessons.latents[chosen].float(), generator)
        return judgement(model(latents.to(device)), lessons.targets[chosen].to(device)), {}

    finished = train(judge, batch_loss, settings, run)
    return judge.eval().requires_grad_(False) if finished else None


def judgement(
    logits: list[Tensor],
    targets: Tensor,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    content: float = 0.0,
) -> Tensor:
    """Weighed sum of the cross entropies of genre, lead and key; what is not told, -100, counts nothing.

    Of each clip's cross entropy only what is over ``content`` counts: a clip that is recognised already asks nothing.
    """
    total = torch.zeros((), device=targets.device)
    for read, wanted, weight in zip(logits, targets.T, weights, strict=True):
        told = wanted != NONE
        if bool(told.any()):
            entropies = functional.cross_entropy(read[told], wanted[told], reduction="none")
            total = total + weight * (entropies - content).clamp_min(0.0).mean()
    return total


@torch.no_grad()
def accuracies(judge: LatentJudge, lessons: Lessons) -> list[float]:
    """How often the judge is right about genre, lead and key of latents, where there is a truth."""
    parts = [judge(part.float()) for part in lessons.latents.split(64)]
    found = []
    for logits, truth in zip(zip(*parts, strict=True), lessons.targets.T, strict=True):
        right = torch.cat(logits).argmax(1) == truth
        found.append(float(right[truth != NONE].float().mean()))
    return found

"""Teaching a trained denoiser to be recognised: a judge hears what it draws from noise, and its verdict is a loss.

The diffusion loss alone is slow to teach a lead instrument, which is a small part of a picture's energy. Here the
denoiser draws from noise by its own steps, and the gradient of a judge's cross entropy goes through the last of them
(Xu et al., 2023, "ImageReward", reward feedback learning). The diffusion loss beside it holds the distribution.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from riff.music.theory import KEYS
from riff.train.loop import train
from riff.train.settings import LoopSettings
from training.composer import genre_words, words
from training.recipes.denoiser import DenoiserObjective, LatentSet, velocity_errors

_KEY = re.compile(r"\b[a-g](#|b|-sharp|-flat| sharp| flat)? (major|minor|maj|min)\b")


@dataclasses.dataclass(frozen=True)
class ObedienceObjective:
    """How the denoiser is judged.

    Attributes:
        batch_size: drawings of a step, and clips of the diffusion loss beside them.
        weight: of the verdict against the diffusion loss.
        steps: of the schedule by which it draws.
        first: of these steps, the earliest whose prediction is judged.
        last: the latest.
        genre: weight of the genre in a verdict, in which the lead has 1.
        key: weight of the key.
        content: cross entropy with which the judge is content; without it clips go on becoming more typical than
            music is, long after they are recognised.
    """

    batch_size: int = 8
    weight: float = 0.1
    steps: int = 10
    first: int = 3
    last: int = 7
    genre: float = 0.25
    key: float = 0.25
    content: float = 0.25


def with_short_captions(clips: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The clips with two captions more each: no more than genre and lead, as people type them."""
    return [clip | {"captions": [*clip["captions"], *_short_captions(clip)]} for clip in clips]


def _short_captions(clip: dict[str, Any]) -> tuple[str, str]:
    genre, lead = genre_words.NAMES[clip["genre"]][0], clip["lead"]
    return (f"{genre}, {lead}", f"{genre} with {lead}") if lead else (genre, genre)


def told_of(clips: Sequence[dict[str, Any]]) -> Tensor:
    """Which captions name the lead, and which the key: (n, captions, 2) bool."""
    return torch.tensor([[_tells(text, clip["lead"]) for text in clip["captions"]] for clip in clips])


def _tells(text: str, lead: str) -> tuple[bool, bool]:
    names = (lead, *words.INSTRUMENTS.get(lead, ())) if lead else ()
    small = text.lower()
    return any(name.lower() in small for name in names), _KEY.search(small) is not None


# A judge of latents, small enough to stand in the denoiser's training loop: genre, lead instrument and key.


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


@dataclasses.dataclass(frozen=True)
class ObedienceLoss:
    """The verdict on what a denoiser draws, and the diffusion loss beside it: what :func:`riff.train.loop.train` asks.

    Attributes:
        scheduler: that it draws by; the denoiser predicts velocities.
        judge: of what is drawn.
        lessons: what is true of the latents, in their order.
        latents: with their captions.
        told: of :func:`told_of`, in their order.
        objective: how it is judged.
    """

    scheduler: Any
    judge: LatentJudge
    lessons: Lessons
    latents: LatentSet
    told: Tensor
    objective: ObedienceObjective

    def __call__(self, model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of one step, and its two parts for the log."""
        verdict, diffusion = self.verdict(model, generator), self.diffusion(model, generator)
        figures = {"loss/verdict": float(verdict.detach()), "loss/diffusion": float(diffusion.detach())}
        return self.objective.weight * verdict + diffusion, figures

    def verdict(self, model: nn.Module, generator: torch.Generator) -> Tensor:
        """The judge's cross entropy on what is drawn from noise for captions that name the lead."""
        ids, targets = self._wishes(generator)
        device = next(model.parameters()).device
        clean = self._draw(model, ids.to(device), generator)
        weights = (self.objective.genre, 1.0, self.objective.key)
        heard = self.judge.to(device)(blemish(clean, generator))
        return judgement(heard, targets.to(device), weights, self.objective.content)

    def _wishes(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Token ids (B, tokens) of captions, and the targets (B, 3) that they name."""
        targets, told = self.lessons.targets, self.told
        fitting = torch.nonzero((targets[:, 1] != NONE) & told[:, :, 0].any(1))[:, 0]
        chosen = fitting[torch.randint(len(fitting), (self.objective.batch_size,), generator=generator)]
        names_lead = told[chosen, :, 0]
        caption = (names_lead + torch.rand(names_lead.shape, generator=generator)).argmax(1)
        asked = targets[chosen].clone()
        asked[~told[chosen, caption, 1], 2] = NONE
        return self.latents.input_ids[chosen, caption].long(), asked

    def _draw(self, model: nn.Module, ids: Tensor, generator: torch.Generator) -> Tensor:
        """Clean latents as the model predicts them at a step on the way from noise; only that step has a gradient."""
        schedule = type(self.scheduler).from_config(self.scheduler.config)
        schedule.set_timesteps(self.objective.steps)
        last = int(torch.randint(self.objective.first, self.objective.last + 1, (1,), generator=generator))
        drawn = torch.randn((len(ids), *self.latents.latents.shape[1:]), generator=generator).to(ids.device)

        def velocity(timestep: Tensor) -> Tensor:
            found: Tensor = model(drawn, timestep.expand(len(ids)).to(ids.device), ids).float()
            return found

        with torch.no_grad():
            for timestep in schedule.timesteps[:last]:
                drawn = schedule.step(velocity(timestep), timestep, drawn).prev_sample
        timestep = schedule.timesteps[last]
        alpha = float(schedule.alphas_cumprod[timestep])
        return alpha**0.5 * drawn - (1.0 - alpha) ** 0.5 * velocity(timestep)

    def diffusion(self, model: nn.Module, generator: torch.Generator) -> Tensor:
        """The loss by which the denoiser was trained."""
        batch, ids = self.latents.batch(DenoiserObjective(batch_size=self.objective.batch_size), generator)
        errors, _ = velocity_errors(model, batch, ids, self.scheduler.alphas_cumprod, generator)
        return errors.mean()


NONE = -100  # what cross_entropy leaves out


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

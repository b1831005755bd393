"""Teaching a trained denoiser to be recognised: a judge hears what it draws from noise, and its verdict is a loss.

The diffusion loss alone is slow to teach a lead instrument, which is a small part of a picture's energy. Here the
denoiser draws from noise by its own steps, and the gradient of a judge's cross entropy goes through the last of them
(Xu et al., 2023, "ImageReward", reward feedback learning). The diffusion loss beside it holds the distribution.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from riff.train.denoiser import DenoiserObjective, LatentSet, velocity_errors
from training.composer import genre_words, words
from training.latent_judge import NONE, LatentJudge, Lessons, blemish, judgement

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

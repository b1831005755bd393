"""From plans to clips: the pictures of one call drawn side by side, played, and drawn again until the key is right."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from riff.clip import Clip, play
from riff.inversion import Quality
from riff.model import Model, Sampling
from riff.plan import Plan, batches
from riff.verified import in_key

# Clips denoised side by side on a GPU. A CPU gains nothing by it, and one at a time a clip's bytes do not
# depend on its neighbours.
BATCH = 4


@dataclasses.dataclass(frozen=True)
class Wish:
    """What all clips of one call share.

    Attributes:
        negative: what to stay away from, as the model is told.
        guidance_scale: weight of the prompt.
        sampling: how it is drawn.
        quality: of the step from picture to sound.
        keyscale: key to look for, or None.
        key_tries: drawings until it is found; 0 does not look.
        settings: what the clips say of how they were made.
    """

    negative: str
    guidance_scale: float
    sampling: Sampling
    quality: Quality
    keyscale: str | None
    key_tries: int
    settings: dict[str, Any]


def draw_clips(model: Model, plans: Sequence[Plan], wish: Wish, *, noise: Tensor | None = None) -> list[Clip]:
    """The clips of all plans, in their order.

    Args:
        model: what draws.
        plans: one for each clip.
        wish: what they share.
        noise: ``(clips, L, M/8, columns/8)`` in place of what the plans' seeds give.
    """
    clips: list[Clip] = []
    for batch in batches(list(plans), size=1 if model.device.type == "cpu" else BATCH):
        own = None if noise is None else noise[len(clips) : len(clips) + len(batch)]
        found = _drawn(model, batch, wish, own)
        if wish.keyscale is not None and wish.key_tries:
            found = [
                in_key(
                    functools.partial(_candidate, model, plan, wish, clip),
                    wish.keyscale,
                    tries=wish.key_tries,
                    quality=wish.quality,
                    has_tempo=wish.settings.get("bpm_asked") is not None,
                )
                for plan, clip in zip(batch, found, strict=True)
            ]
        clips += found
    return clips


def _drawn(model: Model, plans: list[Plan], wish: Wish, noise: Tensor | None = None) -> list[Clip]:
    """Clips of one width and metre, drawn side by side."""
    first = plans[0]
    layout = model.layout(first.drawn_columns, beats_per_bar=first.reading.beats_per_bar, loop=first.loop)
    if noise is None:
        noise = torch.cat([model.noise(layout, plan.seed) for plan in plans])
    conditions = model.conditions([[plan.reading] for plan in plans], [wish.guidance_scale], [wish.negative])
    images = model.draw(noise, layout, conditions, [plan.seed for plan in plans], wish.sampling)
    return [_played(model, plan, image[..., : plan.columns], wish) for plan, image in zip(plans, images, strict=True)]


def _candidate(model: Model, plan: Plan, wish: Wish, first: Clip, number: int) -> Clip:
    """Candidate ``number`` of a clip; the first is there already. All of them bear the first one's seed."""
    if number == 0:
        return first
    seed = int(torch.randint(2**62, (number,), generator=torch.Generator().manual_seed(plan.seed))[-1])
    (clip,) = _drawn(model, [dataclasses.replace(plan, seed=seed)], wish)
    return dataclasses.replace(clip, seed=plan.seed)


def _played(model: Model, plan: Plan, image: Tensor, wish: Wish) -> Clip:
    """From a picture to the clip that the user gets."""
    reading = plan.reading
    waveform = play(image, model.config, bpm=plan.bpm, seed=plan.seed, quality=wish.quality, loop=plan.loop)
    lost = {"ignored_words": reading.ignored_words, "dropped_words": reading.dropped_words}
    return Clip(
        waveform=waveform[..., : plan.samples],
        sample_rate=model.config.sample_rate,
        image=image,
        config=model.config,
        prompt=reading.prompt,
        seed=plan.seed,
        bpm=plan.bpm,
        settings={**wish.settings, **lost, "beats_per_bar": reading.beats_per_bar},
    )

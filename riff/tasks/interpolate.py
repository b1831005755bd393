"""Between two prompts, on the ground of a picture: the form that Riffusion's interpolation has, made symmetric."""

from pathlib import Path

import torch
from torch import Tensor

from riff.diffusion.latents import image_to_latents, slerp
from riff.diffusion.model import DenoiseOptions, DiffusionModel
from riff.diffusion.sampling import Original
from riff.diffusion.windows import padded_width
from riff.spectrogram.inversion.solver import Quality
from riff.spectrogram.png import read_png
from riff.tasks.checks import InterpolationEnd
from riff.tasks.clip import Clip, play
from riff.utils.errors import RiffError

Picture = str | Path | Tensor


def interpolate(
    model: DiffusionModel,
    start: InterpolationEnd,
    end: InterpolationEnd,
    alpha: float,
    image: Tensor,
    *,
    mask: Tensor | None,
    negative_prompt: str,
    sampling: DenoiseOptions,
    quality: Quality,
    loop: bool,
) -> Clip:
    """The clip ``alpha`` of the way from ``start`` to ``end`` (Forsgren & Martiros, 2022).

    What the model says to the words, guidance and strength go on a straight line, noise on an arc; the picture is
    taken as it is and not sampled with one end's seed. So ``alpha`` from one end is ``1 - alpha`` from the other, and
    at 0 and 1 only one end counts.

    Args:
        model: what draws.
        start: at 0.
        end: at 1.
        alpha: 0 to 1.
        image: ``(C, M, N)`` in [0, 1], the ground.
        mask: ``(M, N)`` in [0, 1]: 1 is drawn anew, 0 stays; None is 1 everywhere.
        negative_prompt: what to stay away from.
        sampling: how it is drawn.
        quality: of the step from picture to sound.
        loop: whether the end leads back into the start.
    """
    config, columns = model.config, image.shape[-1]
    near = start if alpha <= 0.5 else end
    width = columns if loop else padded_width(columns, config.width, model.multiple)
    layout = model.layout(width, beats_per_bar=near.reading.beats_per_bar, loop=loop)
    noise = slerp(model.noise(layout, start.seed), model.noise(layout, end.seed), alpha)
    conditions = model.conditions(
        [[start.reading, end.reading]],
        [start.guidance_scale, end.guidance_scale],
        [negative_prompt, negative_prompt],
        progress=torch.full((layout.width,), float(alpha)),
    )
    strength = _between(start.strength, end.strength, alpha)
    original = _ground(model, image, mask, width, strength)
    drawn = model.sample_images(noise, layout, conditions, [near.seed], sampling, original=original)[0][..., :columns]
    bpm = _between(start.reading.bpm, end.reading.bpm, alpha)
    guidance = _between(start.guidance_scale, end.guidance_scale, alpha)
    settings = model.settings(sampling.steps, guidance, quality) | {
        "negative_prompt": negative_prompt or None,
        "task": "interpolate",
        "strength": strength,
        "loop": loop or None,
    }
    return Clip(
        waveform=play(drawn, config, bpm=bpm, seed=near.seed, quality=quality, loop=loop),
        sample_rate=config.sample_rate,
        image=drawn,
        config=config,
        prompt=f"{start.reading.prompt} -> {end.reading.prompt} ({alpha:g})",
        seed=near.seed,
        bpm=bpm,
        settings=settings,
    )


def read_picture(picture: Picture, model: DiffusionModel) -> Tensor:
    """A picture ``(C, M, N)`` that the model can take for its ground.

    Raises:
        RiffError: it cannot be read, or was drawn with another geometry than the model's.
    """
    if isinstance(picture, Tensor):
        image = picture.float()
    else:
        image, config, _ = read_png(picture)
        same = ("n_mels", "amplitude", "grid", "sample_rate", "f_min", "f_max")
        if wrong := [name for name in same if getattr(config, name) != getattr(model.config, name)]:
            told = ", ".join(f"{name} {getattr(config, name)} not {getattr(model.config, name)}" for name in wrong)
            raise RiffError(f"{picture} is not a picture of {model.name}'s kind ({told}); use one that it drew")
    if image.dim() != 3 or tuple(image.shape[:2]) != (model.config.channels, model.config.n_mels):
        raise RiffError(
            f"the picture has shape {tuple(image.shape)}; this model needs "
            f"({model.config.channels}, {model.config.n_mels}, columns)"
        )
    if not bool(torch.isfinite(image).all()):
        raise RiffError("the picture holds NaN or infinite values; use numbers in [0, 1]")
    return image.clamp(0.0, 1.0)


def read_mask(mask: Picture) -> Tensor:
    """(M, N) in [0, 1]: of a picture file white is drawn anew, black stays.

    Raises:
        RiffError: it cannot be read or has another shape.
    """
    if isinstance(mask, Tensor):
        found = mask.float()
        if found.dim() != 2 or found.numel() == 0 or not bool(torch.isfinite(found).all()):
            raise RiffError(f"a mask has shape {tuple(mask.shape)}; use finite numbers of shape (M, N)")
        return found.clamp(0.0, 1.0)
    import numpy as np
    import PIL.Image

    try:
        with PIL.Image.open(mask, formats=["PNG", "JPEG", "WEBP"]) as picture:
            return torch.from_numpy(np.asarray(picture.convert("L"), dtype=np.float32) / 255.0)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise RiffError(f"{mask} cannot be read as a PNG, JPEG or WebP picture: {error}") from error


def _ground(model: DiffusionModel, image: Tensor, mask: Tensor | None, width: int, strength: float) -> Original:
    """What the drawing starts from: the picture, filled up with silence to ``width`` columns, and the mask."""
    silence = 1.0 if model.config.amplitude == "power" else 0.0
    filled = torch.nn.functional.pad(image, (0, width - image.shape[-1]), value=silence)[None]
    if mask is not None:
        mask = torch.nn.functional.adaptive_avg_pool2d(mask.float()[None, None], (model.config.n_mels, width))
        mask = torch.nn.functional.avg_pool2d(mask, model.factor)
    return Original(image_to_latents(filled, model.components.vae), strength, mask)


def _between(a: float, b: float, alpha: float) -> float:
    return (1.0 - alpha) * a + alpha * b

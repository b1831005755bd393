"""Between two prompts, starting from an image: Riffusion's interpolation, made symmetric."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from riff.diffusion.latents import image_to_latents, slerp
from riff.diffusion.model import DenoiseOptions, DiffusionModel
from riff.diffusion.sampling import Original, StepCallback
from riff.diffusion.windows import padded_width
from riff.prompt.interpret import ParsedPrompt
from riff.spectrogram.png import read_png
from riff.tasks.clip import Clip, image_to_waveform
from riff.tasks.provenance import recorded
from riff.tasks.requests import InterpolateRequest, each_of
from riff.utils.errors import RiffError

ImageSource = str | Path | Tensor


@dataclasses.dataclass(frozen=True)
class _End:
    """One end: its prompt, seed, guidance scale and strength."""

    prompt: ParsedPrompt
    seed: int
    guidance_scale: float
    strength: float


def interpolate(
    model: DiffusionModel,
    request: InterpolateRequest,
    image: ImageSource,
    *,
    mask: ImageSource | None = None,
    callback: StepCallback | None = None,
) -> Clip:
    """The clip ``alpha`` of the way between two prompts (Forsgren & Martiros, 2022).

    The model's predictions, guidance and strength go on a straight line, noise on an arc. The image is encoded as it is
    and not sampled with one end's seed. So ``alpha`` from one end is ``1 - alpha`` from the other, and at 0 and 1 only
    one end counts.

    Args:
        model: what generates.
        request: prompts, alpha, seeds, strengths.
        image: to start from: an image file of the model's kind, or ``(C, M, N)`` in [0, 1].
        mask: 1 (white) is replaced, 0 (black) stays: an image file or ``(M, N)`` in [0, 1]; None is 1 everywhere.
        callback: called as ``(step, steps, latents)``.

    Raises:
        RiffError: the image or the mask cannot be read or is of another kind.
    """
    ground, cover = read_image(image, model), None if mask is None else read_mask(mask)
    config, columns, alpha = model.config, ground.shape[-1], request.alpha
    start, end = _ends(model, request)
    near = start if alpha <= 0.5 else end
    width = columns if request.loop else padded_width(columns, config.width, model.multiple)
    layout = model.layout(width, beats_per_bar=near.prompt.beats_per_bar, loop=request.loop)
    first, last = (model.noise(layout, side.prompt.noise_seed(side.seed)) for side in (start, end))
    noise = slerp(first, last, alpha)
    conditions = model.conditions(
        [[start.prompt, end.prompt]],
        [start.guidance_scale, end.guidance_scale],
        [request.negative_prompt or ""] * 2,
        progress=torch.full((layout.width,), float(alpha)),
    )
    strength = _between(start.strength, end.strength, alpha)
    guidance = _between(start.guidance_scale, end.guidance_scale, alpha)
    original = _original(model, ground, cover, width, strength)
    steps = request.num_inference_steps
    result = model.sample_images(
        noise, layout, conditions, [near.seed], DenoiseOptions(steps, callback), original=original
    )
    result = result[0][..., :columns]
    bpm = _between(start.prompt.bpm, end.prompt.bpm, alpha)
    waveform = image_to_waveform(
        result,
        config,
        bpm=bpm,
        seed=near.seed,
        quality=request.quality,
        loop=request.loop,
        vocoder=model.vocoder,
    )
    used = dataclasses.replace(request, strength=strength, guidance_scale=guidance)
    return Clip(
        waveform=waveform,
        sample_rate=config.sample_rate,
        image=result,
        config=config,
        prompt=f"{start.prompt.prompt} -> {end.prompt.prompt} ({alpha:g})",
        seed=near.seed,
        bpm=bpm,
        settings={**model.facts(), **recorded(used), "task": "interpolate"},
    )


def _ends(model: DiffusionModel, request: InterpolateRequest) -> list[_End]:
    one_seed = (request.seed or 0) if request.seeds is None else request.seeds
    seeds, strengths = each_of(one_seed, 2), each_of(request.strength, 2)
    guidance = [model.default_guidance if each is None else each for each in each_of(request.guidance_scale, 2)]
    return [
        _End(model.interpret(text, bpm=request.bpm, seed=seeds[place]), seeds[place], guidance[place], strengths[place])
        for place, text in enumerate(request.prompts)
    ]


def read_image(image: ImageSource, model: DiffusionModel) -> Tensor:
    """An image ``(C, M, N)`` that the model can start from.

    Raises:
        RiffError: it cannot be read, or has another geometry than the model's.
    """
    if isinstance(image, Tensor):
        pixels = image.float()
    else:
        pixels, config, _ = read_png(image)
        same = ("n_mels", "amplitude", "grid", "sample_rate", "f_min", "f_max")
        if wrong := [name for name in same if getattr(config, name) != getattr(model.config, name)]:
            found = ", ".join(f"{name} {getattr(config, name)} not {getattr(model.config, name)}" for name in wrong)
            raise RiffError(f"{image} is not an image of {model.name}'s kind ({found}); use one that it made")
    if pixels.dim() != 3 or tuple(pixels.shape[:2]) != (model.config.channels, model.config.n_mels):
        raise RiffError(
            f"the image has shape {tuple(pixels.shape)}; this model needs "
            f"({model.config.channels}, {model.config.n_mels}, columns)"
        )
    if not bool(torch.isfinite(pixels).all()):
        raise RiffError("the image holds NaN or infinite values; use numbers in [0, 1]")
    return pixels.clamp(0.0, 1.0)


def read_mask(mask: ImageSource) -> Tensor:
    """(M, N) in [0, 1]: of an image file white is replaced, black stays.

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
        raise RiffError(f"{mask} cannot be read as a PNG, JPEG or WebP image: {error}") from error


def _original(model: DiffusionModel, image: Tensor, mask: Tensor | None, width: int, strength: float) -> Original:
    """What generation starts from: the image, padded with silence to ``width`` columns, and the mask."""
    silence = 1.0 if model.config.amplitude == "power" else 0.0
    filled = torch.nn.functional.pad(image, (0, width - image.shape[-1]), value=silence)[None]
    if mask is not None:
        mask = torch.nn.functional.adaptive_avg_pool2d(mask.float()[None, None], (model.config.n_mels, width))
        mask = torch.nn.functional.avg_pool2d(mask, model.factor)
    return Original(image_to_latents(filled, model.components.vae), strength, mask)


def _between(a: float, b: float, alpha: float) -> float:
    return (1.0 - alpha) * a + alpha * b

"""Denoising: from noise to latents under the guidance of a prompt."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from riff.diffusion.conditioning import WindowConditioning
from riff.utils.errors import RiffError, checkpoint

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, UNet2DConditionModel

Generators = torch.Generator | list[torch.Generator]
StepCallback = Callable[[int, int, Tensor], Tensor | None]
# (scaled latents (B, L, H, W), timestep, step, steps in all) to the model's prediction, float32.
Predictor = Callable[[Tensor, Tensor, int, int], Tensor]
# Shares of the steps from and until which guidance is used.
Interval = tuple[float, float]
ALWAYS: Interval = (0.0, 1.0)


def is_guided(interval: Interval, step: int, steps: int) -> bool:
    """Whether the middle of a step is in the interval.

    Guidance decides what the image shows. In the first steps it narrows the choice to what is most typical, in the last
    there is nothing left to decide, so in both it costs likeness, and time (Kynkäänniemi et al., 2024).
    """
    return interval[0] <= (step + 0.5) / steps < interval[1]


def guided_prediction(
    unet: "UNet2DConditionModel", latents: Tensor, timestep: Tensor, condition: WindowConditioning
) -> Tensor:
    """The model's prediction of the noise (or the velocity), pushed from the negative prompt towards the prompts.

    Where several prompts share a place, their predictions are mixed. A mixture of embeddings would tip over from one
    prompt to the other within a few hundredths of the way; a mixture of predictions, the score of the product of their
    distributions (Liu et al., 2022), goes over evenly. With guidance g, negative prediction n and shares s it is
    ``n + sum(s_i * g * (p_i - n))``, also for shares below 0, which steer away from their prompt. Without guidance
    those steer away from where the others point.

    Args:
        unet: the denoiser; its device and dtype are used for its own work.
        latents: ``(B, L, H, W)``, scaled as the scheduler wants them.
        timestep: of the schedule.
        condition: of the W columns; without negative embeddings there is no guidance.

    Returns:
        ``(B, L, H, W)`` float32.

    Source: Ho & Salimans, 2022 (classifier-free guidance).
    """
    checkpoint()
    positive, negative, shares = condition.prompt_embeds, condition.negative_prompt_embeds, condition.shares
    embeds = positive if negative is None else torch.cat([negative, positive])
    count = len(embeds)
    with lora_scaled(unet, condition.lora_weight):
        prediction = unet(
            latents.to(unet.dtype).repeat(count, 1, 1, 1),
            timestep,
            encoder_hidden_states=embeds.flatten(0, 1).to(device=unet.device, dtype=unet.dtype),
        ).sample.float()
    predictions = prediction.reshape(count, *latents.shape)
    prompts = predictions[-len(positive) :]
    towards = _mix(prompts, shares)
    # Shares below 0 take off more than 1 in sum; what the sum lacks is put back from a reference that has no share.
    steers = None if shares is None or bool((shares >= 0).all()) else shares
    others = towards if steers is None else _mix(prompts, steers.clamp(min=0.0))
    if negative is None:
        return towards if steers is None else _fill(towards, steers, others)
    away_shares = shares if condition.negative_shares is None else condition.negative_shares
    away = _mix(predictions[: len(negative)], away_shares if len(negative) > 1 else None)
    weight = torch.as_tensor(condition.guidance, dtype=torch.float32, device=away.device)
    if steers is not None:
        towards = _fill(towards, steers, torch.where(weight > 1.0, away, others))
    return away + weight.clamp(min=1.0) * (towards - away)


@contextmanager
def lora_scaled(model: Any, scale: float | None) -> Iterator[None]:
    """Multiply the weights of a model's LoRAs inside the block; None leaves them.

    diffusers divides by the scale afterwards, which loses the weight where the scale is 0.
    """
    layers = [] if scale is None else [layer for layer in model.modules() if hasattr(layer, "lora_A")]
    kept = [dict(layer.scaling) for layer in layers]
    try:
        for layer, own in zip(layers, kept, strict=True):
            layer.scaling.update({name: value * scale for name, value in own.items()})
        yield
    finally:
        for layer, own in zip(layers, kept, strict=True):
            layer.scaling.update(own)


def _fill(towards: Tensor, shares: Tensor, reference: Tensor) -> Tensor:
    """``towards`` with what shares below 0 took off it put back from ``reference``, so that the sum is 1 again."""
    return towards - shares.clamp(max=0.0).sum(0).to(towards) * reference


def _mix(parts: Tensor, shares: Tensor | None) -> Tensor:
    """(P, B, L, H, W) to (B, L, H, W), each column by its shares (P, W)."""
    if shares is None:
        return parts[0]
    return torch.einsum("pblhw,pw->blhw", parts, shares.to(parts))


@dataclasses.dataclass(frozen=True)
class PlainPrediction:
    """The model's prediction for all of the latents at once: a predictor for :func:`denoise`.

    Attributes:
        unet: the denoiser.
        prompt_embeds: ``(B, tokens, D)``.
        negative_prompt_embeds: ``(B, tokens, D)``; needed when ``guidance_scale > 1``.
        guidance_scale: weight of the prompt against the negative prompt; up to 1 there is no guidance.
        guidance_interval: in which steps; in the others the prompt alone conditions the model.

    Raises:
        RiffError: guidance without negative embeddings.
    """

    unet: "UNet2DConditionModel"
    prompt_embeds: Tensor
    negative_prompt_embeds: Tensor | None = None
    guidance_scale: float = 1.0
    guidance_interval: Interval = ALWAYS

    def __post_init__(self) -> None:
        if self.guidance_scale > 1 and self.negative_prompt_embeds is None:
            raise RiffError(f"guidance_scale is {self.guidance_scale} without negative_prompt_embeds; pass those of ''")

    def __call__(self, latents: Tensor, timestep: Tensor, step: int, steps: int) -> Tensor:
        """(B, L, H, W) scaled latents to the prediction of the same shape, float32."""
        condition = WindowConditioning(self.prompt_embeds[None], self.guidance_scale)
        if self.guidance_scale > 1 and is_guided(self.guidance_interval, step, steps):
            assert self.negative_prompt_embeds is not None
            condition = dataclasses.replace(condition, negative_prompt_embeds=self.negative_prompt_embeds[None])
        return guided_prediction(self.unet, latents, timestep, condition)


@dataclasses.dataclass(frozen=True)
class Original:
    """What denoising starts from, when it is not noise alone.

    Attributes:
        latents: ``(B, L, H, W)`` clean latents.
        strength: how far they are noised before they are denoised, 0 (not at all) to 1 (nothing of them is left but
            what ``mask`` keeps).
        mask: ``(H, W)`` or ``(1, 1, H, W)`` in [0, 1]: 1 is resampled, 0 stays as it is; None is 1 everywhere.
    """

    latents: Tensor
    strength: float = 1.0
    mask: Tensor | None = None


@torch.inference_mode()
def denoise(
    predict: Predictor,
    scheduler: "SchedulerMixin",
    noise: Tensor,
    *,
    num_inference_steps: int,
    original: Original | None = None,
    generator: Generators | None = None,
    callback_on_step_end: StepCallback | None = None,
) -> Tensor:
    """Turn noise into latents, step by step.

    Args:
        predict: the model's prediction for latents, such as :class:`riff.diffusion.windows.CanvasPrediction`.
        scheduler: any diffusers scheduler; its timesteps are set here, so do not share it between threads.
        noise: ``(B, L, H, W)`` standard normal, on the device to work on.
        num_inference_steps: denoising steps from pure noise, ``>= 1``; a ``strength`` below 1 takes its share of them.
        original: what to start from or to keep; None resamples everything.
        generator: CPU generator, or one per sample, for schedulers that add noise on the way.
        callback_on_step_end: called as ``(step, steps in all, latents)`` after each step; latents that it
            returns take the place of the current ones.

    Returns:
        ``(B, L, H, W)`` float32 latents.

    Raises:
        RiffError: the scheduler needs more steps.
    """
    set_timesteps(scheduler, num_inference_steps, noise.device)
    if original is not None and original.strength == 0:
        return original.latents.to(device=noise.device, dtype=torch.float32)
    first = _first_step(scheduler, num_inference_steps, 1.0 if original is None else original.strength)
    timesteps, options = scheduler.timesteps[first:], step_options(scheduler, generator)
    noise = noise.float()
    latents = noise * scheduler.init_noise_sigma
    if first and original is not None:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        latents = scheduler.add_noise(original.latents.to(noise), noise, timesteps[:1])
    for step, timestep in enumerate(timesteps):
        prediction = predict(scheduler.scale_model_input(latents, timestep), timestep, step, len(timesteps))
        latents = scheduler.step(prediction, timestep, latents, **options).prev_sample
        if original is not None and original.mask is not None:
            latents = _keep(latents, original, scheduler, noise, timesteps[step + 1 :])
        if callback_on_step_end is not None:
            replaced = callback_on_step_end(step, len(timesteps), latents)
            latents = latents if replaced is None else replaced
    return latents


def _first_step(scheduler: "SchedulerMixin", steps: int, strength: float) -> int:
    """Index of the timestep at which latents noised with ``strength`` come in, as diffusers' image-to-image counts.

    A strength below 1 / steps takes one step, so that it is not silently 0.
    """
    skipped = steps - min(max(int(steps * strength), 1), steps)
    return skipped * getattr(scheduler, "order", 1)


def _keep(latents: Tensor, original: Original, scheduler: "SchedulerMixin", noise: Tensor, left: Tensor) -> Tensor:
    """Put what the mask keeps back, noised as much as the latents are before the ``left`` timesteps."""
    assert original.mask is not None
    kept = original.latents.to(latents)
    if len(left):
        kept = scheduler.add_noise(kept, noise, left[:1])
    return torch.lerp(kept, latents, original.mask.to(latents).expand_as(latents))


def set_timesteps(scheduler: "SchedulerMixin", steps: int, device: torch.device) -> None:
    """Prepare a scheduler; RiffError if it cannot make so few steps."""
    try:
        scheduler.set_timesteps(steps, device=device)
    except (ValueError, IndexError) as error:
        name = type(scheduler).__name__
        raise RiffError(
            f"{name} cannot sample in {steps} step(s) ({error}); use 20 steps or another scheduler"
        ) from error


def step_options(scheduler: "SchedulerMixin", generator: Generators | None) -> dict[str, Any]:
    """What this scheduler's step accepts of ours; without a generator it would use the global one."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    return {"generator": torch.Generator() if generator is None else generator}


@contextmanager
def count_steps(progress: bool, callback: StepCallback | None) -> Iterator[StepCallback]:
    """What :func:`denoise` calls after each step: the user's callback, then the bar."""
    from tqdm import tqdm

    with tqdm(total=0, unit="step", leave=False, disable=not progress) as bar:

        def count_step(step: int, steps: int, latents: Tensor) -> Tensor | None:
            replaced = None if callback is None else callback(step, steps, latents)
            if step == 0:
                bar.total += steps
            bar.update()
            return replaced

        yield count_step


SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def scheduler_class(name: str) -> type["SchedulerMixin"]:
    """A scheduler class of diffusers by riff's short name or by its own.

    Raises:
        RiffError: there is no such scheduler.
    """
    import diffusers

    found = getattr(diffusers, SCHEDULERS.get(name, name), None)
    if not (isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)):
        known = ", ".join(SCHEDULERS)
        raise RiffError(
            f"there is no scheduler {name!r}; use one of {known}, or a diffusers class such as PNDMScheduler"
        )
    return found


def choose_scheduler(name: str, current: "SchedulerMixin") -> "SchedulerMixin":
    """A scheduler called ``name`` for the noise schedule and the prediction type of ``current``."""
    return scheduler_class(name).from_config(current.config)

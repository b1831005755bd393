"""Denoising: from noise to latents under the guidance of a prompt."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from riff.errors import RiffError

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, UNet2DConditionModel

Generators = torch.Generator | list[torch.Generator]
StepCallback = Callable[[int, int, Tensor], Tensor | None]


@torch.inference_mode()
def denoise(
    unet: "UNet2DConditionModel",
    scheduler: "SchedulerMixin",
    latents: Tensor,
    prompt_embeds: Tensor,
    *,
    negative_prompt_embeds: Tensor | None = None,
    guidance_scale: float,
    num_inference_steps: int,
    generator: Generators | None = None,
    callback_on_step_end: StepCallback | None = None,
) -> Tensor:
    """Turn noise into latents, step by step, pushed away from the negative prompt and towards the prompt.

    Args:
        unet: the denoiser; its device and dtype are used for its own work, the latents stay float32.
        scheduler: any diffusers scheduler; its timesteps are set here, so do not share it between threads.
        latents: ``(B, L, H, W)`` standard normal noise (the scheduler's initial sigma is applied here).
        prompt_embeds: ``(B, tokens, D)``.
        negative_prompt_embeds: ``(B, tokens, D)``; needed when ``guidance_scale > 1``.
        guidance_scale: weight of the prompt against the negative prompt; 1 or less draws without guidance.
        num_inference_steps: denoising steps, ``>= 1``.
        generator: CPU generator, or one per sample, for schedulers that add noise on the way.
        callback_on_step_end: called as ``(step, steps in all, latents)`` after each step; latents that it
            returns take the place of the current ones.

    Returns:
        ``(B, L, H, W)`` float32 latents on the UNet's device.

    Raises:
        RiffError: guidance is asked for without negative embeddings, or the scheduler needs more steps.

    Source: Ho & Salimans, 2022 (classifier-free guidance).
    """
    guided, embeds = guidance_scale > 1, prompt_embeds
    if guided:
        if negative_prompt_embeds is None:
            raise RiffError(f"guidance_scale is {guidance_scale} without negative_prompt_embeds; pass those of ''")
        embeds = torch.cat([negative_prompt_embeds, prompt_embeds])
    embeds = embeds.to(device=unet.device, dtype=unet.dtype)
    _set_timesteps(scheduler, num_inference_steps, unet.device)
    options = _step_options(scheduler, generator)
    latents = latents.to(device=unet.device, dtype=torch.float32) * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps):
        model_input = torch.cat([latents, latents]) if guided else latents
        model_input = scheduler.scale_model_input(model_input, timestep).to(unet.dtype)
        prediction = unet(model_input, timestep, encoder_hidden_states=embeds).sample.float()
        if guided:
            away, towards = prediction.chunk(2)
            prediction = away + guidance_scale * (towards - away)
        latents = scheduler.step(prediction, timestep, latents, **options).prev_sample
        if callback_on_step_end is not None:
            replaced = callback_on_step_end(step, len(scheduler.timesteps), latents)
            latents = latents if replaced is None else replaced
    return latents


def _set_timesteps(scheduler: "SchedulerMixin", steps: int, device: torch.device) -> None:
    try:
        scheduler.set_timesteps(steps, device=device)
    except (ValueError, IndexError) as error:
        name = type(scheduler).__name__
        raise RiffError(
            f"{name} cannot draw in {steps} step(s) ({error}); use 20 steps or another scheduler"
        ) from error


def _step_options(scheduler: "SchedulerMixin", generator: Generators | None) -> dict[str, Any]:
    """What this scheduler's step accepts of ours; without a generator it would draw from the global one."""
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

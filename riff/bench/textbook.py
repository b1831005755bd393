"""A training step as the textbook has it: the objective of diffusers' `train_text_to_image.py`, to be measured against.

Written anew from diffusers' public API; nothing is cached, nothing is riff's.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import functional


def textbook_training(model: str, pictures: Tensor, captions: list[str], *, batch_size: int) -> NoReturn:
    """Train all of the UNet in float32 for ever; whoever counts the steps ends it with an exception.

    Args:
        model: a Stable Diffusion folder.
        pictures: (n, C, M, N) in [-1, 1].
        captions: one per picture.
        batch_size: pictures a step.
    """
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.training_utils import EMAModel

    accelerator = Accelerator(mixed_precision="no")
    parts: Any = StableDiffusionPipeline.from_pretrained(
        model, dtype=torch.float32, safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    scheduler: Any = DDPMScheduler.from_config(parts.scheduler.config)
    unet = parts.unet.train().requires_grad_(True)
    for frozen in (parts.vae, parts.text_encoder):
        frozen.requires_grad_(False).to(accelerator.device)
    weights = list(unet.parameters())
    optimizer = torch.optim.AdamW(weights, lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    average = EMAModel(weights)
    length = parts.tokenizer.model_max_length
    ids = parts.tokenizer(captions, max_length=length, padding="max_length", truncation=True, return_tensors="pt")
    lessons = torch.utils.data.TensorDataset(pictures, ids.input_ids)
    loader = torch.utils.data.DataLoader(lessons, batch_size=batch_size, shuffle=True, drop_last=True)
    unet, optimizer, loader = accelerator.prepare(unet, optimizer, loader)
    while True:
        for pixels, told in loader:
            accelerator.backward(_loss(unet, parts, scheduler, pixels, told))
            accelerator.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average.step(weights)


def _loss(unet: Any, parts: Any, scheduler: Any, pixels: Tensor, told: Tensor) -> Tensor:
    """Mean squared error of the predicted noise or velocity at random timesteps."""
    encoded = parts.vae.encode(pixels)
    latents = encoded.latent_dist.sample() if hasattr(encoded, "latent_dist") else encoded.latents
    latents = latents * parts.vae.config.scaling_factor
    noise = torch.randn_like(latents)
    timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if velocity else noise
    predicted = unet(noisy, timesteps, parts.text_encoder(told)[0]).sample
    return functional.mse_loss(predicted.float(), target.float())

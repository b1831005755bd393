"""What a denoiser is trained to predict: targets and weights for a noise schedule with zero terminal SNR."""

import torch
from torch import Tensor

from riff.errors import RiffError


def stratified_timesteps(batch: int, n_timesteps: int, *, generator: torch.Generator) -> Tensor:
    """One timestep from each of ``batch`` equal slices of the schedule, shuffled.

    Every batch then covers the whole schedule, which lowers the variance of the loss against independent draws
    (Kingma et al., 2021, "Variational Diffusion Models").

    Returns:
        (B,) int64 in [0, n_timesteps).
    """
    position = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    position = position[torch.randperm(batch, generator=generator)]
    return (position * n_timesteps).long().clamp(max=n_timesteps - 1)


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
    """Noised latents and the velocity the net should predict: v = sqrt(a) noise - sqrt(1 - a) latents.

    Salimans & Ho (2022). With zero terminal SNR (Lin et al., 2023) the velocity stays defined where a = 0.

    Args:
        latents: (B, L, H, W).
        noise: (B, L, H, W) standard normal.
        timesteps: (B,) int64.
        alphas_cumprod: (n_timesteps,) of the scheduler.
    """
    alpha = alphas_cumprod.to(latents)[timesteps.to(latents.device)][:, None, None, None]
    signal, spread = alpha.sqrt(), (1.0 - alpha).sqrt()
    return signal * latents + spread * noise, signal * noise - spread * latents


def loss_weights(timesteps: Tensor, alphas_cumprod: Tensor, *, snr_gamma: float | None) -> Tensor:
    """Weight of each sample's squared velocity error.

    Args:
        timesteps: (B,) int64.
        alphas_cumprod: (n_timesteps,) of the scheduler.
        snr_gamma: ``None`` weighs all alike; else min(SNR, gamma) / (SNR + 1), Min-SNR for velocity
            (Hang et al., 2023).

    Returns:
        (B,) float32.
    """
    if snr_gamma is None:
        return torch.ones(len(timesteps))
    if snr_gamma <= 0:
        raise RiffError(f"snr_gamma is {snr_gamma}; use a number greater than 0, such as 5")
    alpha = alphas_cumprod[timesteps.cpu()].double()
    snr = alpha / (1.0 - alpha).clamp(min=1e-12)
    return (snr.clamp(max=snr_gamma) / (snr + 1.0)).float()

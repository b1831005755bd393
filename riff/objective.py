"""What a denoiser is trained to predict: noised latents, targets and weights, for velocity and for noise."""

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


def add_noise(
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    alphas_cumprod: Tensor,
    *,
    prediction_type: str = "v_prediction",
) -> tuple[Tensor, Tensor]:
    """Noised latents and what the net should predict of them.

    Velocity is v = sqrt(a) noise - sqrt(1 - a) latents (Salimans & Ho, 2022); with zero terminal SNR (Lin et al.,
    2023) it stays defined where a = 0. Stable Diffusion 1 and Riffusion predict the noise itself (Ho et al., 2020).

    Args:
        latents: (B, L, H, W).
        noise: (B, L, H, W) standard normal.
        timesteps: (B,) int64.
        alphas_cumprod: (n_timesteps,) of the scheduler.
        prediction_type: of the scheduler, "v_prediction" or "epsilon".

    Raises:
        RiffError: another prediction type.
    """
    alpha = alphas_cumprod.to(latents)[timesteps.to(latents.device)][:, None, None, None]
    signal, spread = alpha.sqrt(), (1.0 - alpha).sqrt()
    noisy = signal * latents + spread * noise
    if _is_velocity(prediction_type):
        return noisy, signal * noise - spread * latents
    return noisy, noise


def loss_weights(
    timesteps: Tensor, alphas_cumprod: Tensor, *, snr_gamma: float | None, prediction_type: str = "v_prediction"
) -> Tensor:
    """Weight of each sample's squared error.

    Args:
        timesteps: (B,) int64.
        alphas_cumprod: (n_timesteps,) of the scheduler.
        snr_gamma: ``None`` weighs all alike; else Min-SNR (Hang et al., 2023): min(SNR, gamma) / (SNR + 1) for
            velocity, min(SNR, gamma) / SNR for noise.
        prediction_type: of the scheduler, "v_prediction" or "epsilon".

    Returns:
        (B,) float32.

    Raises:
        RiffError: gamma is not positive, or another prediction type.
    """
    if snr_gamma is None:
        return torch.ones(len(timesteps))
    if snr_gamma <= 0:
        raise RiffError(f"snr_gamma is {snr_gamma}; use a number greater than 0, such as 5")
    alpha = alphas_cumprod[timesteps.cpu()].double()
    snr = alpha / (1.0 - alpha).clamp(min=1e-12)
    if _is_velocity(prediction_type):
        return (snr.clamp(max=snr_gamma) / (snr + 1.0)).float()
    # min(snr, gamma) / snr, written so that it is 1 and not 0/0 where nothing of the signal is left.
    return (snr_gamma / snr.clamp(min=snr_gamma)).float()


def _is_velocity(prediction_type: str) -> bool:
    if prediction_type not in ("v_prediction", "epsilon"):
        raise RiffError(f"the model's scheduler predicts {prediction_type!r}; v_prediction and epsilon can be trained")
    return prediction_type == "v_prediction"

"""Training the picture autoencoder: reconstruction of decibels, sharp edges along frequency, a little KL."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from riff.dataset import PictureSet
from riff.train.loop import LoopSettings, train


@dataclasses.dataclass(frozen=True)
class AutoencoderObjective:
    """Weights of the loss, on pictures in [-1, 1].

    Attributes:
        batch_size: pictures per step.
        crop: columns of a training crop; cheap steps are worth more than wide ones.
        squared: weight of the mean squared error beside the mean absolute one.
        gradient: weight of the mean absolute error of differences along frequency, which keeps harmonics lines.
        texture: weight of the error of the mean absolute difference, along frequency and along time, in patches of
            8 by 8. The errors above are least when what cannot be known is blurred; this one keeps its sharpness.
        kl: weight of the KL divergence from the standard normal, per latent number.
        noise: standard deviation of the noise on the latents of an autoencoder that predicts none itself.
    """

    batch_size: int = 2
    crop: int = 64
    squared: float = 2.0
    gradient: float = 0.5
    texture: float = 0.0
    kl: float = 1e-4
    noise: float = 0.1


class AutoencoderStep(nn.Module):
    """The autoencoder as one forward pass, which is what accelerate can wrap."""

    def __init__(self, vae: Any, noise: float):
        super().__init__()
        self.vae = vae
        self.noise = noise

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Rebuilt images from a sampled latent, and the KL divergence per latent number."""
        encoded = self.vae.encode(images)
        if hasattr(encoded, "latents"):  # AutoencoderTiny: a mean without a variance, so the variance is a constant
            latents = encoded.latents + self.noise * noise
            divergence = 0.5 * encoded.latents.float().pow(2)
        else:
            posterior = encoded.latent_dist
            latents = posterior.mean + posterior.std * noise
            divergence = 0.5 * (posterior.mean.pow(2) + posterior.var - 1.0 - posterior.logvar).float()
        return self.vae.decode(latents).sample, divergence.mean()


def encode_mode(vae: Any, images: Tensor) -> Tensor:
    """Unscaled latents of pictures in [-1, 1]: the mode, for either kind of autoencoder."""
    encoded = vae.encode(images)
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()


def _roughness(images: Tensor, axis: int) -> Tensor:
    return functional.avg_pool2d(images.diff(dim=axis).abs(), 8)


def reconstruction_loss(rebuilt: Tensor, images: Tensor, objective: AutoencoderObjective) -> Tensor:
    """Absolute and squared error, absolute error of differences along frequency, and error of local roughness."""
    rebuilt = rebuilt.float()
    error = rebuilt - images
    loss = error.abs().mean() + objective.squared * error.pow(2).mean()
    loss = loss + objective.gradient * error.diff(dim=2).abs().mean()
    if objective.texture:
        for axis in (2, 3):
            loss = loss + objective.texture * (_roughness(rebuilt, axis) - _roughness(images, axis)).abs().mean()
    return loss


def train_autoencoder(
    vae: Any,
    pictures: PictureSet,
    heldout: PictureSet,
    objective: AutoencoderObjective,
    settings: LoopSettings,
    run: Path,
    *,
    until: int | None = None,
) -> bool:
    """Train ``vae`` in place on random crops in time; see :func:`riff.train.loop.train`.

    With its encoder frozen (``vae.encoder.requires_grad_(False)``) the latents stay what they are, so the decoder can
    be improved beside or after a denoiser that was trained on them.
    """
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    channels = vae.config.latent_channels

    def batch_loss(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        indices = torch.randint(len(pictures), (objective.batch_size,), generator=generator)
        images = pictures.images(indices) * 2.0 - 1.0
        steps = (images.shape[-1] - objective.crop) // scale
        start = scale * int(torch.randint(steps + 1, (1,), generator=generator))
        images = images[..., start : start + objective.crop]
        noise = torch.randn(
            len(images), channels, images.shape[-2] // scale, objective.crop // scale, generator=generator
        )
        device = next(model.parameters()).device
        images = images.to(device)
        rebuilt, divergence = model(images, noise.to(device))
        loss = reconstruction_loss(rebuilt, images, objective) + objective.kl * divergence
        return loss, {"kl": float(divergence.detach())}

    def preview(model: nn.Module, step: int, writer: Any) -> None:
        images = heldout.images(torch.arange(min(16, len(heldout)))).to(next(model.parameters()).device)
        with torch.no_grad():
            rebuilt = (vae.decode(encode_mode(vae, images * 2 - 1)).sample / 2 + 0.5).clamp(0, 1)
        psnr = -10.0 * torch.log10((rebuilt - images).pow(2).mean())
        writer.add_scalar("heldout/psnr", float(psnr), step)
        sharpness = rebuilt.diff(dim=2).abs().mean() / images.diff(dim=2).abs().mean()
        writer.add_scalar("heldout/sharpness", float(sharpness), step)
        writer.add_images("heldout/above_real_below_rebuilt", torch.cat([images, rebuilt], dim=2)[:4], step)

    return train(AutoencoderStep(vae, objective.noise), batch_loss, settings, run, preview=preview, until=until)


@torch.no_grad()
def latent_magnitude(vae: Any, pictures: PictureSet, *, n: int = 256) -> float:
    """Root mean square of the latents of ``n`` pictures: one over the scaling factor that diffusion needs."""
    device = next(vae.parameters()).device
    squares = [
        encode_mode(vae, pictures.images(torch.arange(i, min(i + 16, len(pictures)))).to(device) * 2 - 1).pow(2).mean()
        for i in range(0, min(n, len(pictures)), 16)
    ]
    return float(torch.stack(squares).mean().sqrt())

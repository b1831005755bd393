"""Training the picture autoencoder: reconstruction of decibels, sharp edges along frequency, a little KL."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from riff.diffusion.model import DiffusionModel
from riff.diffusion.windows import training_width
from riff.train.data.images import ImageSet
from riff.train.loop import train
from riff.train.preservation import generate_class_clips
from riff.train.settings import LoopSettings
from riff.utils.errors import RiffError


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
        modulation: weight of the error of the modulation spectrum: magnitudes of short transforms along time of the
            rows. It is least when strokes and textures move as fast and as far as they do in the image, so it leaves no
            room for hatching (a period of two or three columns) nor for washes where there were rolls.
        kl: weight of the KL divergence from the standard normal, per latent number.
        noise: standard deviation of the noise on the latents of an autoencoder that predicts none itself.
    """

    batch_size: int = 2
    crop: int = 64
    squared: float = 2.0
    gradient: float = 0.5
    texture: float = 0.0
    modulation: float = 0.0
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


def modulation_spectrum(images: Tensor, *, size: int = 16) -> Tensor:
    """Magnitudes of short transforms along time: (B, C, M, N) to (B * C * M, size / 2 + 1, frames).

    Frames of ``size`` columns, Hann-windowed and half overlapping; magnitudes are scaled so that a sinusoid of
    amplitude
    a has about a in its bin.
    """
    rows = images.flatten(0, 2)
    window = torch.hann_window(size, device=images.device)
    spectra = torch.stft(rows, size, size // 2, window=window, center=False, return_complex=True)
    return (spectra.real.square() + spectra.imag.square() + 1e-8).sqrt() * (4.0 / size)


def reconstruction_loss(rebuilt: Tensor, images: Tensor, objective: AutoencoderObjective) -> Tensor:
    """Absolute and squared error, and the errors of gradient, texture and modulation that ``objective`` weighs."""
    rebuilt = rebuilt.float()
    error = rebuilt - images
    loss = error.abs().mean() + objective.squared * error.pow(2).mean()
    loss = loss + objective.gradient * error.diff(dim=2).abs().mean()
    if objective.texture:
        for axis in (2, 3):
            loss = loss + objective.texture * (_roughness(rebuilt, axis) - _roughness(images, axis)).abs().mean()
    if objective.modulation:
        # Without the mean level (bin 0 and its leakage), which the errors above have.
        found, wanted = (modulation_spectrum(each)[:, 2:] for each in (rebuilt, images))
        loss = loss + objective.modulation * (found - wanted).abs().mean()
    return loss


def train_autoencoder(
    vae: Any,
    pictures: ImageSet,
    heldout: ImageSet,
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
def latent_magnitude(vae: Any, pictures: ImageSet, *, n: int = 256) -> float:
    """Root mean square of the latents of ``n`` pictures: one over the scaling factor that diffusion needs."""
    device = next(vae.parameters()).device
    squares = [
        encode_mode(vae, pictures.images(torch.arange(i, min(i + 16, len(pictures)))).to(device) * 2 - 1).pow(2).mean()
        for i in range(0, min(n, len(pictures)), 16)
    ]
    return float(torch.stack(squares).mean().sqrt())


# Teaching the decoder to paint what the denoiser draws the way composed pictures are painted.
#
# The latents that a denoiser draws are a little flatter than those of pictures, so decoded as they are they lack
# contrast and attacks. No picture belongs to a drawn latent, so there is no error to make smaller. But patches of
# what is drawn should be distributed as patches of composed pictures are, and the sliced Wasserstein distance tells
# how far they are from that (Rabin et al., 2011; of patches of pictures, Elnekave & Weiss, 2022). Composed pictures
# are rebuilt beside them, so that the autoencoder stays as true as it was.

PLACES = 25  # of the quarter of the bands that the patches are taken from; 32 are the whole height


@dataclasses.dataclass(frozen=True)
class Patches:
    """Patches of one kind.

    Attributes:
        rows: bands that the picture is averaged to; None leaves its rows as they are.
        columns: columns that are averaged to one.
        size: bands and columns of a patch.
        stride: from patch to patch.
        quarter: taken from a quarter of the bands only, another one each time, so that bands are told apart.
    """

    rows: int | None
    columns: int
    size: tuple[int, int]
    stride: tuple[int, int]
    quarter: bool = False

    def of(self, images: Tensor, place: int) -> Tensor:
        """All patches of (B, 1, M, N) pictures, one a row."""
        height, width = self.rows or images.shape[-2], images.shape[-1] // self.columns
        view = functional.adaptive_avg_pool2d(images, (height, width))
        if self.quarter:
            first = place * height // 32
            view = view[..., first : first + height // 4, :]
        return functional.unfold(view, self.size, stride=self.stride).transpose(1, 2).flatten(0, 1)


KINDS = (
    Patches(None, 1, (8, 8), (8, 4), quarter=True),  # harmonics and attacks
    Patches(64, 4, (16, 8), (4, 2)),  # notes
    Patches(8, 1, (8, 16), (8, 2)),  # half a beat of all bands
    Patches(8, 1, (1, 32), (1, 4)),  # a beat of one band
    Patches(32, 4, (4, 16), (1, 2), quarter=True),  # two beats of a few bands
)


@dataclasses.dataclass(frozen=True)
class PolishObjective:
    """How the decoder is taught.

    Attributes:
        clips: drawn before it begins, from captions of as many composed clips.
        drawn: of these in a step.
        rebuilt: composed pictures in a step that are rebuilt.
        crop: columns of a training crop, at least 64, which the longest patches cover.
        weight: of the distances against the error of what is rebuilt.
        noise: standard deviation of the noise on the latents of composed pictures.
        directions: that patches are projected on, drawn anew for every step.
    """

    clips: int = 320
    drawn: int = 6
    rebuilt: int = 4
    crop: int = 96
    weight: float = 2.0
    noise: float = 0.05
    directions: int = 32


def patch_distance(drawn: Tensor, composed: Tensor, generator: torch.Generator, *, directions: int = 32) -> Tensor:
    """How differently the patches of two sets of pictures are distributed.

    Args:
        drawn: pictures (B, 1, M, N).
        composed: as many, of the same size.
        generator: draws the directions and the bands.
        directions: that patches are projected on.

    Returns:
        The mean, over kinds of patches and directions, of the Wasserstein-1 distance of the projections, over the
        spread of the composed ones. Of sets of one kind it is small and, as sets are finite, not 0.
    """
    place = int(torch.randint(PLACES, (1,), generator=generator))
    distances = []
    for kind in KINDS:
        ours, theirs = kind.of(drawn, place), kind.of(composed, place)
        ways = functional.normalize(torch.randn(ours.shape[1], directions, generator=generator), dim=0).to(ours.device)
        middle = theirs.mean(0)
        ours, theirs = (((patches - middle) @ ways).sort(0).values for patches in (ours, theirs))
        distances.append((ours - theirs).abs().mean() / (theirs.std() + 1e-3))
    return torch.stack(distances).mean()


class DecoderStep(nn.Module):
    """The decoder as one forward pass, which is what accelerate can wrap."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures in [-1, 1] of unscaled latents."""
        pictures: Tensor = self.vae.decode(latents).sample
        return pictures.float()


@dataclasses.dataclass(frozen=True)
class PolishLoss:
    """The distance of drawn from composed, and the error of what is rebuilt.

    Attributes:
        drawn: unscaled latents of drawn clips (n, L, H, W).
        latents: unscaled latents of composed pictures, of the captions that were drawn, in their order.
        images: these pictures (n, 1, M, N) in [-1, 1].
        objective: of this lesson.
        fidelity: of what is rebuilt.
    """

    drawn: Tensor
    latents: Tensor
    images: Tensor
    objective: PolishObjective
    fidelity: AutoencoderObjective

    def __call__(self, model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of one step, and its parts for the log."""
        given, count = self.objective, len(self.drawn)
        ours = torch.randint(count, (given.drawn,), generator=generator)
        theirs = torch.randint(count, (given.rebuilt,), generator=generator)
        scale = self.images.shape[-1] // self.latents.shape[-1]
        wide = min(given.crop // scale, self.latents.shape[-1])
        first = int(torch.randint(self.latents.shape[-1] - wide + 1, (1,), generator=generator))
        there = slice(first, first + wide)
        shown = slice(scale * first, scale * (first + wide))
        known = self.latents[theirs][..., there]
        known = known + given.noise * torch.randn(known.shape, generator=generator)
        device = next(model.parameters()).device
        painted = model(torch.cat([self.drawn[ours][..., there], known]).to(device))
        drawn, rebuilt = painted[: given.drawn], painted[given.drawn :]
        meant, real = self.images[ours][..., shown].to(device), self.images[theirs][..., shown].to(device)
        error = reconstruction_loss(rebuilt, real, self.fidelity)
        far = patch_distance(drawn, meant, generator, directions=given.directions)
        kept = patch_distance(rebuilt, real, generator, directions=given.directions)
        figures = {"loss/drawn": float(far.detach()), "loss/rebuilt": float(error.detach())}
        return error + given.weight * (far + kept), figures


@torch.no_grad()
def make_lesson(
    model: DiffusionModel,
    pictures: ImageSet,
    objective: PolishObjective,
    fidelity: AutoencoderObjective,
    cache: Path,
    *,
    seed: int = 0,
) -> PolishLoss:
    """Draw clips of captions that composed pictures have, and lay them beside these.

    Args:
        model: that draws; its encoder reads the pictures.
        pictures: composed, of the width that the model draws.
        objective: says how many.
        fidelity: of what is rebuilt.
        cache: folder for what was drawn.
        seed: chooses clips and captions, and is that of the first noise.

    Raises:
        RiffError: no caption is drawn as wide as the pictures are.
    """
    rng = random.Random(seed)
    some = rng.sample(range(len(pictures)), min(objective.clips, len(pictures)))
    told = {index: pictures.caption(index, rng.randrange(10**6)) for index in some}
    # A caption that the model takes for another metre would be drawn narrower than its picture is.
    told = {index: text for index, text in told.items() if _columns(model, text) == pictures.pixels.shape[-1]}
    if not told:
        raise RiffError("the model draws no caption of these pictures as wide as they are; use pictures of its kind")
    ((_, found),) = generate_class_clips(model, list(told.values()), count=len(told), seed=seed, folder=cache)
    drawn, vae = found.mean[:, 0].float(), model.components.vae
    images = pictures.images(torch.tensor(list(told))) * 2.0 - 1.0
    latents = torch.cat([encode_mode(vae, batch.to(vae.device)).cpu() for batch in images.split(8)])
    return PolishLoss(drawn, latents, images, objective, fidelity)


def _columns(model: DiffusionModel, caption: str) -> int:
    return training_width(model.config, model.interpret(caption).beats_per_bar)

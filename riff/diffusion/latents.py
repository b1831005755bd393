"""The rung between image and latents: the VAE, and the noise that generation starts from."""

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.utils.errors import RiffError, checkpoint

# Latent columns decoded at once, and the columns that two windows share.
WINDOW, OVERLAP = 128, 48
# Latent columns past which a column has no effect in an autoencoder without norms.
REACH = OVERLAP // 2

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@torch.no_grad()  # and not inference mode: latents may be trained on
def image_to_latents(image: Tensor, vae: "AutoencoderKL", *, generator: torch.Generator | None = None) -> Tensor:
    """Encode images into scaled latents, the space in which diffusion runs.

    The image's channels are fitted to the VAE's: 1 to 1, 2 to 2, 1 to 3 as grey, 2 to 3 as Riffusion writes stereo
    (red 0, green left, blue right).

    Args:
        image: ``(B, 1|2, M, N)`` in [0, 1]; M and N multiples of the VAE's downsampling (8 as a rule).
        vae: the autoencoder; its device and dtype are used.
        generator: CPU generator to sample the posterior with; None takes the distribution's mode.

    Returns:
        ``(B, L, M/8, N/8)`` float32 latents on the VAE's device, times ``scaling_factor`` (Rombach et al., 2022).

    Raises:
        RiffError: the shape does not fit, or the VAE has a channel count that no image fits.
    """
    check_image_shape(image, vae)
    pixels = fit_channels(image, vae.config.in_channels).to(device=vae.device, dtype=vae.dtype) * 2 - 1
    factor, pieces = downsampling(vae), []
    width = pixels.shape[-1] // factor
    step = width if width <= WINDOW + OVERLAP else WINDOW
    for start in range(0, width, step):
        checkpoint()
        before = min(REACH, start)
        seen = pixels[..., (start - before) * factor : (start + step + REACH) * factor]
        pieces.append(_encode(seen, vae, generator)[..., before : before + step])
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (torch.cat(pieces, dim=-1) - shift) * vae.config.scaling_factor  # (B, L, M/8, N/8)


def _encode(pixels: Tensor, vae: "AutoencoderKL", generator: torch.Generator | None) -> Tensor:
    encoded = vae.encode(pixels)
    if hasattr(encoded, "latents"):  # AutoencoderTiny has no variance to sample from
        raw: Tensor = encoded.latents
    else:
        raw = encoded.latent_dist.mode() if generator is None else encoded.latent_dist.sample(generator)
    return raw.float()


@torch.inference_mode()
def latents_to_image(latents: Tensor, vae: "AutoencoderKL", *, channels: int, loop: bool = False) -> Tensor:
    """Decode scaled latents into images: the inverse of :func:`image_to_latents`.

    Args:
        latents: ``(B, L, M/8, N/8)`` scaled latents.
        vae: the autoencoder; its device and dtype are used.
        channels: 1 or 2, what the image holds. A 3-channel VAE gives mono as the mean of its planes, stereo
            as green (left) and blue (right).
        loop: whether the end leads back into the start.

    Returns:
        ``(B, channels, M, N)`` float32 in [0, 1]. NaN stays NaN: the caller decides what a broken model
        means.

    Raises:
        RiffError: the latents or ``channels`` do not fit the VAE.
    """
    if latents.dim() != 4 or latents.shape[1] != vae.config.latent_channels:
        raise RiffError(
            f"latents have shape {tuple(latents.shape)}; this VAE decodes "
            f"(B, {vae.config.latent_channels}, height, width)"
        )
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    raw = latents.float() / vae.config.scaling_factor + shift
    raw = raw.to(device=vae.device, dtype=vae.dtype)
    if loop:
        width, reach = raw.shape[-1], REACH * downsampling(vae)
        round_the_end = torch.arange(-REACH, width + REACH, device=raw.device) % width
        pixels = _decode(raw[..., round_the_end], vae)[..., reach:-reach]
    else:
        pixels = _decode(raw, vae)
    return take_channels((pixels + 1) / 2, channels).clamp(0.0, 1.0)


def _decode(raw: Tensor, vae: "AutoencoderKL") -> Tensor:
    """Pixels in [-1, 1]; long images by overlapping windows, since the last layers need much memory."""
    width, factor = raw.shape[-1], downsampling(vae)
    pixels = vae.decode(raw[..., : WINDOW + OVERLAP]).sample.float()
    for start in range(WINDOW, width - OVERLAP, WINDOW):
        checkpoint()
        piece = vae.decode(raw[..., start : start + WINDOW + OVERLAP]).sample.float()
        # In the outer thirds of the overlap a window sees its own border: fade over in the middle.
        third = OVERLAP * factor // 3
        ramp = torch.linspace(0.0, 1.0, third, device=piece.device)
        middle = torch.lerp(pixels[..., -2 * third : -third], piece[..., third : 2 * third], ramp)
        pixels = torch.cat([pixels[..., : -2 * third], middle, piece[..., 2 * third :]], dim=-1)
    return pixels


def downsampling(vae: "AutoencoderKL") -> int:
    """Pixels per latent along each side: one halving between every two levels of the VAE."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def check_image_shape(image: Tensor, vae: "AutoencoderKL") -> None:
    """Raise RiffError unless ``image`` is ``(B, 1|2, M, N)`` with sides that the VAE can halve."""
    factor = downsampling(vae)
    if image.dim() != 4 or image.shape[1] not in (1, 2) or image.shape[2] % factor or image.shape[3] % factor:
        raise RiffError(
            f"an image of shape {tuple(image.shape)} cannot be encoded; use (B, 1 or 2, M, N) "
            f"with M and N multiples of {factor}"
        )


def fit_channels(image: Tensor, planes: int) -> Tensor:
    """Put an image ``(B, 1|2, M, N)`` on the planes of a VAE: ``(B, planes, M, N)``."""
    channels = image.shape[1]
    if channels == planes:
        return image
    if planes == 3 and channels == 1:
        return image.expand(-1, 3, -1, -1)
    if planes == 3 and channels == 2:
        return torch.cat([torch.zeros_like(image[:, :1]), image], dim=1)
    raise RiffError(f"an image with {channels} channel(s) does not fit a VAE with {planes}; it needs {channels} or 3")


def take_channels(pixels: Tensor, channels: int) -> Tensor:
    """Read ``channels`` back from the planes of a VAE: the inverse of :func:`fit_channels`."""
    planes = pixels.shape[1]
    if channels == planes:
        return pixels
    if planes == 3 and channels == 1:
        return pixels.mean(dim=1, keepdim=True)
    if planes == 3 and channels == 2:
        return pixels[:, 1:]
    raise RiffError(f"a VAE with {planes} channel(s) cannot make an image with {channels}; it needs {channels} or 3")


def seeded_generator(seed: int) -> torch.Generator:
    """The CPU generator of a clip's seed, 0 to 2^63 - 1.

    torch's generator heeds the lowest 32 bits of its seed only. A seed beyond them is folded by a hash, so that 5 and
    5 + 2^32 are different music.
    """
    if seed >= 2**32:
        seed = int.from_bytes(hashlib.blake2b(seed.to_bytes(8, "big"), digest_size=4).digest(), "big")
    return torch.Generator().manual_seed(seed)


def sample_noise(shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    """Standard normal float32 noise of ``shape``, sampled on the CPU so that a seed is the same clip on every device.

    Args:
        shape: of the result.
        generator: a CPU generator; it is advanced.

    Raises:
        RiffError: the generator is not on the CPU.
    """
    if generator.device.type != "cpu":
        raise RiffError(f"the generator is on {generator.device}; make it with torch.Generator('cpu')")
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def slerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Go from ``a`` to ``b`` along the arc between them, each sample of the batch on its own arc.

    A straight line would lose norm on the way, and a diffusion model expects noise of full norm.

    Args:
        a: ``(B, ...)`` at ``t = 0``.
        b: ``(B, ...)`` at ``t = 1``.
        t: position, a number, ``(B,)``, or one for each place of a shape like ``(1, 1, 1, W)``.

    Returns:
        ``(B, ...)`` in float32, exactly ``a`` and ``b`` at the ends; nearly parallel (or zero) samples are joined by
        a straight line.

    Source: Shoemake, 1985.
    """
    if a.shape != b.shape or a.dim() < 1:
        raise RiffError(f"slerp needs two batches of one shape; got {tuple(a.shape)} and {tuple(b.shape)}")
    flat_a, flat_b = a.double().flatten(1), b.double().flatten(1)
    column = (-1, *[1] * (a.dim() - 1))
    weight = torch.as_tensor(t, dtype=torch.float64, device=a.device)
    if weight.dim() < max(a.dim(), 2):
        weight = weight.expand(a.shape[0]).view(column)
    norms = flat_a.norm(dim=1) * flat_b.norm(dim=1)
    cosine = ((flat_a * flat_b).sum(dim=1) / norms.clamp_min(1e-300)).clamp(-1.0, 1.0)
    angle = torch.acos(cosine).view(column)
    straight = ((cosine.abs() > 0.9995) | (norms == 0)).view(column)
    sine = torch.where(straight, torch.ones_like(angle), torch.sin(angle))
    weight_a = torch.where(straight, 1 - weight, torch.sin((1 - weight) * angle) / sine)
    weight_b = torch.where(straight, weight, torch.sin(weight * angle) / sine)
    return (weight_a * a.double() + weight_b * b.double()).float()

"""A loaded model and what it can do: read prompts, and draw pictures on a canvas."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.canvas import CanvasPrediction, Conditions, Layout, canvas_noise
from riff.config import SpectrogramConfig
from riff.diffusion import Original, StepCallback, denoise
from riff.errors import ModelError
from riff.latents import downsampling, latents_to_image
from riff.plan import usual_columns
from riff.prior import MusicPrior
from riff.prompt import embed_prompt

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

# Guidance that suits each family: Riffusion's own default, and what small models trained on exact captions need.
RIFFUSION_GUIDANCE = 7.0
MINI_GUIDANCE = 1.8


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How pictures are drawn.

    Attributes:
        steps: denoising steps.
        callback: called as ``(step, steps, latents)`` after each.
    """

    steps: int = 20
    callback: StepCallback | None = None


@dataclasses.dataclass(frozen=True)
class Model:
    """The parts of a checkpoint.

    Attributes:
        parts: the StableDiffusionPipeline that holds UNet, VAE, text encoder, tokenizer and scheduler.
        config: what its pictures mean.
        prior: the music prior of riff's own models, else None.
        name: what the checkpoint is called in the files it makes.
    """

    parts: "StableDiffusionPipeline"
    config: SpectrogramConfig
    prior: MusicPrior | None
    name: str

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.parts.unet.device

    @property
    def default_guidance(self) -> float:
        """Weight of the prompt that suits this family of models."""
        return RIFFUSION_GUIDANCE if self.prior is None else MINI_GUIDANCE

    @property
    def factor(self) -> int:
        """Picture columns per latent column."""
        return downsampling(self.parts.vae)

    @property
    def multiple(self) -> int:
        """Picture columns come in multiples of this, so that the UNet can halve its latents."""
        return self.factor * 2 ** (len(self.parts.unet.config.block_out_channels) - 1)

    @property
    def latent_rows(self) -> tuple[int, int]:
        """(L, H): channels and rows of the latents."""
        return self.parts.vae.config.latent_channels, self.config.n_mels // self.factor

    def layout(self, columns: int, *, beats_per_bar: int = 4, loop: bool = False, ends_pinned: bool = False) -> Layout:
        """Where the windows of a canvas lie.

        Args:
            columns: of the picture, a multiple of ``multiple``.
            beats_per_bar: 3 or 4; windows slide by bars on the beats grid, else by half their width.
            loop: whether the end leads back into the start.
            ends_pinned: whether the first and the last window draw what clips of the training width would.
        """
        width, window = columns // self.factor, usual_columns(self.config, beats_per_bar) // self.factor
        stride, rest = divmod(beats_per_bar * self.config.frames_per_beat, self.factor)
        if self.config.grid == "seconds" or rest or window % stride:
            stride = window // 2
        pinned = (0, width - window) if ends_pinned else ()
        return Layout(width, window, max(1, stride), loop, tuple(dict.fromkeys(pinned)))

    def embed(self, texts: Sequence[str]) -> Tensor:
        """(B, tokens, D) embeddings of B texts."""
        return embed_prompt(list(texts), self.parts.tokenizer, self.parts.text_encoder)

    def draw(
        self,
        noise: Tensor,
        layout: Layout,
        conditions: Conditions,
        seeds: Sequence[int],
        sampling: Sampling,
        *,
        original: Original | None = None,
    ) -> Tensor:
        """Pictures ``(B, C, M, N)`` in [0, 1] on the CPU, drawn from noise ``(B, L, H, W)``.

        Args:
            noise: standard normal.
            layout: of the canvas.
            conditions: what the model is told.
            seeds: B of them, for schedulers that add noise on the way.
            sampling: how.
            original: latents to start from or to keep.

        Raises:
            ModelError: the model drew numbers that are not finite.
        """
        # A scheduler counts its steps: one of our own lets two threads share the model.
        scheduler = type(self.parts.scheduler).from_config(self.parts.scheduler.config)
        latents = denoise(
            CanvasPrediction(self.parts.unet, layout, conditions),
            scheduler,
            noise.to(self.device),
            num_inference_steps=sampling.steps,
            original=original,
            generator=[_step_generator(seed) for seed in seeds],
            callback_on_step_end=sampling.callback,
        )
        images = latents_to_image(latents, self.parts.vae, channels=self.config.channels, loop=layout.loop).cpu()
        if not bool(torch.isfinite(images).all()):
            raise ModelError(
                f"{self.name} drew numbers that are not finite in {self.parts.unet.dtype}; "
                "load it with dtype=torch.float32"
            )
        # Copied out of inference mode, so that a clip's picture may be trained on.
        return images.clone()

    def noise(self, layout: Layout, seed: int) -> Tensor:
        """(1, L, H, W): that of one clip, every window its own."""
        return canvas_noise(self.latent_rows, layout, [seed])


def _step_generator(seed: int) -> torch.Generator:
    """For noise on the way; not the one that the first noise is drawn from, or the two would be alike."""
    other = torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(seed))
    return torch.Generator().manual_seed(int(other))

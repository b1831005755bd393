"""Previews during training: what the model generates and how it sounds, for TensorBoard."""

import dataclasses
from typing import Any

import torch

from riff.diffusion.latents import downsampling, latents_to_image, sample_noise
from riff.diffusion.sampling import ALWAYS, Interval, PlainPrediction, denoise
from riff.prompt.encoder import embed_prompt
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import image_to_mel
from riff.spectrogram.inversion.waveform import mel_to_waveform


@dataclasses.dataclass(frozen=True)
class DenoiserPreview:
    """Generates the same prompts from the same noise each time, so that previews can be compared.

    Attributes:
        vae: autoencoder that decodes the latents.
        tokenizer: of the prompts.
        scheduler: of the 20 steps.
        config: of the images.
        prompts: to generate.
        guidance_scale: weight of the prompt.
        guidance_interval: shares of the steps from and until which there is guidance.
        bpm: tempo of the sounds.
    """

    vae: Any
    tokenizer: Any
    scheduler: Any
    config: SpectrogramConfig
    prompts: tuple[str, ...]
    guidance_scale: float = 3.0
    guidance_interval: Interval = ALWAYS
    bpm: float = 100.0

    @torch.inference_mode()
    def __call__(self, denoiser: Any, step: int, writer: Any) -> None:
        """Add an image and a sound for every prompt to the log."""
        scale = downsampling(self.vae)
        size = (self.vae.config.latent_channels, self.config.n_mels // scale, self.config.width // scale)
        noise = sample_noise((len(self.prompts), *size), generator=torch.Generator().manual_seed(7))
        predict = PlainPrediction(
            denoiser.unet,
            embed_prompt(list(self.prompts), self.tokenizer, denoiser.text_encoder),
            embed_prompt([""] * len(self.prompts), self.tokenizer, denoiser.text_encoder),
            self.guidance_scale,
            self.guidance_interval,
        )
        latents = denoise(predict, self.scheduler, noise.to(next(denoiser.parameters()).device), num_inference_steps=20)
        images = latents_to_image(latents, self.vae, channels=self.config.channels)
        writer.add_images("generated", images[:, :1], step)
        waveforms = mel_to_waveform(image_to_mel(images, self.config), self.config, bpm=self.bpm, quality="fast")
        for prompt, waveform in zip(self.prompts, waveforms, strict=True):
            sound = waveform[0] / waveform.abs().max().clamp(min=1e-6)
            writer.add_audio(prompt, sound[None].cpu(), step, sample_rate=self.config.sample_rate)

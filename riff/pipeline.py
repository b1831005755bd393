"""RiffPipeline: everything a user calls. A sentence in, music out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from riff.audio import peak_normalize
from riff.checkpoint import load_checkpoint, save_checkpoint
from riff.clip import Clip, RiffOutput
from riff.config import SpectrogramConfig
from riff.diffusion import StepCallback, choose_scheduler, count_steps, denoise
from riff.errors import ModelError
from riff.image import image_to_mel
from riff.inversion import Quality
from riff.latents import downsampling, draw_noise, latents_to_image
from riff.music import canonical_keyscale
from riff.plan import Plan, batches, known_text, make_plan
from riff.prior import MusicPrior
from riff.prompt import embed_prompt
from riff.request import (
    check_latents,
    check_length,
    check_prompts,
    check_sampling,
    check_text,
    clip_seeds,
    find_device,
)
from riff.spectrogram import mel_to_waveform

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

__all__ = ["Clip", "RiffOutput", "RiffPipeline"]

# Guidance that suits each family: Riffusion's own default, and what small models trained on exact captions
# need.
RIFFUSION_GUIDANCE = 7.0
MINI_GUIDANCE = 1.8
# Clips denoised side by side on a GPU. A CPU gains nothing by it, and one at a time a clip's bytes do not
# depend on its neighbours.
BATCH = 4
# Louder than this and a clip is turned down, so that no sample is clipped in a file.
PEAK = 0.97


class RiffPipeline:
    """Text to music by latent diffusion on spectrograms (Forsgren & Martiros, 2022).

    Attributes:
        pipeline: the StableDiffusionPipeline that holds the model's parts.
        config: what its pictures mean.
        prior: the music prior of riff's own models, else None.
        name: what the checkpoint is called in the files it makes.
    """

    def __init__(
        self,
        pipeline: "StableDiffusionPipeline",
        config: SpectrogramConfig,
        *,
        prior: MusicPrior | None = None,
        name: str = "unknown",
    ) -> None:
        self.pipeline = pipeline
        self.config = config
        self.prior = prior
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        variant: str | None = None,
        scheduler: str | None = None,
    ) -> "RiffPipeline":
        """Load a model.

        Args:
            source: None or "riff-mini" for the bundled model, a folder, a ``.safetensors`` file, or a Hub id
                such as "riffusion/riffusion-model-v1".
            device: "cpu", "cuda" or "mps"; None takes the fastest there is.
            dtype: of the weights; None is float16 on CUDA and float32 elsewhere.
            revision: of a Hub id.
            local_files_only: no network.
            variant: weights to prefer, e.g. "fp16".
            scheduler: "ddim", "dpmsolver++", "euler", "unipc" or a diffusers class name; None is the
                checkpoint's own.

        Raises:
            ModelError: the checkpoint cannot be used.
            SystemProblem: there is no such device.
        """
        place = find_device(device)
        if dtype is None:
            dtype = torch.float16 if place.type == "cuda" else torch.float32
        pipeline, config, prior = load_checkpoint(
            source,
            device=place,
            dtype=dtype,
            revision=revision,
            local_files_only=local_files_only,
            variant=variant,
        )
        if scheduler is not None:
            pipeline.scheduler = choose_scheduler(scheduler, pipeline.scheduler)
        is_local = source is not None and Path(source).exists()
        name = Path(source).resolve().name if is_local and source is not None else str(source or "riff-mini")
        return cls(pipeline, config, prior=prior, name=name)

    @property
    def sampling_rate(self) -> int:
        """Samples per second of the sound."""
        return self.config.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pipeline.unet.device

    def to(self, device: str | torch.device) -> "RiffPipeline":
        """Move the model to ``device``."""
        self.pipeline.to(device)
        return self

    def save_pretrained(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the checkpoint: a plain StableDiffusionPipeline folder with ``spectrogram_config.json``."""
        return save_checkpoint(self.pipeline, self.config, folder, prior=self.prior, force=force)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        negative_prompt: str | None = None,
        bpm: float | None = None,
        bars: int | None = None,
        duration: float | None = None,
        keyscale: str | None = None,
        seed: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        num_waveforms_per_prompt: int = 1,
        latents: Tensor | None = None,
        callback_on_step_end: StepCallback | None = None,
        quality: Quality = "default",
        progress: bool = False,
    ) -> RiffOutput:
        """Turn sentences into music.

        Args:
            prompt: what to play. Tempo ("84 bpm"), key ("F# minor") and metre ("3/4") are understood.
            negative_prompt: what to stay away from.
            bpm: tempo, 20 to 400 beats per minute; None takes the prompt's, else what the model thinks suits.
            bars: length in bars, 1 to 512. Without bars or duration the clip is one training picture long.
            duration: length in seconds, 0.1 to 600, exact to the sample.
            keyscale: key, e.g. "F# minor".
            seed: clip number i of the call is drawn from ``seed + i``, alone or in a batch; None is random.
            generator: CPU generator, or one per clip, that the clips' seeds are drawn from.
            num_inference_steps: denoising steps, 1 to 150.
            guidance_scale: weight of the prompt, 0 to 50; up to 1 is no guidance; None is the model's usual.
            num_waveforms_per_prompt: clips of each prompt, 1 to 16.
            latents: ``(clips, L, M/8, columns/8)`` noise to start from instead of the seed's.
            callback_on_step_end: called as ``(step, steps, latents)``; may return other latents.
            quality: of the step from picture to sound: fast, default, high, best or griffin-lim.
            progress: show a progress bar.

        Returns:
            The clips, ``num_waveforms_per_prompt`` for each prompt in turn.

        Raises:
            RiffError: an argument is out of its range.
            ModelError: the model drew numbers that are not finite.
        """
        prompts = check_prompts(prompt)
        check_sampling(bpm, num_inference_steps, guidance_scale, num_waveforms_per_prompt, quality)
        if guidance_scale is None:
            guidance_scale = RIFFUSION_GUIDANCE if self.prior is None else MINI_GUIDANCE
        check_length(bars, duration)
        keyscale = None if keyscale is None else canonical_keyscale(keyscale)
        negative = check_text(negative_prompt or "", "negative_prompt")
        negative, _ = known_text(negative, self.pipeline, self.prior)
        repeated = [text for text in prompts for _ in range(num_waveforms_per_prompt)]
        plans = [
            make_plan(
                text,
                seed=clip_seed,
                bpm=bpm,
                bars=bars,
                duration=duration,
                keyscale=keyscale,
                parts=self.pipeline,
                config=self.config,
                prior=self.prior,
            )
            for text, clip_seed in zip(repeated, clip_seeds(len(repeated), seed, generator), strict=True)
        ]
        if latents is not None:
            check_latents(latents, [self._latent_shape(plan) for plan in plans])
        settings = self._settings(num_inference_steps, guidance_scale, negative_prompt)
        settings |= {"keyscale": keyscale, "bars": bars, "duration": duration}
        clips: list[Clip] = []
        with count_steps(progress, callback_on_step_end) as count_step:
            for batch in batches(plans, size=1 if self.device.type == "cpu" else BATCH):
                noise = None if latents is None else latents[len(clips) : len(clips) + len(batch)]
                images = self._draw(batch, negative, guidance_scale, num_inference_steps, noise, count_step)
                clips += [
                    self._finish(plan, image, settings, quality) for plan, image in zip(batch, images, strict=True)
                ]
        return RiffOutput(clips=clips, sampling_rate=self.sampling_rate)

    def _settings(self, steps: int, guidance: float, negative_prompt: str | None) -> dict[str, Any]:
        return {
            "model": self.name,
            "steps": steps,
            "guidance": float(guidance),
            "scheduler": type(self.pipeline.scheduler).__name__,
            "negative_prompt": negative_prompt,
        }

    def _latent_shape(self, plan: Plan) -> tuple[int, int, int]:
        factor = downsampling(self.pipeline.vae)
        channels = self.pipeline.vae.config.latent_channels
        return channels, self.config.n_mels // factor, plan.drawn_columns // factor

    def _draw(
        self,
        plans: list[Plan],
        negative: str,
        guidance: float,
        steps: int,
        noise: Tensor | None,
        count_step: StepCallback,
    ) -> list[Tensor]:
        """The pictures ``(C, M, N)`` of plans of one width, drawn side by side."""
        parts = self.pipeline
        generators = [torch.Generator().manual_seed(plan.seed) for plan in plans]
        if noise is None:
            shape = self._latent_shape(plans[0])
            noise = torch.stack([draw_noise(shape, generator=generator) for generator in generators])
        # A scheduler counts its steps: one of our own lets two threads share the model.
        scheduler = type(parts.scheduler).from_config(parts.scheduler.config)
        latents = denoise(
            parts.unet,
            scheduler,
            noise,
            embed_prompt([plan.text for plan in plans], parts.tokenizer, parts.text_encoder),
            negative_prompt_embeds=embed_prompt([negative] * len(plans), parts.tokenizer, parts.text_encoder),
            guidance_scale=guidance,
            num_inference_steps=steps,
            generator=generators,
            callback_on_step_end=count_step,
        )
        images = latents_to_image(latents, parts.vae, channels=self.config.channels).cpu()
        if not bool(torch.isfinite(images).all()):
            raise ModelError(
                f"{self.name} drew numbers that are not finite in {parts.unet.dtype}; load it with dtype=torch.float32"
            )
        # Copied out of inference mode, so that a clip's picture may be trained on.
        return [image[..., : plan.columns].clone() for plan, image in zip(plans, images, strict=True)]

    def _finish(self, plan: Plan, image: Tensor, settings: dict[str, Any], quality: Quality) -> Clip:
        """From a picture to the clip that the user gets."""
        waveform = mel_to_waveform(
            image_to_mel(image, self.config),
            self.config,
            bpm=plan.bpm,
            quality=quality,
            generator=torch.Generator().manual_seed(plan.seed),
        )[..., : plan.samples]
        # The power scale forgets how loud a clip was; the decibel scale knows, and is only kept from
        # clipping.
        if self.config.amplitude == "power" or float(waveform.abs().max()) > PEAK:
            waveform = peak_normalize(waveform, peak=PEAK)
        lost = {"ignored_words": plan.ignored_words, "dropped_words": plan.dropped_words}
        return Clip(
            waveform=waveform,
            sample_rate=self.sampling_rate,
            image=image,
            config=self.config,
            prompt=plan.prompt,
            seed=plan.seed,
            bpm=plan.bpm,
            settings={**settings, **lost, "beats_per_bar": plan.beats_per_bar},
        )

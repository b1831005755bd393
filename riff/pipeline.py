"""RiffPipeline: everything a user calls. A sentence in, music out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from riff.canvas import Conditions
from riff.checkpoint import load_checkpoint, save_checkpoint
from riff.clip import Clip, RiffOutput, play
from riff.config import SpectrogramConfig
from riff.diffusion import StepCallback, choose_scheduler, count_steps
from riff.inversion import Quality
from riff.model import Model, Sampling
from riff.music import canonical_keyscale
from riff.plan import Plan, batches, known_text, make_plan
from riff.prior import MusicPrior
from riff.request import (
    check_latents,
    check_length,
    check_prompts,
    check_sampling,
    check_text,
    clip_seeds,
    find_device,
)

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

__all__ = ["Clip", "RiffOutput", "RiffPipeline"]

# Clips denoised side by side on a GPU. A CPU gains nothing by it, and one at a time a clip's bytes do not
# depend on its neighbours.
BATCH = 4


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
    def model(self) -> Model:
        """The same parts, as those who draw need them."""
        return Model(self.pipeline, self.config, self.prior, self.name)

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
        loop: bool = False,
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
            loop: draw clips whose end leads back into their start, to the sample. A loop is whole bars long.
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
            guidance_scale = self.model.default_guidance
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
                loop=loop,
            )
            for text, clip_seed in zip(repeated, clip_seeds(len(repeated), seed, generator), strict=True)
        ]
        if latents is not None:
            shapes = [(*self.model.latent_rows, plan.drawn_columns // self.model.factor) for plan in plans]
            check_latents(latents, shapes)
        settings = self._settings(num_inference_steps, guidance_scale, negative_prompt)
        settings |= {"keyscale": keyscale, "bars": bars, "duration": duration, "loop": loop or None}
        clips: list[Clip] = []
        with count_steps(progress, callback_on_step_end) as count_step:
            for batch in batches(plans, size=1 if self.device.type == "cpu" else BATCH):
                noise = None if latents is None else latents[len(clips) : len(clips) + len(batch)]
                sampling = Sampling(num_inference_steps, count_step)
                images = self._draw(batch, negative, guidance_scale, noise, sampling)
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

    def _draw(
        self, plans: list[Plan], negative: str, guidance: float, noise: Tensor | None, sampling: Sampling
    ) -> list[Tensor]:
        """The pictures ``(C, M, N)`` of plans of one width and metre, drawn side by side."""
        model, first = self.model, plans[0]
        layout = model.layout(first.drawn_columns, beats_per_bar=first.reading.beats_per_bar, loop=first.loop)
        if noise is None:
            noise = torch.cat([model.noise(layout, plan.seed) for plan in plans])
        conditions = Conditions(
            model.embed([plan.reading.text for plan in plans])[:, None],
            torch.tensor([guidance]),
            model.embed([negative] * len(plans))[:, None],
        )
        images = model.draw(noise, layout, conditions, [plan.seed for plan in plans], sampling)
        return [image[..., : plan.columns] for plan, image in zip(plans, images, strict=True)]

    def _finish(self, plan: Plan, image: Tensor, settings: dict[str, Any], quality: Quality) -> Clip:
        """From a picture to the clip that the user gets."""
        reading = plan.reading
        waveform = play(image, self.config, bpm=plan.bpm, seed=plan.seed, quality=quality, loop=plan.loop)
        lost = {"ignored_words": reading.ignored_words, "dropped_words": reading.dropped_words}
        return Clip(
            waveform=waveform[..., : plan.samples],
            sample_rate=self.sampling_rate,
            image=image,
            config=self.config,
            prompt=reading.prompt,
            seed=plan.seed,
            bpm=plan.bpm,
            settings={**settings, **lost, "beats_per_bar": reading.beats_per_bar},
        )

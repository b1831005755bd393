"""RiffPipeline: everything a user calls. A sentence in, music out."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.diffusion.checkpoint import load_checkpoint, save_checkpoint
from riff.diffusion.fingerprint import CheckpointOrigin, find_origin
from riff.diffusion.lora import load_lora
from riff.diffusion.model import DenoiseOptions, DiffusionModel, compile_denoiser, device_kind
from riff.diffusion.sampling import Interval, StepCallback, choose_scheduler, count_steps
from riff.music.theory import canonical_key
from riff.prompt.interpret import interpret_prompt
from riff.prompt.prior import MusicPrior
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.inversion.solver import Quality
from riff.tasks.checks import (
    InterpolationEnd,
    Wish,
    check_latents,
    check_length,
    check_metre,
    check_negative,
    check_prompts,
    check_sampling,
    clip_seeds,
    each_of,
    find_device,
)
from riff.tasks.clip import Clip, RiffOutput
from riff.tasks.edit import extend, inpaint, remix, remix_stems
from riff.tasks.interpolate import Picture, interpolate, read_mask, read_picture
from riff.tasks.provenance import Recipe
from riff.tasks.recording import Audio, open_recording
from riff.tasks.stems import Separator, choose_stems
from riff.tasks.text_to_music import generate_clips, make_plan
from riff.tasks.timeline import Easing, Timeline
from riff.tasks.walk import draw_timeline, walk_timeline
from riff.utils.errors import ModelError, RiffError
from riff.utils.validation import MAX_SEED, check_interval, check_number, show

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


class RiffPipeline:
    """Text to music by latent diffusion on spectrograms (Forsgren & Martiros, 2022).

    Attributes:
        model: the checkpoint: its components, config, prior, name, origin and guidance interval.
    """

    def __init__(
        self,
        components: "StableDiffusionPipeline",
        config: SpectrogramConfig,
        *,
        prior: MusicPrior | None = None,
        name: str = "unknown",
        origin: CheckpointOrigin | None = None,
        guidance_interval: Interval | None = None,
    ) -> None:
        origin = CheckpointOrigin() if origin is None else origin
        self.model = DiffusionModel(components, config, prior, name, origin, guidance_interval)

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
        guidance_interval: Interval | None = None,
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
            guidance_interval: shares of the steps, 0 to 1, from and until which there is guidance. In the others the
                prompt alone is followed, in half the time. None is the model's usual: (0.1, 0.5) of riff-mini, all of
                others.

        Raises:
            ModelError: the checkpoint cannot be used.
            RiffError: guidance_interval is none.
            SystemProblem: there is no such device.
        """
        if guidance_interval is not None:
            guidance_interval = check_interval(guidance_interval)
        place = find_device(device)
        if dtype is None:
            dtype = torch.float16 if place.type == "cuda" else torch.float32
        components, config, prior = load_checkpoint(
            source,
            device=place,
            dtype=dtype,
            revision=revision,
            local_files_only=local_files_only,
            variant=variant,
        )
        if scheduler is not None:
            components.scheduler = choose_scheduler(scheduler, components.scheduler)
        is_local = source is not None and Path(source).exists()
        name = Path(source).resolve().name if is_local and source is not None else str(source or "riff-mini")
        origin = find_origin(source, revision=revision, variant=variant)
        return cls(components, config, prior=prior, name=name, origin=origin, guidance_interval=guidance_interval)

    @property
    def components(self) -> "StableDiffusionPipeline":
        """The StableDiffusionPipeline that holds UNet, VAE, text encoder, tokenizer and scheduler."""
        return self.model.components

    pipeline = components  # its former name

    @property
    def config(self) -> SpectrogramConfig:
        """What the model's spectrograms mean."""
        return self.model.config

    @property
    def prior(self) -> MusicPrior | None:
        """The music prior of riff's own models, else None."""
        return self.model.prior

    @property
    def name(self) -> str:
        """What the checkpoint is called in the files it makes."""
        return self.model.name

    @property
    def origin(self) -> CheckpointOrigin:
        """Where the weights came from."""
        return self.model.origin

    @property
    def guidance_interval(self) -> Interval | None:
        """Shares of the steps from and until which there is guidance; None is the model's usual."""
        return self.model.guidance_interval

    @guidance_interval.setter
    def guidance_interval(self, interval: Interval | None) -> None:
        self.model.guidance_interval = interval

    @property
    def compiled(self) -> bool:
        """Whether the denoiser was compiled."""
        return self.model.compiled

    @property
    def sampling_rate(self) -> int:
        """Samples per second of the sound."""
        return self.config.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.components.unet.device

    def to(self, device: str | torch.device) -> "RiffPipeline":
        """Move the model to ``device``."""
        self.components.to(device)
        return self

    def compile(self) -> "RiffPipeline":
        """Compile the denoiser, in place, for many or long drawings; see :func:`riff.diffusion.model.compile_denoiser`.

        Load LoRAs before. What it draws differs in the last digits, so compiled and plain files are not the same bytes.

        Raises:
            SystemProblem: it cannot be compiled here.
        """
        compile_denoiser(self.components.unet)
        self.model.compiled = True
        return self

    def load_lora(self, path: str | Path, *, weight: float = 1.0) -> str:
        """Put a LoRA on top of the model; several add up. Needs the extra ``riff-music[lora]``.

        Args:
            path: a ``.safetensors`` file in diffusers' or kohya's layout, or a folder that ``riff train`` wrote. Words
                in ``learned_embeds.safetensors`` beside it are learned as well.
            weight: how much of it, 0 to 2; a timeline can change it on the way.

        Returns:
            The adapter's name.

        Raises:
            ModelError: it cannot be used with this model.
            SystemProblem: peft is not installed.
        """
        check_number(weight, "weight", 0, 2)
        name = load_lora(self.components, Path(path), weight)
        self.origin.add_lora(Path(path), weight)
        return name

    def save_pretrained(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the checkpoint: a plain StableDiffusionPipeline folder with ``spectrogram_config.json``."""
        return save_checkpoint(self.components, self.config, folder, prior=self.prior, force=force)

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
        key_tries: int = 0,
        timesignature: str | None = None,
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
            key_tries: measure each clip's key, and draw it up to so many times, 0 to 16, until it is ``keyscale``; the
                nearest is transposed at the last. 0 does not measure.
            timesignature: metre, "3/4" or "4/4"; None is the prompt's, else what the model thinks suits.
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
        check_number(key_tries, "key_tries", 0, 16, whole=True)
        check_metre(timesignature)
        keyscale = None if keyscale is None else canonical_key(keyscale)
        if key_tries and keyscale is None:
            raise RiffError(f"key_tries is {key_tries} without a keyscale; say which key to look for")
        negative = check_negative(negative_prompt)
        repeated = [text for text in prompts for _ in range(num_waveforms_per_prompt)]
        plans = [
            make_plan(
                text,
                seed=clip_seed,
                bpm=bpm,
                bars=bars,
                duration=duration,
                keyscale=keyscale,
                parts=self.components,
                config=self.config,
                prior=self.prior,
                loop=loop,
                timesignature=timesignature,
            )
            for text, clip_seed in zip(repeated, clip_seeds(len(repeated), seed, generator), strict=True)
        ]
        if latents is not None:
            shapes = [(*self.model.latent_rows, plan.drawn_columns // self.model.factor) for plan in plans]
            check_latents(latents, shapes)
        settings = self.model.settings(num_inference_steps, guidance_scale, quality) | {
            "negative_prompt": negative_prompt,
            "bpm_asked": bpm,
            "from_latents": None if latents is None else True,
            "keyscale": keyscale,
            "key_tries": key_tries or None,
            "timesignature": timesignature,
            "bars": bars,
            "duration": duration,
            "loop": loop or None,
        }
        with count_steps(progress, callback_on_step_end) as count_step:
            sampling = DenoiseOptions(num_inference_steps, count_step)
            wish = Wish(negative, guidance_scale, sampling, quality, keyscale, key_tries, settings)
            clips = generate_clips(self.model, plans, wish, noise=latents)
        return RiffOutput(clips=clips, sampling_rate=self.sampling_rate)

    @torch.no_grad()
    def walk(
        self,
        prompts: list[str],
        seeds: list[int] | int | None = None,
        *,
        bars_per_step: int | None = None,
        bars: int | None = None,
        negative_prompt: str | list[str] | None = None,
        bpm: float | list[float] | None = None,
        keyscale: str | list[str] | None = None,
        guidance_scale: float | list[float] | None = None,
        easing: Easing = "linear",
        variation: float = 0.0,
        loop: bool = False,
        num_inference_steps: int = 20,
        callback_on_step_end: StepCallback | None = None,
        quality: Quality = "default",
        progress: bool = False,
    ) -> Clip:
        """Go from prompt to prompt on one canvas, with no join and every beat in its place.

        The first two bars are those of the plain clip of the first prompt and seed, the last two those of the last.

        Args:
            prompts: two stations or more.
            seeds: one for each, or one for all; None is a random one for all.
            bars_per_step: from one station's first bar to the next one's, 3 to 256; None is 8.
            bars: length of the whole in place of that, 1 to 512; stations then lie as evenly as bars allow.
            negative_prompt: one for all, or one for each; so with the three that follow.
            bpm: None takes the prompts' tempi, else what the model thinks suits; the tempo glides between them.
            keyscale: key, e.g. "F# minor".
            guidance_scale: None is the model's usual.
            easing: of the way: "linear" or "smooth".
            variation: 0 goes on playing the two bars that it changes, 1 plays new ones every two bars.
            loop: lead from the last station back to the first.
            num_inference_steps: denoising steps, 1 to 150.
            callback_on_step_end: as for a clip.
            quality: as for a clip.
            progress: show a progress bar.

        Raises:
            RiffError: an argument is out of its range.
        """
        texts = check_prompts(prompts)
        for each in bpm if isinstance(bpm, list) else [bpm]:
            check_sampling(each, num_inference_steps, None, 1, quality)
        if bars is not None and bars_per_step is not None:
            raise RiffError(f"bars is {bars!r} and bars_per_step {bars_per_step!r}; give one of them")
        check_number(8 if bars_per_step is None else bars_per_step, "bars_per_step", 1, 256, whole=True)
        check_number(1 if bars is None else bars, "bars", 1, 512, whole=True)
        check_number(variation, "variation", 0, 1)
        if seeds is None or isinstance(seeds, int):
            seeds = [clip_seeds(1, seeds, None)[0]] * len(texts)
        timeline = walk_timeline(
            self.model,
            texts,
            seeds=each_of(seeds, texts, "seeds"),
            bars_per_step=8 if bars_per_step is None else bars_per_step,
            bars=bars,
            negative_prompts=[text or "" for text in each_of(negative_prompt, texts, "negative_prompt")],
            guidance_scales=each_of(guidance_scale, texts, "guidance_scale"),
            tempi=each_of(bpm, texts, "bpm"),
            keyscales=each_of(keyscale, texts, "keyscale"),
            easing=easing,
            variation=variation,
            loop=loop,
        )
        with count_steps(progress, callback_on_step_end) as count_step:
            return draw_timeline(
                self.model,
                timeline,
                seed=seeds[0],
                guidance_scale=self.model.default_guidance,
                sampling=DenoiseOptions(num_inference_steps, count_step),
                quality=quality,
                ends_pinned=not loop,
            )

    @torch.no_grad()
    def render(
        self,
        timeline: Timeline | str | Path,
        *,
        seed: int | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int = 20,
        callback_on_step_end: StepCallback | None = None,
        quality: Quality = "default",
        progress: bool = False,
    ) -> Clip:
        """Play a timeline: prompts, tempo, key and more that change over time, gap-free.

        Args:
            timeline: a :class:`riff.Timeline`, or the path of its YAML or JSON file.
            seed: of keyframes that have none; None is random.
            guidance_scale: of keyframes that have none; None is the model's usual.
            num_inference_steps: denoising steps, 1 to 150.
            callback_on_step_end: as for a clip.
            quality: as for a clip.
            progress: show a progress bar.

        Raises:
            RiffError: the timeline is wrong, or an argument out of its range.
        """
        if not isinstance(timeline, Timeline):
            timeline = Timeline.load(timeline)
        check_sampling(None, num_inference_steps, guidance_scale, 1, quality)
        with count_steps(progress, callback_on_step_end) as count_step:
            return draw_timeline(
                self.model,
                timeline,
                seed=clip_seeds(1, seed, None)[0],
                guidance_scale=self.model.default_guidance if guidance_scale is None else guidance_scale,
                sampling=DenoiseOptions(num_inference_steps, count_step),
                quality=quality,
            )

    @torch.no_grad()
    def remix(
        self,
        audio: Audio,
        prompt: str,
        *,
        strength: float = 0.6,
        stems: list[str] | None = None,
        separator: Separator | None = None,
        sampling_rate: int | None = None,
        negative_prompt: str | None = None,
        bpm: float | None = None,
        downbeat: float | None = None,
        keyscale: str | None = None,
        seed: int | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        callback_on_step_end: StepCallback | None = None,
        quality: Quality = "default",
        progress: bool = False,
    ) -> Clip:
        """Play a recording anew as a prompt says, on its own beats and exactly as long as it is.

        Args:
            audio: a sound file, a clip, or ``(C, T)`` samples with their ``sampling_rate``.
            prompt: what to make of it.
            strength: 0 (as it is) to 1 (only its length and its beats are left).
            stems: play only these anew, of drums, bass, other and vocals; the rest of the recording stays. Needs the
                extra ``riff-music[stems]``, or a ``separator``.
            separator: takes a recording apart in place of Demucs: from ``(C, T)`` samples and their rate to stems by
                name, of the same shape. Its names are then those that ``stems`` may have.
            sampling_rate: of samples.
            negative_prompt: what to stay away from.
            bpm: its tempo; None is what the clip or a file made by riff says, else the beats are found. Where there
                is no beat, a warning says so, and the grid lies in seconds: equal beats of the prompt's tempo from the
                recording's start. ``clip.settings["beats"]`` is "given", "found" or "none".
            downbeat: seconds to a first beat of a bar; None finds it.
            keyscale: key, e.g. "F# minor".
            seed: None is random.
            num_inference_steps: denoising steps, 1 to 150.
            guidance_scale: None is the model's usual.
            callback_on_step_end: as for a clip.
            quality: as for a clip.
            progress: show a progress bar.

        Raises:
            RiffError: an argument is out of its range, or the recording cannot be read.
            ModelError: Demucs' weights are not here and cannot be downloaded.
            SystemProblem: Demucs is not installed.
        """
        check_number(strength, "strength", 0, 1)
        choice = choose_stems(stems, separator, device=self.device)
        with count_steps(progress, callback_on_step_end) as count_step:
            job = open_recording(
                self.model, audio, prompt, sampling_rate=sampling_rate, negative_prompt=negative_prompt, bpm=bpm,
                downbeat=downbeat, keyscale=keyscale, seed=seed, guidance_scale=guidance_scale, quality=quality,
                sampling=DenoiseOptions(num_inference_steps, count_step),
            )  # fmt: skip
            image = None
            if choice is None:
                sound, image = remix(self.model, job.laid, job.request, strength=strength)
            else:
                sound = remix_stems(self.model, job.laid, job.recording, job.request, choice, strength=strength)
        told = {"strength": strength, **({} if choice is None else choice.told)}
        return job.clip(self.model, "remix", sound, self.sampling_rate, image=image, told=told)

    @torch.no_grad()
    def extend(
        self,
        audio: Audio,
        prompt: str,
        *,
        bars: int = 8,
        sampling_rate: int | None = None,
        negative_prompt: str | None = None,
        bpm: float | None = None,
        downbeat: float | None = None,
        keyscale: str | None = None,
        seed: int | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        callback_on_step_end: StepCallback | None = None,
        quality: Quality = "default",
        progress: bool = False,
    ) -> Clip:
        """Let a recording go on: up to a short crossfade at its end it stays as it is, sample for sample.

        What is new begins on the recording's beat, in its tempo and at its level, and ends at the end of a bar. The
        clip has the recording's sample rate and channels. Arguments are those of :meth:`remix`, and:

        Args:
            audio: the recording.
            prompt: what follows.
            bars: how much, 1 to 512.
        """
        check_number(bars, "bars", 1, 512, whole=True)
        with count_steps(progress, callback_on_step_end) as count_step:
            job = open_recording(
                self.model, audio, prompt, sampling_rate=sampling_rate, negative_prompt=negative_prompt, bpm=bpm,
                downbeat=downbeat, keyscale=keyscale, seed=seed, guidance_scale=guidance_scale, quality=quality,
                sampling=DenoiseOptions(num_inference_steps, count_step),
            )  # fmt: skip
            sound = extend(self.model, job.laid, job.recording, job.request, bars=bars)
        return job.clip(self.model, "extend", sound, job.recording.sample_rate, told={"bars": bars})

    @torch.no_grad()
    def inpaint(
        self,
        audio: Audio,
        prompt: str,
        *,
        mask_start_seconds: float | list[float] | None = None,
        mask_end_seconds: float | list[float] | None = None,
        mask_start_bar: float | list[float] | None = None,
        mask_end_bar: float | list[float] | None = None,
        low_hz: float | None = None,
        high_hz: float | None = None,
        sampling_rate: int | None = None,
        negative_prompt: str | None = None,
        bpm: float | None = None,
        downbeat: float | None = None,
        keyscale: str | None = None,
        seed: int | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        callback_on_step_end: StepCallback | None = None,
        quality: Quality = "default",
        progress: bool = False,
    ) -> Clip:
        """Replace parts of a recording; the rest stays as it is, sample for sample.

        The parts are given in seconds or in bars (0 is the first bar that begins in the recording, by its own beats),
        as numbers or as lists of equal length. The clip has the recording's sample rate and channels. Arguments are
        those of :meth:`remix`, and:

        Args:
            audio: the recording.
            prompt: what to put there.
            mask_start_seconds: where each part begins.
            mask_end_seconds: where it ends.
            mask_start_bar: the same in bars.
            mask_end_bar: the same in bars.
            low_hz: replace only what lies above this frequency.
            high_hz: replace only what lies below this one.
        """
        with count_steps(progress, callback_on_step_end) as count_step:
            job = open_recording(
                self.model, audio, prompt, sampling_rate=sampling_rate, negative_prompt=negative_prompt, bpm=bpm,
                downbeat=downbeat, keyscale=keyscale, seed=seed, guidance_scale=guidance_scale, quality=quality,
                sampling=DenoiseOptions(num_inference_steps, count_step),
            )  # fmt: skip
            regions = job.regions((mask_start_seconds, mask_end_seconds), (mask_start_bar, mask_end_bar))
            band = job.band(low_hz, high_hz)
            sound = inpaint(self.model, job.laid, job.recording, job.request, regions, band=band)
        told = {"regions": json.dumps(regions), "band": None if band is None else json.dumps(band)}
        return job.clip(self.model, "inpaint", sound, job.recording.sample_rate, told=told)

    @torch.no_grad()
    def interpolate(
        self,
        prompts: list[str],
        alpha: float,
        image: Picture,
        *,
        seeds: list[int] | int = 0,
        strength: float | list[float] = 0.75,
        mask: Picture | None = None,
        negative_prompt: str | None = None,
        bpm: float | None = None,
        guidance_scale: float | list[float] | None = None,
        loop: bool = False,
        num_inference_steps: int = 20,
        callback_on_step_end: StepCallback | None = None,
        quality: Quality = "default",
        progress: bool = False,
    ) -> Clip:
        """One clip between two prompts, on the ground of a picture: Riffusion's form of a walk.

        Args:
            prompts: two of them.
            alpha: 0 is the first, 1 the second.
            image: the ground: a picture file of the model's kind, or ``(C, M, N)`` in [0, 1].
            seeds: one for each prompt, or one for both.
            strength: how much of the ground is drawn anew, 0 to 1; one for each prompt or one for both.
            mask: where: white (1) is drawn anew, black (0) stays; a picture file or ``(M, N)``.
            negative_prompt: what to stay away from.
            bpm: tempo; None is between the prompts'.
            guidance_scale: None is the model's usual.
            loop: let the end lead back into the start.
            num_inference_steps: denoising steps, 1 to 150.
            callback_on_step_end: as for a clip.
            quality: as for a clip.
            progress: show a progress bar.

        Raises:
            RiffError: an argument is out of its range, or the picture is of another kind.
        """
        texts = check_prompts(prompts)
        if len(texts) != 2:
            raise RiffError(f"an interpolation is between two prompts; got {len(texts)}")
        check_number(alpha, "alpha", 0, 1)
        ends = []
        for text, seed, part, weight in zip(
            texts,
            each_of(seeds, texts, "seeds"),
            each_of(strength, texts, "strength"),
            each_of(guidance_scale, texts, "guidance_scale"),
            strict=True,
        ):
            check_sampling(bpm, num_inference_steps, weight, 1, quality)
            check_number(part, "strength", 0, 1)
            check_number(seed, "seed", 0, MAX_SEED, whole=True)
            reading = interpret_prompt(text, bpm=bpm, keyscale=None, parts=self.components, prior=self.prior)
            ends.append(
                InterpolationEnd(reading, seed, self.model.default_guidance if weight is None else weight, part)
            )
        with count_steps(progress, callback_on_step_end) as count_step:
            return interpolate(
                self.model,
                ends[0],
                ends[1],
                alpha,
                read_picture(image, self.model),
                mask=None if mask is None else read_mask(mask),
                negative_prompt=check_negative(negative_prompt),
                sampling=DenoiseOptions(num_inference_steps, count_step),
                quality=quality,
                loop=loop,
            )


# WAS riff/replay.py: Making a file again from its own recipe, and saying where that cannot give the same.

BUNDLED_NAME = "riff-mini"


def choose_model(recipe: Recipe, given: str | None, *, trust: bool = False) -> str:
    """What to load. A model that only the file names is never loaded unasked.

    Args:
        recipe: of the file.
        given: by the user; it is taken whatever the file says.
        trust: load what the file names.

    Raises:
        ModelError: the file names another model than riff-mini, and the user neither gives nor trusts one.
    """
    if given is not None:
        return given
    if recipe.model != BUNDLED_NAME and not trust:
        raise ModelError(
            f"{recipe.path} names the model {show(recipe.model)}, which is not loaded unasked; give it with --model, "
            "or --trust-model to load what the file names"
        )
    return recipe.model


def open_pipeline(
    recipe: Recipe, source: str, loras: Sequence[tuple[Path, float]], *, device: str | None = None
) -> RiffPipeline:
    """The model as it was: its scheduler, on the same device its number format, and its LoRAs.

    Where the weights are the same it bears the names that the file tells, so that the new file tells them too.

    Raises:
        ModelError: it cannot be used.
        SystemProblem: there is no such device, or peft is not installed.
    """
    place = find_device(device)
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    same_device = device_kind(place) == recipe.device
    pipe = RiffPipeline.from_pretrained(
        source,
        device=device,
        dtype=dtypes.get(recipe.dtype or "") if same_device else None,
        scheduler=recipe.scheduler,
        guidance_interval=recipe.guidance_interval,
    )
    for path, weight in loras:
        pipe.load_lora(path, weight=weight)
    if recipe.compiled:
        pipe.compile()
    if pipe.origin.model_hash == recipe.model_hash is not None:
        pipe.model.name = recipe.model
    names = {adapter.digest: adapter.name for adapter in recipe.loras}
    pipe.origin.adapters = tuple(
        dataclasses.replace(adapter, name=names[adapter.digest]) for adapter in pipe.origin.adapters
    )
    return pipe

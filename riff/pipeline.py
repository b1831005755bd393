"""RiffPipeline: everything a user calls. A sentence in, music out."""

from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from riff.diffusion.checkpoint import load_checkpoint, save_checkpoint
from riff.diffusion.fingerprint import CheckpointOrigin, find_origin
from riff.diffusion.lora import load_lora
from riff.diffusion.model import DiffusionModel, compile_denoiser, find_device
from riff.diffusion.sampling import Interval, StepCallback, choose_scheduler, count_steps
from riff.prompt.prior import MusicPrior
from riff.spectrogram.config import Quality, SpectrogramConfig
from riff.spectrogram.inversion.waveform import Vocoder
from riff.tasks import edit, interpolate, requests, text_to_music, walk
from riff.tasks.clip import Clip, RiffOutput
from riff.tasks.interpolate import ImageSource
from riff.tasks.recording import Audio
from riff.tasks.timeline import Timeline
from riff.utils.schema import check_value, renamed_property
from riff.utils.validation import check_interval

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


class RiffPipeline:
    """Text to music by latent diffusion on spectrograms (Forsgren & Martiros, 2022).

    The options of each method, with their ranges and defaults, are the fields of its request in
    :mod:`riff.tasks.requests`; RiffError says in one line which is out of range. Every method also takes
    ``callback_on_step_end``, called as ``(step, steps, latents)``, which may return other latents, and ``progress``.

    Attributes:
        model: the checkpoint: components, config, prior, name, origin, guidance interval and vocoder.
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
        vocoder: Vocoder | None = None,
    ) -> None:
        origin = CheckpointOrigin() if origin is None else origin
        self.model = DiffusionModel(components, config, prior, name, origin, guidance_interval, vocoder=vocoder)

    components = property(attrgetter("model.components"), doc="The StableDiffusionPipeline that holds the networks.")
    pipeline = components  # its former name
    config = property(attrgetter("model.config"), doc="The SpectrogramConfig of the model's images.")
    sample_rate = property(attrgetter("model.config.sample_rate"), doc="Samples per second of the sound.")
    prior = property(attrgetter("model.prior"), doc="The music prior of riff's own models, else None.")
    name = property(attrgetter("model.name"), doc="What the checkpoint is called in the files it makes.")
    origin = property(attrgetter("model.origin"), doc="Where the weights came from.")
    device = property(attrgetter("model.device"), doc="Where the model is.")
    compiled = property(attrgetter("model.compiled"), doc="Whether the denoiser was compiled.")
    guidance_interval = property(
        attrgetter("model.guidance_interval"),
        lambda self, interval: setattr(self.model, "guidance_interval", interval),
        doc="Shares of the steps between which there is guidance; None is the model's own.",
    )
    sampling_rate = renamed_property("sampling_rate", "sample_rate")

    def __repr__(self) -> str:
        channels = {1: "mono", 2: "stereo"}[self.config.channels]
        return f"RiffPipeline({self.name!r}, {self.sample_rate} Hz {channels}, {self.config.grid} grid, {self.device})"

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
        vocoder: Vocoder | None = None,
    ) -> "RiffPipeline":
        """Load a model.

        Args:
            source: None or "riff-mini" for the bundled model, a folder, a ``.safetensors`` file, or a Hub id such as
                "riffusion/riffusion-model-v1".
            device: "cpu", "cuda" or "mps"; None takes the fastest there is.
            dtype: of the weights; None is float16 on CUDA and float32 elsewhere.
            revision: of a Hub id.
            local_files_only: no network.
            variant: weights to prefer, e.g. "fp16".
            scheduler: "ddim", "dpm++", "euler", "unipc" or a diffusers class name; None is the checkpoint's own.
            guidance_interval: shares of the steps, 0 to 1, between which there is guidance; the others follow the
                prompt alone, in half the time. None is the model's own: (0.1, 0.5) of riff-mini, all of others.
            vocoder: makes the sound in place of riff's own inversion: from a mel spectrogram ``(C, M, N)`` >= 0 with a
                frame every ``config.hop_length`` samples to the waveform ``(C, T)``.

        Raises:
            ModelError: the checkpoint cannot be used.
            SystemProblem: there is no such device.
        """
        interval = None if guidance_interval is None else check_interval(guidance_interval)
        place = find_device(device)
        dtype = dtype or (torch.float16 if place.type == "cuda" else torch.float32)
        where: dict[str, Any] = {"revision": revision, "variant": variant}
        components, config, prior = load_checkpoint(
            source, device=place, dtype=dtype, local_files_only=local_files_only, **where
        )
        if scheduler is not None:
            components.scheduler = choose_scheduler(scheduler, components.scheduler)
        is_local = source is not None and Path(source).exists()
        name = Path(source).resolve().name if is_local and source is not None else str(source or "riff-mini")
        options: dict[str, Any] = {"origin": find_origin(source, **where), "vocoder": vocoder}
        return cls(components, config, prior=prior, name=name, guidance_interval=interval, **options)

    def to(self, device: str | torch.device) -> "RiffPipeline":
        """Move the model to ``device``."""
        self.components.to(device)
        return self

    def compile(self) -> "RiffPipeline":
        """Compile the denoiser, in place, for many or long clips. Load LoRAs before; the last digits of results change.

        Raises:
            SystemProblem: it cannot be compiled here.
        """
        compile_denoiser(self.components.unet)
        self.model.compiled = True
        return self

    def load_lora(self, path: str | Path, *, weight: float = 1.0) -> str:
        """Put a LoRA on top of the model and return its name; several add up. Needs the extra ``riff-music[lora]``.

        Args:
            path: a ``.safetensors`` file in diffusers' or kohya's layout, or a folder that ``riff train`` wrote. Words
                in ``learned_embeds.safetensors`` beside it are learned as well.
            weight: how much of it, 0 to 2; a timeline can change it over time.

        Raises:
            ModelError: it cannot be used with this model.
            SystemProblem: peft is not installed.
        """
        weight = check_value(weight, requests.LoraWeight, "weight")
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
        key: str | None = None,
        key_tries: int = 0,
        best_of: int | None = None,
        time_signature: str | None = None,
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
        **old_names: Unpack[requests.OldNames],
    ) -> RiffOutput:
        """Turn sentences into music.

        Args:
            prompt: what to play. Tempo ("84 bpm"), key ("F# minor") and metre ("3/4") are understood.
            negative_prompt: what to stay away from.
            bpm: tempo, 20 to 400 beats per minute; None takes the prompt's, else what the model thinks suits.
            bars: length in bars, 1 to 512. Without bars or duration the clip has the training width: two bars.
            duration: length in seconds, 0.1 to 600, exact to the sample.
            key: such as "F# minor".
            key_tries: measure each clip's key, and generate up to so many times, 0 to 16, until it is ``key``; the
                nearest is transposed at the last. 0 does not measure.
            best_of: generate so many candidates of each clip, 1 to 16, and keep the one that riff's own detectors of
                genre, instruments, key and tempo find nearest to the request.
            time_signature: "3/4" or "4/4"; None is the prompt's, else what the model thinks suits.
            loop: let the end lead back into the start, to the sample. A loop is whole bars long.
            seed: clip number i of the call has the seed ``seed + i``, alone or in a batch; None is random.
            generator: CPU generator, or one per clip, for the clips' seeds.
            num_inference_steps: denoising steps, 1 to 150.
            guidance_scale: weight of the prompt, 0 to 50; up to 1 is no guidance; None is the model's own.
            num_waveforms_per_prompt: clips of each prompt, 1 to 16.
            latents: ``(clips, L, M/8, columns/8)`` noise to start from instead of the seed's.
            callback_on_step_end: called as ``(step, steps, latents)``; may return other latents.
            quality: of the step from image to sound: fast, default, high, best or griffin-lim.
            progress: show a progress bar.
            **old_names: ``keyscale`` and ``timesignature``, the earlier names of key and time_signature.

        Returns:
            The clips, ``num_waveforms_per_prompt`` for each prompt in turn.

        Raises:
            ModelError: the model gave numbers that are not finite.
        """
        options = {
            "negative_prompt": negative_prompt, "bpm": bpm, "bars": bars, "duration": duration, "key": key,
            "key_tries": key_tries, "best_of": best_of, "time_signature": time_signature, "loop": loop, "seed": seed,
            "quality": quality, "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale,
        }  # fmt: skip
        given = {name: value for name, value in options.items() if value is not None} | old_names
        clip_requests = text_to_music.clip_requests(prompt, given, num_waveforms_per_prompt, generator)
        with count_steps(progress, callback_on_step_end) as callback:
            clips = text_to_music.render(self.model, clip_requests, callback=callback, latents=latents)
        return RiffOutput(clips, self.sample_rate)

    def walk(
        self, prompts: list[str], seeds: list[int] | int | None = None, **options: Unpack[requests.WalkOptions]
    ) -> Clip:
        """Go from prompt to prompt on one canvas, without a join and with every beat in its place.

        ``seeds`` are one for all or one for each, and so are bpm, key, negative_prompt and guidance_scale. The first
        two
        bars are those of the first prompt's plain clip, the last two those of the last's. Options:
        :class:`riff.tasks.requests.WalkRequest`.
        """
        return self._run(walk.walk, requests.WalkRequest, options, prompts=prompts, seeds=seeds)

    def render(self, timeline: Timeline | str | Path, **options: Unpack[requests.SamplingOptions]) -> Clip:
        """Play a timeline, or the YAML or JSON file of one: prompts, tempo, key and more that change, without a gap.

        Seed, guidance_scale and negative_prompt are for keyframes that have none. Options:
        :class:`riff.tasks.requests.TimelineRequest`.
        """
        fields = (timeline if isinstance(timeline, Timeline) else Timeline.load(timeline)).to_dict()
        return self._run(walk.render_timeline, requests.TimelineRequest, options, timeline=fields)

    def remix(self, audio: Audio, prompt: str, **options: Unpack[requests.RemixOptions]) -> Clip:
        """Play a recording anew as a prompt says, on its own beats and exactly as long as it is.

        ``audio`` is a sound file, a clip, or ``(C, T)`` samples with their sample_rate. Its tempo is ``bpm``, else what
        riff wrote into the file, else its beats are detected. Where there is no beat, a warning says so, and the
        grid is
        even at the prompt's tempo; ``clip.settings["beats"]`` is "given", "found" or "none". ``separator`` splits
        ``(C, T)`` samples and their rate into stems by name, in place of Demucs (the extra ``riff-music[stems]``).
        Options: :class:`riff.tasks.requests.RemixRequest`.

        Raises:
            ModelError: Demucs' weights are not here and cannot be downloaded.
            SystemProblem: Demucs is not installed.
        """
        return self._run(edit.remix, requests.RemixRequest, options, audio, prompt=prompt)

    def extend(self, audio: Audio, prompt: str, **options: Unpack[requests.ExtendOptions]) -> Clip:
        """Let a recording go on: up to a short crossfade at its end it stays as it is, sample for sample.

        What is new begins on the recording's beat, in its tempo and at its level, and ends at the end of a bar. The
        clip has the recording's sample rate and channels. ``audio`` is as for :meth:`remix`. Options:
        :class:`riff.tasks.requests.ExtendRequest`.
        """
        return self._run(edit.extend, requests.ExtendRequest, options, audio, prompt=prompt)

    def inpaint(self, audio: Audio, prompt: str, **options: Unpack[requests.InpaintOptions]) -> Clip:
        """Replace parts of a recording; the rest stays as it is, sample for sample.

        The parts are mask_start_seconds to mask_end_seconds, or mask_start_bar to mask_end_bar (0 is the first bar that
        begins in the recording, by its own beats), as numbers or as lists of equal length. The clip has the recording's
        sample rate and channels. ``audio`` is as for :meth:`remix`. Options:
        :class:`riff.tasks.requests.InpaintRequest`.
        """
        return self._run(edit.inpaint, requests.InpaintRequest, options, audio, prompt=prompt)

    def interpolate(
        self, prompts: list[str], alpha: float, image: ImageSource, **options: Unpack[requests.InterpolateOptions]
    ) -> Clip:
        """One clip between two prompts, starting from an image: Riffusion's form of a walk.

        ``alpha`` 0 is the first prompt, 1 the second. ``image`` is an image file of the model's kind or ``(C, M,
        N)`` in
        [0, 1]. ``mask``, an image file or ``(M, N)``, is 1 (white) where it is replaced and 0 (black) where it stays.
        Options: :class:`riff.tasks.requests.InterpolateRequest`.
        """
        kind = requests.InterpolateRequest
        return self._run(interpolate.interpolate, kind, options, image, prompts=prompts, alpha=alpha)

    @torch.no_grad()
    def _run(self, task: Any, kind: type, options: Mapping[str, Any], *source: Any, **required: Any) -> Clip:
        """Build a task's request and call the task with it."""
        fields, beside, shown = requests.split_options(options)
        request = requests.request_from(kind, {**required, **fields})
        with count_steps(**shown) as callback:
            return task(self.model, request, *source, callback=callback, **beside)

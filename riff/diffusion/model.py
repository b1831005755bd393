"""A loaded model and what it does: read prompts, and sample images on a canvas."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from riff.diffusion.conditioning import CanvasConditioning
from riff.diffusion.fingerprint import CheckpointOrigin
from riff.diffusion.latents import downsampling, latents_to_image, seeded_generator
from riff.diffusion.sampling import ALWAYS, Interval, Original, StepCallback, denoise, lora_scaled
from riff.diffusion.windows import CanvasPrediction, WindowLayout, canvas_noise, training_width
from riff.prompt.encoder import CHUNKS, embed_phrases
from riff.prompt.interpret import ParsedPrompt, PromptInterpreter
from riff.prompt.prior import MusicPrior
from riff.prompt.syntax import WeightedText, parse_weights
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.inversion.waveform import Vocoder
from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.validation import check_default_dtype

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

# Guidance that suits each family: Riffusion's own default, and what training.measure.sampling found for riff-mini.
RIFFUSION_GUIDANCE = 7.0
MINI_GUIDANCE = 1.8
MINI_INTERVAL: Interval = (0.1, 0.5)
COMPILERS = ("c++", "g++", "clang++", "cl")


@dataclasses.dataclass(frozen=True)
class DenoiseOptions:
    """How latents are denoised.

    Attributes:
        steps: denoising steps.
        callback: called as ``(step, steps, latents)`` after each.
    """

    steps: int = 20
    callback: StepCallback | None = None


@dataclasses.dataclass(eq=False)
class DiffusionModel:
    """A loaded checkpoint.

    Attributes:
        components: the StableDiffusionPipeline that holds UNet, VAE, text encoder, tokenizer and scheduler.
        config: what its images mean.
        prior: the music prior of riff's own models, else None.
        name: what the checkpoint is called in the files it makes.
        origin: where its weights came from.
        guidance_interval: shares of the steps from and until which there is guidance; None is the family's usual.
        compiled: whether its denoiser was compiled, which changes the last digits.
        vocoder: makes the sound in place of riff's own inversion.
    """

    components: "StableDiffusionPipeline"
    config: SpectrogramConfig
    prior: MusicPrior | None = None
    name: str = "unknown"
    origin: CheckpointOrigin = dataclasses.field(default_factory=CheckpointOrigin)
    guidance_interval: Interval | None = None
    compiled: bool = False
    vocoder: Vocoder | None = None

    def __post_init__(self) -> None:
        self.prompts = PromptInterpreter(self.components, self.prior)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.components.unet.device

    @property
    def default_guidance(self) -> float:
        """Weight of the prompt that suits this family of models."""
        return RIFFUSION_GUIDANCE if self.prior is None else MINI_GUIDANCE

    @property
    def interval(self) -> Interval:
        """Shares of the steps from and until which there is guidance."""
        if self.guidance_interval is not None:
            return self.guidance_interval
        return ALWAYS if self.prior is None else MINI_INTERVAL

    @property
    def factor(self) -> int:
        """Image columns per latent column."""
        return downsampling(self.components.vae)

    @property
    def multiple(self) -> int:
        """Image columns come in multiples of this, so that the UNet can halve its latents."""
        return self.factor * 2 ** (len(self.components.unet.config.block_out_channels) - 1)

    @property
    def latent_rows(self) -> tuple[int, int]:
        """(L, H): channels and rows of the latents."""
        return self.components.vae.config.latent_channels, self.config.n_mels // self.factor

    def facts(self) -> dict[str, Any]:
        """What every file records of the model."""
        loras = [dataclasses.asdict(adapter) for adapter in self.origin.adapters]
        return {
            "model": self.name,
            "model_hash": self.origin.model_hash,
            "loras": json.dumps(loras) if loras else None,
            "guidance_interval": json.dumps(self.interval),
            "scheduler": type(self.components.scheduler).__name__,
            "config": json.dumps(self.config.to_dict()),
            "device": device_kind(self.device),
            "dtype": str(self.components.unet.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "threads": torch.get_num_threads() if device_kind(self.device) == "cpu" else None,
            "compiled": self.compiled or None,
            "vocoder": None if self.vocoder is None else "own",
        }

    def interpret(
        self,
        prompt: str,
        *,
        bpm: float | None = None,
        key: str | None = None,
        time_signature: str | None = None,
        seed: int | None = None,
    ) -> ParsedPrompt:
        """What a prompt comes to; see :meth:`riff.prompt.interpret.PromptInterpreter.interpret`."""
        check_default_dtype()  # every task begins here
        return self.prompts.interpret(prompt, bpm=bpm, key=key, time_signature=time_signature, seed=seed)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """(B, tokens, D) embeddings of B texts, whose brackets weigh words."""
        return self._embed([parse_weights(text) for text in texts])[0]

    def _embed(self, phrases: Sequence[WeightedText]) -> tuple[Tensor, list[int]]:
        # riff's own models were trained on one chunk, whose mean they read as well.
        chunks = CHUNKS if self.prior is None else 1
        return embed_phrases(phrases, self.components.tokenizer, self.components.text_encoder, chunks=chunks)

    def conditions(
        self,
        samples: Sequence[Sequence[ParsedPrompt]],
        guidance: Sequence[float],
        negative_prompts: Sequence[str],
        *,
        progress: Tensor | None = None,
        lora_weights: Tensor | None = None,
    ) -> CanvasConditioning:
        """What conditions the model along a canvas.

        Args:
            samples: of B images side by side, the readings of K stations; all composed alike.
            guidance: K weights of the prompt.
            negative_prompts: K texts to stay away from, whose brackets weigh words.
            progress: as in :class:`riff.diffusion.conditioning.CanvasConditioning`.
            lora_weights: as there.

        Raises:
            RiffError: a negative prompt's brackets are wrong.
        """
        prompts = [
            [
                phrase
                for reading, negative in zip(stations, negative_prompts, strict=True)
                for phrase in self.prompts.with_absence(reading.phrases, negative)
            ]
            for stations in samples
        ]
        negatives = [self.prompts.negative(text) for text in negative_prompts]
        phrases = [phrase for row in [*prompts, negatives] for phrase in row]
        embeds, tokens = self._embed(phrases)
        if lora_weights is not None and getattr(self.components.text_encoder, "peft_config", None):
            stations_of = [number for number, reading in enumerate(samples[0]) for _ in reading.phrases] * len(samples)
            stations_of += range(len(negatives))
            weights = [float(lora_weights[number]) for number in stations_of]
            for weight in set(weights):
                with lora_scaled(self.components.text_encoder, weight):
                    found = self._embed(phrases)[0]
                rows = torch.tensor([each == weight for each in weights], device=embeds.device)
                embeds = torch.where(rows[:, None, None], found, embeds)
        count, stations = len(prompts[0]), samples[0]
        # Rows of embeds: the prompts of each sample in turn, then the negative prompts, which all samples share.
        positive = embeds[: len(prompts) * count].unflatten(0, (len(prompts), count))
        blend = torch.block_diag(*[torch.tensor([reading.shares]) for reading in stations])
        return CanvasConditioning(
            positive,
            torch.tensor([float(weight) for weight in guidance]),
            embeds[-len(negatives) :].expand(len(prompts), -1, -1, -1),
            progress=progress,
            lora_weights=lora_weights,
            blend=blend if count > len(stations) else None,
            prompt_tokens=tuple(max(tokens[place : len(prompts) * count : count]) for place in range(count)),
            negative_tokens=tuple(tokens[-len(negatives) :]),
        )

    def layout(
        self, columns: int, *, beats_per_bar: int = 4, loop: bool = False, ends_pinned: bool = False
    ) -> WindowLayout:
        """Where the windows of a canvas are.

        Args:
            columns: of the image, a multiple of ``multiple``.
            beats_per_bar: 3 or 4; windows slide by bars on the beats grid, else by half their width.
            loop: whether the end leads back into the start.
            ends_pinned: whether the first and the last window give what clips of the training width would.
        """
        width, window = columns // self.factor, training_width(self.config, beats_per_bar) // self.factor
        stride, rest = divmod(beats_per_bar * self.config.frames_per_beat, self.factor)
        if self.config.grid == "seconds" or rest or window % stride:
            stride = window // 2
        pinned = (0, width - window) if ends_pinned else ()
        return WindowLayout(width, window, max(1, stride), loop, tuple(dict.fromkeys(pinned)))

    def noise(self, layout: WindowLayout, seed: int) -> Tensor:
        """(1, L, H, W): that of one clip, every window its own."""
        return canvas_noise(self.latent_rows, layout, [seed])

    def sample_images(
        self,
        noise: Tensor,
        layout: WindowLayout,
        conditions: CanvasConditioning,
        seeds: Sequence[int],
        options: DenoiseOptions,
        *,
        original: Original | None = None,
    ) -> Tensor:
        """Images ``(B, C, M, N)`` in [0, 1] on the CPU, sampled from noise ``(B, L, H, W)``.

        Args:
            noise: standard normal.
            layout: of the canvas.
            conditions: what conditions the model.
            seeds: B of them, for schedulers that add noise on the way.
            options: how.
            original: latents to start from or to keep.

        Raises:
            ModelError: the model gave numbers that are not finite.
        """
        # A scheduler counts its steps: one of our own lets two threads share the model.
        scheduler = type(self.components.scheduler).from_config(self.components.scheduler.config)
        latents = denoise(
            CanvasPrediction(self.components.unet, layout, conditions, self.interval),
            scheduler,
            noise.to(self.device),
            num_inference_steps=options.steps,
            original=original,
            generator=[_step_generator(seed) for seed in seeds],
            callback_on_step_end=options.callback,
        )
        images = latents_to_image(latents, self.components.vae, channels=self.config.channels, loop=layout.loop).cpu()
        if not bool(torch.isfinite(images).all()):
            dtype = self.components.unet.dtype
            remedy = (
                "restore its scheduler and weights" if dtype == torch.float32 else "load it with dtype=torch.float32"
            )
            raise ModelError(f"{self.name} gave numbers that are not finite in {dtype}; {remedy}")
        # Copied out of inference mode, so that a clip's image may be trained on.
        return images.clone()


def find_device(device: str | None) -> torch.device:
    """The device called ``device``, or the fastest there is.

    Raises:
        SystemProblem: this machine has no such device.
        RiffError: there is no such kind of device.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = str(device).partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise RiffError(f"device is {device!r}; use cpu, cuda or mps")
    if (kind == "cuda" and not torch.cuda.is_available()) or (kind == "mps" and not torch.backends.mps.is_available()):
        raise SystemProblem(f"this machine has no {kind} device that torch can use; leave --device out or use cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise RiffError(f"device is {device!r}; use cpu, cuda, cuda:0 or mps") from error


def device_kind(device: torch.device) -> str:
    """What a clip's bytes depend on: ``"cpu"``, or ``"cuda"`` with the name of the card."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def _step_generator(seed: int) -> torch.Generator:
    """For noise on the way; not the one that gives the first noise, or the two would be alike."""
    other = torch.randint(2**62, (1,), generator=seeded_generator(seed))
    return torch.Generator().manual_seed(int(other))


def compile_denoiser(unet: "UNet2DConditionModel") -> None:
    """Let ``torch.compile`` translate the UNet, in place; weights and names stay as they are.

    It takes minutes once, and each step takes less time from then on: each size of image is translated at its first
    use. Convolutions get their channels innermost. The numbers differ from those of the plain model in their last
    digits.

    Raises:
        SystemProblem: torch cannot compile here, or there is no C++ compiler for the CPU.
    """
    if unet.device.type == "cpu" and not any(shutil.which(name) for name in COMPILERS):
        raise SystemProblem("there is no C++ compiler, which torch.compile needs on a CPU; install g++, or do without")
    unet.to(memory_format=torch.channels_last)
    try:
        unet.compile(dynamic=False)
    except RuntimeError as error:
        raise SystemProblem(f"torch.compile does not work here ({error}); do without") from error

"""A prompt becomes a clip: how long its image and its sound are, and the way from noise to sound."""

import dataclasses
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from riff.diffusion.model import DenoiseOptions, DiffusionModel
from riff.diffusion.sampling import StepCallback
from riff.diffusion.windows import padded_width, training_width
from riff.prompt.interpret import ParsedPrompt
from riff.spectrogram.config import SpectrogramConfig
from riff.tasks.candidates import candidate_seed, keep_best, retry_until_in_key
from riff.tasks.clip import Clip, image_to_waveform
from riff.tasks.provenance import recorded
from riff.tasks.requests import Count, RenderRequest, Sampling, request_from
from riff.utils.errors import RiffError
from riff.utils.schema import check_value
from riff.utils.validation import MAX_SEED, show

# Clips denoised side by side on a GPU. A CPU gains nothing by it, and one at a time a clip's bytes do not
# depend on its neighbours.
BATCH = 4
Request = TypeVar("Request", bound=Sampling)


def new_seed() -> int:
    """A seed that nobody chose."""
    return secrets.randbelow(2**32)


def resolve(model: DiffusionModel, request: Request) -> Request:
    """A request with a seed and with the model's own guidance where it has none, as its file will say."""
    return dataclasses.replace(
        request,
        seed=new_seed() if request.seed is None else request.seed,
        guidance_scale=model.default_guidance if request.guidance_scale is None else request.guidance_scale,
    )


def clip_requests(
    prompt: str | list[str],
    fields: Mapping[str, Any],
    count: int = 1,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> list[RenderRequest]:
    """One request for each clip of a call, with its own prompt and seed.

    Args:
        prompt: one, or several.
        fields: of :class:`riff.tasks.requests.RenderRequest`, which all clips share; ``seed`` is the first clip's.
        count: clips of each prompt.
        generator: of the seeds, or one per clip.

    Raises:
        RiffError: a field is out of its range.
    """
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, (list, tuple)) or not texts:
        raise RiffError(f"prompt is {show(prompt)}; use a sentence or a list of sentences")
    count = check_value(count, Count, "num_waveforms_per_prompt")
    first = [request_from(RenderRequest, {**fields, "prompt": text}) for text in texts]
    repeated = [request for request in first for _ in range(count)]
    seeds = clip_seeds(len(repeated), first[0].seed, generator)
    return [dataclasses.replace(request, seed=seed) for request, seed in zip(repeated, seeds, strict=True)]


def clip_seeds(count: int, seed: int | None, generator: torch.Generator | list[torch.Generator] | None) -> list[int]:
    """One seed per clip: ``seed + i``, or from the generator(s), or from the system's randomness.

    A generator gives seeds rather than noise, so that every clip can say the seed that makes it again.

    Raises:
        RiffError: a seed and a generator are given, or another number of generators.
    """
    if generator is not None:
        if seed is not None:
            raise RiffError(f"seed is {seed!r} and a generator is given; give one of them")
        generators = generator if isinstance(generator, list) else [generator] * count
        if len(generators) != count:
            raise RiffError(f"there are {len(generators)} generators for {count} clips; give one, or one per clip")
        # The 32 bits that a generator of torch heeds.
        return [int(torch.randint(MAX_SEED, (1,), generator=each)) % 2**32 for each in generators]
    first = new_seed() if seed is None else seed
    return [(first + index) % (MAX_SEED + 1) for index in range(count)]


@dataclasses.dataclass(frozen=True)
class ClipPlan:
    """One clip to generate.

    Attributes:
        request: of this clip alone, with its seed and guidance.
        prompt: as the model understands it.
        bpm: tempo in beats per minute.
        columns: of the image that is kept.
        padded_width: columns that are generated, ``>= columns``.
        samples: of the sound, at most the length of ``columns``.
    """

    request: RenderRequest
    prompt: ParsedPrompt
    bpm: float
    columns: int
    padded_width: int
    samples: int

    @property
    def seed(self) -> int:
        """Of the noise and the phases."""
        assert self.request.seed is not None
        return self.request.seed


def make_plan(model: DiffusionModel, request: RenderRequest) -> ClipPlan:
    """Read the prompt, and find the lengths of image and sound.

    Raises:
        RiffError: the prompt states a tempo out of range, or a loop is not of whole bars.
    """
    request, config = resolve(model, request), model.config
    prompt = model.interpret(
        request.prompt, bpm=request.bpm, key=request.key, time_signature=request.time_signature, seed=request.seed
    )
    columns, padded, samples = plan_length(
        config,
        bpm=prompt.bpm,
        beats_per_bar=prompt.beats_per_bar,
        bars=request.bars,
        duration=request.duration,
        multiple=model.multiple,
        loop=request.loop,
    )
    tempo = prompt.bpm
    if request.loop and request.bars is not None and config.grid == "seconds":
        # A column has a length of its own there, so the tempo is what makes the bars fill whole columns.
        tempo = request.bars * prompt.beats_per_bar * 60.0 * config.sample_rate / samples
    return ClipPlan(request, prompt, tempo, columns, padded, samples)


def plan_length(
    config: SpectrogramConfig,
    *,
    bpm: float,
    beats_per_bar: int,
    bars: int | None,
    duration: float | None,
    multiple: int,
    loop: bool = False,
) -> tuple[int, int, int]:
    """Columns to keep, columns to generate, and samples of a clip.

    Args:
        config: of the image.
        bpm: beats per minute.
        beats_per_bar: 3 or 4.
        bars: length in bars, or None.
        duration: length in seconds, or None; without either, the training width.
        multiple: the model generates columns in multiples of this.
        loop: whether the end leads back into the start; then all that is generated is kept.

    Returns:
        ``(columns, padded_width, samples)``. At least the training width is generated, since the model knows nothing
        shorter. Only a loop can be shorter: it is shown to the model several times side by side.

    Raises:
        RiffError: a loop on the beats grid whose length is given in seconds, or whose bars the model cannot generate.
    """
    usual = training_width(config, beats_per_bar)
    if loop and duration is not None and config.grid == "beats":
        raise RiffError(f"duration is {duration:g}, but a loop is a whole number of bars; use bars instead")
    columns, samples = usual, None
    if bars is not None and config.grid == "beats":
        columns = bars * beats_per_bar * config.frames_per_beat
    elif bars is not None:
        samples = round(bars * beats_per_bar * 60.0 / bpm * config.sample_rate)
    elif duration is not None:
        samples = round(duration * config.sample_rate)
    if samples is not None:
        columns = math.ceil(samples / config.column_samples(bpm=bpm))
        columns += config.frames_to_samples(columns, bpm=bpm) < samples
    if loop and config.grid == "seconds":
        columns, samples = max(1, round(columns / multiple)) * multiple, None
    if loop and columns % multiple:
        raise RiffError(f"a loop of {columns} columns does not fit this model; use a multiple of {multiple}")
    if loop:
        return columns, columns, config.frames_to_samples(columns, bpm=bpm)
    padded = padded_width(columns, usual, multiple)
    return columns, padded, config.frames_to_samples(columns, bpm=bpm) if samples is None else samples


def render(
    model: DiffusionModel,
    requests: Sequence[RenderRequest],
    *,
    callback: StepCallback | None = None,
    latents: Tensor | None = None,
) -> list[Clip]:
    """The clips of some requests, in their order.

    Args:
        model: what generates.
        requests: one for each clip.
        callback: called as ``(step, steps, latents)``.
        latents: ``(clips, L, M/8, columns/8)`` in place of the seeds' noise.

    Raises:
        RiffError: a request does not suit the model, or latents have another shape.
        ModelError: the model gave numbers that are not finite.
    """
    plans = [make_plan(model, request) for request in requests]
    if latents is None:
        return generate_clips(model, plans, callback=callback)
    check_latents(latents, [(*model.latent_rows, plan.padded_width // model.factor) for plan in plans])
    clips = generate_clips(model, plans, callback=callback, noise=latents)
    return [dataclasses.replace(clip, settings={**clip.settings, "from_latents": True}) for clip in clips]


def check_latents(latents: Tensor, shapes: list[tuple[int, int, int]]) -> None:
    """Raise RiffError unless ``latents`` is finite noise, one sample for each of equal ``shapes``."""
    if len(set(shapes)) > 1:
        raise RiffError("latents were given for clips of different length; render these prompts one by one")
    shape = (len(shapes), *shapes[0])
    if not isinstance(latents, Tensor) or tuple(latents.shape) != shape:
        found = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise RiffError(f"latents have shape {found}; this call needs {shape}")
    if not bool(torch.isfinite(latents).all()):
        raise RiffError("latents hold NaN or infinite numbers; pass standard normal noise")


def generate_clips(
    model: DiffusionModel,
    plans: Sequence[ClipPlan],
    *,
    callback: StepCallback | None = None,
    noise: Tensor | None = None,
) -> list[Clip]:
    """The clips of all plans, in their order.

    Args:
        model: what generates.
        plans: one for each clip.
        callback: called as ``(step, steps, latents)``.
        noise: ``(clips, L, M/8, columns/8)`` in place of what the plans' seeds give.

    Raises:
        ModelError: the model gave numbers that are not finite.
    """
    clips: list[Clip] = []
    for batch in batches(list(plans), size=1 if model.device.type == "cpu" else BATCH):
        own = None if noise is None else noise[len(clips) : len(clips) + len(batch)]
        found = _generate(model, batch, callback, own)
        clips += [_choose(model, plan, clip, callback) for plan, clip in zip(batch, found, strict=True)]
    return clips


def batches(plans: list[ClipPlan], *, size: int) -> Iterator[list[ClipPlan]]:
    """Neighbours that can be denoised side by side, at most ``size`` of them."""
    batch: list[ClipPlan] = []
    for plan in plans:
        same = batch and _shape(plan) == _shape(batch[0])
        if batch and (len(batch) == size or not same):
            yield batch
            batch = []
        batch.append(plan)
    yield batch


def _shape(plan: ClipPlan) -> tuple[object, ...]:
    """What clips share that are denoised side by side: width, metre, form of the prompt and sampling."""
    request = plan.request
    sampling = (request.num_inference_steps, request.guidance_scale, request.negative_prompt, request.loop)
    return plan.padded_width, plan.prompt.beats_per_bar, plan.prompt.shares, sampling


def _generate(
    model: DiffusionModel, plans: list[ClipPlan], callback: StepCallback | None, noise: Tensor | None = None
) -> list[Clip]:
    """Clips of one shape, denoised side by side."""
    first, request = plans[0], plans[0].request
    layout = model.layout(first.padded_width, beats_per_bar=first.prompt.beats_per_bar, loop=request.loop)
    if noise is None:
        noise = torch.cat([model.noise(layout, plan.prompt.noise_seed(plan.seed)) for plan in plans])
    assert request.guidance_scale is not None
    conditions = model.conditions(
        [[plan.prompt] for plan in plans], [request.guidance_scale], [request.negative_prompt or ""]
    )
    steps, seeds = request.num_inference_steps, [plan.seed for plan in plans]
    images = model.sample_images(noise, layout, conditions, seeds, DenoiseOptions(steps, callback))
    return [_to_clip(model, plan, image[..., : plan.columns]) for plan, image in zip(plans, images, strict=True)]


def _choose(model: DiffusionModel, plan: ClipPlan, first: Clip, callback: StepCallback | None) -> Clip:
    """The clip that is kept of the request's candidates; mostly the first and only one."""
    request = plan.request

    def candidate(number: int) -> Clip:
        if number == 0:
            return first
        other = dataclasses.replace(request, seed=candidate_seed(plan.seed, number))
        (clip,) = _generate(model, [dataclasses.replace(plan, request=other)], callback)
        # All candidates bear the seed that makes the choice again.
        return dataclasses.replace(clip, seed=plan.seed)

    if request.key is not None and request.key_tries:
        return retry_until_in_key(
            candidate,
            request.key,
            tries=request.key_tries,
            quality=request.quality,
            has_tempo=request.bpm is not None,
            vocoder=model.vocoder,
        )
    if request.best_of is not None and request.best_of > 1:
        return keep_best(candidate, count=request.best_of, prompt=request.prompt, key=request.key)
    return first


def _to_clip(model: DiffusionModel, plan: ClipPlan, image: Tensor) -> Clip:
    prompt, request = plan.prompt, plan.request
    waveform = image_to_waveform(
        image,
        model.config,
        bpm=plan.bpm,
        seed=plan.seed,
        quality=request.quality,
        loop=request.loop,
        vocoder=model.vocoder,
    )
    return Clip(
        waveform=waveform[..., : plan.samples],
        sample_rate=model.config.sample_rate,
        image=image,
        config=model.config,
        prompt=prompt.prompt,
        seed=plan.seed,
        bpm=plan.bpm,
        settings={
            **model.facts(),
            **recorded(request),
            "ignored_words": prompt.ignored_words,
            "dropped_words": prompt.dropped_words,
            "beats_per_bar": prompt.beats_per_bar,
        },
    )

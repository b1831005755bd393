"""Music that changes over time: a timeline, or a walk from prompt to prompt, on one canvas without a join."""

import dataclasses
import math

import torch
from torch import Tensor

from riff.audio.loudness import k_power
from riff.diffusion.conditioning import CanvasConditioning
from riff.diffusion.model import DenoiseOptions, DiffusionModel
from riff.diffusion.sampling import StepCallback
from riff.diffusion.windows import canvas_noise, padded_width, training_width
from riff.music.theory import parse_bpm
from riff.prompt.interpret import ParsedPrompt
from riff.prompt.syntax import plain_prompt
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import image_to_mel
from riff.spectrogram.tempo import TempoMap
from riff.tasks.clip import Clip, image_to_waveform
from riff.tasks.provenance import SEED_HASH, recorded, timeline_text
from riff.tasks.requests import TimelineRequest, WalkRequest, each_of
from riff.tasks.text_to_music import new_seed, resolve
from riff.tasks.timeline import Keyframe, Placed, Timeline, place, progress
from riff.utils.errors import RiffError

ARROW = " -> "
BARS_PER_STEP = 8


def walk(model: DiffusionModel, request: WalkRequest, callback: StepCallback | None = None) -> Clip:
    """Go from prompt to prompt; the first two bars are those of the first prompt's plain clip, the last two the last's.

    Raises:
        RiffError: a step leaves no room for the way.
    """
    timeline = walk_timeline(model, request)
    as_timeline = TimelineRequest(
        timeline=timeline.to_dict(),
        ends_pinned=not request.loop,
        seed=timeline.keyframes[0].seed,
        num_inference_steps=request.num_inference_steps,
        quality=request.quality,
    )
    return render_timeline(model, as_timeline, callback)


def render_timeline(model: DiffusionModel, request: TimelineRequest, callback: StepCallback | None = None) -> Clip:
    """Generate a timeline's image on one canvas, and its sound.

    Raises:
        RiffError: the model cannot do it: a loop of half bars, LoRA weights without a LoRA, ...
    """
    request, timeline = resolve(model, request), Timeline.from_dict(request.timeline)
    seeds = _seeds(timeline, request)
    prompts = _interpret(model, timeline, seeds)
    beats_per_bar = timeline.beats_per_bar or prompts[0].beats_per_bar
    placed = place(timeline, [prompt.bpm for prompt in prompts], beats_per_bar)
    tempo = TempoMap.glide(placed.tempo)
    columns, padded = _columns(model, placed, beats_per_bar, loop=timeline.loop)
    layout = model.layout(padded, beats_per_bar=beats_per_bar, loop=timeline.loop, ends_pinned=request.ends_pinned)
    # Between which keyframes each latent column is, and at which each keyframe's own noise begins.
    per_beat = columns / placed.total / model.factor
    along = torch.tensor(progress(placed, layout.width, per_beat))
    starts = [round(beat * per_beat) for beat in placed.beats]
    if request.ends_pinned:
        along[: layout.window], along[-layout.window :] = 0.0, len(prompts) - 1.0
        starts[-1] = layout.width - layout.window
    noise_seeds = [prompt.noise_seed(seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    noise = canvas_noise(
        model.latent_rows, layout, noise_seeds, starts=starts, progress=along, variation=timeline.variation
    )
    conditions = _conditions(model, timeline, prompts, along, request)
    steps = request.num_inference_steps
    image = model.sample_images(noise, layout, conditions, seeds[:1], DenoiseOptions(steps, callback))[0][..., :columns]
    if model.config.amplitude == "decibel":
        at_columns = along.repeat_interleave(model.factor)[:columns]
        image = smooth_levels(image, at_columns, beats_per_bar * model.config.frames_per_beat, model.config)
    waveform = image_to_waveform(
        image,
        model.config,
        bpm=tempo,
        seed=seeds[0],
        quality=request.quality,
        loop=timeline.loop,
        vocoder=model.vocoder,
    )
    told = dataclasses.replace(timeline, seed=seeds[0] if timeline.seed is None else timeline.seed)
    return Clip(
        waveform=waveform,
        sample_rate=model.config.sample_rate,
        image=image,
        config=model.config,
        prompt=ARROW.join(frame.prompt for frame in timeline.keyframes),
        seed=seeds[0],
        bpm=prompts[0].bpm,
        tempo=tempo if len({prompt.bpm for prompt in prompts}) > 1 else None,
        settings={
            **model.facts(),
            **recorded(request),
            "timeline": timeline_text(told.to_dict()),
            "seed_hash": SEED_HASH if max(seeds) >= 2**32 else None,
            "beats_per_bar": beats_per_bar,
            "ignored_words": tuple(dict.fromkeys(word for prompt in prompts for word in prompt.ignored_words)),
            "dropped_words": tuple(dict.fromkeys(word for prompt in prompts for word in prompt.dropped_words)),
        },
    )


def walk_timeline(model: DiffusionModel, request: WalkRequest) -> Timeline:
    """A timeline that goes from prompt to prompt in equal steps and stays one training width at each.

    Raises:
        RiffError: a step leaves no room for the way.
    """
    count = len(request.prompts)
    one_seed = request.seed if request.seeds is None else request.seeds
    seeds = each_of(new_seed() if one_seed is None else one_seed, count)
    tempi, keys = each_of(request.bpm, count), each_of(request.key, count)
    prompts = [
        model.interpret(text, bpm=bpm, key=key, seed=seed)
        for text, bpm, key, seed in zip(request.prompts, tempi, keys, seeds, strict=True)
    ]
    if model.config.grid == "seconds":  # a column there lasts as long at every tempo
        prompts = [dataclasses.replace(prompt, bpm=prompts[0].bpm) for prompt in prompts]
    stay, ways = window_bars(model, prompts[0]), count if request.loop else count - 1
    at_the_end = 0 if request.loop else math.ceil(stay)
    bars = request.bars
    if bars is None:
        bars = ways * (request.bars_per_step or BARS_PER_STEP) + at_the_end
    firsts = _first_bars(count, ways, bars, bars - at_the_end, stay)
    negatives, guidance = each_of(request.negative_prompt, count), each_of(request.guidance_scale, count)
    frames = [
        Keyframe(
            prompt=prompt.prompt,
            bar=float(firsts[number]),
            negative_prompt=negatives[number] or "",
            seed=seeds[number],
            guidance_scale=guidance[number],
            bpm=prompt.bpm,
            key=keys[number],
            easing=request.easing,
            hold=stay,
        )
        for number, prompt in enumerate(prompts)
    ]
    return Timeline(
        keyframes=tuple(frames),
        bars=bars,
        loop=request.loop,
        variation=request.variation,
        beats_per_bar=3 if prompts[0].beats_per_bar == 3 else 4,
    )


def _first_bars(count: int, ways: int, bars: int, room: int, stay: float) -> list[int]:
    """Bars at which ``count`` prompts begin, as evenly as whole bars allow; ``room`` of the ``bars`` is for the ways.

    Raises:
        RiffError: a way is no longer than the stay at its beginning.
    """
    if room < ways * (math.floor(stay) + 1):
        raise RiffError(
            f"{bars} bars are too few for {ways} step(s): a walk stays {stay:g} bars at each prompt, so a step takes "
            f"{math.floor(stay) + 1} bars or more"
        )
    return [round(room * number / ways) for number in range(count)]


def window_bars(model: DiffusionModel, prompt: ParsedPrompt) -> float:
    """Bars of the training width."""
    columns = training_width(model.config, prompt.beats_per_bar)
    bar_samples = prompt.beats_per_bar * 60.0 / prompt.bpm * model.config.sample_rate
    return columns * model.config.column_samples(bpm=prompt.bpm) / bar_samples


def _interpret(model: DiffusionModel, timeline: Timeline, seeds: list[int]) -> list[ParsedPrompt]:
    """Every keyframe's prompt; one that states no tempo keeps that of the one before."""
    prompts: list[ParsedPrompt] = []
    for frame, seed in zip(timeline.keyframes, seeds, strict=True):
        bpm = frame.bpm
        if bpm is None and parse_bpm(plain_prompt(frame.prompt)) is None and prompts:
            bpm = prompts[-1].bpm
        on_seconds = model.config.grid == "seconds" and bool(prompts)
        prompt = model.interpret(frame.prompt, bpm=None if on_seconds else bpm, key=frame.key, seed=seed)
        # A column there lasts as long at every tempo, so the first one's places all keyframes.
        prompts.append(dataclasses.replace(prompt, bpm=prompts[0].bpm) if on_seconds else prompt)
    return prompts


def _columns(model: DiffusionModel, placed: Placed, beats_per_bar: int, *, loop: bool) -> tuple[int, int]:
    """Image columns to keep, and to generate."""
    config = model.config
    exact = placed.total * config.frames_per_beat
    if config.grid == "seconds":
        exact = placed.total * 60.0 / placed.tempo[0][1] * config.sample_rate / config.hop_length
    columns = math.ceil(exact - 1e-6)
    if loop:
        if config.grid == "seconds":
            columns = max(1, round(columns / model.multiple)) * model.multiple
        if columns % model.multiple:
            raise RiffError(f"a loop of {columns} columns does not fit {model.name}; use more bars")
        return columns, columns
    return columns, padded_width(columns, training_width(config, beats_per_bar), model.multiple)


def _seeds(timeline: Timeline, request: TimelineRequest) -> list[int]:
    assert request.seed is not None
    seeds = [request.seed if timeline.seed is None else timeline.seed]
    for frame in timeline.keyframes:
        seeds.append(seeds[-1] if frame.seed is None else frame.seed)
    return seeds[1:]


def _conditions(
    model: DiffusionModel, timeline: Timeline, prompts: list[ParsedPrompt], along: Tensor, request: TimelineRequest
) -> CanvasConditioning:
    frames, usual = timeline.keyframes, request.guidance_scale
    assert usual is not None
    lora = None
    if any(frame.lora_weight is not None for frame in frames):
        if not getattr(model.components.unet, "peft_config", None):
            raise RiffError("the timeline gives LoRA weights, but no LoRA is loaded; load one with --lora")
        lora = torch.tensor([1.0 if frame.lora_weight is None else frame.lora_weight for frame in frames])
    return model.conditions(
        [prompts],
        [usual if frame.guidance_scale is None else frame.guidance_scale for frame in frames],
        [frame.negative_prompt or request.negative_prompt or "" for frame in frames],
        progress=along,
        lora_weights=lora,
    )


MOST_DB = 6.0
ROUNDS = 4  # what a gain that moves no faster than a bar leaves of a short dip, the next one takes


def smooth_levels(image: Tensor, place: Tensor, bar: int, config: SpectrogramConfig) -> Tensor:
    """An image that is nowhere quieter than on a straight line between its keyframes' levels.

    What a model makes of two prompts at once is often thinner than either. So two bars together are brought up to the
    line between the keyframes' means, and each bar to that between their quietest bars, so that a pattern of a loud and
    a quiet bar stays one. Only the way between keyframes is raised, by at most 6 dB and evenly over a bar, so that
    nothing pumps. Rows are weighted as their frequencies are in loudness, since the levels of two keyframes could not
    be compared otherwise.

    Args:
        image: ``(C, M, N)`` in [0, 1] on the decibel scale.
        place: (N,) the keyframe at each column: whole numbers where the music stays, from 0 to their count.
        bar: columns of a bar.
        config: names the scale.

    Returns:
        The same shape; the same image where a keyframe has no bar of its own.
    """
    power = (image_to_mel(image, config).square() * _loudness_weights(config).to(image)[:, None]).sum((0, 1))
    stays = (place - place.round()).abs() < 1e-6
    count = int(place.max().ceil()) + 1
    owned = [stays & (place.round() == keyframe) for keyframe in range(count)]
    loops = not bool(owned[-1].any())
    if loops:
        owned[-1] = owned[0]  # it goes back to the first
    if any(int(columns.sum()) < bar for columns in owned):
        return image
    level = _decibels(_mean_over(power, bar, loops))
    means = torch.stack([_decibels(power[columns].mean()) for columns in owned])
    quietest = torch.stack([level[_inner(columns, bar, loops)].min() for columns in owned])
    # Nothing at the keyframes, all of it from half a bar beside them on.
    on_the_way = (2.0 * _mean_over((~stays).float(), bar, loops) - 1.0).clamp(min=0.0) * ~stays
    gain = torch.zeros_like(power)
    for _ in range(ROUNDS):
        for levels, width in ((means, 2 * bar), (quietest, bar)):
            now = _decibels(_mean_over(power * 10.0 ** (gain / 10.0), width, loops))
            lack = (_between(levels, place) - now).clamp(min=0.0)
            gain = (gain + _mean_over(lack, bar, loops) * on_the_way).clamp(max=MOST_DB)
    return torch.where(image > 0, image + gain / config.db_range, image).clamp(0.0, 1.0)


def _between(levels: Tensor, place: Tensor) -> Tensor:
    """(N,) on straight lines from one keyframe's level to the next one's."""
    below = place.floor().long().clamp(max=len(levels) - 1)
    above = (below + 1).clamp(max=len(levels) - 1)
    return torch.lerp(levels[below], levels[above], place - below)


def _inner(columns: Tensor, bar: int, loops: bool) -> Tensor:
    """Those of a keyframe's columns around which the whole bar is its own, or most of it where none is."""
    share = _mean_over(columns.float(), bar, loops)
    return share > min(float(share.max()), 1.0) - 0.5 / bar


def _decibels(power: Tensor) -> Tensor:
    return 10.0 * (power + 1e-12).log10()


def _loudness_weights(config: SpectrogramConfig) -> Tensor:
    """(M,) weight of the square of each mel row in loudness, from the lowest on.

    A row adds up the magnitudes of all the bins of its band, so its square holds their power once for each of them.
    """
    corners = torch.tensor(config.mel_corners())
    return k_power(corners[1:-1], config.sample_rate) / (corners[2:] - corners[:-2])


def _mean_over(values: Tensor, width: int, loops: bool) -> Tensor:
    """(N,) moving mean over ``width`` places, the ends continued or joined."""
    before = width // 2
    padded = torch.nn.functional.pad(
        values[None, None], (before, width - 1 - before), mode="circular" if loops else "replicate"
    )
    return torch.nn.functional.avg_pool1d(padded, width, stride=1)[0, 0]

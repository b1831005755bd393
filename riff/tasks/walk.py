"""Music that changes on its way: a timeline drawn on one canvas, with no joins and every beat in its place."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from riff.audio.loudness import k_power
from riff.diffusion.conditioning import CanvasConditioning
from riff.diffusion.model import DenoiseOptions, DiffusionModel
from riff.diffusion.windows import canvas_noise, padded_width, training_width
from riff.music.theory import canonical_key, parse_bpm
from riff.prompt.interpret import ParsedPrompt, interpret_prompt
from riff.prompt.syntax import plain_prompt
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import image_to_mel
from riff.spectrogram.inversion.solver import Quality
from riff.spectrogram.tempo import TempoMap
from riff.tasks.clip import Clip, play
from riff.tasks.timeline import Easing, Keyframe, Placed, Timeline, place, progress
from riff.utils.errors import RiffError

ARROW = " -> "


def draw_timeline(
    model: DiffusionModel,
    timeline: Timeline,
    *,
    seed: int,
    guidance_scale: float,
    sampling: DenoiseOptions,
    quality: Quality = "default",
    ends_pinned: bool = False,
) -> Clip:
    """Draw a timeline and play it.

    Args:
        model: what draws.
        timeline: keyframes and length.
        seed: of keyframes that have none, where the timeline has none either.
        guidance_scale: of keyframes that have none.
        sampling: how it is drawn.
        quality: of the step from picture to sound.
        ends_pinned: whether the first and the last window are drawn as plain clips of their prompts would be.

    Raises:
        RiffError: the model cannot draw it: a loop of half bars, LoRA weights without a LoRA, ...
    """
    readings = _read(model, timeline)
    beats_per_bar = timeline.beats_per_bar or readings[0].beats_per_bar
    placed = place(timeline, [reading.bpm for reading in readings], beats_per_bar)
    tempo = TempoMap.glide(placed.tempo)
    columns, drawn = _columns(model, placed, beats_per_bar, loop=timeline.loop)
    layout = model.layout(drawn, beats_per_bar=beats_per_bar, loop=timeline.loop, ends_pinned=ends_pinned)
    per_beat = columns / placed.total / model.factor
    along = torch.tensor(progress(placed, layout.width, per_beat))
    starts = [round(beat * per_beat) for beat in placed.beats]
    if ends_pinned:
        along[: layout.window], along[-layout.window :] = 0.0, len(readings) - 1.0
        starts[-1] = layout.width - layout.window
    seeds = _seeds(timeline, seed)
    noise = canvas_noise(model.latent_rows, layout, seeds, starts=starts, progress=along, variation=timeline.variation)
    conditions = _conditions(model, timeline, readings, along, guidance_scale)
    image = model.sample_images(noise, layout, conditions, seeds[:1], sampling)[0][..., :columns]
    if model.config.amplitude == "decibel":
        at_columns = along.repeat_interleave(model.factor)[:columns]
        image = smooth_levels(image, at_columns, beats_per_bar * model.config.frames_per_beat, model.config)
    waveform = play(image, model.config, bpm=tempo, seed=seeds[0], quality=quality, loop=timeline.loop)
    return Clip(
        waveform=waveform,
        sample_rate=model.config.sample_rate,
        image=image,
        config=model.config,
        prompt=ARROW.join(frame.prompt for frame in timeline.keyframes),
        seed=seeds[0],
        bpm=readings[0].bpm,
        tempo=tempo if len(set(reading.bpm for reading in readings)) > 1 else None,
        settings=_settings(model, timeline, readings, sampling, guidance_scale, beats_per_bar, seeds[0])
        | {"quality": quality, "ends_pinned": ends_pinned or None},
    )


def walk_timeline(
    model: DiffusionModel,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    bars_per_step: int,
    bars: int | None,
    negative_prompts: Sequence[str],
    guidance_scales: Sequence[float | None],
    tempi: Sequence[float | None],
    keyscales: Sequence[str | None],
    easing: Easing,
    variation: float,
    loop: bool,
) -> Timeline:
    """A timeline that goes from prompt to prompt in equal steps and stays one training picture at each.

    Args:
        model: what will draw.
        prompts: two or more stations.
        seeds: one for each, as the other sequences.
        bars_per_step: from one station's first bar to the next one's.
        bars: of the whole, in place of that.
        negative_prompts: what to stay away from.
        guidance_scales: None is the call's.
        tempi: beats per minute; None takes the prompt's, else what the model thinks suits it.
        keyscales: None leaves the key open.
        easing: "linear" or "smooth".
        variation: of the noise from one training width to the next, 0 to 1.
        loop: whether the last station leads back into the first.

    Raises:
        RiffError: fewer than two prompts, or a step that leaves no room for the way.
    """
    if len(prompts) < 2:
        raise RiffError(f"a walk needs two prompts or more; got {len(prompts)}")
    keyscales = [None if key is None else canonical_key(key) for key in keyscales]
    readings = [
        interpret_prompt(prompt, bpm=bpm, keyscale=key, parts=model.components, prior=model.prior)
        for prompt, bpm, key in zip(prompts, tempi, keyscales, strict=True)
    ]
    if model.config.grid == "seconds":  # a column there lasts as long at every tempo
        readings = [dataclasses.replace(reading, bpm=readings[0].bpm) for reading in readings]
    stay, ways = window_bars(model, readings[0]), len(prompts) if loop else len(prompts) - 1
    at_the_end = 0 if loop else math.ceil(stay)
    if bars is None:
        bars = ways * bars_per_step + at_the_end
    firsts = _first_bars(len(prompts), ways, bars, bars - at_the_end, stay)
    frames = [
        Keyframe(
            prompt=reading.prompt,
            bar=float(firsts[number]),
            negative_prompt=negative_prompts[number],
            seed=seeds[number],
            guidance_scale=guidance_scales[number],
            bpm=reading.bpm,
            keyscale=keyscales[number],
            easing=easing,
            hold=stay,
        )
        for number, reading in enumerate(readings)
    ]
    return Timeline(
        keyframes=tuple(frames),
        bars=bars,
        loop=loop,
        variation=variation,
        beats_per_bar=readings[0].beats_per_bar,
    )


def _first_bars(count: int, ways: int, bars: int, room: int, stay: float) -> list[int]:
    """Bars at which ``count`` stations begin, as evenly as whole bars allow; ``room`` of the ``bars`` is for the ways.

    Raises:
        RiffError: a way is no longer than the stay at its beginning.
    """
    if room < ways * (math.floor(stay) + 1):
        raise RiffError(
            f"{bars} bars are too few for {ways} step(s): a walk stays {stay:g} bars at each prompt, so a step takes "
            f"{math.floor(stay) + 1} bars or more"
        )
    return [round(room * number / ways) for number in range(count)]


def window_bars(model: DiffusionModel, reading: ParsedPrompt) -> float:
    """Bars of a training picture."""
    columns = training_width(model.config, reading.beats_per_bar)
    return columns * model.config.column_samples(bpm=reading.bpm) / _bar_samples(model, reading)


def _bar_samples(model: DiffusionModel, reading: ParsedPrompt) -> float:
    return reading.beats_per_bar * 60.0 / reading.bpm * model.config.sample_rate


def _read(model: DiffusionModel, timeline: Timeline) -> list[ParsedPrompt]:
    """Every keyframe's prompt; one that says no tempo keeps that of the one before."""
    readings: list[ParsedPrompt] = []
    for frame in timeline.keyframes:
        bpm = frame.bpm
        if bpm is None and parse_bpm(plain_prompt(frame.prompt)) is None and readings:
            bpm = readings[-1].bpm
        on_seconds = model.config.grid == "seconds" and bool(readings)
        key = None if frame.keyscale is None else canonical_key(frame.keyscale)
        reading = interpret_prompt(
            frame.prompt, bpm=None if on_seconds else bpm, keyscale=key, parts=model.components, prior=model.prior
        )
        # A column there lasts as long at every tempo, so the first one's places all keyframes.
        readings.append(dataclasses.replace(reading, bpm=readings[0].bpm) if on_seconds else reading)
    return readings


def _columns(model: DiffusionModel, placed: Placed, beats_per_bar: int, *, loop: bool) -> tuple[int, int]:
    """Picture columns to keep, and to draw."""
    config = model.config
    exact = placed.total * config.frames_per_beat
    if config.grid == "seconds":
        exact = placed.total * 60.0 / placed.tempo[0][1] * config.sample_rate / config.hop_length
    columns = math.ceil(exact - 1e-6)
    if loop:
        if config.grid == "seconds":
            columns = max(1, round(columns / model.multiple)) * model.multiple
        if columns % model.multiple:
            raise RiffError(f"a loop of {columns} columns cannot be drawn by {model.name}; use more bars")
        return columns, columns
    return columns, padded_width(columns, training_width(config, beats_per_bar), model.multiple)


def _seeds(timeline: Timeline, seed: int) -> list[int]:
    seeds = [seed if timeline.seed is None else timeline.seed]
    for frame in timeline.keyframes:
        seeds.append(seeds[-1] if frame.seed is None else frame.seed)
    return seeds[1:]


def _conditions(
    model: DiffusionModel, timeline: Timeline, readings: list[ParsedPrompt], along: Tensor, guidance_scale: float
) -> CanvasConditioning:
    frames = timeline.keyframes
    guidance = [guidance_scale if frame.guidance_scale is None else frame.guidance_scale for frame in frames]
    lora = None
    if any(frame.lora_weight is not None for frame in frames):
        if not getattr(model.components.unet, "peft_config", None):
            raise RiffError("the timeline gives LoRA weights, but no LoRA is loaded; load one with --lora")
        lora = torch.tensor([1.0 if frame.lora_weight is None else frame.lora_weight for frame in frames])
    return model.conditions(
        [readings],
        guidance,
        [frame.negative_prompt for frame in frames],
        progress=along,
        lora_weights=lora,
    )


def _settings(
    model: DiffusionModel,
    timeline: Timeline,
    readings: list[ParsedPrompt],
    sampling: DenoiseOptions,
    guidance_scale: float,
    beats_per_bar: int,
    seed: int,
) -> dict[str, Any]:
    told = dataclasses.replace(timeline, seed=seed if timeline.seed is None else timeline.seed)
    return model.settings(sampling.steps, guidance_scale) | {
        "timeline": json.dumps(told.to_dict(), ensure_ascii=False),
        "beats_per_bar": beats_per_bar,
        "ignored_words": tuple(dict.fromkeys(word for reading in readings for word in reading.ignored_words)),
        "dropped_words": tuple(dict.fromkeys(word for reading in readings for word in reading.dropped_words)),
    }


# WAS riff/level.py: Filling the dips in level on the way between two prompts.

MOST_DB = 6.0
ROUNDS = 4  # what a gain that moves no faster than a bar leaves of a short dip, the next one takes


def smooth_levels(image: Tensor, place: Tensor, bar: int, config: SpectrogramConfig) -> Tensor:
    """A picture that is nowhere quieter than on a straight line between its stations' levels.

    What a model makes of two prompts at once is often thinner than either. Two bars together are brought up to the line
    between the stations' means, and each bar to that between their quietest bars, so that a pattern of a loud and a
    quiet bar stays one. Only the way is raised, by 6 dB at most and evenly over a bar, so that nothing pumps; where the
    music stays at a station the picture is what it was. Rows count as their frequencies do in loudness, since two
    stations' levels are else not comparable.

    Args:
        image: ``(C, M, N)`` in [0, 1] on the decibel scale.
        place: (N,) the station at each column: whole numbers where the music stays, from 0 to their count.
        bar: columns of a bar.
        config: names the scale.

    Returns:
        The same shape; the same picture where a station has no bar of its own.
    """
    power = (image_to_mel(image, config).square() * _heard(config).to(image)[:, None]).sum((0, 1))
    stays = (place - place.round()).abs() < 1e-6
    count = int(place.max().ceil()) + 1
    owned = [stays & (place.round() == station) for station in range(count)]
    loops = not bool(owned[-1].any())
    if loops:
        owned[-1] = owned[0]  # it goes back to the first
    if any(int(columns.sum()) < bar for columns in owned):
        return image
    level = _decibels(_mean_over(power, bar, loops))
    means = torch.stack([_decibels(power[columns].mean()) for columns in owned])
    quietest = torch.stack([level[_inner(columns, bar, loops)].min() for columns in owned])
    # Nothing at the stations, all of it from half a bar beside them on.
    on_the_way = (2.0 * _mean_over((~stays).float(), bar, loops) - 1.0).clamp(min=0.0) * ~stays
    gain = torch.zeros_like(power)
    for _ in range(ROUNDS):
        for levels, width in ((means, 2 * bar), (quietest, bar)):
            now = _decibels(_mean_over(power * 10.0 ** (gain / 10.0), width, loops))
            lack = (_between(levels, place) - now).clamp(min=0.0)
            gain = (gain + _mean_over(lack, bar, loops) * on_the_way).clamp(max=MOST_DB)
    return torch.where(image > 0, image + gain / config.db_range, image).clamp(0.0, 1.0)


def _between(levels: Tensor, place: Tensor) -> Tensor:
    """(N,) on straight lines from one station's level to the next one's."""
    below = place.floor().long().clamp(max=len(levels) - 1)
    above = (below + 1).clamp(max=len(levels) - 1)
    return torch.lerp(levels[below], levels[above], place - below)


def _inner(columns: Tensor, bar: int, loops: bool) -> Tensor:
    """Those of a station's columns around which the whole bar is its own, or most of it where none is."""
    share = _mean_over(columns.float(), bar, loops)
    return share > min(float(share.max()), 1.0) - 0.5 / bar


def _decibels(power: Tensor) -> Tensor:
    return 10.0 * (power + 1e-12).log10()


def _heard(config: SpectrogramConfig) -> Tensor:
    """(M,) how much the square of each mel row counts as loudness, from the lowest on.

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

"""Working a request out: how long the picture is, and how long the sound."""

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.latents import downsampling
from riff.prior import MusicPrior
from riff.reading import Reading, read_prompt

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


@dataclasses.dataclass(frozen=True)
class Plan:
    """One clip to draw.

    Attributes:
        reading: of its prompt.
        bpm: tempo in beats per minute.
        seed: of the noise and the phases.
        columns: of the picture that is kept.
        drawn_columns: of the picture that is drawn, ``>= columns``.
        samples: of the sound, in samples; at most the length of ``columns``.
        loop: whether the end leads back into the start.
    """

    reading: Reading
    bpm: float
    seed: int
    columns: int
    drawn_columns: int
    samples: int
    loop: bool = False


def make_plan(
    prompt: str,
    *,
    seed: int,
    bpm: float | None,
    bars: int | None,
    duration: float | None,
    keyscale: str | None,
    parts: "StableDiffusionPipeline",
    config: SpectrogramConfig,
    prior: MusicPrior | None,
    loop: bool = False,
    timesignature: str | None = None,
) -> Plan:
    """Work one prompt out.

    Args:
        prompt: as the user wrote it.
        seed: of the clip.
        bpm: tempo asked for; None takes the prompt's, else the prior's, else 120.
        bars: length in bars, or None.
        duration: length in seconds, or None.
        keyscale: key asked for, canonical, or None.
        parts: the model.
        config: of its pictures.
        prior: the music prior of riff's own models, whose vocabulary is closed; else None.
        loop: whether the end leads back into the start.
        timesignature: metre asked for, "3/4" or "4/4", or None.

    Raises:
        RiffError: the prompt states a tempo out of range, or a loop is not of whole bars.
    """
    reading = read_prompt(prompt, bpm=bpm, keyscale=keyscale, parts=parts, prior=prior, timesignature=timesignature)
    columns, drawn, samples = plan_length(
        config,
        bpm=reading.bpm,
        beats_per_bar=reading.beats_per_bar,
        bars=bars,
        duration=duration,
        multiple=downsampling(parts.vae) * 2 ** (len(parts.unet.config.block_out_channels) - 1),
        loop=loop,
    )
    tempo = reading.bpm
    if loop and bars is not None and config.grid == "seconds":
        # A column has a length of its own there, so the tempo is what makes the bars fill whole columns.
        tempo = bars * reading.beats_per_bar * 60.0 * config.sample_rate / samples
    return Plan(reading, tempo, seed, columns, drawn, samples, loop)


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
    """Columns to keep, columns to draw, and samples of a clip.

    Args:
        config: of the picture.
        bpm: beats per minute.
        beats_per_bar: 3 or 4.
        bars: length in bars, or None.
        duration: length in seconds, or None; without either, one training picture.
        multiple: columns that the model can draw come in multiples of this.
        loop: whether the end leads back into the start; then all that is drawn is kept.

    Returns:
        ``(columns, drawn_columns, samples)``. At least a training picture is drawn, since the model knows no
        shorter one; only a loop can be shorter, and is shown to it several times side by side.

    Raises:
        RiffError: a loop on the beats grid whose length is given in seconds, or whose bars the model cannot draw.
    """
    usual = usual_columns(config, beats_per_bar)
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
        raise RiffError(f"a loop of {columns} columns cannot be drawn by this model; use a multiple of {multiple}")
    if loop:
        return columns, columns, config.frames_to_samples(columns, bpm=bpm)
    drawn = drawn_columns(columns, usual, multiple)
    return columns, drawn, config.frames_to_samples(columns, bpm=bpm) if samples is None else samples


def usual_columns(config: SpectrogramConfig, beats_per_bar: int) -> int:
    """Columns of a training picture: two bars of three where it holds two of four."""
    return config.width * 3 // 4 if config.grid == "beats" and beats_per_bar == 3 else config.width


def drawn_columns(columns: int, usual: int, multiple: int) -> int:
    """Columns that are drawn where ``columns`` are kept: whole latents, and at least a training picture's ``usual``."""
    return math.ceil(max(columns, usual) / multiple) * multiple


def batches(plans: list[Plan], *, size: int) -> Iterator[list[Plan]]:
    """Neighbours of one width and metre whose prompts are composed alike, at most ``size`` of them."""
    batch: list[Plan] = []
    for plan in plans:
        same = batch and _shape(plan) == _shape(batch[0])
        if batch and (len(batch) == size or not same):
            yield batch
            batch = []
        batch.append(plan)
    yield batch


def _shape(plan: Plan) -> tuple[object, ...]:
    return plan.drawn_columns, plan.reading.beats_per_bar, plan.reading.shares

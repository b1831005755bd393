"""Working a request out: what the model is told, how long the picture is, how long the sound."""

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.latents import downsampling
from riff.music import parse_bpm, parse_keyscale, parse_timesignature
from riff.prior import MusicPrior
from riff.prompt import dropped_words, embed_prompt, split_known
from riff.request import BPM_RANGE, check_number

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

DEFAULT_BPM = 120.0


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a prompt comes to.

    Attributes:
        prompt: as the user wrote it.
        text: what the model is told: without unknown words, with tempo and key.
        ignored_words: words the model was not taught.
        dropped_words: words past the tokenizer's length.
        bpm: tempo in beats per minute.
        beats_per_bar: 3 or 4.
    """

    prompt: str
    text: str
    ignored_words: tuple[str, ...]
    dropped_words: tuple[str, ...]
    bpm: float
    beats_per_bar: int


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


def read_prompt(
    prompt: str,
    *,
    bpm: float | None,
    keyscale: str | None,
    parts: "StableDiffusionPipeline",
    prior: MusicPrior | None,
    timesignature: str | None = None,
) -> Reading:
    """What the model is told of a prompt, and how fast it is played; arguments are those of :func:`make_plan`.

    Raises:
        RiffError: the prompt states a tempo out of range.
    """
    written_prompt = prompt
    if timesignature is not None and timesignature not in prompt:
        prompt = f"{prompt}, in {timesignature}"
    text, ignored = known_text(prompt, parts, prior)
    if not text:
        warnings.warn(f"the model knows no word of {prompt[:80]!r}; it plays what it likes", stacklevel=5)
    written, beats_per_bar, implied = parse_bpm(prompt), parse_timesignature(prompt), None
    if prior is not None:
        embeds = embed_prompt([text], parts.tokenizer, parts.text_encoder)
        implied = prior.bpm(embeds)
        if "4/4" not in prompt:
            beats_per_bar = min(beats_per_bar, prior.beats_per_bar(embeds))
    tempo = choose_tempo(bpm, written, implied)
    dropped = dropped_words(text, parts.tokenizer)
    if prior is not None:
        text, dropped = _fit(text, prompt, tempo, keyscale, parts)
    return Reading(written_prompt, text, tuple(ignored), tuple(dropped), tempo, beats_per_bar)


def known_text(text: str, parts: "StableDiffusionPipeline", prior: MusicPrior | None) -> tuple[str, list[str]]:
    """What the model was taught of a text, and the rest; only riff's own models have a closed vocabulary."""
    return (text, []) if prior is None else split_known(text, parts.tokenizer)


def _fit(
    text: str, prompt: str, tempo: float, keyscale: str | None, parts: "StableDiffusionPipeline"
) -> tuple[str, list[str]]:
    """What the model is told, and the words at the prompt's end that gave way to the tempo and the key."""
    words = text.split()
    lost: list[str] = []
    while dropped_words(told := _tell(" ".join(words), prompt, tempo, keyscale), parts.tokenizer) and words:
        lost.insert(0, words.pop().strip(",.;:!?"))
    return told, [word for word in lost if word]


def _tell(text: str, prompt: str, tempo: float, keyscale: str | None) -> str:
    """``text`` with the tempo and the key that the prompt leaves open.

    The tempo is told whoever chose it: what the model draws then suits the grid, and a clip is made again
    from its prompt and its tempo.
    """
    told = [text] if text else []
    if parse_bpm(prompt) is None:
        told.append(f"{round(tempo)} bpm")
    if keyscale is not None and parse_keyscale(prompt) is None:
        told.append(f"in {keyscale}")
    return ", ".join(told)


def choose_tempo(bpm: float | None, written: float | None, implied: float | None) -> float:
    """Beats per minute: the argument, else the number in the prompt, else the model's prior, else 120."""
    if bpm is not None and written is not None and abs(bpm - written) > 0.5:
        warnings.warn(f"the prompt says {written:g} bpm and the argument {bpm:g}; {bpm:g} is used", stacklevel=2)
    if bpm is None and written is not None:
        check_number(written, "the prompt's bpm", *BPM_RANGE)
    return next((float(tempo) for tempo in (bpm, written, implied) if tempo is not None), DEFAULT_BPM)


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
    drawn = math.ceil(max(columns, usual) / multiple) * multiple
    return columns, drawn, config.frames_to_samples(columns, bpm=bpm) if samples is None else samples


def usual_columns(config: SpectrogramConfig, beats_per_bar: int) -> int:
    """Columns of a training picture: two bars of three where it holds two of four."""
    return config.width * 3 // 4 if config.grid == "beats" and beats_per_bar == 3 else config.width


def batches(plans: list[Plan], *, size: int) -> Iterator[list[Plan]]:
    """Neighbours of one width and metre, at most ``size`` of them."""
    batch: list[Plan] = []
    for plan in plans:
        same = batch and _shape(plan) == _shape(batch[0])
        if batch and (len(batch) == size or not same):
            yield batch
            batch = []
        batch.append(plan)
    yield batch


def _shape(plan: Plan) -> tuple[int, int]:
    return plan.drawn_columns, plan.reading.beats_per_bar

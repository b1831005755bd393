"""Working a request out: how long the picture is, and how long the sound."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.diffusion.latents import downsampling
from riff.diffusion.model import DiffusionModel
from riff.diffusion.windows import padded_width, training_width
from riff.music.key import key_scores, pitch_classes
from riff.music.tempo_estimation import measure_tempo, tempo_error
from riff.music.theory import KEYS, TONICS
from riff.prompt.interpret import ParsedPrompt, interpret_prompt
from riff.prompt.prior import MusicPrior
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import transpose_image
from riff.spectrogram.inversion.solver import Quality
from riff.tasks.checks import Wish
from riff.tasks.clip import Clip, play
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


@dataclasses.dataclass(frozen=True)
class ClipPlan:
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

    reading: ParsedPrompt
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
) -> ClipPlan:
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
    reading = interpret_prompt(
        prompt, bpm=bpm, keyscale=keyscale, parts=parts, prior=prior, timesignature=timesignature
    )
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
    return ClipPlan(reading, tempo, seed, columns, drawn, samples, loop)


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
        raise RiffError(f"a loop of {columns} columns cannot be drawn by this model; use a multiple of {multiple}")
    if loop:
        return columns, columns, config.frames_to_samples(columns, bpm=bpm)
    drawn = padded_width(columns, usual, multiple)
    return columns, drawn, config.frames_to_samples(columns, bpm=bpm) if samples is None else samples


def batches(plans: list[ClipPlan], *, size: int) -> Iterator[list[ClipPlan]]:
    """Neighbours of one width and metre whose prompts are composed alike, at most ``size`` of them."""
    batch: list[ClipPlan] = []
    for plan in plans:
        same = batch and _shape(plan) == _shape(batch[0])
        if batch and (len(batch) == size or not same):
            yield batch
            batch = []
        batch.append(plan)
    yield batch


def _shape(plan: ClipPlan) -> tuple[object, ...]:
    return plan.drawn_columns, plan.reading.beats_per_bar, plan.reading.shares


# WAS riff/drawing.py: From plans to clips: the pictures of one call drawn side by side, played, and drawn again
# until the key is right.

# Clips denoised side by side on a GPU. A CPU gains nothing by it, and one at a time a clip's bytes do not
# depend on its neighbours.
BATCH = 4


def generate_clips(
    model: DiffusionModel, plans: Sequence[ClipPlan], wish: Wish, *, noise: Tensor | None = None
) -> list[Clip]:
    """The clips of all plans, in their order.

    Args:
        model: what draws.
        plans: one for each clip.
        wish: what they share.
        noise: ``(clips, L, M/8, columns/8)`` in place of what the plans' seeds give.
    """
    clips: list[Clip] = []
    for batch in batches(list(plans), size=1 if model.device.type == "cpu" else BATCH):
        own = None if noise is None else noise[len(clips) : len(clips) + len(batch)]
        found = _drawn(model, batch, wish, own)
        if wish.keyscale is not None and wish.key_tries:
            found = [
                retry_until_in_key(
                    functools.partial(_candidate, model, plan, wish, clip),
                    wish.keyscale,
                    tries=wish.key_tries,
                    quality=wish.quality,
                    has_tempo=wish.settings.get("bpm_asked") is not None,
                )
                for plan, clip in zip(batch, found, strict=True)
            ]
        clips += found
    return clips


def _drawn(model: DiffusionModel, plans: list[ClipPlan], wish: Wish, noise: Tensor | None = None) -> list[Clip]:
    """Clips of one width and metre, drawn side by side."""
    first = plans[0]
    layout = model.layout(first.drawn_columns, beats_per_bar=first.reading.beats_per_bar, loop=first.loop)
    if noise is None:
        noise = torch.cat([model.noise(layout, plan.seed) for plan in plans])
    conditions = model.conditions([[plan.reading] for plan in plans], [wish.guidance_scale], [wish.negative])
    images = model.sample_images(noise, layout, conditions, [plan.seed for plan in plans], wish.sampling)
    return [_played(model, plan, image[..., : plan.columns], wish) for plan, image in zip(plans, images, strict=True)]


def _candidate(model: DiffusionModel, plan: ClipPlan, wish: Wish, first: Clip, number: int) -> Clip:
    """Candidate ``number`` of a clip; the first is there already. All of them bear the first one's seed."""
    if number == 0:
        return first
    seed = int(torch.randint(2**62, (number,), generator=torch.Generator().manual_seed(plan.seed))[-1])
    (clip,) = _drawn(model, [dataclasses.replace(plan, seed=seed)], wish)
    return dataclasses.replace(clip, seed=plan.seed)


def _played(model: DiffusionModel, plan: ClipPlan, image: Tensor, wish: Wish) -> Clip:
    """From a picture to the clip that the user gets."""
    reading = plan.reading
    waveform = play(image, model.config, bpm=plan.bpm, seed=plan.seed, quality=wish.quality, loop=plan.loop)
    lost = {"ignored_words": reading.ignored_words, "dropped_words": reading.dropped_words}
    return Clip(
        waveform=waveform[..., : plan.samples],
        sample_rate=model.config.sample_rate,
        image=image,
        config=model.config,
        prompt=reading.prompt,
        seed=plan.seed,
        bpm=plan.bpm,
        settings={**wish.settings, **lost, "beats_per_bar": reading.beats_per_bar},
    )


# WAS riff/verified.py: A key and a tempo that are obeyed: measured, drawn again, and at the last transposed.

TEMPO_TOLERANCE = 0.01


def retry_until_in_key(
    draw: Callable[[int], Clip], keyscale: str, *, tries: int, quality: Quality, has_tempo: bool = False
) -> Clip:
    """The first of ``tries`` clips whose measured key is the asked one, else the nearest, transposed.

    A model knows keys only as well as it learned them, and two bars often leave a key open. The grid gives every clip
    its tempo, but of music that floats another one may be heard: where a tempo was asked for, a clip in the key whose
    pulse is another is drawn again too, and of all that are in the key the one nearest to the tempo is taken. The clip
    says in its settings what was measured, how often it was drawn, and by how many semitones it was moved.

    Args:
        draw: draws candidate number 0, 1, ...
        keyscale: one of :data:`riff.music.theory.KEYS`.
        tries: candidates at most, at least 1.
        quality: of the sound of a transposed picture.
        has_tempo: whether a tempo was asked for, which is the clips' own.
    """
    wanted = KEYS.index(keyscale)
    found: list[_Candidate] = []
    for number in range(tries):
        clip = draw(number)
        scores = _scores(clip)
        heard = max(range(len(KEYS)), key=scores.__getitem__)
        off = _off(clip) if has_tempo and heard == wanted else 0.0
        found.append(_Candidate(clip, scores[wanted], heard == wanted, off))
        if heard == wanted and off == 0.0:
            break
    best = min(found, key=lambda one: (not one.in_key, one.off if one.in_key else -one.score))
    if best.in_key:
        return _told(best.clip, keyscale, tries=len(found), semitones=0)
    return _transposed(best.clip, keyscale, tries=tries, quality=quality)


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A drawing and what was measured of it.

    Attributes:
        clip: itself.
        score: how well the asked key fits.
        in_key: whether it is the one that fits best.
        off: relative distance of its pulse from the clip's tempo, infinite where none is heard; 0 where it counts as
            the same, and where no tempo was asked for.
    """

    clip: Clip
    score: float
    in_key: bool
    off: float


def _off(clip: Clip) -> float:
    """How far the pulse that is heard is from the clip's tempo, at any metrical level; 0 within a hundredth."""
    try:
        error = tempo_error(measure_tempo(clip.waveform, clip.sample_rate), clip.bpm)
    except RiffError:
        return math.inf
    return error if error > TEMPO_TOLERANCE else 0.0


def _transposed(clip: Clip, keyscale: str, *, tries: int, quality: Quality) -> Clip:
    """The clip moved so that its best key of the asked mode is the asked one, if that is what is then heard."""
    tonic, mode = keyscale.split()
    scores = _scores(clip)
    same_mode = [index for index, key in enumerate(KEYS) if key.endswith(mode)]
    heard = max(same_mode, key=scores.__getitem__)
    semitones = (TONICS.index(tonic) - TONICS.index(KEYS[heard].split()[0]) + 6) % 12 - 6
    image = transpose_image(clip.image, clip.config, semitones)
    loop = bool(clip.settings.get("loop"))
    waveform = play(image, clip.config, bpm=clip.bpm, seed=clip.seed, quality=quality, loop=loop)
    moved = dataclasses.replace(clip, image=image, waveform=waveform[..., : clip.waveform.shape[-1]])
    scores = _scores(moved)
    return _told(moved, KEYS[max(range(len(KEYS)), key=scores.__getitem__)], tries=tries, semitones=semitones)


def _scores(clip: Clip) -> list[float]:
    """How well each of the 24 keys fits; silence fits none."""
    try:
        return [float(score) for score in key_scores(pitch_classes(clip.waveform, clip.sample_rate))]
    except RiffError:
        return [0.0] * len(KEYS)


def _told(clip: Clip, heard: str, *, tries: int, semitones: int) -> Clip:
    told = {"key_measured": heard, "key_drawn": tries, "key_moved": semitones}
    return dataclasses.replace(clip, settings={**clip.settings, **told})

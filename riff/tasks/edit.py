"""Tasks on a recording: remix it, extend it, replace parts of it.

The recording is aligned with the model's grid (:mod:`riff.music.alignment`), so what is new keeps its timing and level.
"""

import dataclasses
import json
import math

import torch
from torch import Tensor

from riff.audio.channels import to_mono
from riff.audio.io import resample
from riff.audio.loudness import peak_normalize
from riff.audio.splice import append, band_splice, splice
from riff.diffusion.latents import image_to_latents, seeded_generator
from riff.diffusion.model import DenoiseOptions, DiffusionModel
from riff.diffusion.sampling import Original, StepCallback
from riff.diffusion.windows import WindowLayout, padded_width, training_width
from riff.music.alignment import AlignedAudio, Recording, align_stem, match_stereo_width, to_model_channels, to_stereo
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import image_to_mel, mel_to_image
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.mel import waveform_to_mel
from riff.spectrogram.tempo import TempoMap
from riff.tasks.clip import PEAK, Clip
from riff.tasks.recording import Audio, EditContext, open_recording
from riff.tasks.requests import ExtendRequest, InpaintRequest, RemixRequest
from riff.tasks.stems import Separator, choose_stems, split_stems
from riff.utils.errors import RiffError

FADE_SECONDS = 0.03


def remix(
    model: DiffusionModel,
    request: RemixRequest,
    audio: Audio,
    *,
    sample_rate: int | None = None,
    separator: Separator | None = None,
    callback: StepCallback | None = None,
) -> Clip:
    """A recording played anew: its image is noised and denoised again with the prompt.

    Args:
        model: what generates.
        request: prompt, strength, stems.
        audio: the recording.
        sample_rate: of samples.
        separator: splits a recording into stems in place of Demucs.
        callback: called as ``(step, steps, latents)``.

    Returns:
        As long as the recording, at the model's rate; turned down as a whole where it would be louder than a file can
        hold.

    Raises:
        RiffError: the recording cannot be read, or a stem is not known.
        ModelError, SystemProblem: Demucs is not there.
    """
    choice = choose_stems(request.stems, separator, device=model.device)
    context = open_recording(model, request, audio, sample_rate=sample_rate)
    if choice is None:
        sound, image = _resynthesize(model, context, context.aligned, request.strength, callback)
        sound, rate = _limit_peak(sound), model.config.sample_rate
        return context.clip(model, sound, rate, image=image, facts={"task": "remix"})
    # The stems are generated as one sound. The model learned whole pieces, and several stems together are nearer to
    # those than each alone; and with one prompt each alone would come out as the same thing.
    recording = context.recording
    parts = split_stems(recording.waveform, recording.sample_rate, choice)
    kept, chosen = (Recording(part, recording.sample_rate) for part in parts)
    aligned = align_stem(chosen, context.aligned, model.config)
    sound, _ = _resynthesize(model, context, aligned, request.strength, callback)
    sound = _limit_peak(sound + to_stereo(to_model_channels(kept, model.config)))
    return context.clip(model, sound, model.config.sample_rate, facts={"task": "remix", **choice.facts})


def _resynthesize(
    model: DiffusionModel, context: EditContext, aligned: AlignedAudio, strength: float, callback: StepCallback | None
) -> tuple[Tensor, Tensor]:
    """The sound ``(1|2, T)`` of :func:`remix`, however loud, and its image."""
    mel = waveform_to_mel(aligned.waveform, model.config, bpm=aligned.tempo)
    loudest = _loudest(mel, model.config)
    image, layout = _canvas(mel, aligned, model, loudest)
    original = Original(image_to_latents(image, model.components.vae), strength, None)
    generated = _generate(model, context, layout, original, callback)[..., : mel.shape[-1]]
    sound = _to_sound(model, context, generated, aligned.tempo, loudest) / aligned.gain
    length = aligned.waveform.shape[-1]
    sound = torch.nn.functional.pad(sound, (0, max(0, length - sound.shape[-1])))[..., aligned.lead : length]
    return to_stereo(match_stereo_width(sound, aligned)), generated[0]


def _limit_peak(sound: Tensor) -> Tensor:
    """A sound that a file can hold."""
    return peak_normalize(sound, peak=PEAK) if float(sound.abs().max()) > PEAK else sound


def inpaint(
    model: DiffusionModel,
    request: InpaintRequest,
    audio: Audio,
    *,
    sample_rate: int | None = None,
    callback: StepCallback | None = None,
) -> Clip:
    """A recording with parts of it replaced; outside of them it stays as it is, sample for sample.

    Raises:
        RiffError: the recording cannot be read, or a part does not lie in it.
    """
    context = open_recording(model, request, audio, sample_rate=sample_rate)
    regions, band = context.regions(request), context.band(request)
    waveform, rate = context.recording.waveform, context.recording.sample_rate
    new = waveform.clone()
    places = [(round(start * rate), round(stop * rate)) for start, stop in regions]
    for region, (start, stop) in zip(regions, places, strict=True):
        begin, sound = regenerate_region(model, context, context.aligned, region, band=band, callback=callback)
        first, sound = _at_rate(begin, sound, model.config.sample_rate, context.recording)
        # Of the new stretch only the region is needed, and what the edges may be shifted by.
        spare = round(0.005 * rate)
        here = slice(max(start - spare, first, 0), min(stop + spare, first + sound.shape[-1], new.shape[-1]))
        new[:, here] = sound[:, here.start - first : here.stop - first]
    fade = round(FADE_SECONDS * rate)
    if band is None:
        result = splice(waveform, new, places, fade_samples=fade)
    else:
        low, high = band
        result = band_splice(waveform, new, places, sample_rate=rate, low_hz=low, high_hz=high, fade_samples=fade)
    facts = {
        "task": "inpaint",
        "regions": json.dumps(regions),
        "band": None if band is None else json.dumps(band),
    }
    return context.clip(model, result, rate, facts=facts)


def extend(
    model: DiffusionModel,
    request: ExtendRequest,
    audio: Audio,
    *,
    sample_rate: int | None = None,
    callback: StepCallback | None = None,
) -> Clip:
    """A recording that goes on, to the end of a bar; up to a short crossfade at its end it stays as it is.

    Raises:
        RiffError: the recording cannot be read.
    """
    context = open_recording(model, request, audio, sample_rate=sample_rate)
    aligned, waveform, rate = context.aligned, context.recording.waveform, context.recording.sample_rate
    own, length = model.config.sample_rate, aligned.waveform.shape[-1]
    # To the bar line nearest to the requested length, so that what follows can begin a bar.
    last_beat = float(aligned.tempo.beats_at(length / own))
    bar = aligned.beats_per_bar
    stop_beat = max(math.floor(last_beat / bar) + 1.0, round(last_beat / bar + request.bars)) * bar
    stop = float(aligned.tempo.seconds_at(stop_beat))
    silence = max(0, round(stop * own) - length)
    longer = dataclasses.replace(aligned, waveform=torch.nn.functional.pad(aligned.waveform, (0, silence)))
    lead = aligned.lead / own
    region = (length / own - lead, stop - lead)
    begin, sound = regenerate_region(model, context, longer, region, band=None, callback=callback)
    first, sound = _at_rate(begin, sound, own, context.recording)
    overlap = min(round(FADE_SECONDS * rate), waveform.shape[-1] - max(first, 0))
    new = sound[:, waveform.shape[-1] - overlap - first :]
    result = append(waveform, new, overlap_samples=overlap)
    return context.clip(model, result, rate, facts={"task": "extend"})


def _at_rate(begin: float, sound: Tensor, own_rate: int, recording: Recording) -> tuple[int, Tensor]:
    """First sample and sound at the recording's rate and in its channels."""
    sound = _as_channels(resample(sound, own_rate, recording.sample_rate), len(recording.waveform))
    return round(begin * recording.sample_rate), sound


def regenerate_region(
    model: DiffusionModel,
    context: EditContext,
    aligned: AlignedAudio,
    region: tuple[float, float],
    *,
    band: tuple[float, float] | None,
    callback: StepCallback | None = None,
) -> tuple[float, Tensor]:
    """Generate one region anew, with a window of what lies around it for context.

    Args:
        model: what generates.
        context: the request.
        aligned: the recording on the grid.
        region: first and last second of the recording.
        band: Hz between which it is replaced; None is all of it.
        callback: called as ``(step, steps, latents)``.

    Returns:
        The second of the recording at which the new stretch begins, and its sound ``(1|2, T)``.
    """
    config = model.config
    mel = waveform_to_mel(aligned.waveform, config, bpm=aligned.tempo)
    loudest = _loudest(mel, config)
    start, stop = (second + aligned.lead / config.sample_rate for second in region)
    first, last = _stretch(model, aligned, (start, stop), mel.shape[-1])
    part = mel[..., first:last]
    image, layout = _canvas(part, aligned, model, loudest)
    begin, end = (_column(aligned, second, config) - first for second in (start, stop))
    inside = torch.zeros(1, 1, config.n_mels, image.shape[-1])
    inside[..., max(0, math.floor(begin)) : math.ceil(end)] = 1.0
    inside *= _rows(config, band)[:, None]
    # A latent is replaced as soon as any of its pixels is.
    mask = torch.nn.functional.max_pool2d(inside, model.factor)
    original = Original(image_to_latents(image, model.components.vae), 1.0, mask)
    generated = _generate(model, context, layout, original, callback)
    kept = torch.lerp(image, generated, inside)[..., : part.shape[-1]]
    beat = first / _per_beat(config, aligned)
    sound = _to_sound(model, context, kept, aligned.tempo.starting_at(beat), loudest) / aligned.gain
    began = float(aligned.tempo.seconds_at(beat))
    new = slice(*(max(0, round((second - began) * config.sample_rate)) for second in (start, stop)))
    sound = to_stereo(match_stereo_width(sound, aligned, new))
    # Only what is new is turned down, if it must be.
    return began - aligned.lead / config.sample_rate, _limit_peak(sound)


def _per_beat(config: SpectrogramConfig, aligned: AlignedAudio) -> float:
    """Columns per beat; on the seconds grid by the constant tempo that it was aligned with."""
    if config.grid == "beats":
        return float(config.frames_per_beat)
    return 60.0 / float(aligned.tempo.tempi[0]) * config.sample_rate / config.hop_length


def _column(aligned: AlignedAudio, second: float, config: SpectrogramConfig) -> float:
    return float(aligned.tempo.beats_at(second)) * _per_beat(config, aligned)


def _stretch(
    model: DiffusionModel, aligned: AlignedAudio, seconds: tuple[float, float], columns: int
) -> tuple[int, int]:
    """Columns around a region, from bar to bar: a window before it and a window after it where there is one."""
    config = model.config
    bar = round(aligned.beats_per_bar * config.frames_per_beat) if config.grid == "beats" else model.multiple
    window = training_width(config, aligned.beats_per_bar)
    begin, end = (_column(aligned, second, config) for second in seconds)
    first = max(0, math.floor((begin - window) / bar) * bar)
    last = min(columns, math.ceil((end + window) / bar) * bar)
    return min(first, max(0, (columns - window) // bar * bar)), last


def _canvas(
    mel: Tensor, aligned: AlignedAudio, model: DiffusionModel, loudest: float | None
) -> tuple[Tensor, WindowLayout]:
    """The images ``(R, C, M, W)`` of mel columns, padded with silence to what can be generated, and their windows."""
    width = padded_width(mel.shape[-1], training_width(model.config, aligned.beats_per_bar), model.multiple)
    filled = torch.nn.functional.pad(mel, (0, width - mel.shape[-1]))
    image = mel_to_image(filled, model.config, max_value=loudest)
    return image, model.layout(width, beats_per_bar=aligned.beats_per_bar)


def _generate(
    model: DiffusionModel,
    context: EditContext,
    layout: WindowLayout,
    original: Original,
    callback: StepCallback | None,
) -> Tensor:
    """The images ``(R, C, M, W)`` that the model makes of an original of R images."""
    request, count = context.request, len(original.latents)
    assert request.guidance_scale is not None
    conditions = model.conditions([[context.prompt]] * count, [request.guidance_scale], [request.negative_prompt or ""])
    noise = model.noise(layout, context.prompt.noise_seed(context.seed)).expand(count, -1, -1, -1)
    seeds, steps = [context.seed] * count, request.num_inference_steps
    return model.sample_images(noise, layout, conditions, seeds, DenoiseOptions(steps, callback), original=original)


def _to_sound(
    model: DiffusionModel, context: EditContext, image: Tensor, tempo: TempoMap, loudest: float | None
) -> Tensor:
    return mel_to_waveform(
        image_to_mel(image, model.config, max_value=loudest),
        model.config,
        bpm=tempo,
        quality=context.request.quality,
        generator=seeded_generator(context.seed),
        vocoder=model.vocoder,
    )


def _loudest(mel: Tensor, config: SpectrogramConfig) -> float | None:
    """What is black on the power scale, which does not keep the level of a recording."""
    return max(float(mel.max()), 1e-12) if config.amplitude == "power" else None


def _rows(config: SpectrogramConfig, band: tuple[float, float] | None) -> Tensor:
    """(M,) 1 at the image's rows whose centre is in the band; row 0 is the highest."""
    centres = torch.tensor(config.mel_corners()[1:-1]).flip(0)
    if band is None:
        return torch.ones(config.n_mels)
    rows = ((centres >= band[0]) & (centres <= band[1])).float()
    if not bool(rows.any()):
        raise RiffError(f"the band {band[0]:g} to {band[1]:g} Hz holds no row of the image; make it wider")
    return rows


def _as_channels(sound: Tensor, channels: int) -> Tensor:
    if len(sound) == channels:
        return sound
    return sound.expand(channels, -1) if len(sound) == 1 else to_mono(sound)

"""Making something new of a recording: remix it, make it longer, replace a part of it.

The recording has been laid on the model's grid (:mod:`riff.music.alignment`), so that what is new keeps its timing and loudness.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from riff.audio.channels import to_mono
from riff.audio.io import resample
from riff.audio.loudness import peak_normalize
from riff.audio.splice import append, band_splice, splice
from riff.diffusion.latents import image_to_latents
from riff.diffusion.model import DiffusionModel
from riff.diffusion.sampling import Original
from riff.diffusion.windows import WindowLayout, padded_width, training_width
from riff.music.alignment import AlignedAudio, Recording, align_stem, match_stereo_width, to_model_channels, to_stereo
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import image_to_mel, mel_to_image
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.mel import waveform_to_mel
from riff.spectrogram.tempo import TempoMap
from riff.tasks.checks import Request
from riff.tasks.clip import PEAK
from riff.tasks.stems import StemSelection, separate
from riff.utils.errors import RiffError

FADE_SECONDS = 0.03


def remix(model: DiffusionModel, laid: AlignedAudio, request: Request, *, strength: float) -> tuple[Tensor, Tensor]:
    """A recording drawn anew with a prompt: its picture is noised and denoised again.

    Args:
        model: what draws.
        laid: the recording.
        request: what to make of it.
        strength: 0 (as it is) to 1 (only its length and its beats are left).

    Returns:
        The sound ``(1|2, T)``, as long as the recording, and its picture ``(C, M, N)``.
    """
    sound, image = _resynthesize(model, laid, request, strength=strength)
    return _limit_peak(sound), image


def remix_stems(
    model: DiffusionModel,
    laid: AlignedAudio,
    recording: Recording,
    request: Request,
    choice: StemSelection,
    *,
    strength: float,
) -> Tensor:
    """Some stems of a recording drawn anew, and the rest of it as it was.

    The stems are drawn as one sound. The model learned whole pieces, to which several stems together are nearer than
    each alone; and under one prompt each alone would come out as the same thing.

    Args:
        model: what draws.
        laid: the whole recording, on whose beats the new stems lie.
        recording: itself.
        request: what to make of the stems.
        choice: which they are, and what takes the recording apart.
        strength: as for :func:`remix`.

    Returns:
        ``(1|2, T)`` as long as the recording, at the model's rate; turned down as a whole where it would be louder than
        a file can hold.
    """
    parts = separate(recording.waveform, recording.sample_rate, choice)
    kept, chosen = (Recording(part, recording.sample_rate) for part in parts)
    sound, _ = _resynthesize(model, align_stem(chosen, laid, model.config), request, strength=strength)
    return _limit_peak(sound + to_stereo(to_model_channels(kept, model.config)))


def _resynthesize(
    model: DiffusionModel, laid: AlignedAudio, request: Request, *, strength: float
) -> tuple[Tensor, Tensor]:
    """The sound ``(1|2, T)`` of :func:`remix`, however loud, and its picture."""
    mel = waveform_to_mel(laid.waveform, model.config, bpm=laid.tempo)
    loudest = _loudest(mel, model.config)
    image, layout = _canvas(mel, laid, model, loudest)
    drawn = _draw(model, image, layout, request, strength=strength, mask=None)[..., : mel.shape[-1]]
    sound = _play(drawn, laid.tempo, model.config, request, loudest) / laid.gain
    length = laid.waveform.shape[-1]
    sound = torch.nn.functional.pad(sound, (0, max(0, length - sound.shape[-1])))[..., laid.lead : length]
    return to_stereo(match_stereo_width(sound, laid)), drawn[0]


def _limit_peak(sound: Tensor) -> Tensor:
    """A sound that a file can hold."""
    return peak_normalize(sound, peak=PEAK) if float(sound.abs().max()) > PEAK else sound


def inpaint(
    model: DiffusionModel,
    laid: AlignedAudio,
    recording: Recording,
    request: Request,
    regions: Sequence[tuple[float, float]],
    *,
    band: tuple[float, float] | None = None,
) -> Tensor:
    """A recording with parts of it drawn anew.

    Args:
        model: what draws.
        laid: the recording on the grid.
        recording: itself.
        request: what to draw.
        regions: first and last second of each part, sorted, apart from each other.
        band: Hz from which to which it is replaced; None is all of it.

    Returns:
        ``(C, T)``; outside the regions it is the recording, sample for sample.
    """
    waveform, rate = recording.waveform, recording.sample_rate
    new = waveform.clone()
    places = [(round(start * rate), round(stop * rate)) for start, stop in regions]
    for region, (start, stop) in zip(regions, places, strict=True):
        begin, sound = regenerate_region(model, laid, request, region, band=band)
        first, sound = _at_rate(begin, sound, model.config.sample_rate, recording)
        # Of the redrawn stretch only the region is wanted, and what the edges may be shifted by.
        spare = round(0.005 * rate)
        here = slice(max(start - spare, first, 0), min(stop + spare, first + sound.shape[-1], new.shape[-1]))
        new[:, here] = sound[:, here.start - first : here.stop - first]
    fade = round(FADE_SECONDS * rate)
    if band is None:
        return splice(waveform, new, places, fade_samples=fade)
    low, high = band
    return band_splice(waveform, new, places, sample_rate=rate, low_hz=low, high_hz=high, fade_samples=fade)


def extend(model: DiffusionModel, laid: AlignedAudio, recording: Recording, request: Request, *, bars: int) -> Tensor:
    """A recording that goes on for ``bars`` bars more: ``(C, T')``, to the end of a bar.

    Up to a short crossfade at its end it is the recording, sample for sample.
    """
    waveform, rate = recording.waveform, recording.sample_rate
    own, length = model.config.sample_rate, laid.waveform.shape[-1]
    # To the bar line nearest to the asked length, so that what follows can begin a bar.
    last_beat = float(laid.tempo.beats_at(length / own))
    bar = laid.beats_per_bar
    stop_beat = max(math.floor(last_beat / bar) + 1.0, round(last_beat / bar + bars)) * bar
    stop = float(laid.tempo.seconds_at(stop_beat))
    silence = max(0, round(stop * own) - length)
    longer = dataclasses.replace(laid, waveform=torch.nn.functional.pad(laid.waveform, (0, silence)))
    lead = laid.lead / own
    begin, sound = regenerate_region(model, longer, request, (length / own - lead, stop - lead), band=None)
    first, sound = _at_rate(begin, sound, own, recording)
    overlap = min(round(FADE_SECONDS * rate), waveform.shape[-1] - max(first, 0))
    new = sound[:, waveform.shape[-1] - overlap - first :]
    return append(waveform, new, overlap_samples=overlap)


def _at_rate(begin: float, sound: Tensor, own_rate: int, recording: Recording) -> tuple[int, Tensor]:
    """First sample and sound at the recording's rate and in its channels."""
    sound = _as_channels(resample(sound, own_rate, recording.sample_rate), len(recording.waveform))
    return round(begin * recording.sample_rate), sound


def regenerate_region(
    model: DiffusionModel,
    laid: AlignedAudio,
    request: Request,
    region: tuple[float, float],
    *,
    band: tuple[float, float] | None,
) -> tuple[float, Tensor]:
    """Draw one region anew, with a window of what lies around it for context.

    Args:
        model: what draws.
        laid: the recording on the grid.
        request: what to draw.
        region: first and last second of the recording.
        band: Hz from which to which; None is all of it.

    Returns:
        The second of the recording at which the stretch that was played begins, and its sound ``(1|2, T)``.
    """
    config = model.config
    mel = waveform_to_mel(laid.waveform, config, bpm=laid.tempo)
    loudest = _loudest(mel, config)
    start, stop = (second + laid.lead / config.sample_rate for second in region)
    first, last = _stretch(model, laid, (start, stop), mel.shape[-1])
    part = mel[..., first:last]
    image, layout = _canvas(part, laid, model, loudest)
    begin, end = (_column(laid, second, config) - first for second in (start, stop))
    inside = torch.zeros(1, 1, config.n_mels, image.shape[-1])
    inside[..., max(0, math.floor(begin)) : math.ceil(end)] = 1.0
    inside *= _rows(config, band)[:, None]
    # A latent is drawn anew as soon as any of its pixels is.
    mask = torch.nn.functional.max_pool2d(inside, model.factor)
    drawn = _draw(model, image, layout, request, strength=1.0, mask=mask)
    kept = torch.lerp(image, drawn, inside)[..., : part.shape[-1]]
    beat = first / _per_beat(config, laid)
    sound = _play(kept, laid.tempo.starting_at(beat), config, request, loudest) / laid.gain
    began = float(laid.tempo.seconds_at(beat))
    redrawn = slice(*(max(0, round((second - began) * config.sample_rate)) for second in (start, stop)))
    sound = to_stereo(match_stereo_width(sound, laid, redrawn))
    # Only what is new is turned down, if it must be.
    return began - laid.lead / config.sample_rate, _limit_peak(sound)


def _per_beat(config: SpectrogramConfig, laid: AlignedAudio) -> float:
    """Columns per beat; on the seconds grid by the constant tempo that it was laid with."""
    if config.grid == "beats":
        return float(config.frames_per_beat)
    return 60.0 / float(laid.tempo.tempi[0]) * config.sample_rate / config.hop_length


def _column(laid: AlignedAudio, second: float, config: SpectrogramConfig) -> float:
    return float(laid.tempo.beats_at(second)) * _per_beat(config, laid)


def _stretch(model: DiffusionModel, laid: AlignedAudio, seconds: tuple[float, float], columns: int) -> tuple[int, int]:
    """Columns around a region, from bar to bar: a window before it and a window after it where there is one."""
    config = model.config
    bar = round(laid.beats_per_bar * config.frames_per_beat) if config.grid == "beats" else model.multiple
    window = training_width(config, laid.beats_per_bar)
    begin, end = (_column(laid, second, config) for second in seconds)
    first = max(0, math.floor((begin - window) / bar) * bar)
    last = min(columns, math.ceil((end + window) / bar) * bar)
    return min(first, max(0, (columns - window) // bar * bar)), last


def _canvas(
    mel: Tensor, laid: AlignedAudio, model: DiffusionModel, loudest: float | None
) -> tuple[Tensor, WindowLayout]:
    """The pictures ``(R, C, M, W)`` of mel columns, filled up with silence to what can be drawn, and its windows."""
    width = padded_width(mel.shape[-1], training_width(model.config, laid.beats_per_bar), model.multiple)
    filled = torch.nn.functional.pad(mel, (0, width - mel.shape[-1]))
    image = mel_to_image(filled, model.config, max_value=loudest)
    return image, model.layout(width, beats_per_bar=laid.beats_per_bar)


def _draw(
    model: DiffusionModel,
    image: Tensor,
    layout: WindowLayout,
    request: Request,
    *,
    strength: float,
    mask: Tensor | None,
) -> Tensor:
    """The pictures that the model makes of ``image`` ``(R, C, M, W)``."""
    count = len(image)
    conditions = model.conditions([[request.reading]] * count, [request.guidance_scale], [request.negative_prompt])
    original = Original(image_to_latents(image, model.components.vae), strength, mask)
    noise = model.noise(layout, request.seed).expand(count, -1, -1, -1)
    return model.sample_images(noise, layout, conditions, [request.seed] * count, request.sampling, original=original)


def _play(image: Tensor, tempo: TempoMap, config: SpectrogramConfig, request: Request, loudest: float | None) -> Tensor:
    return mel_to_waveform(
        image_to_mel(image, config, max_value=loudest),
        config,
        bpm=tempo,
        quality=request.quality,
        generator=torch.Generator().manual_seed(request.seed),
    )


def _loudest(mel: Tensor, config: SpectrogramConfig) -> float | None:
    """What is drawn black on the power scale, which forgets how loud a recording was."""
    return max(float(mel.max()), 1e-12) if config.amplitude == "power" else None


def _rows(config: SpectrogramConfig, band: tuple[float, float] | None) -> Tensor:
    """(M,) 1 at the picture's rows whose centre lies in the band; row 0 is the highest."""
    centres = torch.tensor(config.mel_corners()[1:-1]).flip(0)
    if band is None:
        return torch.ones(config.n_mels)
    rows = ((centres >= band[0]) & (centres <= band[1])).float()
    if not bool(rows.any()):
        raise RiffError(f"the band {band[0]:g} to {band[1]:g} Hz holds no row of the picture; make it wider")
    return rows


def _as_channels(sound: Tensor, channels: int) -> Tensor:
    if len(sound) == channels:
        return sound
    return sound.expand(channels, -1) if len(sound) == 1 else to_mono(sound)

"""The rung between file and waveform: reading, writing, resampling and levels."""

import io
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from riff.audio.channels import mix, to_mono
from riff.audio.formats import sniff_container
from riff.audio.reader import SAMPLE_RATES, SoundReader, open_sound
from riff.audio.tags import (
    FIELDS,
    clean_texts,
    finish_flac,
    finish_ogg,
    finish_wav,
    id3_tag,
    read_source_type,
    read_wav_texts,
)
from riff.utils.errors import RiffError, checkpoint
from riff.utils.files import write_bytes

MAX_SECONDS = 7200.0
# Suffix to container and its subtypes, the first being the default.
MAX_OGG_RATE = 200_000
FORMATS = {
    ".wav": ("WAV", ("PCM_16", "PCM_24", "FLOAT")),
    ".flac": ("FLAC", ("PCM_16", "PCM_24")),
    ".ogg": ("OGG", ("VORBIS",)),
    ".mp3": ("MP3", ("MPEG_LAYER_III",)),
}
_SAMPLE_BYTES = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}
_BLOCK = 65536


def load_audio(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    start: float = 0.0,
    duration: float | None = None,
    max_seconds: float = MAX_SECONDS,
) -> tuple[Tensor, int]:
    """Read a sound file, or a part of it.

    Args:
        path: WAV, FLAC, OGG, MP3, AIFF, M4A, Opus, WMA, CAF, W64, RF64, WebM, WavPack, ...; see docs/limits.md.
        sample_rate: resample to this many Hz; default the file's own.
        channels: 1 is the mean of two channels, or the louder one where they cancel, and ITU-R BS.775's mix of more;
            2 doubles a mono sound and mixes more channels that the file names; default as in the file.
        start: seconds to skip.
        duration: seconds to read; default, or beyond the end, is up to the end.
        max_seconds: longest part that is decoded, so that a small file cannot fill the memory.

    Returns:
        ``(C, T)`` float32 in [-1, 1], and its sample rate in Hz. A float file that is louder than 1 is scaled
        to a peak of 1, with a warning; of a damaged file a warning says what is missing.

    Raises:
        RiffError: the file is missing, no sound, of a kind that is not read, empty or too long, or
            holds NaN or infinite samples; or an argument is out of range.
    """
    _check_part(start, duration)
    if channels not in (None, 1, 2):
        raise RiffError(f"channels is {channels!r}; use 1 (mono) or 2 (stereo)")
    if sample_rate is not None:
        check_rate(sample_rate)
    with open_sound(path) as sound:
        rate = sound.sample_rate
        samples = _read_part(sound, start=start, duration=duration, max_seconds=max_seconds)
        if len(samples) == 0:
            raise RiffError(f"{path} holds no sound (0 samples)")
        if sound.faults:
            warnings.warn(f"{path} is damaged: {'; '.join(sound.faults)}", stacklevel=2)
    waveform = torch.from_numpy(np.ascontiguousarray(samples.T))
    if not bool(torch.isfinite(waveform).all()):
        raise RiffError(f"{path} holds NaN or infinite samples; repair it or leave it out")
    if sound.is_float:
        waveform = _within_full_scale(waveform, path)
    waveform = _to_channels(waveform, channels, sound)
    if sample_rate is not None:
        waveform, rate = resample(waveform, rate, sample_rate), sample_rate
    # Lossy decoders and resampling overshoot a full-scale wave a little, as does a player.
    return waveform.clamp_(-1.0, 1.0), rate


def audio_seconds(path: str | Path) -> float:
    """Length of a sound file in seconds, by its header or else by reading it; errors as in :func:`load_audio`."""
    with open_sound(path) as sound:
        frames = sum(map(len, sound.blocks())) if sound.frames is None else sound.frames
        return float(frames / sound.sample_rate)


def check_samples(audio: Any, sample_rate: Any, *, name: str = "the samples") -> tuple[Tensor, int]:
    """Samples that were handed over in memory, looked at as strictly as a file.

    Args:
        audio: an array or tensor ``(T,)``, ``(1, T)`` or ``(2, T)``: floating in [-1, 1], or int16 or int32 at full
            scale.
        sample_rate: samples per second, a whole number of Hz.
        name: of the samples, for messages.

    Returns:
        ``(C, T)`` float32 in [-1, 1]; louder ones are scaled to a peak of 1, with a warning. And the rate.

    Raises:
        RiffError: another shape or type, no samples, more than two hours, or numbers that are not finite.
    """
    check_rate(sample_rate)
    try:
        waveform = audio if isinstance(audio, Tensor) else torch.from_numpy(np.ascontiguousarray(audio))
    except (TypeError, ValueError) as error:
        raise RiffError(f"{name} are {type(audio).__name__} of no numeric type; use floats in [-1, 1]") from error
    waveform = waveform.detach().cpu()
    waveform = waveform[None] if waveform.ndim == 1 else waveform
    if waveform.ndim != 2 or waveform.shape[0] not in (1, 2) or waveform.shape[1] < 1:
        raise RiffError(f"{name} have shape {tuple(audio.shape)}; use (T,), (1, T) or (2, T)")
    if waveform.shape[1] > MAX_SECONDS * sample_rate:
        raise RiffError(f"{name} last {waveform.shape[1] / sample_rate:g} s; use at most {MAX_SECONDS:g} s")
    full_scale = {torch.int16: 2.0**15, torch.int32: 2.0**31}.get(waveform.dtype)
    if full_scale is not None:
        return (waveform.double() / full_scale).float(), int(sample_rate)
    if not waveform.is_floating_point():
        raise RiffError(f"{name} are {waveform.dtype}; use floats in [-1, 1], or int16 or int32")
    waveform = waveform.float()
    if not bool(torch.isfinite(waveform).all()):
        raise RiffError(f"{name} hold NaN or infinite numbers; repair them first")
    return _within_full_scale(waveform, name), int(sample_rate)


def _within_full_scale(waveform: Tensor, name: str | Path) -> Tensor:
    peak = _peak(waveform)
    if peak <= 1.0:
        return waveform
    warnings.warn(f"{name} peaks at {peak:.4g}; scaled to 1", stacklevel=3)
    return waveform / peak


def _peak(waveform: Tensor) -> float:
    low, high = torch.aminmax(waveform)
    return max(-float(low), float(high))


def _check_part(start: float, duration: float | None) -> None:
    if not (math.isfinite(start) and start >= 0):
        raise RiffError(f"start is {start!r}; use seconds of at least 0")
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise RiffError(f"duration is {duration!r}; use seconds greater than 0")


def check_rate(rate: Any) -> None:
    """Raise RiffError unless ``rate`` is a whole number of Hz that riff reads and writes."""
    low, high = SAMPLE_RATES
    if (
        isinstance(rate, bool)
        or not isinstance(rate, (int, float, np.number))
        or int(rate) != rate
        or not low <= rate <= high
    ):
        raise RiffError(f"sample rate is {rate!r}; use a whole number of Hz from {low} to {high}")


def _read_part(sound: SoundReader, *, start: float, duration: float | None, max_seconds: float) -> np.ndarray:
    rate, total = sound.sample_rate, sound.frames
    first, limit = round(start * rate), round(max_seconds * rate)
    wanted = limit + 1 if duration is None else round(duration * rate)
    if total is not None:
        if first and first >= total:
            raise RiffError(f"{sound.path}: start {start:g} s is past its end, {total / rate:g} s; use a smaller start")
        wanted = total - first if duration is None else min(wanted, total - first)
    if wanted > limit and (total is not None or duration is not None):
        raise RiffError(
            f"{sound.path}: {wanted / rate:g} s were asked for, and at most {max_seconds:g} s are read at once; "
            "use start and duration"
        )
    samples = sound.read(first, wanted)
    if len(samples) > limit:
        raise RiffError(
            f"{sound.path} lasts more than the {max_seconds:g} s that are read at once; use start and duration"
        )
    if first and len(samples) == 0 and total is None:
        raise RiffError(f"{sound.path}: start {start:g} s is past its end; use a smaller start")
    return samples


def _to_channels(waveform: Tensor, channels: int | None, sound: SoundReader) -> Tensor:
    if channels is None or channels == len(waveform):
        return waveform
    if channels == 1 and len(waveform) == 2:
        return to_mono(waveform, name=sound.path)
    if channels == 2 and len(waveform) > 2 and sound.layout is None:
        raise RiffError(f"{sound.path} has {len(waveform)} channels, not 1 or 2; use channels=1")
    return mix(waveform, channels, sound.layout)


def save_audio(
    path: str | Path,
    waveform: Tensor,
    sample_rate: int,
    *,
    metadata: dict[str, str] | None = None,
    force: bool = True,
    subtype: str | None = None,
) -> Path:
    """Write a sound file, wholly or not at all.

    Args:
        path: the file; its suffix (.wav .flac .ogg .mp3) is the format.
        waveform: ``(C, T)`` in [-1, 1], 1 or 2 channels. Louder samples are clipped, with a warning; FLOAT
            keeps them.
        sample_rate: samples per second, in Hz.
        metadata: texts for the fields of ``riff.audio.tags.FIELDS``; riff keeps its provenance, as JSON, in
            ``comment``.
        force: False refuses a ``path`` that exists.
        subtype: PCM_16 (default), PCM_24 or, in WAV, FLOAT.

    Returns:
        The path written.

    Raises:
        RiffError: NaN or infinite samples, a wrong shape, suffix, subtype or metadata, a rate that the format
            has not got, or a file that exists.
        SystemProblem: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise RiffError(f"{path} has the suffix {path.suffix!r}; use one of {', '.join(FORMATS)}")
    container, subtypes = FORMATS[path.suffix.lower()]
    subtype = subtypes[0] if subtype is None else subtype
    if subtype not in subtypes:
        raise RiffError(f"subtype is {subtype!r}; a {path.suffix.lower()} file can be {', '.join(subtypes)}")
    samples = _check_waveform(waveform, clip=subtype != "FLOAT")
    check_rate(sample_rate)
    if container == "OGG" and sample_rate > MAX_OGG_RATE:  # libsndfile would end the process
        raise RiffError(f"{path}: an OGG file holds at most {MAX_OGG_RATE} Hz, not {sample_rate}; use .wav or .flac")
    texts = clean_texts(metadata or {})
    if container == "WAV" and samples.size * _SAMPLE_BYTES[subtype] > 0xFF000000:  # with room for texts
        raise RiffError(f"{path}: the sound is longer than the 4 GB that a WAV file can hold; use .flac")
    try:
        content = _encode(samples, int(sample_rate), container, subtype, texts)
    except (soundfile.SoundFileError, ValueError) as error:
        raise RiffError(
            f"{path}: {container} cannot hold {samples.shape[1]} channel(s) at {sample_rate} Hz; "
            "use 44100 or 48000 Hz, or another format"
        ) from error
    write_bytes(path, content, force=force)
    return path


def _check_waveform(waveform: Tensor, *, clip: bool) -> np.ndarray:
    shape = tuple(waveform.shape)
    if len(shape) == 1:
        waveform = waveform[None]
    if waveform.ndim != 2 or waveform.shape[0] not in (1, 2) or waveform.shape[-1] == 0:
        raise RiffError(f"the sound has shape {shape}; use (channels, samples) with 1 or 2 channels, not 0 samples")
    waveform = waveform.detach().float().cpu()
    if not bool(torch.isfinite(waveform).all()):
        raise RiffError("the sound holds NaN or infinite samples; nothing was written")
    peak = _peak(waveform)
    if clip and peak > 1.0 + 1e-3:
        warnings.warn(f"the sound peaks at {peak:.4g}; samples beyond 1 were clipped", stacklevel=3)
    return waveform.numpy().T


def _encode(samples: np.ndarray, rate: int, container: str, subtype: str, texts: dict[str, str]) -> bytearray:
    # Encoded in memory: libsndfile hides a full disk behind "System error", or misses it on the last block.
    buffer = io.BytesIO()
    arguments: dict[str, Any] = {"samplerate": rate, "channels": samples.shape[1], "format": container}
    with soundfile.SoundFile(buffer, "w", subtype=subtype, **arguments) as file:
        # In blocks, because libsndfile overruns its stack when a minute of Vorbis is written at once.
        for first in range(0, len(samples), _BLOCK):
            checkpoint()
            file.write(_quantise(samples[first : first + _BLOCK], subtype))
    content = bytearray(buffer.getbuffer())
    if container == "MP3":
        return bytearray(id3_tag(texts)) + content
    return {"WAV": finish_wav, "FLAC": finish_flac, "OGG": finish_ogg}[container](content, texts)


def _quantise(samples: np.ndarray, subtype: str) -> np.ndarray:
    """Clip, and round to the steps of a PCM subtype, in the top bits of int32; libsndfile cuts in WAV."""
    if subtype == "FLOAT":
        return samples
    if not subtype.startswith("PCM_"):
        return np.clip(samples, -1.0, 1.0)
    bits = int(subtype[4:])
    full = 2.0 ** (bits - 1)
    steps = np.clip(np.rint(samples.astype(np.float64) * full), -full, full - 1)
    return steps.astype(np.int32) << (32 - bits)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The texts stored in a sound file, as :func:`save_audio` takes them; the errors are load_audio's."""
    container = sniff_container(path)
    if container == "WAV":
        return read_wav_texts(path)
    with open_sound(path) as sound:
        texts = sound.texts()
    # libsndfile signs the software field with its own name.
    signature = re.compile(r" \(libsndfile-[\d.]+\)$")
    found = {field: signature.sub("", texts[field]) for field in FIELDS if texts.get(field)}
    source_type = read_source_type(path, container)
    return found | ({"source_type": source_type} if source_type else {})


def resample(waveform: Tensor, old_rate: int, new_rate: int) -> Tensor:
    """Change the sample rate with a band-limited filter (soxr, "very high quality").

    Args:
        waveform: ``(..., T)``.
        old_rate: its samples per second, in Hz.
        new_rate: samples per second wanted, in Hz.

    Returns:
        ``(..., ceil(T * new_rate / old_rate))`` float32; the same tensor if the rates are equal.

    Raises:
        RiffError: a rate is out of range.
    """
    check_rate(old_rate)
    check_rate(new_rate)
    if old_rate == new_rate:
        return waveform
    import soxr

    length = -(-waveform.shape[-1] * int(new_rate) // int(old_rate))
    flat = waveform.detach().float().cpu().reshape(-1, waveform.shape[-1]).T.contiguous().numpy()
    output = torch.from_numpy(soxr.resample(flat, old_rate, new_rate, quality="VHQ").T.copy())
    # soxr may round the length down.
    output = torch.nn.functional.pad(output, (0, max(0, length - output.shape[-1])))[:, :length]
    return output.reshape(*waveform.shape[:-1], length).to(waveform.device)

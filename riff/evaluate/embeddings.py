"""What sounds are compared by: one row of numbers a clip, from signal processing or from a network that is at hand.

The name of an embedding is part of every score that rests on it. None of them is VGGish, so no score is "FAD".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from riff.diffusion.components import quiet_libraries
from riff.evaluate.image_metrics import mel_statistics
from riff.evaluate.sounds import Sound
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import ModelError, RiffError
from riff.utils.validation import suggest

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import ClapModel, ClapProcessor

    from riff.music.tagger import Tagger

LEVEL = -20.3  # decibels of full scale, RMS: what riff's models know; so a difference in level is none in sound
RATE = 22050
EVEN = 120.0  # bpm of the even grid that a sound of unknown tempo is drawn on: a column lasts 1/64 s
SHORTEST, LONGEST = 0.5, 120.0  # seconds; of a longer sound the middle is detected


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A way to turn a sound into numbers.

    Attributes:
        name: as it stands in the names of scores.
        of: a sound to its features, (d,) float64.
    """

    name: str
    of: Callable[[Sound], np.ndarray]

    def rows(self, sounds: Iterable[Sound]) -> np.ndarray:
        """Features of sounds, (n, d).

        Raises:
            RiffError: a sound is shorter than half a second or silent; the message names it.
        """
        return np.stack([self.row(sound) for sound in sounds])

    def row(self, sound: Sound) -> np.ndarray:
        """Features of one sound, (d,); errors as in :meth:`rows`."""
        if sound.seconds < SHORTEST or float(sound.waveform.abs().max()) < 1e-4:
            raise RiffError(f"{sound.path}: {sound.seconds:.2f} s at this level cannot be embedded; use 0.5 s of sound")
        found = self.of(sound.middle(LONGEST))
        if not np.isfinite(found).all():
            raise RiffError(f"{sound.path}: its features ({self.name}) are not finite; leave it out")
        return found


def mel_embedding() -> Embedding:
    """96 statistics of riff-mini's mel image: levels, spreads and modulation at 1, 2, 4 and 8 Hz, of 4 s windows."""
    config = SpectrogramConfig()

    def of(sound: Sound) -> np.ndarray:
        image = sound_to_image(sound, config)
        windows = _windows(image, config.width)
        found: np.ndarray = mel_statistics(windows, frames_per_beat=config.frames_per_beat).mean(0)
        return found

    return Embedding("mel statistics", of)


def descriptor_embedding() -> Embedding:
    """MFCC, chroma and tempogram of librosa, by mean and spread over time, each scaled to be of order 1."""
    return Embedding("MFCC, chroma and tempogram", _descriptors)


def latent_embedding(vae: AutoencoderKL, config: SpectrogramConfig, model: str) -> Embedding:
    """Mean and spread over time of a checkpoint's latents, in 8 bands of frequency; of 1 window or the mean of several.

    Args:
        vae: its autoencoder.
        config: its images.
        model: its name, for that of the embedding.
    """

    def of(sound: Sound) -> np.ndarray:
        from riff.diffusion.latents import image_to_latents

        windows = _windows(sound_to_image(sound, config), config.width)
        latents = image_to_latents(windows, vae).cpu()
        bands = torch.nn.functional.adaptive_avg_pool2d(latents, (min(8, latents.shape[2]), latents.shape[3]))
        parts = [bands.mean(-1).flatten(1), bands.std(-1).flatten(1)]
        return np.asarray(torch.cat(parts, dim=1).mean(0), dtype=np.float64)

    return Embedding(f"latents of {model}", of)


def tagger_embedding(tagger: Tagger) -> Embedding:
    """What riff's tagger detects genre and instruments by, 2048 numbers.

    Every sound is laid alike, whatever its file says, lest two sets differ by what is known of them: at its measured
    tempo, or 120, with the start for a downbeat.
    """

    def of(sound: Sound) -> np.ndarray:
        from riff.music.tempo_estimation import measure_tempo

        try:
            bpm = measure_tempo(sound.middle(30.0).waveform, sound.sample_rate)
        except RiffError:  # no onsets, or too short
            bpm = EVEN
        image = tagger.image_of(sound.waveform, sound.sample_rate, bpm=bpm, downbeat=0.0)
        return np.asarray(tagger.embed(image[None])[0], dtype=np.float64)

    return Embedding("riff's tagger", of)


def sound_to_image(sound: Sound, config: SpectrogramConfig) -> Tensor:
    """The image (1 or 2, M, N) of a sound, brought to one level, on an even grid of 120 bpm or the config's hop."""
    from riff.audio.io import resample
    from riff.spectrogram.image import mel_to_image
    from riff.spectrogram.mel import waveform_to_mel

    mono = level(resample(sound.mono[None], sound.sample_rate, config.sample_rate))
    bpm = EVEN if config.grid == "beats" else None
    return mel_to_image(waveform_to_mel(mono.expand(config.channels, -1), config, bpm=bpm), config)


def level(waveform: Tensor) -> Tensor:
    """A sound (C, T) at the RMS level that riff's models know."""
    rms = float(waveform.double().square().mean().sqrt())
    return waveform * (10.0 ** (LEVEL / 20.0) / max(rms, 1e-9))


def _windows(image: Tensor, width: int) -> Tensor:
    """(n, C, M, width): whole windows, the last ending with the image; a shorter image repeats itself."""
    columns = image.shape[-1]
    if columns < width:
        return image.repeat(1, 1, math.ceil(width / columns))[None, ..., :width]
    starts = sorted({*range(0, columns - width + 1, width), columns - width})
    return torch.stack([image[..., start : start + width] for start in starts])


def _descriptors(sound: Sound) -> np.ndarray:
    import librosa

    from riff.audio.io import resample

    mono = level(resample(sound.mono[None], sound.sample_rate, RATE))[0].numpy()
    mono = np.pad(mono, (0, max(0, 8192 - mono.size)))
    power = np.abs(librosa.stft(mono, n_fft=2048, hop_length=512)) ** 2
    mel = librosa.feature.melspectrogram(S=power, sr=RATE, n_mels=64)
    loud = librosa.power_to_db(mel, top_db=80.0)
    mfcc = librosa.feature.mfcc(S=loud, n_mfcc=20)
    chroma = librosa.feature.chroma_stft(S=power, sr=RATE, tuning=0.0)
    strength = librosa.onset.onset_strength(S=loud, sr=RATE)
    frames = 384
    tempogram = librosa.feature.tempogram(onset_envelope=strength, sr=RATE, win_length=frames)
    lags = np.geomspace(6, frames - 1, 24).round().astype(int)  # 0.14 s to 8.9 s
    rows: list[Any] = [
        *(mfcc.mean(1) / 20.0, mfcc.std(1) / 20.0),
        *(2.0 * chroma.mean(1), 2.0 * chroma.std(1)),
        *(2.0 * tempogram.mean(1)[lags],),
    ]
    return np.concatenate(rows).astype(np.float64)


# The embeddings that can be requested by name, found and loaded.

OFFLINE = ("mel", "descriptors", "latents", "tagger")
FOREIGN = ("clap", "encodec")
NAMES = (*OFFLINE, *FOREIGN)


def check_embeddings(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once; those that need no weights of others if there are none.

    Args:
        names: of :data:`NAMES`; ``clap=FOLDER`` and ``encodec=FOLDER`` say where the weights are.

    Raises:
        RiffError: an unknown name; the nearest one is suggested.
    """
    for name in names:
        kind, equals, source = name.partition("=")
        if kind not in NAMES:
            raise RiffError(f"--embedding {name!r} is not known; {suggest(kind, NAMES)}known are {', '.join(NAMES)}")
        if equals and (kind not in FOREIGN or not source):
            raise RiffError(f"--embedding {name!r}: only clap=FOLDER and encodec=FOLDER say where weights are")
    return tuple(dict.fromkeys(names)) or OFFLINE


def load_embedding(name: str, checkpoint: str | None, *, download: bool = False) -> Embedding:
    """An embedding that :func:`check_embeddings` has let through.

    Args:
        name: such as ``"mel"`` or ``"clap=FOLDER"``.
        checkpoint: whose latents ``"latents"`` means; None is riff-mini.
        download: whether weights of others may be fetched.

    Raises:
        ModelError: its weights are missing or damaged.
    """
    from riff.evaluate import embeddings

    kind, _, source = name.partition("=")
    if kind == "mel":
        return embeddings.mel_embedding()
    if kind == "descriptors":
        return embeddings.descriptor_embedding()
    if kind == "latents":
        from riff.diffusion.checkpoint import load_checkpoint

        pipeline, config, _ = load_checkpoint(checkpoint)
        return embeddings.latent_embedding(pipeline.vae, config, checkpoint or "riff-mini")
    if kind == "tagger":
        from riff.music.tagger import Tagger

        return embeddings.tagger_embedding(Tagger.load())
    if kind == "clap":
        return load_clap(source, download=download).embedding
    pass

    try:
        return encodec_embedding(source or ENCODEC, download=download)
    except ModelError as error:
        raise _how_to_get("encodec", source or ENCODEC) from error


# Networks of others as embeddings: CLAP and EnCodec, through transformers, from a folder or the local cache.
#
# Nothing is fetched unless that is requested, and weights are read as safetensors only.

CLAP = "laion/larger_clap_music"  # Apache-2.0


class Clap:
    """A loaded CLAP, which knows sounds and texts in one space (Wu et al. 2023).

    Attributes:
        model: of transformers.
        processor: its tokenizer and filters.
        name: of the checkpoint, as it stands in the names of scores.
    """

    def __init__(self, model: ClapModel, processor: ClapProcessor, name: str) -> None:
        self.model = model
        self.processor = processor
        self.name = name

    @classmethod
    def load(cls, source: str | Path = CLAP, *, download: bool = False) -> Clap:
        """Read a CLAP.

        Args:
            source: a folder, or the name of a repository on the hub.
            download: whether it may be fetched if it is not in the cache.

        Raises:
            ModelError: it is not there, has no safetensors, or is no CLAP.
        """
        from transformers import ClapModel, ClapProcessor

        model = _loaded(ClapModel, source, download)
        processor = _loaded(ClapProcessor, source, download)
        return cls(model.eval(), processor, f"CLAP {_name(source)}")

    @torch.inference_mode()
    def hear(self, sound: Sound) -> np.ndarray:
        """The embedding of a sound, the mean over 10 s windows, of length 1, (d,)."""
        extractor = self.processor.feature_extractor
        mono = _at_rate(sound, int(extractor.sampling_rate))[0].numpy()
        size = round(WINDOW * extractor.sampling_rate)
        # A last piece of less than a second says little beside whole windows.
        pieces = [mono[at : at + size] for at in range(0, max(1, len(mono) - extractor.sampling_rate), size)]
        inputs = extractor(pieces, sampling_rate=extractor.sampling_rate, return_tensors="pt", truncation="rand_trunc")
        return _direction(_pooled(self.model.get_audio_features(**inputs)).mean(0))

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> np.ndarray:
        """The embeddings of texts, of length 1, (n, d)."""
        inputs = self.processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return np.stack([_direction(row) for row in _pooled(self.model.get_text_features(**inputs))])

    @property
    def embedding(self) -> Embedding:
        """For distances between sets."""
        return Embedding(self.name, self.hear)


def load_clap(source: str = "", *, download: bool = False) -> Clap:
    """CLAP, from a folder or from the local cache.

    Raises:
        ModelError: it is not there; the message says how to get it.
    """
    pass

    try:
        return Clap.load(source or CLAP, download=download)
    except ModelError as error:
        raise _how_to_get("clap", source or CLAP) from error


def _how_to_get(kind: str, source: str) -> ModelError:
    return ModelError(
        f"--embedding {kind}: no usable weights at {source}; add --download once, or download the repository elsewhere "
        f"and give --embedding {kind}=FOLDER"
    )


ENCODEC = "facebook/encodec_32khz"
WINDOW = 10.0  # seconds that CLAP detects at once


def encodec_embedding(source: str | Path = ENCODEC, *, download: bool = False) -> Embedding:
    """The output of EnCodec's encoder (Défossez et al. 2022), its mean over time.

    Args:
        source: a folder, or the name of a repository on the hub.
        download: whether it may be fetched if it is not in the cache.

    Raises:
        ModelError: it is not there, has no safetensors, or is no EnCodec.
    """
    from transformers import EncodecModel

    model = _loaded(EncodecModel, source, download).eval()

    @torch.inference_mode()
    def of(sound: Sound) -> np.ndarray:
        samples = _at_rate(sound, int(model.config.sampling_rate)).expand(model.config.audio_channels, -1)
        encoded = model.encoder(samples[None])[0]
        return np.asarray(encoded.float().mean(-1), dtype=np.float64)

    return Embedding(f"EnCodec {_name(source)}", of)


def _loaded(kind: Any, source: str | Path, download: bool) -> Any:
    arguments: dict[str, Any] = {} if "Processor" in kind.__name__ else {"use_safetensors": True}
    try:
        with quiet_libraries():
            return kind.from_pretrained(str(source), local_files_only=not download, **arguments)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        way = "give a folder that holds it with model.safetensors, or allow the download"
        raise ModelError(f"{source} cannot be used as {kind.__name__} ({reason}); {way}") from error


def _name(source: str | Path) -> str:
    return Path(source).name if Path(source).exists() else str(source)


def _at_rate(sound: Sound, rate: int) -> Tensor:
    from riff.audio.io import resample

    return resample(sound.mono[None], sound.sample_rate, rate)


def _pooled(output: Any) -> Tensor:
    """What transformers returns as a tensor in one version and as an output with one in another."""
    tensor: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return tensor.float()


def _direction(vector: Tensor) -> np.ndarray:
    return np.asarray(torch.nn.functional.normalize(vector, dim=-1), dtype=np.float64)

"""riff: a sentence becomes music, through latent diffusion on spectrograms.

Nothing heavy is imported until a name is used, so that ``import riff`` and ``riff --help`` are quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riff.audio import load_audio, save_audio
    from riff.codec import SpectrogramCodec
    from riff.config import SpectrogramConfig
    from riff.errors import RiffError
    from riff.image import image_to_mel, mel_to_image, read_png, write_png
    from riff.keyframe import Keyframe
    from riff.pipeline import Clip, RiffOutput, RiffPipeline
    from riff.spectrogram import mel_to_waveform, waveform_to_mel
    from riff.tempo import TempoMap
    from riff.timeline import Timeline

__version__ = "0.1.0"

__all__ = [
    "Clip",
    "Keyframe",
    "RiffError",
    "RiffOutput",
    "RiffPipeline",
    "SpectrogramCodec",
    "SpectrogramConfig",
    "TempoMap",
    "Timeline",
    "image_to_mel",
    "load_audio",
    "mel_to_image",
    "mel_to_waveform",
    "read_png",
    "save_audio",
    "waveform_to_mel",
    "write_png",
]

_HOMES = {
    "Clip": "riff.pipeline",
    "Keyframe": "riff.keyframe",
    "RiffError": "riff.errors",
    "RiffOutput": "riff.pipeline",
    "RiffPipeline": "riff.pipeline",
    "SpectrogramCodec": "riff.codec",
    "SpectrogramConfig": "riff.config",
    "TempoMap": "riff.tempo",
    "Timeline": "riff.timeline",
    "image_to_mel": "riff.image",
    "load_audio": "riff.audio",
    "mel_to_image": "riff.image",
    "mel_to_waveform": "riff.spectrogram",
    "read_png": "riff.image",
    "save_audio": "riff.audio",
    "waveform_to_mel": "riff.spectrogram",
    "write_png": "riff.image",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'riff' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The other ways from a picture to sound and back: Riffusion's algorithm through torchaudio, and librosa's."""

from collections.abc import Callable

import torch
from torch import Tensor

from riff.config import SpectrogramConfig

# librosa.feature.melspectrogram's defaults, for at Riffusion's parameters its least squares solver asks for 155 GiB.
LIBROSAS = SpectrogramConfig(
    sample_rate=22050,
    n_fft=2048,
    win_length=2048,
    hop_length=512,
    n_mels=128,
    f_min=0.0,
    f_max=11025.0,
    mel_scale="slaney",
    norm="slaney",
    grid="seconds",
)


def riffusions_algorithm(config: SpectrogramConfig, hop_length: int) -> Callable[[Tensor], Tensor]:
    """Mel (1, M, N) to waveform (1, T) as Riffusion v1 does it: least squares, then 32 Griffin-Lim iterations at 0.99.

    Args:
        config: whose window, transform and filters are used in place of Riffusion's own.
        hop_length: samples per column.

    Raises:
        ImportError: torchaudio cannot be imported.
    """
    from torchaudio.transforms import GriffinLim, InverseMelScale

    bins = config.n_fft // 2 + 1
    unmel = InverseMelScale(bins, config.n_mels, config.sample_rate, config.f_min, config.f_max, None, "htk")
    griffin_lim = GriffinLim(config.n_fft, 32, config.win_length, hop_length, power=1.0, momentum=0.99)

    def invert(mel: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sound: Tensor = griffin_lim(unmel(mel))
        # It is one hop short; the rest is silence.
        return torch.nn.functional.pad(sound, (0, hop_length))

    return invert


def torchaudios_mel(config: SpectrogramConfig) -> Callable[[Tensor], Tensor]:
    """Waveform (1, T) to mel (1, M, N) as Riffusion v1 draws it.

    Raises:
        ImportError: torchaudio cannot be imported.
    """
    from torchaudio.transforms import MelScale, Spectrogram

    spectrogram = Spectrogram(config.n_fft, config.win_length, config.hop_length, power=None)
    scale = MelScale(config.n_mels, config.sample_rate, config.f_min, config.f_max, config.n_fft // 2 + 1, None, "htk")

    def draw(waveform: Tensor) -> Tensor:
        mel: Tensor = scale(spectrogram(waveform).abs())
        return mel

    return draw


def librosas_sound(mel: Tensor) -> Tensor:
    """Mel (1, M, N) of :data:`LIBROSAS` to waveform (1, T) by ``librosa.feature.inverse.mel_to_audio``."""
    import librosa

    sound = librosa.feature.inverse.mel_to_audio(mel[0].numpy(), sr=LIBROSAS.sample_rate, power=1.0)
    return torch.from_numpy(sound)[None]

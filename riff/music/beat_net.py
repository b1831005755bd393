"""A small network that finds where beats and bars are: dilated convolutions over time (Davies & Böck 2019).

It gives each fiftieth of a second three likelihoods, that nothing, a beat or a bar begins there;
:mod:`riff.music.beat_decoding` makes beats and bars of them. It was trained by :mod:`training.recipes.beat_net`.
"""

import functools
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from riff.audio.io import resample
from riff.utils.errors import ModelError
from riff.utils.files import write_bytes
from riff.utils.interrupt import checkpoint

SAMPLE_RATE = 22050
HOP = 441
RATE = SAMPLE_RATE / HOP  # frames per second
WEIGHTS = Path(__file__).parents[1] / "models" / "beats.safetensors"
_MINUTE = 60 * SAMPLE_RATE // HOP  # frames
_SHORT, _LONG = 1024, 4096  # windows in samples: one for when, one for which pitch
BANDS, _LOWEST, _HIGHEST = 40, 30.0, 10000.0
_FIRST_PITCH, _PITCHES = 36, 60  # semitones from C2
FEATURES = BANDS + _PITCHES
FLOOR = 1e-3  # of the sound's own level, under which all is silence
CHANNELS, LAYERS = 48, 9


class BeatNet(nn.Module):
    """Levels (B, F, N) to log likelihoods (B, 3, N) of nothing, a beat, a beat that begins a bar.

    Each layer looks at five frames, twice as far apart as those of the layer before: 20 seconds to either side in all.
    """

    def __init__(self, channels: int = CHANNELS, layers: int = LAYERS) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES)
        self.enter = nn.Conv1d(FEATURES, channels, 3, padding=1)
        self.layers = nn.ModuleList(_Layer(channels, 2**number) for number in range(layers))
        self.leave = nn.Conv1d(channels, 3, 1)

    def forward(self, levels: Tensor) -> Tensor:
        hidden = functional.relu(self.enter(self.norm(levels)))
        total = hidden
        for layer in self.layers:
            hidden = layer(hidden)
            total = total + hidden
        result: Tensor = self.leave(functional.relu(total)).log_softmax(1)
        return result


class _Layer(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.look = nn.Conv1d(channels, channels, 5, padding=2 * dilation, dilation=dilation)
        self.norm = nn.BatchNorm1d(channels)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        looked = functional.relu(self.norm(self.look(hidden)))
        result: Tensor = hidden + self.mix(looked)
        return result


def magnitudes(mono: Tensor, sample_rate: int) -> Tensor:
    """What the network reads, before its logarithm: (F, N) magnitudes over the sound's own level, 50 frames a second.

    Args:
        mono: (T,).
        sample_rate: of it, in Hz.
    """
    sound = resample(mono.float(), sample_rate, SAMPLE_RATE)
    sound = sound / sound.square().mean().sqrt().clamp_min(1e-8)
    rows = [_rows(sound, *each) for each in ((_SHORT, _band_weights()), (_LONG, _pitch_weights()))]
    return torch.cat(rows)


def _rows(sound: Tensor, size: int, weights: Tensor) -> Tensor:
    """Weighted sums (R, N) of a sound's magnitudes, a minute at a time, since whole spectra are large."""
    window = torch.hann_window(size)
    padded = functional.pad(sound, (size // 2, size // 2))
    found = []
    for first in range(0, len(sound) // HOP + 1, _MINUTE):
        checkpoint()
        part = padded[first * HOP : (first + _MINUTE - 1) * HOP + size]
        spectrum = torch.stft(part, size, HOP, window=window, center=False, return_complex=True).abs()
        found.append(weights @ (spectrum * (2.0 / float(window.sum()))))
    return torch.cat(found, 1)


def levels(found: Tensor, floor: float = FLOOR) -> Tensor:
    """Logarithms to base 10 of :func:`magnitudes`, with a floor."""
    return (found + floor).log10()


@functools.cache
def _band_weights() -> Tensor:
    """(40, F) triangles, evenly spaced in the logarithm of frequency."""
    edges = torch.logspace(math.log10(_LOWEST), math.log10(_HIGHEST), BANDS + 2, dtype=torch.float64)
    return _triangles(edges, _SHORT)


@functools.cache
def _pitch_weights() -> Tensor:
    """(60, F) triangles a semitone wide to either side."""
    pitches = torch.arange(_FIRST_PITCH - 1, _FIRST_PITCH + _PITCHES + 1, dtype=torch.float64)
    return _triangles(440.0 * 2.0 ** ((pitches - 69.0) / 12.0), _LONG)


def _triangles(edges: Tensor, size: int) -> Tensor:
    """Triangles between neighbours but one, none narrower than the distance of two bins, each with sum 1."""
    hertz = torch.arange(size // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / size
    bin_ = SAMPLE_RATE / size
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = 1.0 - (centre - hertz) / (centre - low).clamp_min(bin_)
    falling = 1.0 - (hertz - centre) / (high - centre).clamp_min(bin_)
    weights = torch.minimum(rising, falling).clamp_min(0.0)
    return (weights / weights.sum(1, keepdim=True)).float()


def save_net(net: BeatNet, path: Path) -> None:
    """Write the weights in float16, whole or not at all."""
    from safetensors.torch import save

    small = {name: value.half() if value.is_floating_point() else value for name, value in net.state_dict().items()}
    write_bytes(path, save(small))


@functools.lru_cache(maxsize=2)
def load_net(path: Path = WEIGHTS) -> BeatNet:
    """Read what :func:`save_net` wrote, in evaluation mode.

    Raises:
        ModelError: the file is missing, damaged, incomplete, or holds other, NaN or infinite weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    net = BeatNet()
    try:
        tensors = {name: value.float() for name, value in load_file(path).items()}
        net.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"{path} is missing or does not hold the beat network's weights; install riff again"
        ) from error
    if bad := next((name for name, value in tensors.items() if not bool(value.isfinite().all())), None):
        raise ModelError(f"{path}: {bad} holds NaN or infinite numbers; the file is damaged, so install riff again")
    return net.eval()


@torch.no_grad()
def beat_probabilities(mono: Tensor, sample_rate: int) -> Tensor:
    """(3, N) log likelihoods at :data:`RATE` of nothing, a beat, and a beat that begins a bar, of a sound (T,)."""
    found: Tensor = load_net()(levels(magnitudes(mono, sample_rate))[None])[0]
    return found

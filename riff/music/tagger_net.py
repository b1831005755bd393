"""The network that tags images of music: which genre, which instruments, which lead and which key."""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import ModelError
from riff.utils.files import check_safetensors, first_line, write_bytes

WINDOW = 256  # columns that are read at once: 8 beats of 32
_LOWEST_PITCH, _OCTAVES = 36, 5  # C2 to B6


@dataclass(frozen=True)
class Labels:
    """The classes, in the order of the outputs."""

    genres: tuple[str, ...]
    instruments: tuple[str, ...]
    leads: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """Logits for n images: genre (n, G), instruments (n, I, independent), lead (n, L), key (n, 24)."""

    genre: Tensor
    instruments: Tensor
    lead: Tensor
    key: Tensor


class TaggerNet(nn.Module):
    """Convolutions over the image for genre, instruments and lead; a net alike in all keys for the key."""

    def __init__(self, labels: Labels, config: SpectrogramConfig) -> None:
        super().__init__()
        self.labels = labels
        self.body = nn.Sequential(
            _layer(2, 24, kernel=5, stride=2),
            _layer(24, 48, kernel=3, stride=2),
            _layer(48, 96, kernel=3, stride=2),
            _layer(96, 128, kernel=3, stride=1),
            nn.AvgPool2d(2),
        )
        self.dropout = nn.Dropout(0.3)
        width = 128 * 8 * 2
        self.genre = nn.Linear(width, len(labels.genres))
        self.instruments = nn.Linear(width, len(labels.instruments))
        self.lead = nn.Linear(width, len(labels.leads))
        self.key = KeyNet(config)

    def features(self, images: Tensor) -> Tensor:
        """What genre, instruments and lead are read from: (n, 2048) for images (n, M, 256) in [0, 1]."""
        small = functional.avg_pool2d(images[:, None], (2, 4))  # eighths of a beat
        height = torch.linspace(1.0, -1.0, small.shape[-2], device=images.device)[:, None].expand_as(small)
        found = self.body(torch.cat([4.0 * small - 1.0, height], dim=1))
        return torch.cat([found.mean(-1), found.amax(-1)], dim=1).flatten(1)

    def forward(self, images: Tensor) -> Verdict:
        """Judge images, shape (n, M, 256), float in [0, 1]."""
        pooled = self.dropout(self.features(images))
        return Verdict(self.genre(pooled), self.instruments(pooled), self.lead(pooled), self.key(images))


class KeyNet(nn.Module):
    """Circular convolutions over the twelve pitch classes: what it learns in one key it knows in all."""

    semitones: Tensor

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        self.register_buffer("semitones", semitone_weights(config), persistent=False)
        self.norm = nn.BatchNorm2d(_OCTAVES)
        # Kernels of twelve rows see every pitch class from every tonic.
        self.octaves = nn.Conv2d(_OCTAVES, 48, (12, 1))
        self.time = nn.Conv2d(48, 48, (1, 3), padding=(0, 1))
        self.chords = nn.Conv2d(48, 48, (12, 1))
        self.modes = nn.Conv2d(96, 2, (12, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Key logits, shape (n, 24), of images (n, M, N)."""
        halves = functional.avg_pool1d(images, images.shape[-1] // 16)
        notes = self.norm((self.semitones @ halves).unflatten(1, (_OCTAVES, 12)))
        hidden = functional.relu(self.octaves(_wrapped(notes)))
        hidden = functional.relu(self.time(hidden))
        hidden = functional.relu(self.chords(_wrapped(hidden)))
        pooled = torch.cat([hidden.mean(3, keepdim=True), hidden.amax(3, keepdim=True)], dim=1)
        result: Tensor = self.modes(_wrapped(pooled)).flatten(1)
        return result


def _layer(inputs: int, outputs: int, *, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def _wrapped(notes: Tensor) -> Tensor:
    """Repeat eleven pitch classes after the twelfth, so that a kernel of twelve starts on every tonic."""
    return torch.cat([notes, notes[:, :, :11]], dim=2)


def semitone_weights(config: SpectrogramConfig) -> Tensor:
    """Rows of a image to the 60 semitones from C2, shape (60, M): triangles one row or semitone wide."""
    mel = [2595.0 * math.log10(1.0 + hertz / 700.0) for hertz in (config.f_min, config.f_max)]
    step = (mel[1] - mel[0]) / (config.n_mels + 1)
    centres = 700.0 * (10.0 ** ((mel[0] + step * torch.arange(1, config.n_mels + 1).double()) / 2595.0) - 1.0)
    rows = 69.0 + 12.0 * torch.log2(centres / 440.0)
    pitches = torch.arange(_LOWEST_PITCH, _LOWEST_PITCH + 12 * _OCTAVES).double()
    row_width = rows.diff(append=rows[-1:] + (rows[-1] - rows[-2])).clamp_min(0.5)
    weights = (1.0 - (rows - pitches[:, None]).abs() / row_width).clamp_min(0.0)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-6)
    return weights.flip(1).float()  # row 0 of a image is the highest frequency


@torch.inference_mode()
def judge(net: TaggerNet, images: Tensor, *, batch: int = 64) -> Verdict:
    """Logits for images (n, M, N), uint8 or float in [0, 1]; N < 256 is padded with silence."""
    parts = [net(_floats(part)) for part in images.split(batch)]
    return Verdict(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Verdict)))


@torch.inference_mode()
def embed(net: TaggerNet, images: Tensor, *, batch: int = 64) -> Tensor:
    """Features (n, 2048) of images as :func:`judge` takes them."""
    return torch.cat([net.features(_floats(part)) for part in images.split(batch)])


def _floats(images: Tensor) -> Tensor:
    floats = images.float() / 255.0 if images.dtype == torch.uint8 else images.float()
    return functional.pad(floats, (0, max(0, WINDOW - floats.shape[-1])))


def save_net(net: TaggerNet, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write weights and class names to one safetensors file, wholly or not at all; the folder is made.

    Args:
        net: what to write.
        path: the file.
        dtype: of its floating-point tensors; float16 halves the file.
    """
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    names = {field.name: json.dumps(getattr(net.labels, field.name)) for field in fields(Labels)}
    tensors = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    content = save(tensors, metadata=names)
    write_bytes(path, content)


def load_net(path: Path, config: SpectrogramConfig) -> TaggerNet:
    """Read what :func:`save_net` wrote, as float32, ready to judge.

    Raises:
        ModelError: the file is missing, damaged, incomplete, not a tagger, or holds NaN or infinite weights.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise ModelError(f"{path} is missing; install riff again or give the path of a tagger's .safetensors file")
    check_safetensors(path)
    with safe_open(path, framework="pt") as file:
        labels = _labels(file.metadata() or {}, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    bad = next((name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())), None)
    if bad is not None:
        raise ModelError(f"{path}: {bad} holds NaN or infinite numbers; the file is damaged, so restore it")
    net = TaggerNet(labels, config)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"{path} does not hold a tagger's weights ({first_line(error)}); restore it") from error
    return net.eval()


def _labels(metadata: dict[str, str], path: Path) -> Labels:
    """The class names that a file carries."""
    try:
        rows = [json.loads(metadata[field.name]) for field in fields(Labels)]
    except (KeyError, ValueError, RecursionError):
        rows = []
    if not rows or not all(
        isinstance(row, list) and row and all(isinstance(name, str) for name in row) for row in rows
    ):
        raise ModelError(f"{path} is not a tagger; use a file that training.recipes.tagger wrote, or the one in riff")
    return Labels(*(tuple(row) for row in rows))

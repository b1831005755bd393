"""A small judge of pictures: which genre, which instruments, lead and key. Trained on composed clips."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from riff.config import SpectrogramConfig
from riff.errors import ModelError
from riff.evaluate import KEYS
from training.clips import Clips

_LOWEST_PITCH, _OCTAVES = 36, 5  # C2 to B6


@dataclass(frozen=True)
class Labels:
    """The classes, in the order of the outputs."""

    genres: tuple[str, ...]
    instruments: tuple[str, ...]
    leads: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """Logits for n pictures: genre (n, 30), instruments (n, I, independent), lead (n, L), key (n, 24)."""

    genre: Tensor
    instruments: Tensor
    lead: Tensor
    key: Tensor


class Classifier(nn.Module):
    """Convolutions over the picture for genre, instruments and lead; a net alike in all keys for the key."""

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

    def forward(self, pictures: Tensor) -> Verdict:
        """Judge pictures, shape (n, M, 256), float in [0, 1]."""
        small = functional.avg_pool2d(pictures[:, None], (2, 4))  # eighths of a beat
        height = torch.linspace(1.0, -1.0, small.shape[-2])[:, None].expand_as(small)
        features = self.body(torch.cat([4.0 * small - 1.0, height], dim=1))
        pooled = torch.cat([features.mean(-1), features.amax(-1)], dim=1).flatten(1)
        pooled = self.dropout(pooled)
        return Verdict(self.genre(pooled), self.instruments(pooled), self.lead(pooled), self.key(pictures))


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

    def forward(self, pictures: Tensor) -> Tensor:
        """Key logits, shape (n, 24), of pictures (n, M, N)."""
        halves = functional.avg_pool1d(pictures, pictures.shape[-1] // 16)
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
    """Rows of a picture to the 60 semitones from C2, shape (60, M): triangles one row or semitone wide."""
    mel = [2595.0 * math.log10(1.0 + hertz / 700.0) for hertz in (config.f_min, config.f_max)]
    step = (mel[1] - mel[0]) / (config.n_mels + 1)
    centres = 700.0 * (10.0 ** ((mel[0] + step * torch.arange(1, config.n_mels + 1).double()) / 2595.0) - 1.0)
    rows = 69.0 + 12.0 * torch.log2(centres / 440.0)
    pitches = torch.arange(_LOWEST_PITCH, _LOWEST_PITCH + 12 * _OCTAVES).double()
    row_width = rows.diff(append=rows[-1:] + (rows[-1] - rows[-2])).clamp_min(0.5)
    weights = (1.0 - (rows - pitches[:, None]).abs() / row_width).clamp_min(0.0)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-6)
    return weights.flip(1).float()  # row 0 of a picture is the highest frequency


def labels_of(clips: Clips) -> Labels:
    """The classes that occur in ``clips``."""
    return Labels(
        genres=tuple(sorted({truth["genre"] for truth in clips.truths})),
        instruments=tuple(sorted({name for truth in clips.truths for name in truth["instruments"]})),
        leads=tuple(sorted({truth["lead"] for truth in clips.truths if truth["lead"]})),
    )


def save_classifier(model: Classifier, path: Path) -> None:
    """Write weights and class names to one safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {name: json.dumps(getattr(model.labels, name)) for name in ("genres", "instruments", "leads")}
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path, metadata=names)


def load_classifier(path: Path, config: SpectrogramConfig) -> Classifier:
    """Read what :func:`save_classifier` wrote, ready to judge."""
    with safe_open(path, framework="pt") as file:
        names = file.metadata() or {}
        if not {"genres", "instruments", "leads"} <= set(names):
            raise ModelError(f"{path} is not a classifier; delete it and it will be trained anew")
        labels = Labels(*(tuple(json.loads(names[key])) for key in ("genres", "instruments", "leads")))
        model = Classifier(labels, config)
        model.load_state_dict({key: file.get_tensor(key) for key in model.state_dict()})
    return model.eval()


@torch.inference_mode()
def judge(model: Classifier, pictures: Tensor, *, batch: int = 64) -> Verdict:
    """Logits for pictures (n, M, N), uint8 or float in [0, 1]; N < 256 is padded with silence."""
    parts = []
    for part in pictures.split(batch):
        floats = part.float() / 255.0 if part.dtype == torch.uint8 else part
        parts.append(model(functional.pad(floats, (0, max(0, 256 - floats.shape[-1])))))
    return Verdict(
        *(torch.cat([getattr(part, name) for part in parts]) for name in ("genre", "instruments", "lead", "key"))
    )


def key_indices(clips: Clips) -> Tensor:
    """The true keys as indices into KEYS."""
    return torch.tensor([KEYS.index(truth["keyscale"]) for truth in clips.truths])

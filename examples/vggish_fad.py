"""Fréchet audio distance on VGGish: how far a folder of sounds is from a reference.

    python examples/vggish_fad.py clips/ reference/ --weights fetch -o vggish.json

As published figures have it (Kilgour et al. 2019; Hershey et al. 2017): sound at 16 kHz, log-mel pictures of 0.96 s one
after the other, VGGish's 128 numbers for each, before its last activation and without PCA, and the distance of the
Gaussians fitted to all of them. It is no part of riff eval, whose scores rest on better embeddings; it is here because
the field publishes it. Weights: torchvggish v0.1, Google's own in PyTorch's form; no code in them is run.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from riff.audio.io import load_audio, resample
from riff.evaluate.figures import frechet_distance
from riff.evaluate.sounds import find_sounds
from riff.utils.errors import RiffError
from riff.utils.files import write_json

WEIGHTS = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"
RATE, WINDOW, HOP, N_FFT, FRAMES, BANDS = 16000, 400, 160, 512, 96, 64
LOW, HIGH = 125.0, 7500.0
CONVOLUTIONS = (0, 3, 6, 8, 11, 13)  # where they are in torchvggish's list of layers; the gaps are ReLU and pooling
POOLED_AFTER = (0, 3, 8, 13)
LINEAR = (0, 2, 4)


def mel_filters() -> Tensor:
    """(257, 64) triangles on the HTK mel scale, of height 1; the constant bin is left out."""
    mel = 1127.0 * np.log1p(np.linspace(0.0, RATE / 2, N_FFT // 2 + 1) / 700.0)
    edges = np.linspace(1127.0 * np.log1p(LOW / 700.0), 1127.0 * np.log1p(HIGH / 700.0), BANDS + 2)
    rise = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rise, fall))
    filters[0] = 0.0
    return torch.from_numpy(filters).float()


def examples_of(waveform: Tensor, sample_rate: int) -> Tensor:
    """(n, 1, 96, 64) log-mel pictures of a sound (C, T); none of one shorter than 0.975 s."""
    mono = resample(waveform.mean(0, keepdim=True), sample_rate, RATE)[0]
    if len(mono) < WINDOW + (FRAMES - 1) * HOP:
        return torch.zeros(0, 1, FRAMES, BANDS)
    frames = mono.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW)
    mel = torch.fft.rfft(frames, n=N_FFT).abs() @ mel_filters()
    log = (mel + 0.01).log()
    return log[: len(log) // FRAMES * FRAMES].reshape(-1, 1, FRAMES, BANDS)


class Vggish(nn.Module):
    """The network, of the sizes that the weights have."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        kernels = {f"features.{place}": weights[f"features.{place}.weight"] for place in CONVOLUTIONS}
        planes = {f"embeddings.{place}": weights[f"embeddings.{place}.weight"] for place in LINEAR}
        self.features = nn.ModuleDict(
            {name.partition(".")[2]: nn.Conv2d(k.shape[1], k.shape[0], 3, padding=1) for name, k in kernels.items()}
        )
        self.embeddings = nn.ModuleDict(
            {name.partition(".")[2]: nn.Linear(p.shape[1], p.shape[0]) for name, p in planes.items()}
        )
        self.load_state_dict({name: weights[name] for name in self.state_dict()})
        self.eval()

    def forward(self, examples: Tensor) -> Tensor:
        """(n, 1, 96, 64) to (n, 128)."""
        x = examples
        for place in CONVOLUTIONS:
            x = torch.relu(self.features[str(place)](x))
            if place in POOLED_AFTER:
                x = nn.functional.max_pool2d(x, 2)
        x = x.permute(0, 2, 3, 1).flatten(1)  # time, band, channel: TensorFlow's order
        for place in LINEAR:
            x = self.embeddings[str(place)](x)
            if place != LINEAR[-1]:
                x = torch.relu(x)
        return x


def load_vggish(source: str) -> Vggish:
    """The network with weights from a file, or fetched and checked against the hash in their name."""
    try:
        if source == "fetch":
            weights = torch.hub.load_state_dict_from_url(
                WEIGHTS, map_location="cpu", check_hash=True, weights_only=True
            )
        else:
            weights = torch.load(source, map_location="cpu", weights_only=True)
        return Vggish(weights)
    except (OSError, RuntimeError, KeyError, ValueError, AttributeError) as error:
        raise RiffError(f"--weights {source}: no VGGish there ({error}); get {WEIGHTS}") from error


@torch.inference_mode()
def embed(model: Vggish, files: list[Path]) -> tuple[np.ndarray, int]:
    """Rows (n, 128) of all 0.96 s of all files, and of how many files; others are named on stderr."""
    rows, used = [], 0
    for file in files:
        try:
            waveform, rate = load_audio(file, duration=600.0)
        except RiffError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        found = examples_of(waveform, rate)
        if not len(found):
            print(f"left out: {file}: shorter than 0.975 s", file=sys.stderr)
            continue
        rows += [model(part).double().numpy() for part in found.split(64)]
        used += 1
    if not rows:
        raise RiffError(f"none of {len(files)} sounds can be used; the lines above say why")
    return np.concatenate(rows), used


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generated", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--weights", default="fetch", help='a file of torchvggish\'s, or "fetch" (default)')
    parser.add_argument("-o", "--output", type=Path, help="JSON")
    arguments = parser.parse_args(argv)
    try:
        model = load_vggish(arguments.weights)
        ours, generated = embed(model, find_sounds(arguments.generated))
        theirs, reference = embed(model, find_sounds(arguments.reference))
        found = {"metric": "FAD (VGGish)", "fad": frechet_distance(ours, theirs), "generated": generated,
                 "reference": reference, "windows": [len(ours), len(theirs)], "weights": arguments.weights}  # fmt: skip
        if arguments.output is not None:
            write_json(arguments.output, found)
    except RiffError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"FAD (VGGish) {found['fad']:.3f}, {generated} clips to {reference}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

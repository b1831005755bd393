"""Compose and render the training set: captioned spectrograms on the beats grid, in shards, on all cores.

    python -m training.recipes.dataset --out runs/data --pieces 6000
    python -m training.recipes.dataset --out runs/data --recipe training/recipes/riff_mini_2.json --pieces 6000

A shard is complete or absent, so a second run makes only what is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.mel import waveform_to_mel
from riff.utils.errors import RiffError
from riff.utils.files import atomic_path
from training.composer.arrange import HELD_OUT_SEEDS
from training.composer.captions import caption
from training.composer.effects import SAMPLE_RATE
from training.composer.excerpt import excerpts
from training.composer.render import render
from training.composer.score import Score

PIECES_PER_SHARD = 100
CAPTIONS_PER_CLIP = 8


def score_to_image(score: Score, config: SpectrogramConfig) -> np.ndarray:
    """All windows of a piece as one uint8 image (C * M, N); 255 is loud, row 0 the highest frequency of channel 0."""
    sound = torch.from_numpy(render(score))
    if config.channels == 1:
        sound = sound.mean(0, keepdim=True)
    mel = waveform_to_mel(sound, config, bpm=score.bpm)
    image = mel_to_image(mel, config).flatten(0, 1)[:, : score.beats * config.frames_per_beat]
    return (image * 255.0).round().to(torch.uint8).numpy()


def make_shard(first_seed: int, n_pieces: int, folder: Path, config: SpectrogramConfig) -> int:
    """Write the pictures and truths of ``n_pieces`` consecutive seeds; return the number of clips."""
    index = first_seed // n_pieces
    pictures: dict[int, list[np.ndarray]] = {3: [], 4: []}
    clips: dict[int, list[dict[str, object]]] = {3: [], 4: []}
    for seed in range(first_seed, first_seed + n_pieces):
        scores = [(score, score_to_image(score, config)) for score in excerpts(seed)]
        windows = [
            (truth, whole, n, len(score.windows)) for score, whole in scores for n, truth in enumerate(score.windows)
        ]
        for number, (truth, whole, place, count) in enumerate(windows):
            rng = random.Random(f"{seed}-{number}")
            fields = dataclasses.asdict(truth) | {"seed": seed, "window": number}
            fields["captions"] = [caption(truth, rng) for _ in range(CAPTIONS_PER_CLIP)]
            width = whole.shape[1] // count
            pictures[truth.beats_per_bar].append(whole[:, place * width : (place + 1) * width])
            clips[truth.beats_per_bar].append(fields)
    for beats, drawn in pictures.items():
        name = f"{beats}-{index:06d}"
        with atomic_path(folder / f"clips-{name}.jsonl") as path:
            path.write_text("".join(json.dumps(fields) + "\n" for fields in clips[beats]), encoding="utf-8")
        # The pictures come last: a shard counts as done when they are there.
        with atomic_path(folder / f"pictures-{name}.npy") as path:
            np.save(path, np.stack(drawn) if drawn else np.zeros((0, config.channels * config.n_mels, 0), np.uint8))
    return len(clips[3]) + len(clips[4])


def _job(task: tuple[int, int, Path, SpectrogramConfig]) -> int:
    torch.set_num_threads(1)
    return make_shard(*task)


def make_split(folder: Path, first_seed: int, n_pieces: int, config: SpectrogramConfig, workers: int) -> None:
    """Make the missing shards of one split."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = []
    for start in range(first_seed, first_seed + n_pieces, PIECES_PER_SHARD):
        if not (folder / f"pictures-4-{start // PIECES_PER_SHARD:06d}.npy").exists():
            tasks.append((start, PIECES_PER_SHARD, folder, config))
    began, clips = time.time(), 0
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done, count in enumerate(pool.imap_unordered(_job, tasks), 1):
            clips += count
            left = (time.time() - began) / done * (len(tasks) - done)
            print(f"{folder.name}: shard {done}/{len(tasks)}, {clips} clips, {left:.0f} s left", file=sys.stderr)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--pieces", type=int, default=6000, help="pieces to compose for training (4 clips each)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first of them, a multiple of 100")
    parser.add_argument("--heldout", type=int, default=600, help="pieces from the held-out seeds")
    parser.add_argument("--recipe", type=Path, help='JSON file whose "spectrogram" is the config; default riff-mini\'s')
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args(argv)
    if arguments.first % PIECES_PER_SHARD or arguments.first + arguments.pieces > HELD_OUT_SEEDS.start:
        parser.error(f"--first {arguments.first}: use a multiple of {PIECES_PER_SHARD} below the held-out seeds")
    recipe = json.loads(arguments.recipe.read_text(encoding="utf-8")) if arguments.recipe else {}
    config = SpectrogramConfig(**recipe.get("spectrogram", {}))
    assert config.sample_rate == SAMPLE_RATE
    arguments.out.mkdir(parents=True, exist_ok=True)
    config.save(arguments.out)
    make_split(arguments.out / "heldout", HELD_OUT_SEEDS.start, arguments.heldout, config, arguments.workers)
    make_split(arguments.out / "train", arguments.first, arguments.pieces, config, arguments.workers)


# Reading the dataset that this module wrote: pictures and the truth about each.


@dataclass(frozen=True)
class Clips:
    """Pictures of one split.

    Attributes:
        pictures: uint8, shape (n, M, W); a narrower picture (3/4) is followed by silence up to W.
        truths: one JSON object per picture, as training.composer.score.Truth plus seed, window and captions.
    """

    pictures: Tensor
    truths: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.truths)

    def columns(self, index: int) -> int:
        """Columns of a picture before the silence was added: two bars."""
        return self.pictures.shape[-1] * (6 if self.truths[index]["beats_per_bar"] == 3 else 8) // 8

    def picture(self, index: int) -> Tensor:
        """One picture without the added silence, float in [0, 1], shape (1, M, N)."""
        return self.pictures[index, None, :, : self.columns(index)].float() / 255.0

    def subset(self, indices: list[int]) -> Clips:
        """The clips at ``indices``, in that order."""
        return Clips(self.pictures[indices], [self.truths[index] for index in indices])


def load_clips(folder: str | Path, *, limit: int | None = None, width: int = 256) -> Clips:
    """Read the shards of one split, in order.

    Args:
        folder: holds ``pictures-*.npy`` and ``clips-*.jsonl`` of equal names.
        limit: read shards until there are this many clips; ``None`` reads all.
        width: columns to which narrower pictures are padded with silence.

    Returns:
        The clips; 4/4 and 3/4 are mixed in the order of the shards' numbers.

    Raises:
        RiffError: there is no shard, or a shard's two files do not agree.
    """
    folder = Path(folder)
    shards = sorted(folder.glob("pictures-*.npy"), key=lambda path: (path.stem.split("-")[-1], path.stem))
    if not shards:
        raise RiffError(f"no pictures-*.npy in {folder}; make them with python -m training.recipes.dataset --out DIR")
    parts, truths = [], []
    for shard in shards:
        lines = (folder / f"clips-{shard.stem.removeprefix('pictures-')}.jsonl").read_text("utf-8").splitlines()
        pictures = np.load(shard)
        if len(pictures) != len(lines):
            raise RiffError(f"{shard} holds {len(pictures)} pictures and {len(lines)} truths; make it again")
        if not lines:
            continue
        parts.append(np.pad(pictures, ((0, 0), (0, 0), (0, width - pictures.shape[-1]))))
        truths += [json.loads(line) for line in lines]
        if limit is not None and len(truths) >= limit:
            break
    if not parts:
        raise RiffError(f"the shards in {folder} are empty; make them again with python -m training.recipes.dataset")
    return Clips(torch.from_numpy(np.concatenate(parts))[:limit], truths[:limit])


if __name__ == "__main__":
    main()

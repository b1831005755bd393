"""Compose, play and draw the training set: captioned pictures on the beats grid, in shards, on all cores.

    python -m training.make_dataset --out runs/data --pieces 6000

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
from pathlib import Path

import numpy as np
import torch

from riff.config import SpectrogramConfig
from riff.files import atomic_path
from riff.image import mel_to_image
from riff.spectrogram import waveform_to_mel
from training.composer import HELD_OUT_SEEDS, compose
from training.composer.captions import caption
from training.composer.render import SAMPLE_RATE, render
from training.composer.score import Score

PIECES_PER_SHARD = 100
CAPTIONS_PER_CLIP = 8


def draw(score: Score, config: SpectrogramConfig) -> np.ndarray:
    """All windows of a piece as one uint8 picture (M, N); 255 is loud, row 0 the highest frequency."""
    sound = torch.from_numpy(render(score)).mean(0, keepdim=True)
    mel = waveform_to_mel(sound, config, bpm=score.bpm)
    picture = mel_to_image(mel, config)[0, :, : score.beats * config.frames_per_beat]
    return (picture * 255.0).round().to(torch.uint8).numpy()


def make_shard(first_seed: int, n_pieces: int, folder: Path, config: SpectrogramConfig) -> int:
    """Write the pictures and truths of ``n_pieces`` consecutive seeds; return the number of clips."""
    index = first_seed // n_pieces
    pictures: dict[int, list[np.ndarray]] = {3: [], 4: []}
    clips: dict[int, list[dict[str, object]]] = {3: [], 4: []}
    for seed in range(first_seed, first_seed + n_pieces):
        score = compose(seed)
        whole = draw(score, config)
        width = whole.shape[1] // len(score.windows)
        for number, truth in enumerate(score.windows):
            rng = random.Random(f"{seed}-{number}")
            fields = dataclasses.asdict(truth) | {"seed": seed, "window": number}
            fields["captions"] = [caption(truth, rng) for _ in range(CAPTIONS_PER_CLIP)]
            pictures[truth.beats_per_bar].append(whole[:, number * width : (number + 1) * width])
            clips[truth.beats_per_bar].append(fields)
    for beats, drawn in pictures.items():
        name = f"{beats}-{index:06d}"
        with atomic_path(folder / f"clips-{name}.jsonl") as path:
            path.write_text("".join(json.dumps(fields) + "\n" for fields in clips[beats]), encoding="utf-8")
        # The pictures come last: a shard counts as done when they are there.
        with atomic_path(folder / f"pictures-{name}.npy") as path:
            np.save(path, np.stack(drawn) if drawn else np.zeros((0, config.n_mels, 0), np.uint8))
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
    parser.add_argument("--pieces", type=int, default=6000, help="pieces to compose for training (2 clips each)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first of them, a multiple of 100")
    parser.add_argument("--heldout", type=int, default=600, help="pieces from the held-out seeds")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args(argv)
    if arguments.first % PIECES_PER_SHARD or arguments.first + arguments.pieces > HELD_OUT_SEEDS.start:
        parser.error(f"--first {arguments.first}: use a multiple of {PIECES_PER_SHARD} below the held-out seeds")
    assert SpectrogramConfig().sample_rate == SAMPLE_RATE
    config = SpectrogramConfig()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config.save(arguments.out)
    make_split(arguments.out / "heldout", HELD_OUT_SEEDS.start, arguments.heldout, config, arguments.workers)
    make_split(arguments.out / "train", arguments.first, arguments.pieces, config, arguments.workers)


if __name__ == "__main__":
    main()

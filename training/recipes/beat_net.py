"""Training the network that hears beats and bars (:mod:`riff.music.beat_net`), in an hour on two cores.

    python -m training.recipes.beat_net make --out runs/beats --pieces 1800
    python -m training.recipes.beat_net train --data runs/beats --ship riff/models/beats.safetensors

Pieces of eight to sixteen bars are composed and played; a quarter of those that have drums lose them, so that bars are
heard in harmony and melody as well; clicks and noise stand beside them. `training.measure.beats` measures what came of
it, on seeds of its own; riff/models/beats.md has the commands that made what ships.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from riff.music.beat_net import BANDS, RATE, BeatNet, levels, load_net, magnitudes, save_net
from riff.utils.files import atomic_path
from training.composer.arrange import compose
from training.composer.effects import SAMPLE_RATE
from training.composer.render import render

FIRST_SEED = 7_000_000


def keep(path: Path, sound: Tensor, interval: float, beats: int, beats_per_bar: int) -> None:
    """Write what the network hears of a sound (T,), with its seconds per beat, its beats, and how many a bar has."""
    found = magnitudes(sound, SAMPLE_RATE).clamp_min(1e-4).log10().half()
    truth = torch.tensor([interval, beats, beats_per_bar], dtype=torch.float64)
    with atomic_path(path) as draft:
        save_file({"levels": found, "truth": truth}, draft)


def make_piece(task: tuple[int, Path]) -> None:
    """Compose and play one piece, and keep what the network hears of it with its beats, unless it is there."""
    seed, path = task
    if path.exists():
        return
    torch.set_num_threads(1)
    rng = random.Random(f"beats {seed}")
    score = compose(seed, windows=rng.randint(4, 8))
    tuned = tuple(part for part in score.parts if not part.is_drum)
    if rng.random() < 0.25 and tuned:
        score = dataclasses.replace(score, parts=tuned)
    sound = torch.from_numpy(render(score)).mean(0)
    sound = sound[: round(score.beats * 60.0 / score.bpm * SAMPLE_RATE)]
    keep(path, sound, 60.0 / score.bpm, score.beats, score.windows[0].beats_per_bar)


def make_clicks(task: tuple[int, Path]) -> None:
    """A bare click track: nothing in it but clicks, with or without a thud or a louder click where bars begin."""
    seed, path = task
    if path.exists():
        return
    torch.set_num_threads(1)
    rng, random_ = random.Random(f"clicks {seed}"), torch.Generator().manual_seed(seed)
    metre, interval = rng.choice((3, 4, 4)), 60.0 / rng.uniform(60.0, 180.0)
    count = round(25.0 / interval)
    time_ = torch.arange(round(0.2 * SAMPLE_RATE)) / SAMPLE_RATE
    hertz, fall, deep = rng.uniform(300.0, 4000.0), rng.uniform(0.003, 0.03), rng.uniform(45.0, 110.0)
    click = torch.exp(-time_ / fall) * torch.sin(2.0 * math.pi * hertz * time_)
    thud = torch.exp(-time_ / rng.uniform(0.02, 0.08)) * torch.sin(2.0 * math.pi * deep * time_)
    accent, louder = rng.choice((0.0, 0.5, 1.0)), rng.choice((1.0, 1.0, 1.6))
    sound = torch.randn(round(count * interval * SAMPLE_RATE), generator=random_) * 10.0 ** rng.uniform(-5.0, -2.0)
    for beat in range(count):
        first = round(beat * interval * SAMPLE_RATE)
        struck = (louder if beat % metre == 0 else 1.0) * click + (accent if beat % metre == 0 else 0.0) * thud
        room = min(len(struck), len(sound) - first)
        sound[first : first + room] += struck[:room]
    keep(path, sound, interval, count, metre)


def make_noise(task: tuple[int, Path]) -> None:
    """A sound without any beat: noise of some colour, or tones that last, louder and softer in no time."""
    seed, path = task
    if path.exists():
        return
    torch.set_num_threads(1)
    rng, random_ = random.Random(f"noise {seed}"), torch.Generator().manual_seed(seed)
    seconds = rng.uniform(3.0, 25.0)
    count = round(seconds * SAMPLE_RATE)
    spectrum = torch.fft.rfft(torch.randn(count, generator=random_))
    slope = rng.choice((0.0, 0.0, 0.5, 1.0))  # white, pink, brown
    sound = torch.fft.irfft(spectrum / torch.arange(1, len(spectrum) + 1) ** slope, n=count)
    sound = sound / sound.square().mean().sqrt()
    time_ = torch.arange(count) / SAMPLE_RATE
    tones = [torch.sin(2.0 * math.pi * rng.uniform(60.0, 1500.0) * time_) for _ in range(rng.randint(1, 4))]
    share = rng.choice((0.0, 1.0, 1.0, 0.1))
    sound = share * sound + rng.choice((0.0, 1.0)) * sum(tones) + 1e-4 * torch.randn(count, generator=random_)
    knots = torch.rand(1, 1, max(2, round(seconds * rng.uniform(0.1, 2.0))), generator=random_)
    if rng.random() < 0.5:
        sound = sound * (0.1 + functional.interpolate(knots, size=count, mode="linear", align_corners=True)[0, 0])
    keep(path, sound, 0.5, 0, 0)


def make(arguments: argparse.Namespace) -> None:
    """Write a file of features for each piece; what is there stays."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    seeds = range(arguments.first, arguments.first + arguments.pieces)
    tasks = [(seed, arguments.out / f"{seed}.safetensors") for seed in seeds]
    began = time.time()
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        pool.map(
            make_clicks, [(seed, arguments.out / f"clicks-{seed}.safetensors") for seed in range(arguments.clicks)]
        )
        pool.map(make_noise, [(seed, arguments.out / f"noise-{seed}.safetensors") for seed in range(arguments.noises)])
        for done, _ in enumerate(pool.imap(make_piece, tasks, chunksize=4), 1):
            if done % 50 == 0:
                left = (time.time() - began) / done * (len(tasks) - done)
                print(f"{done}/{len(tasks)} pieces, {left:.0f} s left", file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Piece:
    """What the network hears of a piece, (F, N) logarithms, its seconds per beat, and its beats in a bar; 0 is none."""

    levels: Tensor
    interval: float
    beats_per_bar: int


def load_pieces(folder: Path, limit: int | None = None) -> list[Piece]:
    """All pieces that :func:`make` has written there, in the order of their seeds."""
    pieces = []
    for path in sorted(folder.glob("*.safetensors"))[:limit]:
        tensors = load_file(path)
        interval, _, metre = tensors["truth"].tolist()
        pieces.append(Piece(tensors["levels"], interval, round(metre)))
    if not pieces:
        raise SystemExit(
            f"{folder} holds no pieces; write some with: python -m training.recipes.beat_net make --out {folder}"
        )
    return pieces


def draw(piece: Piece, frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A stretch of a piece, varied as recordings vary: tempo, tone, pitch, noise, level.

    Returns:
        Levels (F, frames) and targets (3, frames): how much of each frame is nothing, a beat, a first beat.
    """

    def number(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    speed = 2.0 ** number(-0.2, 0.2)
    taken = min(round(frames * speed), piece.levels.shape[1])
    start = int(torch.randint(piece.levels.shape[1] - taken + 1, (), generator=generator))
    part = piece.levels[:, start : start + taken].float()
    count = min(frames, round(taken / speed))
    part = functional.interpolate(part[None], size=count, mode="linear")[0]
    targets = targets_of(piece, start, taken / count, count)
    part = functional.pad(part, (0, frames - count), value=-4.0)
    targets = functional.pad(targets, (0, frames - count))  # what is not there is not judged
    return varied(part, number, generator), targets


def targets_of(piece: Piece, start: int, stride: float, count: int) -> Tensor:
    """(3, count): the frame nearest to a beat is one, its neighbours are a third of one."""
    seconds = (start + stride * torch.arange(count, dtype=torch.float64)) / RATE
    beats = seconds / piece.interval
    nearest = beats.round()
    distance = (beats - nearest).abs() * piece.interval * RATE / stride  # frames
    weight = (1.0 - distance / 1.5).clamp_min(0.0) * bool(piece.beats_per_bar)
    first = nearest % max(1, piece.beats_per_bar) == 0
    return torch.stack([1.0 - weight, weight * ~first, weight * first]).float()


def varied(part: Tensor, number: Callable[[float, float], float], generator: torch.Generator) -> Tensor:
    """Levels with another tone, pitch, floor of noise and loudness."""
    shift = round(number(-4, 4))
    pitches = torch.roll(part[BANDS:], shift, 0)
    pitches[:shift] = -4.0 if shift > 0 else pitches[:shift]
    if shift < 0:
        pitches[shift:] = -4.0
    tone = functional.interpolate(torch.randn(1, 1, 5, generator=generator), size=BANDS, mode="linear")[0, 0] * 0.35
    cut = round(number(10, BANDS)) if number(0, 1) < 0.15 else BANDS
    bass = round(number(1, 8)) if number(0, 1) < 0.15 else 0
    tone[cut:] = -4.0
    tone[:bass] -= 2.0
    bands = part[:BANDS] + tone[:, None]
    both = torch.cat([bands, pitches]) + number(-0.2, 0.2)
    return levels(10.0**both, 10.0 ** number(-4.0, -2.0))


def train(arguments: argparse.Namespace) -> None:
    """Teach the network, and write its weights in float16."""
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    pieces = load_pieces(arguments.data, arguments.limit)
    net = BeatNet()
    if arguments.init is not None:
        net.load_state_dict(load_net(arguments.init).state_dict())
    optimizer = torch.optim.AdamW(net.parameters(), lr=arguments.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.learning_rate, arguments.steps, pct_start=0.1)
    began, running = time.time(), None
    for step in range(1, arguments.steps + 1):
        chosen = torch.randint(len(pieces), (arguments.batch,), generator=generator).tolist()
        drawn = [draw(pieces[index], arguments.frames, generator) for index in chosen]
        heard, targets = (torch.stack(each) for each in zip(*drawn, strict=True))
        loss = -(net(heard) * targets).sum() / targets.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0 or step == arguments.steps:
            left = (time.time() - began) / step * (arguments.steps - step)
            print(f"step {step}/{arguments.steps}, loss {running:.4f}, {left:.0f} s left", file=sys.stderr, flush=True)
            save_net(net, arguments.ship)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    making = verbs.add_parser("make", help="compose, play and keep what is heard")
    making.set_defaults(run=make)
    making.add_argument("--out", type=Path, required=True)
    making.add_argument("--pieces", type=int, default=1800)
    making.add_argument("--clicks", type=int, default=100, help="click tracks besides")
    making.add_argument("--noises", type=int, default=100, help="sounds without a beat besides")
    making.add_argument("--first", type=int, default=FIRST_SEED)
    making.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    teaching = verbs.add_parser("train", help="teach the network")
    teaching.set_defaults(run=train)
    teaching.add_argument("--data", type=Path, required=True)
    teaching.add_argument("--ship", type=Path, required=True, help="file of weights to write")
    teaching.add_argument("--steps", type=int, default=2200)
    teaching.add_argument("--learning-rate", type=float, default=3e-3)
    teaching.add_argument("--init", type=Path, default=None, help="weights to go on from")
    teaching.add_argument("--batch", type=int, default=16)
    teaching.add_argument("--frames", type=int, default=1000)
    teaching.add_argument("--limit", type=int, default=None, help="use so many pieces")
    teaching.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    arguments.run(arguments)


if __name__ == "__main__":
    main()

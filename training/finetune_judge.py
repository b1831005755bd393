"""A judge who knows the reserved world too: the classifier of the thirty genres with one more class.

It starts from the trained classifier, so it takes minutes; only its verdict on the genre is meant to be read.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import functional

from riff.config import SpectrogramConfig
from riff.evaluate import wilson_interval
from riff.tagger_net import Labels, TaggerNet, judge
from riff.train.processes import choose_precision
from training.clips import Clips
from training.composer import RESERVED, compose
from training.make_dataset import draw
from training.train_classifier import augment

WORLD = next(iter(RESERVED))
_BATCH, _OF_THE_WORLD = 32, 4


def world_clips(seeds: Iterable[int], config: SpectrogramConfig) -> Clips:
    """Two clips of each piece of the reserved world; like a tracked recording, not all begin on the gong.

    Args:
        seeds: of the pieces.
        config: geometry of the pictures.

    Returns:
        Pictures (n, M, 256) and truths.
    """
    pictures, truths = [], []
    for seed in seeds:
        score = compose(seed, genre=WORLD, windows=3)
        whole = draw(score, config)
        rng = random.Random(seed)
        for window in (0, 1):
            start = (8 * window + rng.choice((0, 0, 2, 4))) * config.frames_per_beat
            pictures.append(torch.from_numpy(whole[:, start : start + config.width]))
            truths.append(dataclasses.asdict(score.windows[window]) | {"seed": seed, "window": window})
    return Clips(torch.stack(pictures), truths)


def with_one_more(model: TaggerNet, config: SpectrogramConfig) -> TaggerNet:
    """The same network with a class for the reserved world, last and as yet unlearnt."""
    labels = Labels((*model.labels.genres, WORLD), model.labels.instruments, model.labels.leads)
    wider = TaggerNet(labels, config)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in wider.state_dict().items():
        if name.startswith("genre."):
            state[name] = torch.cat([state[name], torch.zeros_like(value[:1])])
    wider.load_state_dict(state)
    return wider.eval()


def teach(
    model: TaggerNet,
    clips: Clips,
    world: Clips,
    *,
    steps: int,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> TaggerNet:
    """Train body and genre head in place on a mix, an eighth of it the reserved world.

    Args:
        model: from :func:`with_one_more`.
        clips: of the thirty genres; held-out seeds must not be among them.
        world: of the reserved one.
        steps: batches of 32.
        seed: of order, augmentation and dropout.
        report: called with step and loss every 50 steps.

    Returns:
        The model, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    genres = torch.tensor([model.labels.genres.index(truth["genre"]) for truth in [*clips.truths, *world.truths]])
    parameters = [*model.body.parameters(), *model.genre.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-4, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps, pct_start=0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout draws from the global generator
        model.train()
        quick = choose_precision(torch.device("cpu")) == "bf16"
        for step in range(steps):
            known = torch.randint(len(clips), (_BATCH - _OF_THE_WORLD,), generator=generator)
            new = torch.randint(len(world), (_OF_THE_WORLD,), generator=generator)
            pictures = torch.cat([clips.pictures[known], world.pictures[new]]).float() / 255.0
            wanted = genres[torch.cat([known, len(clips) + new])]
            with torch.autocast("cpu", torch.bfloat16, enabled=quick):
                verdict = model(augment(pictures, generator))
            loss = functional.cross_entropy(verdict.genre.float(), wanted, label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if report is not None and (step + 1) % 50 == 0:
                report(step + 1, float(loss.detach()))
    return model.eval()


def examine(model: TaggerNet, clips: Clips, world: Clips) -> dict[str, Any]:
    """How often the judge is right on clips it never heard.

    Args:
        model: the judge.
        clips: held-out clips of the thirty genres.
        world: held-out clips of the reserved one.

    Returns:
        JSON-able: share and 95 % interval over both, share and mean over the 31 classes, of the world alone, and how
        many of the thirty genres' clips were taken for it.
    """
    truths = [truth["genre"] for truth in [*clips.truths, *world.truths]]
    logits = torch.cat([judge(model, clips.pictures).genre, judge(model, world.pictures).genre])
    heard = [model.labels.genres[index] for index in logits.argmax(1).tolist()]
    hits = [a == b for a, b in zip(heard, truths, strict=True)]
    by_class = [
        sum(hit for hit, truth in zip(hits, truths, strict=True) if truth == genre) / truths.count(genre)
        for genre in sorted(set(truths))
    ]
    low, high = wilson_interval(sum(hits), len(hits))
    return {
        "clips": len(hits),
        "share": sum(hits) / len(hits),
        "low": low,
        "high": high,
        "classes": len(by_class),
        "mean_of_classes": sum(by_class) / len(by_class),
        "world_clips": len(world),
        "world_share": sum(hits[len(clips) :]) / len(world),
        "others_taken_for_it": heard[: len(clips)].count(WORLD),
    }

"""Training riff's tagger, the judge of pictures, in minutes on one core.

python -m training.recipes.tagger --data runs/data --ship riff/models/tagger.safetensors

The shipped copy has float16 weights; the accuracies printed are its own.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from riff.evaluate.figures import wilson_interval
from riff.music.key import mirex_key_score
from riff.music.tagger_net import Labels, TaggerNet, Verdict, judge, load_net, save_net
from riff.music.theory import KEYS
from riff.spectrogram.config import SpectrogramConfig
from riff.train.processes import choose_precision
from training.recipes.dataset import Clips, load_clips

_BATCH = 32


def augment(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Vary float pictures (n, M, N) as a generator might: louder, softer, blurred, noisy."""
    count = len(pictures)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    # A box of 3 mixed in by a random share stands for the blur of a VAE and of unfinished denoising.
    soft = functional.avg_pool2d(functional.pad(pictures[:, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[:, 0]
    share = draw(-0.5, 1.0).clamp_min(0.0)
    varied = pictures + share * (soft - pictures)
    varied = varied + draw(-0.06, 0.06) * (varied > 0.02)
    noise = (torch.rand(varied.shape, generator=generator) - 0.5) * draw(0.0, 0.1)
    return varied.add_(noise).clamp_(0.0, 1.0)


def train_classifier(
    clips: Clips,
    config: SpectrogramConfig,
    *,
    steps: int = 1800,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> TaggerNet:
    """Train from scratch on composed clips.

    Args:
        clips: training clips; held-out seeds must not be among them.
        config: geometry of the pictures.
        steps: batches of 32.
        seed: for weights, order and augmentation.
        report: called with step and loss every 100 steps.

    Returns:
        The classifier, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # modules draw their weights and dropout from the global generator
        model = TaggerNet(labels_of(clips), config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps, pct_start=0.15)
        truth = targets(clips, model.labels)
        order = torch.empty(0, dtype=torch.long)
        quick = choose_precision(torch.device("cpu")) == "bf16"
        for step in range(steps):
            if len(order) < _BATCH:
                order = torch.cat([order, torch.randperm(len(clips), generator=generator)])
            chosen, order = order[:_BATCH], order[_BATCH:]
            pictures = augment(clips.pictures[chosen].float() / 255.0, generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=quick):
                verdict = model(pictures)
            loss = _loss(verdict, [part[chosen] for part in truth])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if report is not None and (step + 1) % 100 == 0:
                report(step + 1, float(loss.detach()))
    return model.eval()


def _loss(verdict: Verdict, truth: list[Tensor]) -> Tensor:
    genre, instruments, lead, key = truth
    verdict = Verdict(*(getattr(verdict, name).float() for name in ("genre", "instruments", "lead", "key")))
    present = functional.binary_cross_entropy_with_logits(verdict.instruments, instruments)
    named = functional.cross_entropy(verdict.lead, lead, label_smoothing=0.02)
    return (
        functional.cross_entropy(verdict.genre, genre, label_smoothing=0.02)
        + 10.0 * present
        + (named if math.isfinite(float(named.detach())) else 0.0)
        + functional.cross_entropy(verdict.key, key)
    )


def check(model: TaggerNet, clips: Clips) -> dict[str, object]:
    """Accuracies on clips never trained on, with the pairs most often confused.

    Args:
        model: the classifier.
        clips: held-out clips.

    Returns:
        JSON-able figures.
    """
    verdict = judge(model, clips.pictures)
    genres, leads = model.labels.genres, model.labels.leads
    guessed = [genres[index] for index in verdict.genre.argmax(1).tolist()]
    true = [truth["genre"] for truth in clips.truths]
    led = [leads[index] for index in verdict.lead.argmax(1).tolist()]
    true_leads = [truth["lead"] for truth in clips.truths]
    keys = [KEYS[index] for index in verdict.key.argmax(1).tolist()]
    true_keys = [truth["keyscale"] for truth in clips.truths]
    _, present, _, _ = targets(clips, model.labels)
    heard = (verdict.instruments > 0).float()
    hits = float((heard * present).sum())
    return {
        "clips": len(clips),
        "genre": _share(guessed, true),
        "lead": _share(led, true_leads),
        "key": _share(keys, true_keys),
        "key_mirex": sum(map(mirex_key_score, keys, true_keys)) / len(clips),
        "instruments_precision": hits / max(float(heard.sum()), 1.0),
        "instruments_recall": hits / max(float(present.sum()), 1.0),
        "genres": _by_class(guessed, true),
        "genre_confusions": _confusions(guessed, true),
        "leads": _by_class(led, true_leads),
        "lead_confusions": _confusions(led, true_leads),
    }


def _share(guessed: list[str], true: list[str]) -> dict[str, float]:
    hits = sum(a == b for a, b in zip(guessed, true, strict=True))
    low, high = wilson_interval(hits, len(true))
    return {"share": hits / max(len(true), 1), "low": low, "high": high}


def _by_class(guessed: list[str], true: list[str]) -> dict[str, list[int]]:
    total = Counter(true)
    right = Counter(b for a, b in zip(guessed, true, strict=True) if a == b)
    return {name: [right[name], total[name]] for name in sorted(total, key=lambda name: right[name] / total[name])}


def _confusions(guessed: list[str], true: list[str]) -> list[tuple[str, str, int]]:
    pairs = Counter((b, a) for a, b in zip(guessed, true, strict=True) if a != b)
    return [(real, taken, count) for (real, taken), count in pairs.most_common(20)]


def obtain_classifier(data: Path, cache: Path, *, config: SpectrogramConfig, limit: int, steps: int) -> TaggerNet:
    """The cached classifier, or a new one trained on ``data/train`` and cached; progress goes to stderr."""
    if cache.exists():
        return load_net(cache, config)
    clips = load_clips(data / "train", limit=limit)
    began = time.time()

    def report(step: int, loss: float) -> None:
        left = (time.time() - began) / step * (steps - step)
        print(
            f"classifier: step {step}/{steps}, loss {loss:.3f}, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    model = train_classifier(clips, config, steps=steps, report=report)
    save_net(model, cache)
    return model


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder made by training.recipes.dataset")
    parser.add_argument("--out", type=Path, default=Path("runs/classifier.safetensors"))
    parser.add_argument("--ship", type=Path, default=None, help="write it here as well, in float16, as riff carries it")
    parser.add_argument("--limit", type=int, default=8000, help="training clips to read")
    parser.add_argument("--steps", type=int, default=1800, help="batches of 32")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    config = SpectrogramConfig.load(arguments.data)
    model = obtain_classifier(
        arguments.data, arguments.out, config=config, limit=arguments.limit, steps=arguments.steps
    )
    if arguments.ship is not None:
        save_net(model, arguments.ship, dtype=torch.float16)
        model = load_net(arguments.ship, config)
    figures = check(model, load_clips(arguments.data / "heldout"))
    for name, value in figures.items():
        print(f"{name}: {value}")


# Composed clips as lessons for riff's tagger: which classes there are, and which are true of each clip.


def labels_of(clips: Clips) -> Labels:
    """The classes that occur in ``clips``."""
    return Labels(
        genres=tuple(sorted({truth["genre"] for truth in clips.truths})),
        instruments=tuple(sorted({name for truth in clips.truths for name in truth["instruments"]})),
        leads=tuple(sorted({truth["lead"] for truth in clips.truths if truth["lead"]})),
    )


def targets(clips: Clips, labels: Labels) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Genre (n,), instruments (n, I) in {0, 1}, lead (n,) with -100 where there is none, key (n,)."""
    instruments = torch.zeros(len(clips), len(labels.instruments))
    place = {name: index for index, name in enumerate(labels.instruments)}
    for row, truth in enumerate(clips.truths):
        for name in truth["instruments"]:
            if name in place:
                instruments[row, place[name]] = 1.0
    genre = torch.tensor([labels.genres.index(truth["genre"]) for truth in clips.truths])
    leads = {name: index for index, name in enumerate(labels.leads)}
    lead = torch.tensor([leads.get(truth["lead"], -100) for truth in clips.truths])
    return genre, instruments, lead, torch.tensor([KEYS.index(truth["keyscale"]) for truth in clips.truths])


if __name__ == "__main__":
    main()

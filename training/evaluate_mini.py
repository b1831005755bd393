"""Measure riff-mini against what it must reach, on prompts written from held-out seeds.

    python -m training.evaluate_mini --model riff/models/riff-mini --data runs/data --out report.json
    [--quick]

The judge of genre, instruments and key is trained on composed clips (or read from --classifier) and checked
on held-out ones first; every figure on drawn clips has the same figure on composed clips beside it where
that is a ceiling.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.files import write_json
from riff.pipeline import RiffPipeline
from riff.tagger_net import TaggerNet
from training import likeness_mini as likeness
from training import measure_mini as measure
from training.clips import Clips, load_clips
from training.measure_mini import KINDS, Row, Task
from training.train_classifier import check, obtain_classifier


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The drawn clips of one kind of prompt, with what they were asked to be."""

    tasks: list[Task]
    images: list[Tensor]
    sounds: list[Tensor]
    truths: list[dict[str, Any]]


def draw_all(pipe: RiffPipeline, held_out: Clips, arguments: argparse.Namespace) -> dict[str, Drawn]:
    """Draw every kind of prompt; phases are worked out in full only where the sound is measured."""
    rng = random.Random(arguments.seed)
    drawn: dict[str, Drawn] = {}
    for number, kind in enumerate(KINDS):
        tasks = measure.choose_tasks(held_out, kind, arguments.prompts, rng=rng)
        clips = measure.draw_clips(
            pipe,
            tasks,
            seed=arguments.seed + 10_000 * number,
            steps=arguments.steps,
            guidance=arguments.guidance,
            quality="default" if kind in ("key", "tempo") else "fast",
        )
        truths = [held_out.truths[task.index] for task in tasks]
        drawn[kind] = Drawn(tasks, [clip.image.cpu() for clip in clips], [clip.waveform for clip in clips], truths)
        if arguments.samples is not None:
            arguments.samples.mkdir(parents=True, exist_ok=True)
            for place, clip in enumerate(clips[:30]):
                clip.save(arguments.samples / f"{kind}-{place:02d}.png")
    return drawn


def control_rows(drawn: dict[str, Drawn], held_out: Clips, model: TaggerNet, config: SpectrogramConfig) -> list[Row]:
    """Do the clips obey? Genre, lead, tempo and key, each with its ceiling on composed clips."""
    rate = config.sample_rate
    verdicts = {kind: measure.judge_clips(model, part.images) for kind, part in drawn.items()}
    rows = [
        measure.genre_row(f"generated: genre ({kind})", verdicts[kind], model, drawn[kind].truths, target)
        for kind, target in (("plain", 0.92), ("paraphrase", 0.80))
    ]
    rows += measure.lead_rows("generated", verdicts["lead"], model, drawn["lead"].truths)
    tempo, key = drawn["tempo"], drawn["key"]
    # The prompt asks for whole beats per minute.
    asked = [float(round(truth["bpm"])) for truth in tempo.truths]
    rows.append(measure.tempo_row("generated", tempo.sounds, rate, asked))
    rows += measure.key_rows("generated", key.sounds, rate, verdicts["key"], key.truths)

    def composed(part: Drawn) -> tuple[list[Tensor], list[Tensor]]:
        images = [held_out.picture(task.index) for task in part.tasks]
        return images, measure.sounds_of(images, [truth["bpm"] for truth in part.truths], config)

    lead_images = [held_out.picture(task.index) for task in drawn["lead"].tasks]
    rows += measure.lead_rows("composed", measure.judge_clips(model, lead_images), model, drawn["lead"].truths)
    _, sounds = composed(tempo)
    rows.append(measure.tempo_row("composed", sounds, rate, [truth["bpm"] for truth in tempo.truths]))
    images, sounds = composed(key)
    rows += measure.key_rows("composed", sounds, rate, measure.judge_clips(model, images), key.truths)
    return rows


def likeness_rows(drawn: dict[str, Drawn], held_out: Clips, train: Clips, pipe: RiffPipeline, seed: int) -> list[Row]:
    """Are the pictures like real ones, and not copies of them?"""
    tasks = [task for part in drawn.values() for task in part.tasks]
    images = [image for part in drawn.values() for image in part.images]
    real = [held_out.picture(task.index) for task in tasks]
    pairs = measure.matching_others(held_out, tasks, rng=random.Random(seed))
    paired = [images[place] for place, _ in pairs]
    paired_real = [real[place] for place, _ in pairs]
    others = [held_out.picture(index) for _, index in pairs]
    rows = [likeness.round_trip_row(pipe, real[:60]), likeness.sharpness_row(images, real)]
    rows += likeness.frechet_rows(paired, paired_real, others)
    rows += likeness.copy_rows(images, train, held_out)
    return rows


def variety(pipe: RiffPipeline, drawn: dict[str, Drawn], arguments: argparse.Namespace) -> Row:
    """Draw the first plain prompts again with other seeds."""
    tasks = drawn["plain"].tasks[:12]
    again = measure.draw_clips(
        pipe,
        tasks,
        seed=arguments.seed + 900_000,
        steps=arguments.steps,
        guidance=arguments.guidance,
        quality="fast",
    )
    return likeness.variety_row(drawn["plain"].images[: len(tasks)], [clip.image.cpu() for clip in again])


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | value | 95 % interval | clips | target | met |", "|---|---|---|---|---|---|"]
    for row in rows:
        interval = "" if math.isnan(row.low) else f"{row.low:.3f}..{row.high:.3f}"
        met = "" if row.met is None else "yes" if row.met else "NO"
        lines.append(f"| {row.name} | {row.value:.3f} | {interval} | {row.clips} | {row.target} | {met} |")
    return "\n".join(lines)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="folder of the model; default: the one in the package")
    parser.add_argument("--data", type=Path, required=True, help="folder made by training.make_dataset")
    parser.add_argument("--out", type=Path, required=True, help="report, JSON; the table goes beside it as .md")
    parser.add_argument("--prompts", type=int, default=120, help="prompts of each of the five kinds")
    parser.add_argument("--quick", action="store_true", help="30 prompts of each kind")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--guidance", type=float, default=None, help="guidance scale; default: the pipeline's")
    parser.add_argument("--scheduler", default=None, help="scheduler; default: the checkpoint's")
    parser.add_argument("--device", default=None, help="cpu or cuda; default: the fastest there is")
    parser.add_argument("--seed", type=int, default=1_000_000)
    parser.add_argument("--classifier", type=Path, default=Path("runs/classifier.safetensors"), help="cached judge")
    parser.add_argument("--classifier-steps", type=int, default=1800, help="batches of 32, if it must be trained")
    parser.add_argument("--train-limit", type=int, default=8000, help="training clips to read")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=Path, default=None, help="folder for the first 30 pictures of each kind")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.prompts = 30
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message="the model knows no word")
    config = SpectrogramConfig.load(arguments.data)
    began = time.time()
    model = obtain_classifier(
        arguments.data,
        arguments.classifier,
        config=config,
        limit=arguments.train_limit,
        steps=arguments.classifier_steps,
    )
    held_out = load_clips(arguments.data / "heldout")
    judged = check(model, held_out)
    pipe = RiffPipeline.from_pretrained(arguments.model, device=arguments.device, scheduler=arguments.scheduler)
    if pipe.config != config:
        raise RiffError(f"{arguments.model} and {arguments.data} have different spectrogram configs")
    started = time.time()
    drawn = draw_all(pipe, held_out, arguments)
    per_clip = (time.time() - started) / (len(KINDS) * arguments.prompts)
    rows = judge_rows(judged) + control_rows(drawn, held_out, model, config)
    train = load_clips(arguments.data / "train", limit=arguments.train_limit)
    rows += likeness_rows(drawn, held_out, train, pipe, arguments.seed)
    rows.append(variety(pipe, drawn, arguments))
    misses = {
        kind: measure.genre_misses(measure.judge_clips(model, drawn[kind].images), model, drawn[kind].truths)
        for kind in ("plain", "paraphrase")
    }
    settings = {name: str(value) for name, value in vars(arguments).items()}
    report = {
        "rows": [_plain(row) for row in rows],
        "classifier": judged,
        "genre_misses": misses,
        "prompts": {kind: [task.prompt for task in part.tasks] for kind, part in drawn.items()},
        "settings": settings | {"seconds_per_clip": f"{per_clip:.2f}", "seconds": f"{time.time() - began:.0f}"},
    }
    write_json(arguments.out, report)
    arguments.out.with_suffix(".md").write_text(table(rows) + "\n", encoding="utf-8")
    print(table(rows))
    print(f"asked -> heard, plain: {misses['plain'][:12]}", file=sys.stderr)


def judge_rows(judged: dict[str, Any]) -> list[Row]:
    """The judge's own accuracy on composed held-out clips."""
    rows = []
    for name, target in (("genre", 0.97), ("lead", None), ("key", None)):
        part = judged[name]
        met = None if target is None else part["share"] >= target
        text = "" if target is None else f">= {target:.0%}"
        rows.append(
            Row(
                f"composed: {name} by the judge",
                part["share"],
                judged["clips"],
                part["low"],
                part["high"],
                text,
                met,
            )
        )
    return rows


def _plain(row: Row) -> dict[str, Any]:
    """JSON has no NaN."""
    fields = dataclasses.asdict(row)
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()
    }


if __name__ == "__main__":
    main()

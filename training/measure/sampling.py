"""How should a picture be drawn: which scheduler, how many steps, how much guidance, and guided in which steps?

    python -m training.measure.sampling --data runs/data --try ddim:20:1.8:0:1 --try ddim:20:2.5:0.1:0.5

Each way is SCHEDULER:STEPS:GUIDANCE:FROM:TO, the last two being the shares of the steps between which there is
guidance. All ways draw the same prompts from the same seeds. The judge is the tagger that riff ships; the Fréchet
distance is on mel statistics, over that of as many composed clips.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from riff.diffusion.sampling import Interval, choose_scheduler
from riff.music.tagger import BUNDLED
from riff.music.tagger_net import TaggerNet, load_net
from riff.music.theory import KEYS
from riff.pipeline import RiffPipeline
from riff.spectrogram.config import SpectrogramConfig
from training.composer.captions import EvalKind
from training.measure import riff_mini as likeness
from training.measure import riff_mini as measure
from training.measure.riff_mini import Row, Task
from training.recipes.dataset import Clips, load_clips

KINDS: tuple[EvalKind, ...] = ("lead", "key")
USUAL = ("ddim:20:1.8:0:1", "ddim:20:2.5:0.1:0.5")


@dataclass(frozen=True)
class Way:
    """One way to draw."""

    scheduler: str
    steps: int
    guidance: float
    interval: Interval


@dataclass(frozen=True)
class Prompts:
    """What every way draws, and the composed clips to compare with."""

    tasks: dict[EvalKind, list[Task]]
    held_out: Clips
    net: TaggerNet


def parse_way(text: str) -> Way:
    """Read SCHEDULER:STEPS:GUIDANCE:FROM:TO."""
    try:
        scheduler, steps, guidance, first, last = text.split(":")
        return Way(scheduler, int(steps), float(guidance), (float(first), float(last)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not SCHEDULER:STEPS:GUIDANCE:FROM:TO, such as ddim:20:2.5:0.1:0.5"
        ) from error


def measure_way(pipe: RiffPipeline, way: Way, prompts: Prompts, seed: int) -> list[Row]:
    """Draw all prompts in one way, and count."""
    pipe.components.scheduler = choose_scheduler(way.scheduler, pipe.components.scheduler)
    pipe.guidance_interval = way.interval
    held_out, net = prompts.held_out, prompts.net
    began, images = time.process_time(), {}
    for number, (kind, tasks) in enumerate(prompts.tasks.items()):
        clips = measure.draw_clips(
            pipe, tasks, seed=seed + 10_000 * number, steps=way.steps, guidance=way.guidance, quality="fast"
        )
        images[kind] = [clip.image for clip in clips]
    every = [image for kind in images for image in images[kind]]
    spent = (time.process_time() - began) / len(every)
    asked = {kind: [held_out.truths[task.index] for task in tasks] for kind, tasks in prompts.tasks.items()}
    verdicts = {kind: measure.judge_clips(net, images[kind]) for kind in images}
    rows = [Row("processor s", spent, len(every))]
    rows += measure.lead_rows("drawn", verdicts["lead"], net, asked["lead"])[:1]
    heard = zip(verdicts["key"].key.argmax(1).tolist(), asked["key"], strict=True)
    rows.append(measure.share("key", (KEYS[index] == truth["keyscale"] for index, truth in heard)))
    rows += [measure.genre_row("genre", verdicts["lead"], net, asked["lead"], 0.0)]
    tasks = [task for kind in prompts.tasks for task in prompts.tasks[kind]]
    pairs = measure.matching_others(held_out, tasks, rng=random.Random(seed))
    real = [held_out.picture(tasks[place].index) for place, _ in pairs]
    others = [held_out.picture(index) for _, index in pairs]
    rows += likeness.frechet_rows([every[place] for place, _ in pairs], real, others)[-1:]
    return [*rows, likeness.sharpness_row(every, [held_out.picture(task.index) for task in tasks])]


def table(found: dict[Way, list[Row]]) -> str:
    """Ways down, figures across."""
    names = ("processor s a clip", "lead", "key", "genre", "Fréchet ratio", "sharpness")
    lines = [f"| scheduler | steps | guidance | in | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"]
    for way, rows in found.items():
        first, last = way.interval
        figures = " | ".join(f"{row.value:.2f}" for row in rows)
        lines.append(f"| {way.scheduler} | {way.steps} | {way.guidance:g} | {first:.0%} to {last:.0%} | {figures} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Measure the ways one after the other; the table so far is printed after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="folder of the model; default: the one in the package")
    parser.add_argument("--data", type=Path, required=True, help="folder made by training.recipes.dataset")
    parser.add_argument("--try", dest="ways", action="append", type=parse_way, metavar="WAY", help="repeatable")
    parser.add_argument("--prompts", type=int, default=60, help="prompts of each of the two kinds")
    parser.add_argument("--seed", type=int, default=3_000_000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message="the model knows no word")
    held_out = load_clips(arguments.data / "heldout")
    rng = random.Random(arguments.seed)
    tasks = {kind: measure.choose_tasks(held_out, kind, arguments.prompts, rng=rng) for kind in KINDS}
    prompts = Prompts(tasks, held_out, load_net(BUNDLED, SpectrogramConfig.load(arguments.data)))
    pipe = RiffPipeline.from_pretrained(arguments.model)
    found: dict[Way, list[Row]] = {}
    for way in arguments.ways or [parse_way(text) for text in USUAL]:
        found[way] = measure_way(pipe, way, prompts, arguments.seed)
        print(table(found), file=sys.stderr, flush=True)
    print(table(found))


if __name__ == "__main__":
    main()

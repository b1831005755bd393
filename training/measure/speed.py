"""How fast does fine-tuning go? riff's step on cached latents against diffusers' objective, in turn, on one model.

    python -m training.measure.speed
    python -m training.measure.speed --method lora --model sd15 --batch-size 1 --steps 4

The other side is what diffusers' `examples/text_to_image/train_text_to_image.py` (with `_lora`: the LoRA script) does
in a step, written plainly with its public API: the autoencoder encodes the batch, the text encoder reads the captions,
noise is added, the UNet's mean squared error is minimised with AdamW, clipped, and averaged (EMA) where all of the UNet
is trained. Its pictures lie decoded in memory, which is more than that script does. Each side runs in a process of its
own, in turn; a step is the time from one optimizer step to the next. On a CPU whose cores others use as well, the
processor time says more than the clock.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.baselines import textbook_training
from benchmarks.training import write_data_set
from riff.diffusion.hub import BUNDLED
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.files import write_json, write_text
from training.measure.stand_in import write_sd15

WARM_UP = 2  # steps before the first that counts
CAPTIONS = ("mellow piano, 84 bpm", "jazz guitar in A minor", "techno, fast", "slow waltz with strings")
SIDES = ("riff", "diffusers")


class Enough(Exception):
    """All steps were counted."""


class Clock:
    """Time between optimizer steps of any optimizer, and the most memory the process held meanwhile."""

    def __init__(self, steps: int) -> None:
        self.last = steps + WARM_UP + 1
        self.stamps: list[tuple[float, float]] = []
        self.before = 0.0

    def __call__(self, *_: Any) -> None:
        self.stamps.append((time.perf_counter(), time.process_time()))
        if len(self.stamps) == 1:
            self.before = peak_memory()
            Path("/proc/self/clear_refs").write_text("5")  # begins the measurement of the peak anew
        if len(self.stamps) == self.last:
            raise Enough

    def figures(self) -> dict[str, float]:
        """Medians over the steps, in seconds, and MiB before the first step and from there on."""
        counted = self.stamps[WARM_UP:]
        pairs = list(itertools.pairwise(counted))
        return {
            "seconds": statistics.median(b[0] - a[0] for a, b in pairs),
            "processor_seconds": statistics.median(b[1] - a[1] for a, b in pairs),
            "preparing_mib": self.before,
            "training_mib": peak_memory(),
        }


def peak_memory() -> float:
    """The most memory this process has held, in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def train_as_riff(model: str, data: Path, run: Path, arguments: argparse.Namespace) -> None:
    """The trainer behind `riff train`, with the same objective as the other side has."""
    from riff.train.finetune import fine_tune
    from riff.train.recipe import FineTuneConfig

    recipe = FineTuneConfig.from_options(
        str(data),
        model,
        method=arguments.method,
        lora_targets="attention",
        train_batch_size=arguments.batch_size,
        max_train_steps=10 * (arguments.steps + WARM_UP),
        learning_rate=1e-4,
        snr_gamma=None,
        mixed_precision=arguments.mixed_precision,
        use_ema=arguments.method == "full",
        with_prior_preservation=False,
        validation_steps=10**6,
        checkpointing_steps=10**6,
    )
    fine_tune(recipe, run)


def train_as_diffusers(model: str, data: Path, arguments: argparse.Namespace) -> None:
    """The textbook's loop, on the same pictures and captions."""
    from riff.diffusion.latents import fit_channels
    from riff.train.data.dataset import load_dataset

    clips = load_dataset(data)[0][0]
    pictures = torch.stack([clips.read(number) for number in range(len(clips))])
    channels = json.loads((Path(model) / "vae" / "config.json").read_text(encoding="utf-8"))["in_channels"]
    textbook_training(
        model,
        fit_channels(pictures, channels) * 2.0 - 1.0,
        [clip["captions"][0] for clip in clips.clips],
        method=arguments.method,
        batch_size=arguments.batch_size,
        mixed_precision=arguments.mixed_precision,
    )


def ride(side: str, model: str, data: Path, run: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Train on one side until all steps are counted; the figures of :class:`Clock`."""
    clock = Clock(arguments.steps)
    hook = register_optimizer_step_post_hook(clock)
    try:
        if side == "riff":
            train_as_riff(model, data, run, arguments)
        else:
            train_as_diffusers(model, data, arguments)
    except Enough:
        return clock.figures()
    finally:
        hook.remove()
    raise AssertionError("the training ended before all steps were counted")


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of each side, and of the ratios of rounds taken in turn."""
    sides = {
        side: {name: statistics.median(ridden[name] for ridden in rounds) for name in rounds[0]}
        for side, rounds in found.items()
    }

    def times(name: str) -> list[float]:
        return [b[name] / a[name] for a, b in zip(found["riff"], found["diffusers"], strict=True)]

    return {
        "times_as_fast": statistics.median(times("seconds")),
        "times_as_fast_by_processor_time": statistics.median(times("processor_seconds")),
        "rounds": {name: times(name) for name in ("seconds", "processor_seconds")},
        "memory_ratio": sides["riff"]["training_mib"] / sides["diffusers"]["training_mib"],
        "sides": sides,
    }


def table(result: dict[str, Any], arguments: argparse.Namespace) -> str:
    """The ratios first, then each side."""
    rounds = ", ".join(f"{each:.2f}" for each in result["rounds"]["processor_seconds"])
    lines = [
        f"riff's steps are {result['times_as_fast']:.2f} times as fast by the clock, "
        f"{result['times_as_fast_by_processor_time']:.2f} times by processor time (rounds {rounds}; target 1.5), with "
        f"{result['memory_ratio']:.2f} of the memory (target at most 1)",
        "",
        f"{arguments.model}, {arguments.method}, batch {arguments.batch_size}, mixed precision "
        f"{arguments.mixed_precision}, {arguments.threads} thread(s), {arguments.rounds} rounds of {arguments.steps} "
        "steps, medians",
        "",
        "| side | steps/s | s/step | processor s/step | peak MiB while training | peak MiB before |",
        "|---|---|---|---|---|---|",
    ]
    for side, figures in result["sides"].items():
        lines.append(
            f"| {side} | {1 / figures['seconds']:.3f} | {figures['seconds']:.3f} | {figures['processor_seconds']:.3f} "
            f"| {figures['training_mib']:.0f} | {figures['preparing_mib']:.0f} |"
        )
    return "\n".join(lines)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="riff-mini", help="riff-mini, sd15 (random weights), or a folder")
    parser.add_argument("--method", choices=("full", "lora"), default="full")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--mixed-precision", choices=("no", "fp16", "bf16"), default="no")
    parser.add_argument("--steps", type=int, default=30, help="steps that count, after two that do not")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None, help="figures, JSON; the table goes beside it as .md")
    parser.add_argument("--side", choices=SIDES, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, default=None, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    given = sys.argv[1:] if argv is None else argv
    arguments = parse_arguments(given)
    torch.set_num_threads(arguments.threads)
    if arguments.side is not None:
        with tempfile.TemporaryDirectory(dir=arguments.place) as run:
            ridden = ride(arguments.side, arguments.model, arguments.place / "data", Path(run) / "run", arguments)
        print(json.dumps(ridden))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = {"riff-mini": str(BUNDLED), "sd15": f"{folder}/sd15"}.get(arguments.model, arguments.model)
        if arguments.model == "sd15":
            write_sd15(Path(model), 256)
        write_data_set(Path(folder) / "data", SpectrogramConfig.load(model), clips=arguments.clips)
        found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for number in range(arguments.rounds):
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                place = ["--model", model, "--side", side, "--place", folder]
                command = [sys.executable, "-m", "training.measure.speed", *given, *place]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(f"{side} failed:\n{done.stderr[-4000:]}")
                found[side].append(json.loads(done.stdout.splitlines()[-1]))
                print(f"round {number + 1}/{arguments.rounds}, {side}: {found[side][-1]}", file=sys.stderr, flush=True)
    result = summary(found)
    shown = table(result, arguments)
    if arguments.out is not None:
        settings = {name: str(value) for name, value in vars(arguments).items()}
        write_json(arguments.out, result | {"processes": found, "settings": settings})
        write_text(arguments.out.with_suffix(".md"), shown + "\n")
    print(shown)


if __name__ == "__main__":
    main()

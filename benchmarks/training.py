"""Section "train": steps of ``riff train``, on latents that it has cached, against diffusers' objective."""

import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Figures, Ratio, measure_alone, synchronize
from benchmarks.history import Section
from riff.utils.parallel import peak_memory_mib

WARM_UP = 2  # steps before the first that counts
SIDES = ("riff", "diffusers")
CLIPS = 16
CAPTIONS = ("mellow piano, 84 bpm", "jazz guitar in A minor", "techno, fast", "slow waltz with strings")


def train_section(*, model: str | None, device: str | None, steps: int, rounds: int, batch_size: int = 8) -> Section:
    """Train all of the UNet in float32 both ways, each round of each side in a process of its own, in turn.

    Args:
        model: as for :meth:`riff.pipeline.RiffPipeline.from_pretrained`; None is riff-mini.
        device: "cpu" keeps training off an accelerator; else accelerate chooses.
        steps: that count in each round.
        rounds: of each side.
        batch_size: images a step.
    """
    from riff.diffusion.hub import locate
    from riff.spectrogram.config import SpectrogramConfig

    place = locate(model)
    section = Section("train", figures={"batch_size": batch_size, "steps": steps})
    if not place.is_dir():
        section.notes.append("Not measured: the model is a single file, and training needs a folder.")
        return section
    found: dict[str, list[Figures]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        write_data_set(Path(folder) / "data", SpectrogramConfig.load(place))
        arguments = {"model": str(place), "folder": folder, "steps": steps, "batch_size": batch_size}
        for number in range(rounds):
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                told = {"side": side, "run": f"run-{number}", **arguments}
                extra = {"ACCELERATE_USE_CPU": "true"} if device == "cpu" else {}
                found[side].append(measure_alone("benchmarks.training:ride", told, environment=extra))
    _summarise(section, found)
    return section


def ride(*, side: str, model: str, folder: str, run: str, steps: int, batch_size: int) -> Figures:
    """Train on one side in this process until all steps are counted; seconds are medians over the steps."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    stamps: list[tuple[float, float]] = []

    def stamp(*_: Any) -> None:
        synchronize()
        stamps.append((time.perf_counter(), time.process_time()))
        if len(stamps) == steps + WARM_UP + 1:
            raise _Enough

    hook = register_optimizer_step_post_hook(stamp)
    try:
        if side == "riff":
            _train_as_riff(model, Path(folder), Path(folder) / run, steps, batch_size)
        else:
            _train_as_diffusers(model, Path(folder), batch_size)
    except _Enough:
        pass
    finally:
        hook.remove()
    spent = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(stamps[WARM_UP:])]
    return {
        "seconds": median(clock for clock, _ in spent),
        "processor_seconds": median(processor for _, processor in spent),
        "peak_memory_mib": peak_memory_mib(),
    }


class _Enough(Exception):
    """All steps were counted."""


def write_data_set(folder: Path, config: Any, *, clips: int = CLIPS) -> None:
    """A data set as ``riff prepare`` writes it, of random pictures: what they show costs no time."""
    import torch

    from riff.spectrogram.png import write_png
    from riff.utils.files import write_text

    train = folder / "train"
    train.mkdir(parents=True)
    config.save(folder)
    lines = []
    for number in range(clips):
        generator = torch.Generator().manual_seed(number)
        image = torch.rand(config.channels, config.n_mels, config.width, generator=generator)
        write_png(train / f"{number:03d}.png", image, config)
        text = CAPTIONS[number % len(CAPTIONS)]
        known = {"bpm": 84.0, "keyscale": None, "beats_per_bar": 4, "source": "", "start_s": 0.0, "duration_s": 5.7}
        about = {"file_name": f"{number:03d}.png", "text": text, "captions": [text], **known, "max_value": None}
        lines.append(json.dumps(about))
    write_text(train / "metadata.jsonl", "\n".join(lines) + "\n")


def _train_as_riff(model: str, folder: Path, run: Path, steps: int, batch_size: int) -> None:
    from riff.train.finetune import fine_tune
    from riff.train.recipe import FineTuneConfig

    recipe = FineTuneConfig.from_options(
        str(folder / "data"),
        model,
        method="full",
        train_batch_size=batch_size,
        max_train_steps=10 * (steps + WARM_UP),
        learning_rate=1e-4,
        mixed_precision="no",
        with_prior_preservation=False,
        validation_steps=10**6,
        checkpointing_steps=10**6,
    )
    fine_tune(recipe, run)


def _train_as_diffusers(model: str, folder: Path, batch_size: int) -> None:
    import torch

    from benchmarks.baselines import textbook_training
    from riff.diffusion.latents import fit_channels
    from riff.train.data.dataset import load_dataset

    clips = load_dataset(folder / "data")[0][0]
    images = torch.stack([clips.read(number) for number in range(len(clips))])
    channels = json.loads((Path(model) / "vae" / "config.json").read_text(encoding="utf-8"))["in_channels"]
    captions = [clip["captions"][0] for clip in clips.clips]
    textbook_training(model, fit_channels(images, channels) * 2.0 - 1.0, captions, batch_size=batch_size)


def _summarise(section: Section, found: dict[str, list[Figures]]) -> None:
    def values(side: str, name: str) -> list[float]:
        return [float(ridden[name] or 0.0) for ridden in found[side]]

    def times(name: str) -> list[float]:
        return [b / max(a, 1e-9) for a, b in zip(values("riff", name), values("diffusers", name), strict=True)]

    meaning = "as fast as diffusers' objective, a training step of the whole UNet"
    work = times("processor_seconds")
    section.ratios.append(Ratio.of("train_speed", meaning, times("seconds"), processor=work))
    if found["riff"][0]["peak_memory_mib"] is not None:
        shares = [1.0 / share for share in times("peak_memory_mib")]
        section.ratios.append(
            Ratio.of("train_memory", "of the memory that diffusers' objective takes", shares, times=False)
        )
    for side in SIDES:
        section.figures[f"{side}_steps_per_second"] = 1.0 / median(values(side, "seconds"))
        section.figures[f"{side}_processor_s_per_step"] = median(values(side, "processor_seconds"))
        if found[side][0]["peak_memory_mib"] is not None:
            section.figures[f"{side}_peak_memory_mib"] = median(values(side, "peak_memory_mib"))

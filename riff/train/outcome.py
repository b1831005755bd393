"""What a fine-tuning run leaves: the model, samples drawn with it, figures, and a card that says what it is."""

import dataclasses
import gc
import shutil
from pathlib import Path
from typing import Any

from riff.checkpoint import save_checkpoint
from riff.config import SpectrogramConfig
from riff.dataset import ClipSet
from riff.files import write_json
from riff.prior import MusicPrior
from riff.train.adapter import Tuning
from riff.train.recipe import Recipe, prompts_of


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        model: folder of the LoRA or of the whole model.
        samples: sound files drawn with it.
        figures: losses, seconds and counts.
    """

    model: Path
    samples: list[Path]
    figures: dict[str, Any]


def write_outcome(
    run: Path,
    recipe: Recipe,
    tuning: Tuning,
    config: SpectrogramConfig,
    prior: MusicPrior | None,
    training: list[ClipSet],
    validation: list[ClipSet],
    figures: dict[str, Any],
) -> Outcome:
    """Write the model of a finished run, draw samples with it as a user would, and say how it came about."""
    folder = run / "model"
    if recipe.method == "full":
        tuning.settle()
        save_checkpoint(tuning.parts, config, folder, prior=prior, force=True)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        tuning.save(folder)
        config.save(folder)
    figures = figures | {"steps": recipe.max_train_steps, "clips": sum(len(each) for each in training)}
    samples = _draw_samples(run, recipe, folder)
    write_json(run / "figures.json", figures)
    return Outcome(folder, samples, figures)


def _draw_samples(run: Path, recipe: Recipe, folder: Path) -> list[Path]:
    """The validation prompts as sound and picture, with the model loaded anew from where it was written."""
    from riff.pipeline import RiffPipeline

    gc.collect()
    if recipe.method == "full":
        pipe = RiffPipeline.from_pretrained(folder)
    else:
        pipe = RiffPipeline.from_pretrained(recipe.pretrained_model_name_or_path)
        pipe.load_lora(folder)
    place = run / "samples"
    place.mkdir(exist_ok=True)
    samples = []
    for number, prompt in enumerate(prompts_of(recipe)):
        clip = pipe(prompt, seed=recipe.seed).clips[0]
        for suffix in (".png", ".wav"):
            samples.append(place / f"sample-{number:02d}{suffix}")
            clip.save(samples[-1], force=True)
    (folder / "samples").mkdir(exist_ok=True)
    for path in samples:
        shutil.copyfile(path, folder / "samples" / path.name)
    return samples

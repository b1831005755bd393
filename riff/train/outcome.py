"""What a fine-tuning run leaves: the model, samples drawn with it, figures, and a card that says what it is."""

import dataclasses
import gc
import shutil
from pathlib import Path
from typing import Any

from riff.checkpoint import save_checkpoint
from riff.files import write_json, write_text
from riff.train.adapter import Tuning
from riff.train.card import Facts, make_card
from riff.train.recipe import Recipe, prompts_of
from riff.train.settle import Base, Data

FIGURES_NAME = "figures.json"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        model: folder of the LoRA or of the whole model.
        samples: sounds and pictures drawn with it.
        figures: losses, seconds and counts.
    """

    model: Path
    samples: list[Path]
    figures: dict[str, Any]


def write_outcome(
    run: Path, recipe: Recipe, base: Base, tuning: Tuning, data: Data, figures: dict[str, Any]
) -> Outcome:
    """Write the model of a finished run, draw samples with it as a user would, and say how it came about.

    Args:
        run: folder of the run.
        recipe: settled.
        base: the model it began with, whose parts now are the trained ones.
        tuning: what was trained.
        data: the clips.
        figures: what was measured.
    """
    folder = run / "model"
    trained = sum(parameter.numel() for parameter in tuning.model.parameters() if parameter.requires_grad)
    if recipe.method == "full":
        tuning.settle()
        for part in (tuning.parts.unet, tuning.parts.text_encoder, tuning.parts.vae):
            part.half()  # as models are shared; what is lost is far below what a step changes
        save_checkpoint(tuning.parts, base.config, folder, prior=base.prior, force=True)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        tuning.save(folder)
        base.config.save(folder)
    facts = Facts.of(data, trained, tuning.word)
    figures = figures | {"steps": recipe.max_train_steps, "clips": facts.clips, "trained_parameters": trained}
    samples = _draw_samples(run, recipe, folder)
    write_json(run / FIGURES_NAME, figures)
    write_text(folder / "README.md", make_card(run.resolve().name, recipe, facts, figures, samples))
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
    places = [run / "samples", folder / "samples"]
    for place in places:
        place.mkdir(exist_ok=True)
    samples = []
    for number, prompt in enumerate(prompts_of(recipe)):
        clip = pipe(prompt, seed=recipe.seed + number).clips[0]
        for suffix in (".png", ".wav"):
            samples.append(places[0] / f"sample-{number:02d}{suffix}")
            clip.save(samples[-1], force=True)
            shutil.copyfile(samples[-1], places[1] / samples[-1].name)
    return samples

"""Fine-tuning: a data set and a model in, a LoRA or a checkpoint out, whatever interrupts it."""

import dataclasses
import gc
import importlib.util
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from riff.diffusion.checkpoint import save_checkpoint
from riff.prompt.interpret import interpret_prompt
from riff.train.card import Facts, make_card
from riff.train.checkpoints import PATIENCE
from riff.train.loop import train
from riff.train.preview import DenoiserPreview
from riff.train.progress import read_summary
from riff.train.recipe import (
    BaseModel,
    Data,
    FineTuneConfig,
    SavedRecipe,
    load_base,
    open_data,
    prompts_of,
    resolve_recipe,
)
from riff.train.settings import LoopSettings, NumberedLoss
from riff.train.setup import TrainingSetup, Tuning, prepare_training
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import write_json, write_text

FEWEST_STEPS, MOST_STEPS = 100, 1500
# What a step takes beyond its loss and gradients: the optimizer, the average, a share of validation and checkpoints.
OVERHEAD = 1.15
logger = logging.getLogger(__name__)


# WAS riff/train/outcome.py: What a fine-tuning run leaves: the model, samples drawn with it, figures, and a
# card that says what it is.


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


def fine_tune(asked: FineTuneConfig, run: str | Path, *, until: int | None = None) -> Outcome | None:
    """Fine-tune a model; the same call goes on from the last checkpoint of ``run``.

    Under ``accelerate launch`` every process calls this.

    Args:
        asked: what to do.
        run: folder of the run: ``recipe.json``, ``cache/``, checkpoints, ``logs/``, ``samples/``, and in the end
            ``model/``.
        until: stop after this step although the schedule goes on.

    Returns:
        What came out, or None where a signal or ``until`` stopped it before its end.

    Raises:
        RiffError: the data set, the recipe and the model do not fit each other, or the run was begun otherwise.
        ModelError: the model cannot be loaded, or the loss is not finite.
        SystemProblem: the disk is full, or an extra is not installed.
    """
    _check_extras(asked)
    from accelerate import PartialState

    # Unless told that there is no GPU, accelerate takes several processes on a CPU for as many single ones. They wait
    # for long where the main one fills the cache.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    place, began = Path(run), time.time()
    saved = SavedRecipe.load(place)
    data = open_data(asked)
    base = load_base(asked, data, state.device)
    recipe = resolve_recipe(asked, base, data) if saved is None else saved.continued(asked, data.digest)
    with state.main_process_first():
        material = prepare_training(recipe, base, data, place / "cache")
        if state.is_main_process:
            recipe = _with_steps(recipe, material, state.device)
            SavedRecipe(asked, recipe, data.digest).save(place)
        else:  # what the main process settled, which timed its steps
            recipe = SavedRecipe.expect(place).settled
        before = _loss_before(recipe, material, place)
    steps = recipe.max_train_steps or 0
    finished = _train(recipe, base, material, place, until)
    if not finished or (until is not None and until < steps):
        return None
    outcome = Outcome(place / "model", [], {})
    if state.is_main_process:
        figures = {"validation_loss_before": before, **_figures(place), "seconds": round(time.time() - began, 1)}
        outcome = write_outcome(place, recipe, base, material.tuning, data, figures)
    state.wait_for_everyone()
    return outcome


def _check_extras(recipe: FineTuneConfig) -> None:
    """Name the extra that is missing before anything is begun."""
    needed = ["accelerate", "tensorboard", *(["peft"] if recipe.method == "lora" else [])]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise SystemProblem(
            f"fine-tuning needs {' and '.join(missing)}; install it: python -m pip install 'riff-music[train]'"
        )


def _with_steps(recipe: FineTuneConfig, material: TrainingSetup, device: torch.device) -> FineTuneConfig:
    """The recipe with a number of steps: where none is given as many as the time allows, by the time that some take."""
    if recipe.max_train_steps is not None:
        return recipe
    seconds = 0.0
    for number in range(3):
        began = time.monotonic()
        with _autocast(recipe, device):
            value, _ = material.loss(material.tuning.model, torch.Generator().manual_seed(number), number)
        value.backward()
        seconds = time.monotonic() - began  # the first ones also allocate and compile
    material.tuning.model.zero_grad(set_to_none=True)
    seconds *= OVERHEAD * recipe.gradient_accumulation_steps
    fitting = int(recipe.time_budget * 60 / seconds)
    steps = min(max(fitting, FEWEST_STEPS), MOST_STEPS) // 50 * 50
    logger.info("%d steps of about %.2f s each: some %.0f minutes", steps, seconds, steps * seconds / 60)
    return dataclasses.replace(recipe, max_train_steps=steps)


def _autocast(recipe: FineTuneConfig, device: torch.device) -> torch.autocast:
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.mixed_precision or "no")
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)


def _validation_loss(recipe: FineTuneConfig, material: TrainingSetup, model: nn.Module) -> float | None:
    if material.heldout is None:
        return None
    with _autocast(recipe, next(model.parameters()).device):
        return material.loss.measure(model, material.heldout)


def _loss_before(recipe: FineTuneConfig, material: TrainingSetup, run: Path) -> float | None:
    """The untrained model's validation loss, kept in a file, since a run that goes on has moved."""
    kept = run / "before.json"
    if not kept.is_file():
        write_json(kept, {"validation_loss": _validation_loss(recipe, material, material.tuning.model)})
    loss = json.loads(kept.read_text(encoding="utf-8"))["validation_loss"]
    return None if loss is None else float(loss)


def _figures(run: Path) -> dict[str, Any]:
    """What the loop has measured."""
    summary = read_summary(run)
    losses = [list(entry) for entry in summary.validation]
    return {
        "validation_loss_after": losses[-1][1] if losses else None,
        "validation_losses": losses,
        "advice": summary.advice,
    }


def _train(recipe: FineTuneConfig, base: BaseModel, material: TrainingSetup, run: Path, until: int | None) -> bool:
    if recipe.max_train_steps is None or recipe.learning_rate is None:
        raise RiffError("the recipe has no number of steps or no learning rate; settle it first")
    settings = LoopSettings(
        steps=recipe.max_train_steps,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.lr_warmup_steps,
        lr_scheduler=recipe.lr_scheduler,  # type: ignore[arg-type]
        max_grad_norm=recipe.max_grad_norm,
        ema_decay=recipe.ema_decay if recipe.use_ema else 0.0,
        mixed_precision=recipe.mixed_precision or "no",
        checkpointing_steps=recipe.checkpointing_steps,
        preview_steps=recipe.validation_steps,
        validation_steps=recipe.validation_steps,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        use_8bit_adam=recipe.use_8bit_adam,
        report_to=recipe.report_to,
        seed=recipe.seed,
    )

    def validate(model: nn.Module) -> float:
        return _validation_loss(recipe, material, model) or 0.0

    return train(
        material.tuning.model,
        NumberedLoss(material.loss, material.loss.batches.names),
        settings,
        run,
        preview=_preview(recipe, base),
        validation=None if material.heldout is None else validate,
        recipe={"train_batch_size": recipe.train_batch_size, "method": recipe.method, "trigger": recipe.trigger},
        until=until,
        device="cpu" if base.parts.unet.device.type == "cpu" else None,
    )


def _preview(recipe: FineTuneConfig, base: BaseModel) -> Any:
    parts = base.parts
    told = [
        interpret_prompt(text, bpm=None, keyscale=None, parts=parts, prior=base.prior).text
        for text in prompts_of(recipe)
    ]
    return DenoiserPreview(
        parts.vae,
        parts.tokenizer,
        parts.scheduler,
        base.config,
        tuple(told),
        base.model.default_guidance,
        base.model.interval,
    )


FIGURES_NAME = "figures.json"


def write_outcome(
    run: Path, recipe: FineTuneConfig, base: BaseModel, tuning: Tuning, data: Data, figures: dict[str, Any]
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


def _draw_samples(run: Path, recipe: FineTuneConfig, folder: Path) -> list[Path]:
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
            clip.save(samples[-1], overwrite=True)
            shutil.copyfile(samples[-1], places[1] / samples[-1].name)
    return samples

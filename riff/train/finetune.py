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
from riff.diffusion.model import DiffusionModel
from riff.train.card import ModelFacts, make_card
from riff.train.loop import StopFlag, StopRequested, train
from riff.train.preview import DenoiserPreview
from riff.train.processes import PATIENCE
from riff.train.progress import note_signal, read_summary
from riff.train.recipe import FineTuneConfig, SavedRecipe, TrainingData, load_base, load_data, resolve_recipe
from riff.train.settings import NumberedLoss
from riff.train.setup import TrainingSetup, Tuning, prepare_training
from riff.utils.errors import SystemProblem
from riff.utils.files import write_json, write_text

FIGURES_NAME = "figures.json"
FEWEST_STEPS, MOST_STEPS = 100, 1500
# What a step takes beyond its loss and gradients: the optimizer, the average, a share of validation and checkpoints.
OVERHEAD = 1.15
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        model: folder of the LoRA or of the whole model.
        samples: sounds and spectrograms generated with it.
        figures: losses, seconds and counts.
    """

    model: Path
    samples: list[Path]
    figures: dict[str, Any]


def fine_tune(config: FineTuneConfig, run: str | Path, *, until: int | None = None) -> Outcome | None:
    """Fine-tune a model; the same call goes on from the last checkpoint of ``run``.

    Under ``accelerate launch`` every process calls this.

    Args:
        config: what to do.
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
    _check_extras(config)
    from accelerate import PartialState

    # By default accelerate takes several processes on a CPU for as many single ones. They wait for long while the main
    # one fills the cache.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    folder, began = Path(run), time.time()
    saved = SavedRecipe.load(folder)
    data = load_data(config)
    model = load_base(config, data, state.device)
    recipe = resolve_recipe(config, model, data) if saved is None else saved.continued(config, data.digest)
    with StopFlag(launched=state.num_processes > 1) as stop, state.main_process_first():
        try:
            setup = prepare_training(recipe, model, data, folder / "cache", stop)
            stop.check()
        except StopRequested:
            note_signal(folder, stop.signal)
            logger.info("stopped before the first step; what was prepared is kept, and the same command goes on")
            return None
        if state.is_main_process:
            recipe = _with_steps(recipe, setup, state.device, time.time() - began)
            SavedRecipe(config, recipe, data.digest).save(folder)
        else:  # what the main process decided, which timed its steps
            recipe = SavedRecipe.expect(folder).resolved
        before = _loss_before(recipe, setup, folder)
    finished = _train(recipe, model, setup, folder, until)
    if not finished or (until is not None and until < (recipe.loop.steps or 0)):
        return None
    outcome = Outcome(folder / "model", [], {})
    if state.is_main_process:
        figures = {"validation_loss_before": before, **_figures(folder), "seconds": round(time.time() - began, 1)}
        outcome = write_outcome(folder, recipe, model, setup.tuning, data, figures)
    state.wait_for_everyone()
    return outcome


def _check_extras(recipe: FineTuneConfig) -> None:
    """Name a missing extra before anything is begun."""
    needed = ["accelerate", "tensorboard", *(["peft"] if recipe.method == "lora" else [])]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise SystemProblem(
            f"fine-tuning needs {' and '.join(missing)}; install it: python -m pip install 'riff-music[train]'"
        )


def _with_steps(recipe: FineTuneConfig, setup: TrainingSetup, device: torch.device, spent: float) -> FineTuneConfig:
    """The recipe with the numbers that the time decides: clips of the model's own, and as many steps as still fit.

    Args:
        recipe: resolved.
        setup: of the run.
        device: to time some steps on.
        spent: seconds of the time budget that the preparation took.
    """
    if setup.own_clips and recipe.num_class_images is None:
        recipe = dataclasses.replace(recipe, num_class_images=setup.own_clips)
    if recipe.loop.steps is not None:
        return recipe
    seconds = 0.0
    for number in range(3):
        began = time.monotonic()
        with _autocast(recipe, device):
            value, _ = setup.loss(setup.tuning.model, torch.Generator().manual_seed(number), number)
        value.backward()
        seconds = time.monotonic() - began  # the first ones also allocate and compile
    setup.tuning.model.zero_grad(set_to_none=True)
    seconds *= OVERHEAD * recipe.loop.gradient_accumulation_steps
    fitting = int(max(0.0, recipe.time_budget * 60 - spent) / seconds)
    steps = min(max(fitting, FEWEST_STEPS), MOST_STEPS) // 50 * 50
    logger.info("%d steps of about %.2f s each: some %.0f minutes", steps, seconds, steps * seconds / 60)
    return recipe.with_loop(steps=steps)


def _autocast(recipe: FineTuneConfig, device: torch.device) -> torch.autocast:
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.loop.mixed_precision or "no")
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)


def _validation_loss(recipe: FineTuneConfig, setup: TrainingSetup, model: nn.Module) -> float | None:
    if setup.heldout is None:
        return None
    with _autocast(recipe, next(model.parameters()).device):
        return setup.loss.measure(model, setup.heldout)


def _loss_before(recipe: FineTuneConfig, setup: TrainingSetup, run: Path) -> float | None:
    """The untrained model's validation loss, kept in a file, since a resumed run has trained it."""
    kept = run / "before.json"
    if not kept.is_file():
        write_json(kept, {"validation_loss": _validation_loss(recipe, setup, setup.tuning.model)})
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


def _train(recipe: FineTuneConfig, model: DiffusionModel, setup: TrainingSetup, run: Path, until: int | None) -> bool:
    def validate(tuned: nn.Module) -> float:
        return _validation_loss(recipe, setup, tuned) or 0.0

    parts = model.components
    preview = DenoiserPreview(
        parts.vae,
        parts.tokenizer,
        parts.scheduler,
        model.config,
        tuple(model.interpret(text).text for text in recipe.prompts),
        model.default_guidance,
        model.interval,
    )
    device = "cpu" if model.device.type == "cpu" else None
    return train(
        setup.tuning.model,
        NumberedLoss(setup.loss, setup.loss.batches.names),
        recipe.with_loop(device=device).loop,
        run,
        preview=preview,
        validation=None if setup.heldout is None else validate,
        recipe={"train_batch_size": recipe.train_batch_size, "method": recipe.method, "trigger": recipe.trigger},
        until=until,
    )


def write_outcome(
    run: Path,
    recipe: FineTuneConfig,
    model: DiffusionModel,
    tuning: Tuning,
    data: TrainingData,
    figures: dict[str, Any],
) -> Outcome:
    """Write the model of a finished run, generate samples with it as a user would, and describe how it was made.

    Args:
        run: folder of the run.
        recipe: resolved.
        model: the model it began with, whose networks now are the trained ones.
        tuning: what was trained.
        data: the clips.
        figures: what was measured.
    """
    folder = run / "model"
    trained = sum(parameter.numel() for parameter in tuning.model.parameters() if parameter.requires_grad)
    if recipe.method == "full":
        tuning.restore_table()
        for part in (model.components.unet, model.components.text_encoder, model.components.vae):
            part.half()  # as models are shared; what is lost is far below what a step changes
        save_checkpoint(model.components, model.config, folder, prior=model.prior, force=True)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        tuning.save(folder)
        model.config.save(folder)
    facts = ModelFacts.of(data, trained)
    figures = figures | {"steps": recipe.loop.steps, "clips": facts.clips, "trained_parameters": trained}
    samples = _generate_samples(run, recipe, folder)
    write_json(run / FIGURES_NAME, figures)
    write_text(folder / "README.md", make_card(run.resolve().name, recipe, facts, figures, samples))
    return Outcome(folder, samples, figures)


def _generate_samples(run: Path, recipe: FineTuneConfig, folder: Path) -> list[Path]:
    """The validation prompts as sound and spectrogram, with the model loaded from where it was written."""
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
    for number, prompt in enumerate(recipe.prompts):
        clip = pipe(prompt, seed=recipe.loop.seed + number).clips[0]
        for suffix in (".png", ".wav"):
            samples.append(places[0] / f"sample-{number:02d}{suffix}")
            clip.save(samples[-1], overwrite=True)
            shutil.copyfile(samples[-1], places[1] / samples[-1].name)
    return samples

"""From a request to a file: loading the model, generating with a progress bar, saving, and saying what came of it."""

import argparse
import dataclasses
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.apps.cli.options import check_outputs, noted_warnings
from riff.tasks.requests import RenderRequest, Sampling
from riff.utils.errors import ModelError

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline
    from riff.tasks.clip import Clip


@dataclasses.dataclass(frozen=True)
class ListJob:
    """One clip to make: the number of its line, its request and its file."""

    line: int
    request: RenderRequest
    output: Path


# A result's facts, or what went wrong.
Made = dict[str, Any] | BaseException


class StepBar:
    """A bar of denoising steps on a terminal; nothing elsewhere."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar

    def callback(self, expected: int) -> Any:
        """What the pipeline calls after each step, of which `expected` were requested."""
        if self._bar is None:
            return None

        def step_done(step: int, steps: int, latents: object) -> None:
            if step == 0:  # some schedulers take more steps than were requested
                self._bar.total += steps - expected
            self._bar.total = max(self._bar.total, self._bar.n + steps - step)  # a key or tempo that is tried again
            self._bar.update()

        return step_done


@contextmanager
def progress(args: argparse.Namespace, *, total: int) -> Iterator[StepBar]:
    """A bar with the time left, on a terminal only."""
    if args.quiet or not sys.stderr.isatty():
        yield StepBar()
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="step", leave=False, file=sys.stderr, dynamic_ncols=True) as bar:
        yield StepBar(bar)


def steps_of(request: Sampling) -> int:
    """Denoising steps that a request takes at least."""
    return request.num_inference_steps * (getattr(request, "best_of", None) or 1)


def load_pipeline(args: argparse.Namespace) -> "RiffPipeline":
    """The model that the options name; a LoRA that is damaged is named before the model is loaded."""
    model, loras = base_of_run(args.model)
    loras += args.lora
    if loras:
        from riff.diffusion.lora import check_lora

        for path, _ in loras:
            check_lora(Path(path))
    from riff.pipeline import RiffPipeline

    pipe = RiffPipeline.from_pretrained(
        model, device=args.device, scheduler=args.scheduler, guidance_interval=args.guidance_interval
    )
    for path, weight in loras:
        pipe.load_lora(path, weight=weight)
    return pipe.compile() if args.compile else pipe


def base_of_run(model: str | None) -> tuple[str | None, list[tuple[str, float]]]:
    """The checkpoint to load, and LoRAs to put on top: of the LoRA of a run of ``riff train``, its base and itself.

    Raises:
        ModelError: the run does not say what its base is, or it is not on this machine.
    """
    folder = Path(model or "")
    if not model or not is_lora_folder(folder):
        return model, []
    base = read_run(folder).get("pretrained_model_name_or_path")
    how = f"give the base with --model and this with --lora {folder}"
    if not isinstance(base, str):
        raise ModelError(f"{folder} holds a LoRA and does not say which model it belongs to; {how}")
    from riff.diffusion.hub import locate

    try:
        locate(base, local_files_only=True)  # a file does not make riff reach for the network
    except ModelError as error:
        raise ModelError(f"{folder} holds a LoRA of {base}, which is not on this machine; {how}") from error
    return base, [(str(folder), 1.0)]


def is_lora_folder(folder: Path) -> bool:
    """Whether a folder holds a LoRA or a learned word, and no whole checkpoint."""
    names = ("pytorch_lora_weights.safetensors", "learned_embeds.safetensors")
    return not (folder / "model_index.json").exists() and any((folder / name).is_file() for name in names)


def read_run(folder: Path) -> dict[str, Any]:
    """The settings of the run of ``riff train`` that wrote ``folder``; empty if there are none."""
    try:
        recipe = json.loads((folder.resolve().parent / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    settings = list(recipe.values()) if isinstance(recipe, dict) else []
    found = [each for each in settings if isinstance(each, dict) and "pretrained_model_name_or_path" in each]
    return found[-1] if found else {}


def generate(pipe: "RiffPipeline", request: Sampling, step_done: Any, audio: str | None = None) -> "Clip":
    """The clip of a request; ``audio`` is the recording that an edit works on."""
    from riff.tasks.run import run

    return run(pipe.model, request, audio, callback=step_done)


def choose_seed(args: argparse.Namespace) -> int:
    """The given seed, else a random one."""
    return secrets.randbelow(2**31) if args.seed is None else int(args.seed)


def print_seed(seed: int | None, args: argparse.Namespace) -> None:
    """Print a seed that was not given. Called when a first result is there, so that a mistake is one line alone."""
    if args.seed is None and not args.quiet:
        print(f"seed {seed}", file=sys.stderr)


def describe(clip: "Clip", output: Path) -> dict[str, Any]:
    """A result's facts, for machines."""
    return {
        "path": str(output),
        "prompt": clip.prompt,
        "seed": clip.seed,
        "bpm": clip.bpm,
        "duration_s": clip.duration,
        "ignored_words": list(clip.settings.get("ignored_words", ())),
        "dropped_words": list(clip.settings.get("dropped_words", ())),
    }


def run_one(args: argparse.Namespace, request: Sampling, *, parts: int = 1, audio: str | None = None) -> None:
    """Generate the one clip of a command, save it, and print its path or its facts.

    Args:
        args: the command's options.
        request: what is generated; its seed is chosen already.
        parts: how many times the model goes through its steps.
        audio: the recording that an edit works on.
    """
    (output,) = check_outputs(args.output, count=1, force=args.force)
    pipe = load_pipeline(args)
    with noted_warnings() as noted, progress(args, total=steps_of(request) * parts) as bar:
        clip = generate(pipe, request, bar.callback(request.num_inference_steps), audio)
    clip.save(output, overwrite=args.force, metadata=not args.no_metadata)
    print_seed(request.seed, args)
    result = describe(clip, output) | noted
    warn_unknown_words(result, args)
    print(json.dumps(result) if args.json else output)


def warn_unknown_words(result: dict[str, Any], args: argparse.Namespace) -> None:
    """Name on one line each the words that the model does not know, and those that did not fit."""
    if args.quiet:
        return
    model = "riff-mini" if args.model is None else args.model
    if ignored := result["ignored_words"]:
        print(f"ignored (not in {model}'s vocabulary): {_some(ignored)}", file=sys.stderr)
    if dropped := result["dropped_words"]:
        print(f"dropped (the prompt is too long for {model}): {_some(dropped)}", file=sys.stderr)


def _some(words: list[str]) -> str:
    """The words on one line, of a very long list the first twenty."""
    words = list(dict.fromkeys(words))
    more = f" and {len(words) - 20} more" if len(words) > 20 else ""
    return ", ".join(words[:20]) + more

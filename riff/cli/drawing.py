"""What the verbs that draw share: the model's options, the bar, and lines on the seed and on words that were lost."""

import argparse
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.checks import MAX_SEED
from riff.cli.arguments import QUALITIES, number

if TYPE_CHECKING:
    from riff.pipeline import Clip, RiffPipeline


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options that say what draws and how."""
    model = add_loading_options(parser)
    model.add_argument("--steps", type=number(1, 150, whole=True), default=20, help="default 20")
    model.add_argument("--guidance", type=number(0, 50), help="weight of the prompt; default the model's own")
    model.add_argument("--quality", choices=QUALITIES, default="default", help="of the step from picture to sound")
    parser.add_argument("--no-metadata", action="store_true", help="write only that a machine made it, not how")
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def add_loading_options(parser: argparse.ArgumentParser) -> Any:
    """What :func:`load_pipeline` reads, as a group of options that more may join."""
    model = parser.add_argument_group("model")
    model.add_argument("--model", help="a folder, a .safetensors file or a hub id; default riff-mini, in the package")
    model.add_argument("--device", help="cpu, cuda or mps; default the fastest there is")
    model.add_argument("--scheduler", help="ddim, dpm++, euler, unipc; default the model's own")
    model.add_argument(
        "--guidance-interval", type=number(0, 1), nargs=2, metavar=("FROM", "TO"),
        help="shares of the steps between which there is guidance; default the model's own",
    )  # fmt: skip
    model.add_argument(
        "--lora", action="append", default=[], type=_lora, metavar="LORA[:WEIGHT]",
        help="a LoRA to put on top: a file, or the RUN/model of riff train, with a weight from 0 to 2; repeatable",
    )  # fmt: skip
    model.add_argument("--compile", action="store_true", help="compile the denoiser first: for many or long drawings")
    return model


def add_seed(group: Any) -> None:
    """The option that makes a result again."""
    group.add_argument("--seed", type=number(0, MAX_SEED, whole=True), help="same seed, same music; default random")


def _lora(text: str) -> tuple[str, float]:
    """A LoRA's file and weight; a colon with no number after it belongs to the name."""
    path, colon, weight = text.rpartition(":")
    try:
        value = float(weight)
    except ValueError:
        return text, 1.0
    if not colon:
        return text, 1.0
    if not 0.0 <= value <= 2.0:
        raise argparse.ArgumentTypeError(f"the weight {weight} of {path} is not from 0 to 2")
    return path, value


def load_pipeline(args: argparse.Namespace) -> "RiffPipeline":
    """The model that the options name; a LoRA that is none is named before the model is loaded."""
    if args.lora:
        from riff.lora import check_lora

        for path, _ in args.lora:
            check_lora(Path(path))
    from riff.pipeline import RiffPipeline

    pipe = RiffPipeline.from_pretrained(
        args.model, device=args.device, scheduler=args.scheduler, guidance_interval=args.guidance_interval
    )
    for path, weight in args.lora:
        pipe.load_lora(path, weight=weight)
    return pipe.compile() if args.compile else pipe


def choose_seed(args: argparse.Namespace) -> int:
    """The asked seed, else a random one."""
    return secrets.randbelow(2**31) if args.seed is None else int(args.seed)


def tell_seed(seed: int, args: argparse.Namespace) -> None:
    """Say a seed that nobody asked for. Called when a first result is there, so that a mistake is one line alone."""
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


def deliver(clip: "Clip", output: Path, seed: int, args: argparse.Namespace) -> None:
    """Save the one result of a command and say what there is to say."""
    clip.save(output, force=args.force, metadata=not args.no_metadata)
    tell_seed(seed, args)
    result = describe(clip, output)
    tell_lost_words(result, args)
    print(json.dumps(result) if args.json else output)


def tell_lost_words(result: dict[str, Any], args: argparse.Namespace) -> None:
    """Say on one line each which words the model was not taught, and which did not fit."""
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


@contextmanager
def progress(args: argparse.Namespace, *, total: int) -> Iterator[Any]:
    """A bar with the time left, on a terminal only; yields what the pipeline calls after each step."""
    if args.quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="step", leave=False, file=sys.stderr, dynamic_ncols=True) as bar:

        def step_done(step: int, steps: int, latents: object) -> None:
            if step == 0:  # some schedulers take more steps than were asked for
                bar.total += steps - args.steps
            bar.update()

        yield step_done

"""``riff train``: a folder of captioned images becomes a LoRA, or a checkpoint, of a model."""

import argparse
import contextlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from riff.apps.cli.options import Ignored, add_command, number
from riff.utils.errors import RiffError

_EXAMPLES = """\
  riff train my-dataset -o runs/mine              a LoRA of riff-mini; goes on where it stopped when given again
  riff render "sarondeng, 120 bpm" --lora runs/mine/model -o new.wav
  riff train my-dataset -o runs/full --method full --max_train_steps 2000
  riff train my-dataset -o runs/sd --model riffusion/riffusion-model-v1 --mixed_precision fp16
  accelerate launch --multi_gpu --num_processes 4 -m riff.train my-dataset -o runs/mine     several GPUs, or CPUs

Options keep the names of diffusers' training scripts. The last checkpoint is always resumed."""
# Options of diffusers' scripts that would spoil a spectrogram, and why they are not here.
_REFUSED = {
    "--random_flip": "it would play the music backwards",
    "--center_crop": "it would cut pitches and beats away",
    "--resolution": "images are never rescaled, their rows are pitches and their columns time",
    "--image_interpolation_mode": "images are never rescaled, their rows are pitches and their columns time",
    "--noise_offset": "it would shift the level of every clip",
}


class _Refuse(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> NoReturn:
        raise RiffError(f"{option} does not exist in riff: {_REFUSED[str(option)]}; leave it out")


def add_train(verbs: Any) -> None:
    """Add ``riff train``."""
    parser = add_command(
        verbs,
        "train",
        run_train,
        help="fine-tune a model on your own music",
        description="Fine-tune a model on a data set that riff prepare wrote. Prints the path of the model.",
        examples=_EXAMPLES,
    )
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="folder of the data set")
    parser.add_argument("--train_data_dir", metavar="DATASET", help="the same, as diffusers calls it")
    parser.add_argument(
        "-o", "--output_dir", "--output", required=True, metavar="RUN",
        help="folder of the run; the result is RUN/model",
    )  # fmt: skip
    _add_model(parser.add_argument_group("what is trained"))
    _add_optimizer(parser.add_argument_group("how long and how fast"))
    _add_data(parser.add_argument_group("captions and images"))
    _add_watching(parser.add_argument_group("watching and sharing"))
    for option in _REFUSED:
        parser.add_argument(option, action=_Refuse, nargs="?", help=argparse.SUPPRESS)


def _add_model(group: Any) -> None:
    group.add_argument(
        "--pretrained_model_name_or_path", "--model", metavar="MODEL",
        help="a folder, a .safetensors file or a hub id; default riff-mini, in the package",
    )  # fmt: skip
    group.add_argument("--method", choices=["lora", "full", "textual-inversion"], help="default lora")
    group.add_argument(
        "--trigger", "--placeholder_token", metavar="WORD",
        help="a made-up word for your music; default the unknown word that most captions name, if there is one",
    )  # fmt: skip
    group.add_argument("--initializer_token", metavar="WORD", help="a known word that the new one begins as")
    group.add_argument("--rank", type=number(1, 512, whole=True), help="of the LoRA; default 16")
    group.add_argument("--lora_targets", choices=["attention", "attention+conv"], help="default suits the model")
    group.add_argument("--train_text_encoder", action="store_true", default=None, help="train the text encoder too")
    group.add_argument(
        "--with_prior_preservation", action=argparse.BooleanOptionalAction, default=None,
        help="learn clips of the model's own beside yours, so that other prompts stay; default for riff's own models",
    )  # fmt: skip
    group.add_argument("--class_prompts", metavar="FILE", help="their prompts, one a line; default a spread of kinds")
    group.add_argument(
        "--num_class_images",
        type=number(1, 100000, whole=True),
        help="how many; default as many as a third of the time allows, 48 at most",
    )
    group.add_argument("--prior_loss_weight", type=number(0, 100), help="default 1")


def _add_optimizer(group: Any) -> None:
    whole = number(1, 10**9, whole=True)
    group.add_argument("--max_train_steps", type=whole, help="default as many as --time_budget allows, 100 to 1500")
    group.add_argument("--num_train_epochs", type=whole, help="in place of steps: how often each clip is seen")
    group.add_argument("--time_budget", type=number(0, 10**6), metavar="MINUTES", help="default 12")
    group.add_argument("--train_batch_size", type=number(1, 65536, whole=True), help="default 8, Stable Diffusion 1")
    group.add_argument("--gradient_accumulation_steps", type=number(1, 65536, whole=True), help="default 1")
    group.add_argument("--learning_rate", type=number(0, 10), help="default suits model and method")
    group.add_argument("--lr_scheduler", choices=["cosine", "constant"], help="default cosine")
    group.add_argument("--lr_warmup_steps", type=number(0, 10**9, whole=True), help="default 20")
    group.add_argument("--max_grad_norm", type=number(0, 10**6), help="default 1")
    group.add_argument("--snr_gamma", type=number(0, 1000), help="Min-SNR weighting, such as 5; default none")
    group.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], help="default what is fastest here")
    group.add_argument("--gradient_checkpointing", action="store_true", default=None, help="less memory, more time")
    group.add_argument("--use_8bit_adam", action="store_true", default=None, help="needs bitsandbytes")
    group.add_argument("--use_ema", action=argparse.BooleanOptionalAction, default=None, help="default on")
    group.add_argument("--ema_decay", type=number(0, 1), help="default 0.995")
    group.add_argument("--seed", type=number(0, 2**31, whole=True), help="default 0")
    group.add_argument("--resume_from_checkpoint", choices=["latest"], action=Ignored, help=argparse.SUPPRESS)


def _add_data(group: Any) -> None:
    group.add_argument("--caption_dropout", type=number(0, 0.99), help="share of captions left out; default 0")
    group.add_argument(
        "--caption_shuffles", type=number(0, 100, whole=True), help="further orders of each caption's tags; default 2"
    )
    group.add_argument("--augment_gain", type=number(0, 12), metavar="DB", help="also softer and louder; default 0")
    group.add_argument(
        "--augment_pitch", type=number(0, 3, whole=True), metavar="SEMITONES", help="also lower and higher; default 0"
    )
    group.add_argument("--augment_shift", action="store_true", default=None, help="begin clips at any of their bars")


def _add_watching(group: Any) -> None:
    whole = number(1, 10**9, whole=True)
    group.add_argument(
        "--validation_prompt", action="append", metavar="PROMPT", help="generated on the way; repeatable"
    )
    group.add_argument("--validation_steps", type=whole, help="default 250")
    group.add_argument("--checkpointing_steps", type=whole, help="default 250")
    group.add_argument("--report_to", help="a tracker of accelerate's; default tensorboard (RUN/logs)")
    group.add_argument("--license", help="of the result, for its card; default other")
    group.add_argument("--push_to_hub", action="store_true", help="upload RUN/model to the Hugging Face Hub")
    group.add_argument("--hub_model_id", metavar="ID", help="where to; default the name of RUN")


def run_train(args: argparse.Namespace) -> None:
    """Train, or go on training."""
    with _logging(args):
        _train(args)


def _train(args: argparse.Namespace) -> None:
    dataset = args.train_data_dir or args.dataset
    if not dataset or (args.dataset and args.train_data_dir):
        raise RiffError("give the data set's folder once, for example: riff train my-dataset -o runs/mine")
    from riff.train.card import check_token, push
    from riff.train.finetune import fine_tune
    from riff.train.recipe import FineTuneConfig

    given = {name: getattr(args, name, None) for name in FineTuneConfig.names()}
    options = {name: value for name, value in given.items() if value is not None}
    if args.snr_gamma == 0:
        options["snr_gamma"] = None
    recipe = FineTuneConfig.from_options(dataset, **options)
    if not args.quiet:
        print(f"the same by accelerate: accelerate launch -m riff.train {_words(args)}", file=sys.stderr)
    if args.push_to_hub:
        check_token()
    outcome = fine_tune(recipe, args.output_dir)
    main_process = os.environ.get("RANK", "0") == "0"
    if outcome is None:
        if main_process:
            print("riff: stopped, and what was done is kept; the same command goes on from here", file=sys.stderr)
        raise SystemExit(143 if _stopped_by(args.output_dir) == "SIGTERM" else 130)
    if not main_process:
        return
    where = push(outcome.model, args.hub_model_id or Path(args.output_dir).resolve().name) if args.push_to_hub else None
    if args.json:
        print(json.dumps({"model": str(outcome.model), "hub": where, **outcome.figures}))
    else:
        print(outcome.model if where is None else f"{outcome.model}\n{where}")


def _stopped_by(run_folder: str) -> str | None:
    from riff.train.progress import read_summary

    try:
        return read_summary(Path(run_folder)).signal
    except RiffError:  # stopped before anything was written
        return None


def _words(args: argparse.Namespace) -> str:
    """The command's own words, without those that only say how much to print."""
    words = sys.argv[1:]
    if words[:1] == ["train"]:
        words = words[1:]
    return shlex.join(word for word in words if word not in ("--json", "--quiet", "--debug"))


@contextlib.contextmanager
def _logging(args: argparse.Namespace) -> Iterator[None]:
    """Show what riff has to say on stderr for the time of the command, unless --quiet."""
    logger, handler = logging.getLogger("riff"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if args.quiet else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

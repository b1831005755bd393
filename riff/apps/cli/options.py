"""What the command line accepts: numbers, prompts and output files, all checked before a model loads."""

import argparse
import contextlib
import json
import math
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from riff.music.theory import canonical_key, parse_bpm
from riff.tasks.requests import Sampling
from riff.utils.errors import RiffError
from riff.utils.files import atomic_path
from riff.utils.schema import FieldError, FieldInfo, allowed, describe_fields, parse_text
from riff.utils.validation import BPM_RANGE, MAX_PROMPT, MAX_SEED

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline
    from riff.tasks.clip import Clip

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
QUALITIES = (
    "fast",
    "default",
    "high",
    "best",
    "griffin-lim",
)  # riff.spectrogram.inversion.solver's, without importing torch
SUFFIXES = (*SOUND_SUFFIXES, ".png")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise RiffError in place of leaving the process."""
        raise RiffError(f"{message} (see {self.prog} --help)")


def number(low: float, high: float, *, whole: bool = False) -> Callable[[str], float]:
    """A converter for argparse: a finite number from ``low`` to ``high``, a whole one if ``whole``."""

    def convert(text: str) -> float:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # also refuses NaN
            kind = "whole number" if whole else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {kind} from {low:g} to {high:g}")
        return value

    return convert


def add_options(parser: Any, request: type, *, skip: Sequence[str] = ()) -> None:
    """Options for the fields of a request, with its ranges, defaults and help; what is not given is None.

    Args:
        parser: or a group of it.
        request: a dataclass of :mod:`riff.tasks.requests`. Its required fields are the verb's own arguments.
        skip: fields that the verb reads in another way.
    """
    groups: dict[str, Any] = {}
    for pair in request.exclusive:  # type: ignore[attr-defined]
        groups |= dict.fromkeys(pair, parser.add_mutually_exclusive_group())
    shared = [field.name for field in describe_fields(Sampling)]
    for field in sorted(describe_fields(request), key=lambda field: field.name in shared):
        if field.flag and not field.required and field.name not in skip:
            _add_option(groups.get(field.name, parser), field)


def options_of(args: argparse.Namespace, request: type) -> dict[str, Any]:
    """The fields of a request that were given as options."""
    given = ((field.name, getattr(args, field.name, None)) for field in describe_fields(request))
    return {name: value for name, value in given if value is not None}


def _add_option(group: Any, field: FieldInfo) -> None:
    shown = f"{field.option.help}; default: {field.default}" if field.default else field.option.help
    kind: dict[str, Any] = {"dest": field.name, "default": None, "help": shown.replace("%", "%%")}
    if field.kind is bool:
        kind |= {"action": "store_true"}
    elif field.choices:
        kind |= {"choices": field.choices}
    else:
        kind |= {"type": _converter(field), "metavar": field.option.metavar or field.flag[2:].upper()}
    group.add_argument(field.flag, **kind)
    if field.option.old is not None:
        old = {**kind, "action": _Renamed, "help": argparse.SUPPRESS}
        group.add_argument(f"--{field.option.old}", **old)


class _Renamed(argparse.Action):
    """An earlier spelling of an option: it still works, and says its new name."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, flag: str | None = None
    ) -> None:
        new = self.dest.replace("_", "-")
        print(f"riff: warning: {flag} is now --{new}; the old name goes in the next release", file=sys.stderr)
        setattr(namespace, self.dest, value)


def _converter(field: FieldInfo) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        if field.kind is str and field.single:  # it is checked with the rest of the request
            return _check_text(text, f"the {field.flag} text")
        try:
            return parse_text(text, field)
        except FieldError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed(field)}") from error

    return convert


def check_prompt(prompt: str) -> str:
    """The prompt, unless it is empty or is not text.

    Raises:
        RiffError: it is empty or absurdly long, or holds bytes that are no UTF-8.
    """
    if not prompt.strip():
        raise RiffError('the prompt is empty; say what to play, for example "slow jazz, piano and upright bass"')
    return _check_text(prompt, "the prompt")


def normalize_options(args: argparse.Namespace) -> None:
    """Bring ``args.negative`` and ``args.key``, where given, into the form that the pipeline takes.

    Raises:
        RiffError: the negative prompt is absurdly long or no UTF-8, or the key is none.
    """
    if args.negative is not None:
        args.negative = _check_text(args.negative, "the --negative prompt")
    if args.key is not None:
        args.key = canonical_key(args.key)


def _check_text(text: str, name: str) -> str:
    if len(text) > MAX_PROMPT:
        raise RiffError(f"{name} has {len(text)} characters; use at most {MAX_PROMPT}")
    try:
        # In a terminal without UTF-8 the bytes of each letter arrive as halves of surrogate pairs.
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise RiffError(f"{name} {text!r} is not UTF-8 text; type it again in a UTF-8 terminal") from error


def check_stated_tempo(prompt: str) -> None:
    """Raise RiffError if the prompt states a tempo as a number that riff does not play at."""
    bpm, (low, high) = parse_bpm(prompt), BPM_RANGE
    if bpm is not None and not low <= bpm <= high:
        raise RiffError(f"the prompt's tempo is {bpm:g} bpm; use {low:g} to {high:g}")


def check_outputs(path: str, *, count: int, force: bool) -> list[Path]:
    """The files that ``count`` results are written to, each known to be writable.

    Args:
        path: what the user gave for ``-o``.
        count: how many results there will be; above 1 they are numbered, ``name-0000.wav`` and so on.
        force: whether existing files may be replaced.

    Raises:
        RiffError: the suffix is unknown, the folder is missing, or a file exists and ``force`` is not given.
        SystemProblem: the folder cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise RiffError(f"-o {path} has the suffix {target.suffix!r}; use one of {', '.join(SUFFIXES)}")
    outputs = [target]
    if count > 1:
        outputs = [target.with_name(f"{target.stem}-{index:04d}{target.suffix}") for index in range(count)]
    for output in outputs:
        _rehearse(output, force=force)
    return outputs


class _RehearsalOver(Exception):
    pass


def _rehearse(path: Path, *, force: bool) -> None:
    """Go through writing ``path`` up to the point where the file would appear."""
    with contextlib.suppress(_RehearsalOver), atomic_path(path, force=force):
        raise _RehearsalOver


# WAS riff/cli/drawing.py: What the verbs that draw share: the model's options, the bar, and lines on the seed
# and on words that were lost.


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
        from riff.diffusion.lora import check_lora

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


def print_seed(seed: int, args: argparse.Namespace) -> None:
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
    print_seed(seed, args)
    result = describe(clip, output)
    warn_unknown_words(result, args)
    print(json.dumps(result) if args.json else output)


def warn_unknown_words(result: dict[str, Any], args: argparse.Namespace) -> None:
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


# WAS riff/cli/render.py: ``riff render``: prompts become sound files or spectrogram pictures.


def render_clip(
    pipe: "RiffPipeline",
    prompt: str,
    seed: int,
    args: argparse.Namespace,
    step_done: Any,
) -> "Clip":
    """One clip as the options ask for it."""
    return pipe(
        prompt,
        negative_prompt=args.negative,
        bpm=args.bpm,
        bars=args.bars,
        duration=args.duration,
        keyscale=args.key,
        key_tries=args.key_tries,
        timesignature=args.time,
        loop=args.loop,
        seed=seed,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
        quality=args.quality,
        callback_on_step_end=step_done,
    ).clips[0]

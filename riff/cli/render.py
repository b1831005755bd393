"""``riff render``: prompts become sound files or spectrogram pictures."""

import argparse
import json
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.cli.arguments import BPM_RANGE, QUALITIES, SUFFIXES, check_outputs, check_prompt, check_stated_tempo, number
from riff.errors import RiffError
from riff.music import canonical_keyscale

if TYPE_CHECKING:
    from riff.pipeline import Clip, RiffPipeline

MAX_SEED = 2**63 - 1
_EXAMPLES = """\
examples:
  riff render "lo-fi hip hop, mellow electric piano, 84 bpm" -o lofi.wav
  riff render "church bells" "a slow waltz for harp in A minor" --count 3 --seed 7 -o song.flac
  riff render "drum and bass, dark" --bars 4 --bpm 174 -o dnb.png"""


def add_verb(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "render",
        parents=[everywhere],
        help="make music from sentences",
        description="Make music from sentences. Prints the path of each file.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to play, as one quoted sentence")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE",
        help=f"{', '.join(SUFFIXES)} (the spectrogram); several results become FILE-0000, FILE-0001, ...",
    )  # fmt: skip
    music = parser.add_argument_group("music")
    music.add_argument("--bpm", type=number(*BPM_RANGE), help="tempo; default the prompt's, or what suits it")
    music.add_argument("--key", metavar="KEY", help='for example "F# minor"')
    length = music.add_mutually_exclusive_group()
    length.add_argument("--bars", type=number(1, 512, whole=True), help="length in bars; default 2")
    length.add_argument("--duration", type=number(0.1, 600), metavar="SECONDS", help="length in seconds")
    music.add_argument("--negative", metavar="PROMPT", help="what to stay away from")
    music.add_argument("--count", type=number(1, 10000, whole=True), default=1, help="results per prompt")
    music.add_argument("--seed", type=number(0, MAX_SEED, whole=True), help="same seed, same music; default random")
    model = parser.add_argument_group("model")
    model.add_argument("--model", help="a folder, a .safetensors file or a hub id; default riff-mini, in the package")
    model.add_argument("--device", help="cpu, cuda or mps; default the fastest there is")
    model.add_argument("--scheduler", help="ddim, dpm++, euler, unipc; default the model's own")
    model.add_argument("--steps", type=number(1, 150, whole=True), default=20, help="default 20")
    model.add_argument("--guidance", type=number(0, 50), help="weight of the prompt; default the model's own")
    model.add_argument("--quality", choices=QUALITIES, default="default", help="of the step from picture to sound")
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def run(args: argparse.Namespace) -> None:
    """Render every prompt ``count`` times, each to its own file as soon as it is done."""
    began = time.monotonic()
    checked = [check_prompt(prompt) for prompt in args.prompts]
    for prompt in checked if args.bpm is None else ():
        check_stated_tempo(prompt)
    prompts = [prompt for prompt in checked for _ in range(args.count)]
    keyscale = None if args.key is None else canonical_keyscale(args.key)
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    if seed + len(prompts) - 1 > MAX_SEED:
        raise RiffError(f"--seed {seed} leaves no room for {len(prompts)} results; use a smaller one")
    outputs = check_outputs(args.output, count=len(prompts), force=args.force)

    from riff.pipeline import RiffPipeline

    pipe = RiffPipeline.from_pretrained(args.model, device=args.device, scheduler=args.scheduler)
    loaded = time.monotonic()
    if args.seed is None and not args.quiet:
        print(f"seed {seed}", file=sys.stderr)
    results = []
    with _progress(args, total=args.steps * len(prompts)) as step_done:
        for index, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
            clip = _render(pipe, prompt, seed + index, keyscale, args, step_done)
            clip.save(output, force=args.force)
            result = _describe(clip, output)
            if index == 0 or prompt != prompts[index - 1]:
                _tell_lost_words(result, args)
            results.append(result)
            if not args.json:
                print(output, flush=True)
    if args.json:
        print(json.dumps(_summary(results, seed, loaded - began, time.monotonic() - began)))


def _render(
    pipe: "RiffPipeline",
    prompt: str,
    seed: int,
    keyscale: str | None,
    args: argparse.Namespace,
    step_done: Any,
) -> "Clip":
    return pipe(
        prompt,
        negative_prompt=args.negative,
        bpm=args.bpm,
        bars=args.bars,
        duration=args.duration,
        keyscale=keyscale,
        seed=seed,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
        quality=args.quality,
        callback_on_step_end=step_done,
    ).clips[0]


def _describe(clip: "Clip", output: Path) -> dict[str, Any]:
    return {
        "path": str(output),
        "prompt": clip.prompt,
        "seed": clip.seed,
        "bpm": clip.bpm,
        "duration_s": clip.duration,
        "ignored_words": list(clip.settings.get("ignored_words", ())),
        "dropped_words": list(clip.settings.get("dropped_words", ())),
    }


def _summary(results: list[dict[str, Any]], seed: int, load_s: float, total_s: float) -> dict[str, Any]:
    """The first result's facts, all paths, and every result by itself."""
    return {
        "paths": [result["path"] for result in results],
        "seed": seed,
        "bpm": results[0]["bpm"],
        "duration_s": results[0]["duration_s"],
        "ignored_words": list(dict.fromkeys(word for result in results for word in result["ignored_words"])),
        "dropped_words": list(dict.fromkeys(word for result in results for word in result["dropped_words"])),
        "seconds": round(total_s, 3),
        "load_seconds": round(load_s, 3),
        "clips": results,
    }


def _tell_lost_words(result: dict[str, Any], args: argparse.Namespace) -> None:
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
def _progress(args: argparse.Namespace, *, total: int) -> Iterator[Any]:
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

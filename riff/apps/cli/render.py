"""``riff render``: prompts become sound files or spectrogram pictures."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from riff.apps.cli.batch import add_list, check_no_list, run_prompts
from riff.apps.cli.options import (
    SUFFIXES,
    add_model_options,
    add_seed,
    check_outputs,
    check_prompt,
    check_stated_tempo,
    choose_seed,
    deliver,
    describe,
    load_pipeline,
    normalize_options,
    number,
    print_seed,
    progress,
    render_clip,
    warn_unknown_words,
)
from riff.utils.errors import RiffError
from riff.utils.validation import BPM_RANGE, MAX_SEED

TIMELINES = (".yaml", ".yml", ".json")
_EXAMPLES = """\
examples:
  riff render "lo-fi hip hop, mellow electric piano, 84 bpm" -o lofi.wav
  riff render "church bells" "a slow waltz for harp in A minor" --count 3 --seed 7 -o song.flac
  riff render "drum and bass, dark" --bars 4 --bpm 174 -o dnb.png
  riff render "funky disco, 118 bpm" --bars 4 --loop -o loop.wav
  riff render song.yaml -o song.wav      a timeline: prompts that change over time
  riff render --prompts list.txt -o clips/      one prompt per line; clips/index.html shows them all"""


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
    parser.add_argument(
        "prompts", nargs="*", metavar="PROMPT", help="what to play, as one quoted sentence, or a timeline file"
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE",
        help=f"{', '.join(SUFFIXES)} (the spectrogram); several results become FILE-0000, FILE-0001, ...",
    )  # fmt: skip
    add_list(parser)
    music = parser.add_argument_group("music")
    music.add_argument("--bpm", type=number(*BPM_RANGE), help="tempo; default the prompt's, or what suits it")
    music.add_argument("--key", metavar="KEY", help='for example "F# minor"')
    music.add_argument(
        "--key-tries", type=number(1, 16, whole=True), default=0, metavar="N",
        help="measure the key and draw up to N times until it is --key; the nearest is transposed at the last",
    )  # fmt: skip
    music.add_argument("--time", choices=["3/4", "4/4"], help="metre; default the prompt's, or what suits it")
    length = music.add_mutually_exclusive_group()
    length.add_argument("--bars", type=number(1, 512, whole=True), help="length in bars; default 2")
    length.add_argument("--duration", type=number(0.1, 600), metavar="SECONDS", help="length in seconds")
    music.add_argument("--loop", action="store_true", help="let the end lead back into the start, to the sample")
    music.add_argument("--negative", metavar="PROMPT", help="what to stay away from")
    music.add_argument("--count", type=number(1, 10000, whole=True), default=1, help="results per prompt")
    add_seed(music)
    add_model_options(parser)


def run(args: argparse.Namespace) -> None:
    """Render every prompt ``count`` times, each to its own file as soon as it is done."""
    if args.prompts_file is not None:
        normalize_options(args)
        return run_prompts(args)
    check_no_list(args)
    if any(Path(prompt).suffix.lower() in TIMELINES for prompt in args.prompts):
        return _run_timeline(args)
    began = time.monotonic()
    checked = [check_prompt(prompt) for prompt in args.prompts]
    for prompt in checked if args.bpm is None else ():
        check_stated_tempo(prompt)
    prompts = [prompt for prompt in checked for _ in range(args.count)]
    normalize_options(args)
    if args.key_tries and args.key is None:
        raise RiffError(f"--key-tries {args.key_tries} needs --key, the key to look for")
    seed = choose_seed(args)
    if seed + len(prompts) - 1 > MAX_SEED:
        raise RiffError(f"--seed {seed} leaves no room for {len(prompts)} results; use a smaller one")
    outputs = check_outputs(args.output, count=len(prompts), force=args.force)
    pipe = load_pipeline(args)
    loaded = time.monotonic()
    results = []
    with progress(args, total=args.steps * len(prompts)) as step_done:
        for index, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
            clip = render_clip(pipe, prompt, seed + index, args, step_done)
            clip.save(output, force=args.force, metadata=not args.no_metadata)
            result = describe(clip, output)
            if index == 0:
                print_seed(seed, args)
            if index == 0 or prompt != prompts[index - 1]:
                warn_unknown_words(result, args)
            results.append(result)
            if not args.json:
                print(output, flush=True)
    if args.json:
        print(json.dumps(_summary(results, seed, loaded - began, time.monotonic() - began)))


def _run_timeline(args: argparse.Namespace) -> None:
    """Render one timeline file."""
    began = time.monotonic()
    path = args.prompts[0]
    if len(args.prompts) > 1:
        raise RiffError(f"{len(args.prompts)} prompts were given with a timeline; render a timeline by itself")
    given = {"--bpm": args.bpm, "--key": args.key, "--bars": args.bars, "--duration": args.duration}
    given |= {
        "--negative": args.negative,
        "--loop": args.loop or None,
        "--key-tries": args.key_tries or None,
        "--time": args.time,
        "--count": None if args.count == 1 else args.count,
    }
    if wrong := [name for name, value in given.items() if value is not None]:
        raise RiffError(f"{', '.join(wrong)} cannot go with a timeline; write it into {path}")
    from riff.tasks.timeline import Timeline

    timeline = Timeline.load(path)
    own_seed = timeline.keyframes[0].seed if timeline.seed is None else timeline.seed
    if own_seed is not None and args.seed is not None:
        raise RiffError(f"--seed {args.seed} would change nothing, since {path} gives one; leave one of them out")
    if not args.lora and any(frame.lora_weight is not None for frame in timeline.keyframes):
        raise RiffError(f"{path} gives LoRA weights, but no LoRA is loaded; load one with --lora")
    (output,) = check_outputs(args.output, count=1, force=args.force)
    seed = choose_seed(args)
    pipe = load_pipeline(args)
    loaded = time.monotonic()
    with progress(args, total=args.steps) as step_done:
        clip = pipe.render(
            timeline,
            seed=seed,
            guidance_scale=args.guidance,
            num_inference_steps=args.steps,
            quality=args.quality,
            callback_on_step_end=step_done,
        )
        clip.save(output, force=args.force, metadata=not args.no_metadata)
    if own_seed is None:
        print_seed(seed, args)
    result = describe(clip, output)
    warn_unknown_words(result, args)
    print(json.dumps(_summary([result], clip.seed, loaded - began, time.monotonic() - began)) if args.json else output)


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


# WAS riff/cli/walk.py: ``riff walk``: from prompt to prompt on one canvas.

_EXAMPLES_WALK = """\
examples:
  riff walk "church bells" "techno" -o walk.wav --bars 32
  riff walk "lo-fi hip hop" "funk" "disco" --step 8 --bpm 100 -o set.flac"""


def add_verb_walk(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "walk",
        parents=[everywhere],
        help="go smoothly from prompt to prompt",
        description="Go from prompt to prompt with no join and every beat in its place. Prints the file's path.",
        epilog=_EXAMPLES_WALK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run_walk)
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="two stations or more")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=", ".join(SUFFIXES))
    music = parser.add_argument_group("music")
    length = music.add_mutually_exclusive_group()
    length.add_argument("--step", type=number(1, 256, whole=True), help="bars from a station to the next; default 8")
    length.add_argument("--bars", type=number(1, 512, whole=True), help="length of the whole in bars")
    music.add_argument("--bpm", type=number(*BPM_RANGE), help="one tempo; default each prompt's own, with a glide")
    music.add_argument("--key", metavar="KEY", help='for example "F# minor"')
    music.add_argument("--negative", metavar="PROMPT", help="what to stay away from")
    music.add_argument("--easing", choices=["linear", "smooth"], default="linear", help="of the way; default linear")
    music.add_argument(
        "--variation", type=number(0, 1), default=0.0,
        help="0 goes on with the same two bars as they change, 1 plays new ones; default 0",
    )  # fmt: skip
    music.add_argument("--loop", action="store_true", help="lead from the last station back to the first")
    add_seed(music)
    add_model_options(parser)


def run_walk(args: argparse.Namespace) -> None:
    """Draw the walk and save it."""
    prompts = [check_prompt(prompt) for prompt in args.prompts]
    normalize_options(args)
    for prompt in prompts if args.bpm is None else ():
        check_stated_tempo(prompt)
    if len(prompts) < 2:
        raise RiffError('a walk needs two prompts or more, for example: riff walk "church bells" "techno" -o walk.wav')
    (output,) = check_outputs(args.output, count=1, force=args.force)
    seed = choose_seed(args)
    pipe = load_pipeline(args)
    with progress(args, total=args.steps) as step_done:
        clip = pipe.walk(
            prompts,
            seed,
            bars_per_step=args.step,
            bars=args.bars,
            negative_prompt=args.negative,
            bpm=args.bpm,
            keyscale=args.key,
            guidance_scale=args.guidance,
            easing=args.easing,
            variation=args.variation,
            loop=args.loop,
            num_inference_steps=args.steps,
            quality=args.quality,
            callback_on_step_end=step_done,
        )
    deliver(clip, output, seed, args)

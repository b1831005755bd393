"""``riff render`` and ``riff walk``: prompts and timelines become sound files or spectrogram images."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from riff.apps.cli.batch import add_list, check_no_list, run_list
from riff.apps.cli.generate import (
    choose_seed,
    describe,
    generate,
    load_pipeline,
    print_seed,
    progress,
    run_one,
    steps_of,
    warn_unknown_words,
)
from riff.apps.cli.options import (
    add_command,
    add_field,
    add_loading_options,
    add_options,
    add_output,
    check_outputs,
    make_request,
    noted_warnings,
    number,
    utf8_text,
)
from riff.tasks.requests import RenderRequest, Sampling, TimelineRequest, WalkRequest
from riff.utils.errors import RiffError
from riff.utils.schema import describe_fields
from riff.utils.validation import MAX_SEED

TIMELINES = (".yaml", ".yml", ".json")
SAMPLING = ("num_inference_steps", "guidance_scale", "quality")
_EXAMPLES_RENDER = """\
  riff render "lo-fi hip hop, mellow electric piano, 84 bpm" -o lofi.wav
  riff render "church bells" "a slow waltz for harp in A minor" --count 3 --seed 7 -o song.flac
  riff render "drum and bass, dark" --bars 4 --bpm 174 -o dnb.png
  riff render "funky disco, 118 bpm" --bars 4 --loop -o loop.wav
  riff render song.yaml -o song.wav      a timeline: prompts that change over time
  riff render --prompts list.txt -o clips/      one prompt per line; clips/index.html shows them all"""
_EXAMPLES_WALK = """\
  riff walk "church bells" "techno" -o walk.wav --bars 32
  riff walk "lo-fi hip hop" "funk" "disco" --step 8 --bpm 100 -o set.flac"""


def add_render(verbs: Any) -> None:
    """Add ``riff render``."""
    parser = add_command(
        verbs,
        "render",
        run_render,
        help="make music from sentences",
        description="Make music from sentences. Prints the path of each file.",
        examples=_EXAMPLES_RENDER,
    )
    parser.add_argument(
        "prompts", nargs="*", metavar="PROMPT", help="what to play, as one quoted sentence, or a timeline file"
    )
    add_output(parser, more=" (the spectrogram); several results become FILE-0000, FILE-0001, ...")
    add_list(parser)
    music = parser.add_argument_group("music")
    add_options(music, RenderRequest, leave_out=SAMPLING)
    music.add_argument("--count", type=number(1, 10000, whole=True), default=1, help="results per prompt")
    add_model_options(parser)


def add_walk(verbs: Any) -> None:
    """Add ``riff walk``."""
    parser = add_command(
        verbs,
        "walk",
        run_walk,
        help="go smoothly from prompt to prompt",
        description="Go from prompt to prompt without a break and with every beat in its place. Prints the file's path.",  # noqa: E501
        examples=_EXAMPLES_WALK,
    )
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="two prompts or more")
    add_output(parser)
    add_options(parser.add_argument_group("music"), WalkRequest, leave_out=SAMPLING)
    add_model_options(parser)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The model, and how many steps it takes."""
    model = add_loading_options(parser)
    for field in describe_fields(RenderRequest):
        if field.name in SAMPLING:
            add_field(model, field)


def run_render(args: argparse.Namespace) -> None:
    """Render every prompt ``count`` times, or a timeline, each to its own file as soon as it is done."""
    if args.key_tries and args.key is None:
        raise RiffError(f"--key-tries {args.key_tries} needs --key, the key to look for")
    if args.list is not None:
        return run_list(args)
    check_no_list(args)
    began = time.monotonic()
    if any(Path(prompt).suffix.lower() in TIMELINES for prompt in args.prompts):
        requests: list[Sampling] = [_timeline_request(args)]
    else:
        seed, prompts = choose_seed(args), [utf8_text(prompt) for prompt in args.prompts for _ in range(args.count)]
        if seed + len(prompts) - 1 > MAX_SEED:
            raise RiffError(f"--seed {seed} leaves no room for {len(prompts)} results; use a smaller one")
        requests = [make_request(RenderRequest, args, prompt=each, seed=seed + n) for n, each in enumerate(prompts)]
    outputs = check_outputs(args.output, count=len(requests), force=args.force)
    pipe = load_pipeline(args)
    loaded = time.monotonic()
    results: list[dict[str, Any]] = []
    with progress(args, total=sum(map(steps_of, requests))) as bar:
        for request, output in zip(requests, outputs, strict=True):
            with noted_warnings() as noted:
                clip = generate(pipe, request, bar.callback(request.num_inference_steps))
                clip.save(output, overwrite=args.force, metadata=not args.no_metadata)
            result = describe(clip, output) | noted
            _print_result(result, args, first=not results or results[-1]["prompt"] != result["prompt"])
            results.append(result)
    if args.json:
        print(json.dumps(_summary(results, loaded - began, time.monotonic() - began)))


def _timeline_request(args: argparse.Namespace) -> TimelineRequest:
    """The request of the one timeline file; ``args.seed`` becomes the timeline's own, if it has one."""
    path = args.prompts[0]
    if len(args.prompts) > 1:
        raise RiffError(f"{len(args.prompts)} prompts were given with a timeline; render a timeline by itself")
    own = [field for field in describe_fields(RenderRequest) if field.name not in (*SAMPLING, "seed")]
    wrong = [field.flag for field in own if not field.required and getattr(args, field.name) != field.default]
    if args.count != 1:
        wrong.append("--count")
    if wrong:
        raise RiffError(f"{', '.join(wrong)} cannot go with a timeline; write it into {path}")
    from riff.tasks.timeline import Timeline

    timeline = Timeline.load(path)
    own_seed = timeline.keyframes[0].seed if timeline.seed is None else timeline.seed
    if own_seed is not None and args.seed is not None:
        raise RiffError(f"--seed {args.seed} would change nothing, since {path} gives one; leave one of them out")
    if not args.lora and any(frame.lora_weight is not None for frame in timeline.keyframes):
        raise RiffError(f"{path} gives LoRA weights, but no LoRA is loaded; load one with --lora")
    seed = choose_seed(args) if own_seed is None else own_seed
    args.seed = own_seed if args.seed is None else args.seed
    return make_request(TimelineRequest, args, timeline=timeline.to_dict(), seed=seed)


def _print_result(result: dict[str, Any], args: argparse.Namespace, *, first: bool) -> None:
    """Print a result's path, its seed, and on the ``first`` of a prompt the words that the model does not know."""
    several = len(args.prompts) * args.count > 1
    if several and not args.quiet:
        print(f"{Path(result['path']).name}: seed {result['seed']}", file=sys.stderr)
    elif not several:
        print_seed(result["seed"], args)
    if first:
        warn_unknown_words(result, args)
    if not args.json:
        print(result["path"], flush=True)


def _summary(results: list[dict[str, Any]], load_s: float, total_s: float) -> dict[str, Any]:
    """The first result's facts, all paths, and every result by itself."""
    return {
        "paths": [result["path"] for result in results],
        "seed": results[0]["seed"],
        "bpm": results[0]["bpm"],
        "duration_s": results[0]["duration_s"],
        "ignored_words": list(dict.fromkeys(word for result in results for word in result["ignored_words"])),
        "dropped_words": list(dict.fromkeys(word for result in results for word in result["dropped_words"])),
        "seconds": round(total_s, 3),
        "load_seconds": round(load_s, 3),
        "clips": results,
    }


def run_walk(args: argparse.Namespace) -> None:
    """Generate the walk and save it."""
    prompts = [utf8_text(prompt) for prompt in args.prompts]
    if len(prompts) < 2:
        raise RiffError('a walk needs two prompts or more, for example: riff walk "church bells" "techno" -o walk.wav')
    run_one(args, make_request(WalkRequest, args, prompts=prompts, seed=choose_seed(args)))

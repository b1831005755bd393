"""``riff walk``: from prompt to prompt on one canvas."""

import argparse
from typing import Any

from riff.checks import BPM_RANGE
from riff.cli.arguments import (
    SUFFIXES,
    check_outputs,
    check_prompt,
    check_stated_tempo,
    check_wishes,
    number,
)
from riff.cli.drawing import add_model_options, add_seed, choose_seed, deliver, load_pipeline, progress
from riff.errors import RiffError

_EXAMPLES = """\
examples:
  riff walk "church bells" "techno" -o walk.wav --bars 32
  riff walk "lo-fi hip hop" "funk" "disco" --step 8 --bpm 100 -o set.flac"""


def add_verb(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "walk",
        parents=[everywhere],
        help="go smoothly from prompt to prompt",
        description="Go from prompt to prompt with no join and every beat in its place. Prints the file's path.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
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


def run(args: argparse.Namespace) -> None:
    """Draw the walk and save it."""
    prompts = [check_prompt(prompt) for prompt in args.prompts]
    check_wishes(args)
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

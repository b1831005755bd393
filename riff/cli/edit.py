"""What the verbs that work on a recording share: its options, and the way from the call to the file."""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from riff.cli.arguments import BPM_RANGE, SUFFIXES, check_outputs, check_prompt, number
from riff.cli.drawing import (
    add_model_options,
    add_seed,
    choose_seed,
    describe,
    load_pipeline,
    progress,
    tell_lost_words,
)
from riff.errors import RiffError

if TYPE_CHECKING:
    from riff.pipeline import Clip, RiffPipeline


def add_edit_options(parser: argparse.ArgumentParser) -> Any:
    """Options of every verb that works on a recording; returns the group of the musical ones."""
    parser.add_argument("audio", metavar="AUDIO", help="a WAV, FLAC, OGG, MP3 or AIFF file")
    parser.add_argument("prompt", metavar="PROMPT", help="what to play, as one quoted sentence")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=", ".join(SUFFIXES))
    music = parser.add_argument_group("music")
    music.add_argument("--bpm", type=number(*BPM_RANGE), help="the recording's tempo; default found, or as riff wrote")
    music.add_argument(
        "--downbeat", type=number(0, 3600), metavar="SECONDS", help="a first beat of a bar; default found"
    )
    music.add_argument("--key", metavar="KEY", help='for example "F# minor"')
    music.add_argument("--negative", metavar="PROMPT", help="what to stay away from")
    add_seed(music)
    add_model_options(parser)
    return music


def edit(
    args: argparse.Namespace,
    draw: "Callable[[RiffPipeline, dict[str, Any]], Clip]",
    *,
    drawings: int = 1,
) -> None:
    """Check what was given, draw, and save.

    Args:
        args: the parsed words.
        draw: makes the clip from the pipeline and the options that all these verbs share.
        drawings: how many times the model goes through its steps.
    """
    check_prompt(args.prompt)
    seed = choose_seed(args)
    (output,) = check_outputs(args.output, count=1, force=args.force)
    _check_readable(args.audio)
    pipe = load_pipeline(args)
    with progress(args, total=args.steps * drawings) as step_done:
        options = {
            "bpm": args.bpm,
            "downbeat": args.downbeat,
            "keyscale": args.key,
            "negative_prompt": args.negative,
            "seed": seed,
            "num_inference_steps": args.steps,
            "guidance_scale": args.guidance,
            "quality": args.quality,
            "callback_on_step_end": step_done,
        }
        clip = draw(pipe, options)
        clip.save(output, force=args.force)
    result = describe(clip, output)
    tell_lost_words(result, args)
    print(json.dumps(result) if args.json else output)


def _check_readable(path: str) -> None:
    """A wrong file is named before a model is loaded."""
    from riff.audio import audio_seconds

    if audio_seconds(path) <= 0:
        raise RiffError(f"{path} holds no sound")

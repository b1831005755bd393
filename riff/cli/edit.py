"""What the verbs that work on a recording share: its options, and the way from the call to the file."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from riff.pipeline import Clip, RiffPipeline


# Sample rates that a format can hold; the others hold all that riff reads.
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
FLAC_MAX_RATE = 655_350


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
    until: float = 0.0,
    own_rate: bool = True,
) -> None:
    """Check what was given, draw, and save.

    Args:
        args: the parsed words.
        draw: makes the clip from the pipeline and the options that all these verbs share; it reads ``args.prompt``.
        drawings: how many times the model goes through its steps.
        until: seconds that the recording has at least.
        own_rate: whether the result has the recording's sample rate.
    """
    args.prompt = check_prompt(args.prompt)
    check_wishes(args)
    if args.bpm is None:
        check_stated_tempo(args.prompt)
    (output,) = check_outputs(args.output, count=1, force=args.force)
    _check_recording(args.audio, until, output if own_rate else None)
    seed = choose_seed(args)
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
    deliver(clip, output, seed, args)


def _check_recording(path: str, until: float, output: Path | None) -> None:
    """Name a wrong file, and a format that cannot hold its sample rate, before a model is loaded."""
    import soundfile

    from riff.audio import MAX_OGG_RATE, audio_seconds

    seconds = audio_seconds(path)
    if seconds <= 0:
        raise RiffError(f"{path} holds no sound; give a recording")
    if until > seconds + 0.1:  # the header of an MP3 may be off by a frame; the samples are looked at later
        raise RiffError(f"a part ends at {until:g} s, but {path} lasts {seconds:.4g} s; end it there or before")
    if output is None:
        return
    rate, suffix = soundfile.info(path).samplerate, output.suffix.lower()
    fits = {".mp3": rate in MP3_RATES, ".ogg": rate <= MAX_OGG_RATE, ".flac": rate <= FLAC_MAX_RATE}
    if not fits.get(suffix, True):
        raise RiffError(f"{path} has {rate} samples per second, which no {suffix} file can hold; write a .wav")

"""What the verbs that work on a recording share: its options, and the way from the call to the file."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.apps.cli.options import (
    SUFFIXES,
    add_model_options,
    add_seed,
    check_outputs,
    check_prompt,
    check_stated_tempo,
    choose_seed,
    deliver,
    load_pipeline,
    normalize_options,
    number,
    progress,
)
from riff.utils.errors import RiffError
from riff.utils.validation import BPM_RANGE

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline
    from riff.tasks.clip import Clip

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
    normalize_options(args)
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
    from riff.audio.io import MAX_OGG_RATE, audio_seconds
    from riff.audio.reader import open_sound

    seconds = audio_seconds(path)
    if seconds <= 0:
        raise RiffError(f"{path} holds no sound; give a recording")
    if until > seconds + 0.1:  # the header of an MP3 may be off by a frame; the samples are looked at later
        raise RiffError(f"a part ends at {until:g} s, but {path} lasts {seconds:.4g} s; end it there or before")
    if output is None:
        return
    with open_sound(path) as sound:
        rate, suffix = sound.sample_rate, output.suffix.lower()
    fits = {".mp3": rate in MP3_RATES, ".ogg": rate <= MAX_OGG_RATE, ".flac": rate <= FLAC_MAX_RATE}
    if not fits.get(suffix, True):
        raise RiffError(f"{path} has {rate} samples per second, which no {suffix} file can hold; write a .wav")


# WAS riff/cli/extend.py: ``riff extend``: a recording goes on.

_EXAMPLES_EXTEND = """\
examples:
  riff extend loop.wav "funk with a guitar solo" --bars 8 -o longer.wav"""


def add_verb_extend(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "extend",
        parents=[everywhere],
        help="let a recording go on",
        description="Let a recording go on; what there was stays as it is, sample for sample. Prints the file's path.",
        epilog=_EXAMPLES_EXTEND,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run_extend)
    music = add_edit_options(parser)
    music.add_argument("--bars", type=number(1, 512, whole=True), default=8, help="how much is new; default 8")


def run_extend(args: argparse.Namespace) -> None:
    """Draw what follows and save the whole."""
    edit(args, lambda pipe, options: pipe.extend(args.audio, args.prompt, bars=args.bars, **options))


# WAS riff/cli/inpaint.py: ``riff inpaint``: parts of a recording replaced.

_EXAMPLES_INPAINT = """\
examples:
  riff inpaint song.wav "drum fill" --seconds 7.5 9.5 -o filled.wav
  riff inpaint loop.wav "flute melody" --bars 2 4 --bars 6 8 -o flute.wav
  riff inpaint song.wav "deep sub bass" --seconds 0 8 --high 200 -o bass.wav"""


def add_verb_inpaint(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "inpaint",
        parents=[everywhere],
        help="replace parts of a recording",
        description="Replace parts of a recording; the rest stays as it is, sample for sample. Prints the file's path.",
        epilog=_EXAMPLES_INPAINT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run_inpaint)
    music = add_edit_options(parser)
    place = {"action": "append", "nargs": 2, "default": [], "metavar": ("START", "END")}
    music.add_argument("--seconds", type=number(0, 86400), help="a part to replace; repeatable", **place)
    music.add_argument("--bars", type=number(0, 100000), help="the same in bars, 0 is the first; repeatable", **place)
    music.add_argument("--low", type=number(0, 400000), metavar="HZ", help="replace only what lies above")
    music.add_argument("--high", type=number(1, 400000), metavar="HZ", help="replace only what lies below")


def run_inpaint(args: argparse.Namespace) -> None:
    """Draw the parts and save the whole."""
    if bool(args.seconds) == bool(args.bars):
        raise RiffError("say what to replace: --seconds START END or --bars START END, one kind, as often as needed")
    if wrong := [pair for pair in args.seconds + args.bars if pair[0] >= pair[1]]:
        raise RiffError(f"a part from {wrong[0][0]:g} to {wrong[0][1]:g} is empty; END comes after START")
    if args.low is not None and args.high is not None and args.low >= args.high:
        raise RiffError(f"--low {args.low:g} is not below --high {args.high:g}; nothing would be replaced")
    edit(
        args,
        lambda pipe, options: pipe.inpaint(
            args.audio,
            args.prompt,
            mask_start_seconds=_side(args.seconds, 0),
            mask_end_seconds=_side(args.seconds, 1),
            mask_start_bar=_side(args.bars, 0),
            mask_end_bar=_side(args.bars, 1),
            low_hz=args.low,
            high_hz=args.high,
            **options,
        ),
        drawings=len(args.seconds or args.bars),
        until=max((pair[1] for pair in args.seconds), default=0.0),
    )


def _side(pairs: list[list[float]], index: int) -> list[float] | None:
    return [pair[index] for pair in pairs] or None


# WAS riff/cli/remix.py: ``riff remix``: a recording played anew.

_EXAMPLES_REMIX = """\
examples:
  riff remix song.mp3 "church organ" -o organ.wav
  riff remix loop.wav "funky slap bass" --strength 0.75 --bpm 96 -o bass.wav
  riff remix song.mp3 "brushed jazz drums" --stems drums -o brushed.wav"""


def add_verb_remix(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "remix",
        parents=[everywhere],
        help="play a recording anew, as a prompt says",
        description="Play a recording anew, on its own beats and as long as it is. Prints the file's path.",
        epilog=_EXAMPLES_REMIX,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run_remix)
    music = add_edit_options(parser)
    music.add_argument("--strength", type=number(0, 1), default=0.6, help="0 as it is, 1 all new; default 0.6")
    music.add_argument(
        "--stems", metavar="NAMES", help="play only these anew: drums, bass, other, vocals, with commas between them"
    )


def run_remix(args: argparse.Namespace) -> None:
    """Draw the recording anew and save it."""
    stems = None if args.stems is None else _stems(args.stems)
    edit(
        args,
        lambda pipe, options: pipe.remix(args.audio, args.prompt, strength=args.strength, stems=stems, **options),
        own_rate=False,
    )


def _stems(names: str) -> list[str]:
    """The stems that were typed, known ones, and something there to separate them."""
    from riff.tasks.stems import check_demucs, check_stems

    stems = list(check_stems([name.strip() for name in names.split(",")]))
    check_demucs()
    return stems

"""``riff remix``, ``riff extend`` and ``riff inpaint``: a recording is played in another way, goes on, or has parts replaced."""  # noqa: E501

import argparse
from pathlib import Path
from typing import Any

from riff.apps.cli.generate import choose_seed, run_one
from riff.apps.cli.options import (
    add_command,
    add_options,
    add_output,
    check_outputs,
    make_request,
    reader_of,
    utf8_text,
)
from riff.apps.cli.render import SAMPLING, add_model_options
from riff.tasks.requests import EditRequest, ExtendRequest, InpaintRequest, RemixRequest
from riff.utils.errors import RiffError

# Sample rates that a format can hold; the others hold all that riff reads.
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
FLAC_MAX_RATE = 655_350
_EXAMPLES_REMIX = """\
  riff remix song.mp3 "church organ" -o organ.wav
  riff remix loop.wav "funky slap bass" --strength 0.75 --bpm 96 -o bass.wav
  riff remix song.mp3 "brushed jazz drums" --stems drums -o brushed.wav"""
_EXAMPLES_EXTEND = """\
  riff extend loop.wav "funk with a guitar solo" --bars 8 -o longer.wav"""
_EXAMPLES_INPAINT = """\
  riff inpaint song.wav "drum fill" --seconds 7.5 9.5 -o filled.wav
  riff inpaint loop.wav "flute melody" --bars 2 4 --bars 6 8 -o flute.wav
  riff inpaint song.wav "deep sub bass" --seconds 0 8 --high 200 -o bass.wav"""


def add_remix(verbs: Any) -> None:
    """Add ``riff remix``."""
    parser = add_command(
        verbs,
        "remix",
        run_remix,
        help="play a recording in another way, as a prompt says",
        description="Play a recording in another way, on its own beats and as long as it is. Prints the file's path.",
        examples=_EXAMPLES_REMIX,
    )
    _add_edit_options(parser, RemixRequest)


def add_extend(verbs: Any) -> None:
    """Add ``riff extend``."""
    parser = add_command(
        verbs,
        "extend",
        run_extend,
        help="let a recording go on",
        description="Let a recording go on; what there was stays as it is, sample for sample. Prints the file's path.",
        examples=_EXAMPLES_EXTEND,
    )
    _add_edit_options(parser, ExtendRequest)


def add_inpaint(verbs: Any) -> None:
    """Add ``riff inpaint``."""
    parser = add_command(
        verbs,
        "inpaint",
        run_inpaint,
        help="replace parts of a recording",
        description="Replace parts of a recording; the rest stays as it is, sample for sample. Prints the file's path.",
        examples=_EXAMPLES_INPAINT,
    )
    music = _add_edit_options(parser, InpaintRequest)
    for flag, name, text in (
        ("--seconds", "mask_start_seconds", "a part to replace; repeatable"),
        ("--bars", "mask_start_bar", "the same in bars, 0 is the first; repeatable"),
    ):
        music.add_argument(
            flag, type=reader_of(InpaintRequest, name), action="append", nargs=2, default=[], metavar=("START", "END"), help=text  # noqa: E501
        )  # fmt: skip


def _add_edit_options(parser: argparse.ArgumentParser, request: type[EditRequest]) -> Any:
    """Options of every verb that works on a recording; returns the group of the musical ones."""
    parser.add_argument("audio", metavar="AUDIO", help="a sound file")
    parser.add_argument("prompt", metavar="PROMPT", help="what to play, as one quoted sentence")
    add_output(parser)
    music = parser.add_argument_group("music")
    add_options(music, request, leave_out=SAMPLING)
    add_model_options(parser)
    return music


def run_remix(args: argparse.Namespace) -> None:
    """Remix the recording and save it."""
    if args.stems is not None:
        from riff.tasks.stems import check_demucs, check_stems

        args.stems = list(check_stems(args.stems))
        check_demucs()
    _run(args, RemixRequest, own_rate=False)


def run_extend(args: argparse.Namespace) -> None:
    """Extend the recording and save the whole."""
    _run(args, ExtendRequest)


def run_inpaint(args: argparse.Namespace) -> None:
    """Replace the parts and save the whole."""
    parts = args.seconds + args.bars
    if bool(args.seconds) == bool(args.bars):
        raise RiffError("say what to replace: --seconds START END or --bars START END, one kind, as often as needed")
    if wrong := [pair for pair in parts if pair[0] >= pair[1]]:
        raise RiffError(f"a part from {wrong[0][0]:g} to {wrong[0][1]:g} is empty; END comes after START")
    if args.low_hz is not None and args.high_hz is not None and args.low_hz >= args.high_hz:
        raise RiffError(f"--low {args.low_hz:g} is not below --high {args.high_hz:g}; nothing would be replaced")
    unit = "seconds" if args.seconds else "bar"
    places = {f"mask_start_{unit}": [start for start, _ in parts], f"mask_end_{unit}": [end for _, end in parts]}
    until = max((end for _, end in args.seconds), default=0.0)
    _run(args, InpaintRequest, parts=len(parts), until=until, places=places)


def _run(
    args: argparse.Namespace,
    cls: type[EditRequest],
    *,
    parts: int = 1,
    until: float = 0.0,
    own_rate: bool = True,
    places: dict[str, Any] | None = None,
) -> None:
    """Check what was given, edit, and save.

    Args:
        args: the command's options.
        cls: what is done.
        parts: how many times the model goes through its steps.
        until: seconds that the recording has at least.
        own_rate: whether the result has the recording's sample rate.
        places: fields of the request that are no options of their own.
    """
    request = make_request(cls, args, prompt=utf8_text(args.prompt), seed=choose_seed(args), **places or {})
    (output,) = check_outputs(args.output, count=1, force=args.force)
    _check_recording(args.audio, until, output if own_rate else None)
    run_one(args, request, parts=parts, audio=args.audio)


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

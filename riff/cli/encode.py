"""``riff encode``: sounds become spectrogram pictures."""

import argparse
import dataclasses
import random
from pathlib import Path
from typing import Any

from riff.checks import BPM_RANGE
from riff.cli.arguments import SOUND_SUFFIXES, number
from riff.cli.batch import add_files, run_batch
from riff.config import SpectrogramConfig
from riff.errors import RiffError

READS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
_EXAMPLES = """\
examples:
  riff encode song.mp3 -o song.png
  riff encode loop.wav --bpm 96 -o loop.png          columns are fractions of a beat
  riff encode music/ --preset riffusion -o pictures/  as Riffusion draws them
  riff encode music/ --clips 5 --duration 5.12 --format wav -o clips/   sounds cut at random places"""


def add_verb(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "encode",
        parents=[everywhere],
        help="turn sounds into spectrogram pictures",
        description="Draw sounds as spectrogram pictures that say themselves how to play them. Prints each path.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    add_files(parser, "AUDIO", "a .png")
    parser.add_argument("--preset", choices=["riff", "riffusion"], default="riff", help="geometry; default riff's own")
    parser.add_argument("--bpm", type=number(*BPM_RANGE), help="cut columns on the beat at this tempo (preset riff)")
    parser.add_argument("--stereo", action="store_true", help="two channels; default one")
    parser.add_argument("--start", type=number(0, 86400), default=0.0, metavar="SECONDS", help="leave out the start")
    parser.add_argument("--duration", type=number(0.05, 3600), metavar="SECONDS", help="default up to the end")
    parser.add_argument("--clips", type=number(1, 10000, whole=True), help="so many of --duration from random places")
    parser.add_argument("--seed", type=number(0, 2**63 - 1, whole=True), default=0, help="of those places; default 0")
    formats = ["png", *(suffix[1:] for suffix in SOUND_SUFFIXES)]
    parser.add_argument("--format", choices=formats, default="png", help="of results in a folder; default png")


def run(args: argparse.Namespace) -> None:
    """Draw every input, or cut it."""
    config = _config(args)
    args.suffix = f".{args.format}"
    if args.clips and not args.duration:
        raise RiffError(f"--clips {args.clips} needs --duration, the length of each in seconds")

    def work(source: Path, target: Path, force: bool, number: int) -> dict[str, Any]:
        from riff.audio import audio_seconds, load_audio, save_audio
        from riff.codec import SpectrogramCodec
        from riff.image import write_png
        from riff.provenance import handed_on, sound_tags
        from riff.recipe import read_made

        start = args.start
        if args.clips:
            room = audio_seconds(source) - start - args.duration
            if room < 0:
                raise RiffError(f"{source} is shorter than --start and --duration together; use a smaller --duration")
            start += random.Random(f"{args.seed} {source.name} {number}").uniform(0.0, room)
        sound, _ = load_audio(
            source, sample_rate=config.sample_rate, channels=config.channels, start=start, duration=args.duration
        )
        facts = {"start_s": round(start, 3), "duration_s": sound.shape[-1] / config.sample_rate}
        made = handed_on(read_made(source), "encode")
        if target.suffix.lower() != ".png":
            save_audio(target, sound, config.sample_rate, metadata=sound_tags(made) if made else None, force=force)
            return facts
        encoded = SpectrogramCodec(config).encode(sound, bpm=args.bpm)
        told = made | encoded.metadata | {"source": source.name}
        write_png(target, encoded.image, config, metadata=told, force=force)
        return facts | {"columns": encoded.image.shape[-1]}

    run_batch(args, work, reads=READS, writes=(".png",), copies=args.clips)


def _config(args: argparse.Namespace) -> SpectrogramConfig:
    channels = 2 if args.stereo else 1
    if args.preset == "riffusion":
        if args.bpm is not None:
            raise RiffError(
                "--bpm has no place in Riffusion's pictures, whose columns are 10 ms; leave out one of them"
            )
        return SpectrogramConfig.riffusion(stereo=args.stereo)
    own = SpectrogramConfig(channels=channels)
    return own if args.bpm is not None else dataclasses.replace(own, grid="seconds")

"""``riff prepare``: a folder of music becomes a data set to train on."""

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

from riff.apps.cli.batch import add_engine, check_engine
from riff.apps.cli.options import add_command, number, options_of
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from riff.train.data.settings import PrepareSettings

_EXAMPLES = """\
  riff prepare music/ dataset/                          two bars a clip, captions from files beside the music
  riff prepare music/ dataset/ --caption auto           captions made from what is measured in the sound
  riff prepare music/ dataset/ --caption "zigzag style" the same words for all
  riff prepare music/ dataset/ --preset riffusion       as Riffusion v1 was trained
  riff prepare hf:me/my-music dataset/ --shards         a data set of Hugging Face's, packed in Parquet
  riff prepare s3://me/music s3://me/dataset --engine ray --address head:6379    on a cluster

captions are taken from name.txt beside name.wav, metadata.jsonl, .csv or .parquet (file_name, text), and the file's
own tags, the first of them that there is. A second run does only what is missing."""


def add_prepare(verbs: Any) -> None:
    """Add ``riff prepare``."""
    parser = add_command(
        verbs,
        "prepare",
        run_prepare,
        help="turn a folder of music into a data set to train on",
        description="Cut music into clips, caption them and turn them into spectrogram images. Prints the folder.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "music", metavar="MUSIC",
        help="a folder, a sound file, or hf:NAME for a data set of datasets; with --engine ray also a URL of fsspec's",
    )  # fmt: skip
    parser.add_argument("dataset", metavar="DATASET", help="the folder to make, or to go on with; as MUSIC")
    _add_clips(parser)
    _add_words(parser)
    parser.add_argument("--validation", type=number(0, 0.9), default=0.1, metavar="SHARE", help="held out; default 0.1")
    parser.add_argument("--shards", action="store_true", help="pack the clips in Parquet; default folders of PNG")
    parser.add_argument("--workers", type=number(0, 1024, whole=True), help="processes; default one a core")
    add_engine(parser)
    parser.add_argument("--force", action="store_true", help="replace it if it was made with other settings")


def _add_clips(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=["riff", "riffusion"], default="riff", help="geometry; default riff's own")
    parser.add_argument("--model", metavar="CHECKPOINT", help="the geometry of this checkpoint")
    parser.add_argument("--grid", choices=["beats", "seconds"], help="cut bars or seconds; default the geometry's")
    parser.add_argument("--bars", type=number(1, 64, whole=True), help="in a clip; default 2, as the model generates")
    parser.add_argument("--beats-per-bar", type=int, choices=[3, 4], help="default by a file's words, else 4")
    parser.add_argument(
        "--overlap", type=number(0, 0.9), default=0.0, metavar="SHARE", help="of a clip that the next one repeats"
    )
    parser.add_argument(
        "--unsteady", choices=["skip", "keep", "seconds"], default="skip",
        help="clips without a steady beat: leave out (default), cut all the same, or cut on an even grid",
    )  # fmt: skip
    parser.add_argument(
        "--min-loudness", type=number(-120, 0), default=-50.0, metavar="DB",
        help="clips below this level are silent and left out; default -50 dB of full scale",
    )  # fmt: skip
    parser.add_argument("--keep-level", dest="level", action="store_false", help="leave clips as loud as they are")
    parser.add_argument(
        "--keep-duplicates", dest="duplicates", action="store_true", help="keep clips that are nearly copies of others"
    )
    parser.add_argument("--stereo", action="store_true", help="two channels; default one, or as --model has")


def _add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--caption", action="append", default=[], metavar="TEXT|auto",
        help="words for all clips, before those of each file; auto adds what is measured in the sound; may be given twice",  # noqa: E501
    )  # fmt: skip
    parser.add_argument(
        "--clap", nargs="?", const="laion/larger_clap_music", metavar="MODEL",
        help="also genre, instrument and mood by CLAP: a folder with one, or its name in the local cache",
    )  # fmt: skip
    parser.add_argument(
        "--no-tags", dest="tags", action="store_false", help="do not caption by title, artist and genre in the file"
    )
    parser.add_argument("--text-column", metavar="NAME", help="of the captions in tables and data sets")


def run_prepare(args: argparse.Namespace) -> None:
    """Make the data set and print its folder; a summary goes to stderr."""
    check_engine(args)
    settings = _settings(args)

    from riff.train.data.prepare import prepare
    from riff.train.data.ray import prepare_on_ray

    how: dict[str, Any] = {"workers": args.workers, "force": args.force, "progress": not args.quiet}
    if args.engine == "ray":
        report = prepare_on_ray(args.music, args.dataset, settings, address=args.address, **how)
    else:
        report = prepare(args.music, args.dataset, settings, **how)
    if args.json:
        print(json.dumps(report.to_dict()))
        return
    print(args.dataset)
    if not args.quiet:
        for line in report.lines():
            print(line if line.isprintable() else repr(line), file=sys.stderr)


def _settings(args: argparse.Namespace) -> "PrepareSettings":
    config = _config(args)
    words = [text for text in args.caption if text != "auto"]
    if len(words) > 1:
        raise RiffError(f"--caption has several texts ({words[0]!r}, {words[1]!r}); put them into one")

    from riff.train.data.settings import PrepareSettings

    return PrepareSettings(
        **options_of(PrepareSettings, args)
        | {"config": config, "caption": "".join(words), "auto": "auto" in args.caption}
    )


def _config(args: argparse.Namespace) -> SpectrogramConfig:
    if args.model is not None:
        from riff.diffusion.hub import locate

        if args.preset != "riff":
            raise RiffError("--model and --preset both give the geometry; leave out one of them")
        path = locate(args.model)
        config = SpectrogramConfig.load(path if path.is_dir() else path.parent)
        if args.stereo and config.channels == 1:
            raise RiffError(f"--stereo: {args.model} has one channel; leave it out, or choose a stereo checkpoint")
    elif args.preset == "riffusion":
        config = SpectrogramConfig.riffusion(stereo=args.stereo)
    else:
        config = SpectrogramConfig(channels=2 if args.stereo else 1)
    if args.grid == "beats" and config.grid == "seconds":
        raise RiffError("--grid beats has no place in images whose columns are seconds; use --grid seconds")
    return config if args.grid is None else dataclasses.replace(config, grid=args.grid)

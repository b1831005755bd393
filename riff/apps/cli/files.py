"""One input to one output, or many to a folder: a bad file is named and passed over, a finished one is not redone."""

import argparse
import dataclasses
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from riff.apps.cli.options import QUALITIES, SOUND_SUFFIXES, number
from riff.audio.formats import SUFFIXES as READS_ENCODE
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.validation import BPM_RANGE

# Does one piece of work: input, output, whether the output may be replaced, and which of an input's results it is.
# Returns facts about the result.
Work = Callable[[Path, Path, bool, int], dict[str, Any]]


def add_files(parser: argparse.ArgumentParser, kind: str, result: str) -> None:
    """Add the arguments that say what is read and where the results go."""
    parser.add_argument("inputs", nargs="+", metavar=kind, help="files, or folders that are searched for such files")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help=f"{result}, or a folder for the results of many inputs"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist; else a folder's are kept")


def run_batch(
    args: argparse.Namespace, work: Work, *, reads: tuple[str, ...], writes: tuple[str, ...], copies: int | None = None
) -> None:
    """Work through the inputs and print each result's path.

    Args:
        args: parsed arguments with those of :func:`add_files`; ``args.suffix`` is that of results in a folder.
        work: see :data:`Work`.
        reads: suffixes that are looked for in folders.
        writes: suffixes that a single result may have.
        copies: results per input, all into a folder; None is one, wherever.

    Raises:
        RiffError: wrong arguments, or some inputs could not be used; the others are done all the same.
    """
    inputs, output = _find(args.inputs, reads), Path(args.output)
    single = copies is None and len(inputs) == 1 and output.suffix.lower() in writes and not output.is_dir()
    if single:
        outputs = [output]
    else:
        if output.suffix and not output.is_dir():
            allowed = f"a folder, or for one result one of {', '.join(writes)}"
            raise RiffError(f"-o {output} has the suffix {output.suffix!r}; give {allowed}")
        outputs = _names(inputs, output, args.suffix, copies)
        inputs = [source for source in inputs for _ in range(copies or 1)]
        output.mkdir(parents=True, exist_ok=True)
    results, problems, kept = [], [], 0
    for place, (source, target) in enumerate(zip(inputs, outputs, strict=True)):
        if not single and target.exists() and not args.force:
            kept += 1
            continue
        try:
            results.append(
                {"path": str(target), "from": str(source), **work(source, target, args.force, place % (copies or 1))}
            )
        except SystemProblem:
            raise
        except RiffError as error:
            if single:
                raise
            problems.append(f"{source}: {error}")
            continue
        if not args.json:
            print(target, flush=True)
    if args.json:
        print(json.dumps({"results": results, "kept": kept, "problems": problems}))
    elif kept and not args.quiet:
        print(f"kept {kept} that were there already (--force makes them anew)", file=sys.stderr)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RiffError(f"{len(problems)} of {len(inputs)} inputs could not be used: {problems[0]}{more}")


def _find(inputs: list[str], suffixes: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes)
            if not inside:
                raise RiffError(f"{path} holds no file with one of the suffixes {', '.join(suffixes)}")
            found += inside
        else:
            found.append(path)
    return found


def _names(inputs: list[Path], folder: Path, suffix: str, copies: int | None) -> list[Path]:
    """Names in ``folder`` for each input's results; inputs of one name from different folders are numbered apart."""
    names: list[Path] = []
    taken: set[str] = set()
    for source in inputs:
        stem, number = source.stem, 1
        while stem in taken:
            number += 1
            stem = f"{source.stem}-{number}"
        taken.add(stem)
        ends = [suffix] if copies is None else [f"-{copy:04d}{suffix}" for copy in range(copies)]
        names += [folder / f"{stem}{end}" for end in ends]
    return names


# WAS riff/cli/convert.py: ``riff convert``: a legacy checkpoint becomes safetensors.


def add_verb_convert(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "convert",
        parents=[everywhere],
        help="turn a .bin checkpoint into safetensors",
        description="Read a legacy .bin checkpoint with torch's weights_only reader, check every tensor, and "
        "write it as safetensors with its spectrogram_config.json.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run_convert)
    parser.add_argument("source", metavar="SRC", help="a folder in the layout of Stable Diffusion")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to create")
    parser.add_argument("--force", action="store_true", help="replace DIR if it exists")


def run_convert(args: argparse.Namespace) -> None:
    """Convert, and print the new folder."""
    from riff.diffusion.checkpoint import convert_checkpoint

    folder = convert_checkpoint(args.source, args.output, force=args.force)
    print(json.dumps({"path": str(folder)}) if args.json else folder)


# WAS riff/cli/decode.py: ``riff decode``: spectrogram pictures become sound.

READS_DECODE = (".png", ".jpg", ".jpeg", ".webp")
_EXAMPLES_DECODE = """\
examples:
  riff decode song.png -o song.wav
  riff decode og_beat.png --preset riffusion --quality best -o beat.flac
  riff decode pictures/ --format mp3 -o sounds/"""


def add_verb_decode(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "decode",
        parents=[everywhere],
        help="turn spectrogram pictures into sound",
        description="Play spectrogram pictures: riff's, Riffusion's, or any that is as high as its preset says. "
        "Prints each path.",
        epilog=_EXAMPLES_DECODE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run_decode)
    add_files(parser, "PICTURE", ", ".join(SOUND_SUFFIXES))
    parser.add_argument("--preset", choices=["riff", "riffusion"], help="what the picture is, whatever it says itself")
    parser.add_argument(
        "--bpm", type=number(*BPM_RANGE), help="tempo, on the beats grid; default what the picture says"
    )
    parser.add_argument("--quality", choices=QUALITIES, default="default", help="how much work; default 'default'")
    parser.add_argument("--loop", action="store_true", help="let the end lead back into the start")
    parser.add_argument("--seed", type=number(0, 2**63 - 1, whole=True), default=0, help="of the phases; default 0")
    formats = [suffix[1:] for suffix in SOUND_SUFFIXES]
    parser.add_argument("--format", choices=formats, default="wav", help="of sounds in a folder; default wav")


def run_decode(args: argparse.Namespace) -> None:
    """Play every input."""
    args.suffix = f".{args.format}"

    def work(source: Path, target: Path, force: bool, _: int) -> dict[str, Any]:
        import torch

        from riff.audio.io import save_audio
        from riff.audio.tags import MACHINE_MADE
        from riff.spectrogram.codec import Encoded, SpectrogramCodec
        from riff.spectrogram.png import read_png
        from riff.tasks.provenance import handed_on, sound_tags

        image, config, made = read_png(source)
        config = _config_decode(config, args.preset)
        found = Encoded.read(image, config, made, bpm=args.bpm, name=str(source))
        if config.grid == "beats" and found.bpm is None:
            raise RiffError(f"{source} lies on the beats grid and does not say its tempo; give --bpm")
        waveform = SpectrogramCodec(config).decode(
            image,
            bpm=found.bpm,
            max_value=found.max_value,
            quality=args.quality,
            loop=args.loop,
            generator=torch.Generator().manual_seed(args.seed),
        )
        tags = sound_tags(handed_on(made, "decode")) if made.get("origin") == MACHINE_MADE else None
        save_audio(target, waveform, config.sample_rate, metadata=tags, force=force)
        bpm = found.bpm
        first = bpm if bpm is None or isinstance(bpm, float) else float(bpm.bpm_at(0.0))
        return {"duration_s": waveform.shape[-1] / config.sample_rate, "bpm": first}

    run_batch(args, work, reads=READS_DECODE, writes=SOUND_SUFFIXES)


def _config_decode(found: "SpectrogramConfig", preset: str | None) -> "SpectrogramConfig":
    """The picture's own config, or the preset's with as many mels and channels as the picture has."""
    if preset is None:
        return found
    own = type(found).riffusion(stereo=found.channels == 2) if preset == "riffusion" else type(found)()
    return dataclasses.replace(own, n_mels=found.n_mels, channels=found.channels)


# WAS riff/cli/encode.py: ``riff encode``: sounds become spectrogram pictures.

_EXAMPLES_ENCODE = """\
examples:
  riff encode song.mp3 -o song.png
  riff encode loop.wav --bpm 96 -o loop.png          columns are fractions of a beat
  riff encode music/ --preset riffusion -o pictures/  as Riffusion draws them
  riff encode music/ --clips 5 --duration 5.12 --format wav -o clips/   sounds cut at random places"""


def add_verb_encode(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "encode",
        parents=[everywhere],
        help="turn sounds into spectrogram pictures",
        description="Draw sounds as spectrogram pictures that say themselves how to play them. Prints each path.",
        epilog=_EXAMPLES_ENCODE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run_encode)
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


def run_encode(args: argparse.Namespace) -> None:
    """Draw every input, or cut it."""
    config = _config_encode(args)
    args.suffix = f".{args.format}"
    if args.clips and not args.duration:
        raise RiffError(f"--clips {args.clips} needs --duration, the length of each in seconds")

    def work(source: Path, target: Path, force: bool, number: int) -> dict[str, Any]:
        from riff.audio.io import audio_seconds, load_audio, save_audio
        from riff.spectrogram.codec import SpectrogramCodec
        from riff.spectrogram.png import write_png
        from riff.tasks.provenance import handed_on, read_made, sound_tags

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

    run_batch(args, work, reads=READS_ENCODE, writes=(".png",), copies=args.clips)


def _config_encode(args: argparse.Namespace) -> SpectrogramConfig:
    channels = 2 if args.stereo else 1
    if args.preset == "riffusion":
        if args.bpm is not None:
            raise RiffError(
                "--bpm has no place in Riffusion's pictures, whose columns are 10 ms; leave out one of them"
            )
        return SpectrogramConfig.riffusion(stereo=args.stereo)
    own = SpectrogramConfig(channels=channels)
    return own if args.bpm is not None else dataclasses.replace(own, grid="seconds")

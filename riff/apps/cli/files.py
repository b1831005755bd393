"""``riff encode``, ``riff decode`` and ``riff convert``: one input to one output, or many to a folder.

In a folder a bad file is named and passed over, and a finished one is not made again.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from riff.apps.cli.options import (
    MOST_PROBLEMS,
    QUALITIES,
    SOUND_SUFFIXES,
    add_command,
    line_problem,
    noted_warnings,
    number,
    reader_of,
    shell_text,
)
from riff.audio.formats import SUFFIXES as SOUNDS
from riff.spectrogram.config import SpectrogramConfig
from riff.tasks.requests import RenderRequest
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import is_leftover, make_folder, remove_leftovers

# Reads an input, of which it makes the result with this number; returns facts about the result, and what writes it.
Read = Callable[[Path, int], tuple[dict[str, Any], Callable[[Path, bool], Any]]]

IMAGES = (".png", ".jpg", ".jpeg", ".webp")
_EXAMPLES_ENCODE = """\
  riff encode song.mp3 -o song.png
  riff encode loop.wav --bpm 96 -o loop.png          columns are fractions of a beat
  riff encode music/ --preset riffusion -o images/   as Riffusion makes them
  riff encode music/ --clips 5 --duration 5.12 --format wav -o clips/   sounds cut at random places"""
_EXAMPLES_DECODE = """\
  riff decode song.png -o song.wav
  riff decode og_beat.png --preset riffusion --quality best -o beat.flac
  riff decode images/ --format mp3 -o sounds/"""


def add_encode(verbs: Any) -> None:
    """Add ``riff encode``."""
    parser = add_command(
        verbs,
        "encode",
        run_encode,
        help="turn sounds into spectrogram images",
        description="Turn sounds into spectrogram images, which hold how they are turned back. Prints each path.",
        examples=_EXAMPLES_ENCODE,
    )
    _add_files(parser, "SOUND", ".png")
    parser.add_argument("--preset", choices=["riff", "riffusion"], default="riff", help="geometry; default riff's own")
    parser.add_argument(
        "--bpm", type=reader_of(RenderRequest, "bpm"), help="cut columns on the beat at this tempo (preset riff)"
    )
    parser.add_argument("--stereo", action="store_true", help="two channels; default one")
    parser.add_argument("--start", type=number(0, 86400), default=0.0, metavar="SECONDS", help="leave out the start")
    parser.add_argument("--duration", type=number(0.05, 3600), metavar="SECONDS", help="default up to the end")
    parser.add_argument("--clips", type=number(1, 10000, whole=True), help="so many of --duration from random places")
    parser.add_argument("--seed", type=reader_of(RenderRequest, "seed"), help="of those places; default 0")
    formats = ["png", *(suffix[1:] for suffix in SOUND_SUFFIXES)]
    parser.add_argument("--format", choices=formats, help="of results in a folder; default png")


def add_decode(verbs: Any) -> None:
    """Add ``riff decode``."""
    parser = add_command(
        verbs,
        "decode",
        run_decode,
        help="turn spectrogram images into sound",
        description="Play spectrogram images: riff's, Riffusion's, or any that is as high as its preset says. "
        "Prints each path.",
        examples=_EXAMPLES_DECODE,
    )
    _add_files(parser, "IMAGE", ", ".join(SOUND_SUFFIXES))
    parser.add_argument("--preset", choices=["riff", "riffusion"], help="what the image is, whatever it says itself")
    parser.add_argument(
        "--bpm", type=reader_of(RenderRequest, "bpm"), help="tempo, on the beats grid; default what the image says"
    )
    parser.add_argument("--quality", choices=QUALITIES, default="default", help="how much work; default 'default'")
    parser.add_argument("--loop", action="store_true", help="let the end lead back into the start")
    parser.add_argument("--seed", type=reader_of(RenderRequest, "seed"), default=0, help="of the phases; default 0")
    formats = [suffix[1:] for suffix in SOUND_SUFFIXES]
    parser.add_argument("--format", choices=formats, help="of sounds in a folder; default wav")


def add_convert(verbs: Any) -> None:
    """Add ``riff convert``."""
    parser = add_command(
        verbs,
        "convert",
        run_convert,
        help="turn a .bin checkpoint into safetensors",
        description="Read a legacy .bin checkpoint with torch's weights_only reader, check every tensor, and "
        "write it as safetensors with its spectrogram_config.json.",
    )
    parser.add_argument("source", metavar="SRC", help="a folder in the layout of Stable Diffusion")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to create")
    parser.add_argument("--force", action="store_true", help="replace DIR if it exists")


def _add_files(parser: argparse.ArgumentParser, kind: str, result: str) -> None:
    """Add the arguments that say what is read and where the results go."""
    parser.add_argument("inputs", nargs="+", metavar=kind, help="files, or folders that are searched for such files")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help=f"{result}, or a folder for the results of many inputs"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist; else a folder's are kept")


def run_encode(args: argparse.Namespace) -> None:
    """Turn every input into an image, or cut it."""
    config = _encode_config(args)
    if args.clips and not args.duration:
        raise RiffError(f"--clips {args.clips} needs --duration, the length of each in seconds")
    if args.seed is not None and not args.clips:
        raise RiffError(
            f"--seed {args.seed} would change nothing without --clips, whose places it chooses; leave it out"
        )
    seed = args.seed or 0

    def read(source: Path, place: int) -> Any:
        from riff.audio.io import audio_seconds, load_audio, save_audio
        from riff.spectrogram.codec import SpectrogramCodec
        from riff.spectrogram.png import write_png
        from riff.tasks.provenance import handed_on, read_made, sound_tags

        start = args.start
        if args.clips:
            room = audio_seconds(source) - start - args.duration
            if room < 0:
                raise RiffError(f"{source} is shorter than --start and --duration together; use a smaller --duration")
            start += random.Random(f"{seed} {source.name} {place}").uniform(0.0, room)
        sound, _ = load_audio(
            source, sample_rate=config.sample_rate, channels=config.channels, start=start, duration=args.duration
        )
        facts = {"start_s": round(start, 3), "duration_s": sound.shape[-1] / config.sample_rate}
        made = handed_on(read_made(source), "encode")
        if as_sound:
            tags = sound_tags(made) if made else None
            return facts, lambda target, force: save_audio(
                target, sound, config.sample_rate, metadata=tags, force=force
            )
        encoded = SpectrogramCodec(config).encode(sound, bpm=args.bpm)
        metadata = made | encoded.metadata | {"source": source.name}
        return facts | {"columns": encoded.image.shape[-1]}, lambda target, force: write_png(
            target, encoded.image, config, metadata=metadata, force=force
        )

    as_sound = args.format not in (None, "png")
    _run_files(args, read, reads=SOUNDS, writes=(".png",), default="png", copies=args.clips)


def run_decode(args: argparse.Namespace) -> None:
    """Play every input."""

    def read(source: Path, place: int) -> Any:

        from riff.audio.io import save_audio
        from riff.audio.tags import MACHINE_MADE
        from riff.diffusion.latents import seeded_generator
        from riff.spectrogram.codec import Encoded, SpectrogramCodec
        from riff.spectrogram.png import read_png
        from riff.tasks.provenance import handed_on, sound_tags

        presets = {"riff": SpectrogramConfig(), "riffusion": SpectrogramConfig.riffusion()}
        image, config, made = read_png(source, preset=presets.get(args.preset))
        found = Encoded.read(image, config, made, bpm=args.bpm, name=str(source))
        if config.grid == "beats" and found.bpm is None:
            raise RiffError(f"{source} is on the beats grid and does not say its tempo; give --bpm")
        waveform = SpectrogramCodec(config).decode(
            image,
            bpm=found.bpm,
            max_value=found.max_value,
            samples=found.samples,
            quality=args.quality,
            loop=args.loop,
            generator=seeded_generator(args.seed),
        )
        tags = sound_tags(handed_on(made, "decode")) if made.get("origin") == MACHINE_MADE else None
        bpm = found.bpm
        first = bpm if bpm is None or isinstance(bpm, float) else float(bpm.bpm_at(0.0))
        facts = {"duration_s": waveform.shape[-1] / config.sample_rate, "bpm": first}
        return facts, lambda target, force: save_audio(target, waveform, config.sample_rate, metadata=tags, force=force)

    _run_files(args, read, reads=IMAGES, writes=SOUND_SUFFIXES, default="wav")


def run_convert(args: argparse.Namespace) -> None:
    """Convert, and print the new folder."""
    from riff.diffusion.checkpoint import convert_checkpoint

    folder = convert_checkpoint(args.source, args.output, force=args.force)
    print(json.dumps({"path": str(folder)}) if args.json else folder)


def _encode_config(args: argparse.Namespace) -> SpectrogramConfig:
    if args.preset == "riffusion":
        if args.bpm is not None:
            raise RiffError("--bpm has no place in Riffusion's images, whose columns are 10 ms; leave out one of them")
        return SpectrogramConfig.riffusion(stereo=args.stereo)
    own = SpectrogramConfig(channels=2 if args.stereo else 1)
    return own if args.bpm is not None else dataclasses.replace(own, grid="seconds")


# Many files


def _run_files(
    args: argparse.Namespace,
    read: Read,
    *,
    reads: tuple[str, ...],
    writes: tuple[str, ...],
    default: str,
    copies: int | None = None,
) -> None:
    """Work through the inputs and print each result's path.

    Args:
        args: parsed arguments with those of :func:`_add_files`.
        read: see :data:`Read`.
        reads: suffixes that are looked for in folders.
        writes: suffixes that a single result may have.
        default: format of results in a folder.
        copies: results per input, all into a folder; None is one, wherever.

    Raises:
        RiffError: wrong arguments, or some inputs could not be used; the others are done all the same.
        SystemProblem: the results cannot be written.
    """
    inputs, output = _find(args.inputs, reads), Path(args.output)
    single = copies is None and len(inputs) == 1 and output.suffix.lower() in writes and not output.is_dir()
    if single:
        if args.format is not None and args.format != output.suffix.lower()[1:]:
            raise RiffError(f"--format {args.format} goes with a folder; {output} has its own suffix")
        todo = [(inputs[0][0], output, 0)]
    else:
        if output.suffix and not output.is_dir():
            allowed = f"a folder, or for one result one of {', '.join(writes)}"
            raise RiffError(f"-o {output} has the suffix {output.suffix!r}; give {allowed}")
        todo = _plan(inputs, output, f".{args.format or default}", copies)
        make_folder(output)
        remove_leftovers(output)
    _work(args, read, todo, single=single)


def _work(args: argparse.Namespace, read: Read, todo: list[tuple[Path, Path, int]], *, single: bool) -> None:
    """Make each (input, output, number) that does not exist, and say what came of them."""
    results, problems, kept = [], [], 0
    several = len({source for source, _, _ in todo}) > 1
    for source, target, place in todo:
        if not single and target.exists() and not args.force:
            kept += 1
            continue
        try:
            results.append({"path": str(target), "from": str(source), **_make(read, source, place, target, args.force)})
        except SystemProblem:
            raise
        except RiffError as error:
            if single:
                raise
            problems.append(f"{source}: {shell_text(error).removeprefix(f'{source}: ').removeprefix(f'{source} ')}")
            if several and not args.quiet and len(problems) <= MOST_PROBLEMS:
                print(f"skipped {problems[-1]}", file=sys.stderr)
            continue
        if not args.json:
            print(target, flush=True)
    if args.json:
        print(json.dumps({"results": results, "kept": kept, "problems": problems}))
    elif kept and not args.quiet:
        print(f"kept {kept} that were there already (--force makes them again)", file=sys.stderr)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RiffError(f"{len(problems)} of {len(todo)} inputs could not be used: {problems[0]}{more}")


def _make(read: Read, source: Path, place: int, target: Path, force: bool) -> dict[str, Any]:
    """Make one result and return its facts.

    Whatever is wrong with an input is that input's problem and ends no batch; only what stops all writing does. What
    was
    warned of, such as a sound that ends early, is among the facts too.
    """
    try:
        with noted_warnings() as noted:
            facts, write = read(source, place)
    except RiffError as error:
        raise RiffError(str(error)) from error  # also a SystemProblem, such as a missing decoder
    except Exception as error:
        raise line_problem(error) from error
    try:
        write(target, force)
    except (RiffError, OSError):
        raise
    except Exception as error:
        raise line_problem(error) from error
    return facts | noted


def _find(inputs: list[str], suffixes: tuple[str, ...]) -> list[tuple[Path, str]]:
    """Each input and what its result is called: its own name, below a folder that was given with those between."""
    found: list[tuple[Path, str]] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            inside = sorted(
                file for file in path.rglob("*") if file.suffix.lower() in suffixes and not _is_litter(file)
            )
            if not inside:
                raise RiffError(f"{path} holds no file with one of the suffixes {', '.join(suffixes)}")
            found += [(file, "-".join([*file.relative_to(path).parent.parts, file.stem])) for file in inside]
        else:
            found.append((path, path.stem))
    return found


def _is_litter(path: Path) -> bool:
    """Whether a file is no input: riff's own unfinished one, or macOS's note about another file, ``._song.wav``."""
    return is_leftover(path) or path.name.startswith("._")


def _plan(
    inputs: list[tuple[Path, str]], folder: Path, suffix: str, copies: int | None
) -> list[tuple[Path, Path, int]]:
    """(input, output, number) of each result.

    A name depends on its own input alone, so that an input that is added later moves no other's. Inputs that share a
    name are told apart by their suffixes, and where these are equal too by a hash of their folders; an image that
    exists stays with the input that it was made from.
    """
    ends = [suffix] if copies is None else [f"-{copy:04d}{suffix}" for copy in range(copies)]
    by_suffix = [(path, f"{name}-{path.suffix[1:].lower()}") for path, name in inputs]
    short, long = (collections.Counter(name for _, name in each) for each in (inputs, by_suffix))
    todo = []
    for (path, name), (_, longer) in zip(inputs, by_suffix, strict=True):
        if short[name] > 1 and (long[longer] > 1 or _source(folder / f"{name}{ends[0]}") != path.name):
            name = longer
        if name == longer and long[longer] > 1:
            name = f"{longer}-{hashlib.sha256(os.fsencode(path.absolute().parent)).hexdigest()[:8]}"
        todo += [(path, folder / f"{name}{end}", number) for number, end in enumerate(ends)]
    return todo


def _source(image: Path) -> str | None:
    """The file that an image was made from; None if it does not say."""
    from riff.spectrogram.png import read_png

    try:
        found = read_png(image)[2].get("source") if image.suffix == ".png" and image.exists() else None
    except RiffError:
        return None
    return found if isinstance(found, str) else None

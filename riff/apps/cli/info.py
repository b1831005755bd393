"""``riff info``: what a checkpoint, a picture or a sound file is and how it was made."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from riff.apps.cli.options import SOUND_SUFFIXES, SUFFIXES, check_outputs, progress
from riff.diffusion.hub import locate
from riff.spectrogram.config import CONFIG_NAME, SpectrogramConfig
from riff.utils.errors import ModelError, RiffError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_LINES = 64  # of one group of facts, and
MAX_LINE = 20_000  # characters of each: more than riff itself writes, but for timelines, which are shown in short
_MARKED = "by a machine; how was left out"


def add_verb(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "info",
        parents=[everywhere],
        help="show what a model, picture or sound is and how it was made",
        description="Show the configuration of a model, or how a picture or sound was made.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "target", nargs="?", default="riff-mini", metavar="MODEL|FILE",
        help="a checkpoint's folder or hub id, a picture, a sound file; default riff-mini, in the package",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Print the facts, one per line."""
    facts = _facts(args.target)
    if args.json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        fields = list(value.items()) if isinstance(value, dict) else [("", value)]
        for field, content in fields[:MAX_LINES]:
            text = _in_short(field, content) if name == "made" else content
            print(f"{name}{'.' if field else ''}{_line(field)}: {_line(text)}")
        if len(fields) > MAX_LINES:
            print(f"{name}: {len(fields) - MAX_LINES} more; --json shows all")


def _line(content: Any) -> str:
    """What a stranger's metadata says as one line, without its line breaks and control codes, and not endless."""
    text = str(content) if str(content).isprintable() else repr(content)
    return text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}... ({len(text) - MAX_LINE} characters more)"


def _facts(target: str) -> dict[str, Any]:
    path = Path(target)
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return _picture_facts(path)
    if suffix in SOUND_SUFFIXES or (path.is_file() and suffix != ".safetensors"):
        return _sound_facts(path)
    return _model_facts(locate(target, local_files_only=True))


def _in_short(field: str, content: Any) -> Any:
    """A timeline or a tempo map on one line for people; --json has all of it."""
    from riff.spectrogram.tempo import TempoMap
    from riff.tasks.timeline import Timeline

    try:
        if field == "timeline":
            timeline = Timeline.from_dict(json.loads(content))
            length = f"{timeline.bars} bars" if timeline.bars is not None else f"{timeline.seconds:g} s"
            places = " -> ".join(f"{frame.where}: {frame.prompt}" for frame in timeline.keyframes)
            return f"{length}, {places}"
        if field == "tempo":
            tempi = TempoMap.from_dict(content).tempi
            return f"changes, {min(tempi):.4g} to {max(tempi):.4g} bpm"
        if field == "loras":
            loras = json.loads(content)
            return ", ".join(f"{each['name']} at {each['weight']:g} (hash {each['digest'][:16]}...)" for each in loras)
        if field == "regions":
            return ", ".join(f"{start:.4g} s to {end:.4g} s" for start, end in json.loads(content))
        if field == "band":
            return "{:g} Hz to {:g} Hz".format(*json.loads(content))
        if field == "config":
            config = SpectrogramConfig.from_dict(json.loads(content))
            grid = f"{config.frames_per_beat} columns a beat" if config.grid == "beats" else "columns in seconds"
            return f"{config.n_mels} mels up to {config.f_max:g} Hz, {grid}, {config.sample_rate} Hz"
    except (RiffError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return content  # a stranger's
    return content


def _model_facts(path: Path) -> dict[str, Any]:
    folder = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    from riff.diffusion.fingerprint import CheckpointOrigin

    return {
        "model": str(path),
        "model_hash": CheckpointOrigin(path).model_hash or "none, since weights are missing",
        "parts": _parts(path) if path.is_dir() else "one file of Stable Diffusion",
        "weights_mb": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        "files": {str(file.relative_to(folder)): f"{file.stat().st_size:,} bytes" for file in files},
        "config_from": CONFIG_NAME if (folder / CONFIG_NAME).exists() else f"Riffusion v1's, without {CONFIG_NAME}",
        "config": SpectrogramConfig.load(folder).to_dict(),
    }


def _parts(folder: Path) -> dict[str, str]:
    """The class of each component, as model_index.json lists them."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return {name: part[1] for name, part in index.items() if isinstance(part, list) and part[1]}
    except (OSError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(f"{folder} is no checkpoint: its model_index.json cannot be read ({error})") from error


def _picture_facts(path: Path) -> dict[str, Any]:
    from riff.spectrogram.png import read_png

    image, config, made = read_png(path)
    channels, mels, frames = image.shape
    return {
        "picture": str(path),
        "channels": channels,
        "mels": mels,
        "frames": frames,
        "made": made if len(made) != 1 or "origin" not in made else _MARKED,
        "config": config.to_dict(),
    }


def _sound_facts(path: Path) -> dict[str, Any]:
    from riff.audio.io import audio_seconds, read_metadata
    from riff.audio.reader import open_sound
    from riff.tasks.provenance import read_made

    tags = read_metadata(path)
    with open_sound(path) as sound:
        container, codec, rate, channels = sound.container, sound.codec, sound.sample_rate, sound.channels
    made = read_made(path)
    marked = made and "software" not in made
    return {
        "sound": str(path),
        "format": f"{container} {codec}",
        "sample_rate": rate,
        "channels": channels,
        "duration_s": audio_seconds(path),
        "made": _MARKED if marked else made or "not by riff, or its metadata was removed",
        **({"tags": tags} if not made else {}),
        **({"source_type": tags["source_type"]} if "source_type" in tags else {}),
    }


# WAS riff/cli/replay.py: ``riff replay``: a file that riff wrote, made again.

_EXAMPLES = """\
examples:
  riff replay lofi.wav                                   writes lofi-again.wav, the same to the byte
  riff replay remixed.flac --source song.mp3 -o again.flac
  riff replay gift.wav --model path/to/the/model"""


def add_verb_replay(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "replay",
        parents=[everywhere],
        help="make a file again from what it says about itself",
        description="Make a file that riff wrote again, byte for byte where version, model and device are the same, "
        "and say what differs where they are not. Prints the new file's path.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run_replay)
    parser.add_argument("file", metavar="FILE", help="a sound or picture that riff wrote")
    parser.add_argument("-o", "--output", metavar="NEW", help=f"{', '.join(SUFFIXES)}; default FILE-again")
    parser.add_argument("--source", metavar="AUDIO", help="the recording that it was made from, for remix and the like")
    parser.add_argument("--model", help="a folder, a .safetensors file or a hub id, in place of what FILE names")
    parser.add_argument("--trust-model", action="store_true", help="load the model that FILE names, whatever it is")
    parser.add_argument("--lora", action="append", default=[], metavar="LORA", help="a LoRA that it needs; repeatable")
    parser.add_argument("--device", help="cpu, cuda or mps; default the fastest there is")
    parser.add_argument("--anyway", action="store_true", help="go on although something is not the same, and say what")
    parser.add_argument("--force", action="store_true", help="replace a file that exists")


def run_replay(args: argparse.Namespace) -> None:
    """Read the recipe, check that it can be followed, follow it, and compare."""
    from riff.pipeline import choose_model, open_pipeline
    from riff.tasks.provenance import read_recipe
    from riff.tasks.replay import check_model, check_version, choose_loras, differences, open_source, replay

    recipe = read_recipe(args.file)
    (output,) = check_outputs(_output(args), count=1, force=args.force)
    model = choose_model(recipe, args.model, trust=args.trust_model)
    recording = open_source(recipe, args.source, anyway=args.anyway)
    loras = choose_loras(recipe, args.lora, anyway=args.anyway)
    if not args.anyway:
        check_version(recipe)
        check_model(recipe, model)
    pipe = open_pipeline(recipe, model, loras, device=args.device)
    args.steps = recipe.arguments["num_inference_steps"]
    drawings = len(recipe.arguments.get("mask_start_seconds", [0]))
    with progress(args, total=args.steps * drawings) as step_done:
        clip = replay(recipe, pipe, recording, callback_on_step_end=step_done)
    clip.save(output, force=args.force)
    _report(args, output, differences(recipe, pipe))


def _output(args: argparse.Namespace) -> str:
    if args.output is not None:
        if Path(args.output).resolve() == Path(args.file).resolve():
            raise RiffError(f"-o {args.output} is the file that is replayed; give another name")
        return str(args.output)
    path = Path(args.file)
    return str(path.with_name(f"{path.stem}-again{path.suffix}"))


def _report(args: argparse.Namespace, output: Path, changed: list[str]) -> None:
    """Say whether the new file is as the old one.

    Raises:
        RiffError: it is not, though it was to be.
    """
    from riff.tasks.replay import compare

    suffixes = {Path(args.file).suffix.lower(), output.suffix.lower()}
    comparable = len(suffixes) == 1 or suffixes == {".wav", ".flac"}  # both of which lose nothing
    same = compare(args.file, output) if comparable else "not compared"
    if args.json:
        print(json.dumps({"path": str(output), "from": args.file, "same": same, "differences": changed}))
    else:
        print(output)
    told = {
        "bytes": "the same, byte for byte",
        "content": "the same in every sample or pixel; the file around it differs",
        "not compared": "not compared, since the formats differ",
    }
    why = f" ({'; '.join(changed)})" if changed else ""
    if same == "different":
        reason = why or " (nothing that it names has changed; the file itself, or what riff stands on, must have)"
        line = f"{output} differs from {args.file}{reason}"
        if not args.anyway:
            raise RiffError(line)
        print(f"riff: warning: {line}", file=sys.stderr)
    elif not args.quiet:
        print(f"{told[same]}{why}", file=sys.stderr)

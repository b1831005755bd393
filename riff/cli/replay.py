"""``riff replay``: a file that riff wrote, made again."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from riff.cli.arguments import SUFFIXES, check_outputs
from riff.cli.drawing import progress
from riff.errors import RiffError

_EXAMPLES = """\
examples:
  riff replay lofi.wav                                   writes lofi-again.wav, the same to the byte
  riff replay remixed.flac --source song.mp3 -o again.flac
  riff replay gift.wav --model path/to/the/model"""


def add_verb(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
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
    parser.set_defaults(run=run)
    parser.add_argument("file", metavar="FILE", help="a sound or picture that riff wrote")
    parser.add_argument("-o", "--output", metavar="NEW", help=f"{', '.join(SUFFIXES)}; default FILE-again")
    parser.add_argument("--source", metavar="AUDIO", help="the recording that it was made from, for remix and the like")
    parser.add_argument("--model", help="a folder, a .safetensors file or a hub id, in place of what FILE names")
    parser.add_argument("--trust-model", action="store_true", help="load the model that FILE names, whatever it is")
    parser.add_argument("--lora", action="append", default=[], metavar="LORA", help="a LoRA that it needs; repeatable")
    parser.add_argument("--device", help="cpu, cuda or mps; default the fastest there is")
    parser.add_argument("--anyway", action="store_true", help="go on although something is not the same, and say what")
    parser.add_argument("--force", action="store_true", help="replace a file that exists")


def run(args: argparse.Namespace) -> None:
    """Read the recipe, check that it can be followed, follow it, and compare."""
    from riff.recipe import read_recipe
    from riff.replay import (
        check_model,
        check_version,
        choose_loras,
        choose_model,
        differences,
        open_pipeline,
        open_source,
        replay,
    )

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
    from riff.replay import compare

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

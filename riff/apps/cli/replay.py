"""``riff replay``: a file that riff wrote, made again and compared."""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.apps.cli.generate import progress
from riff.apps.cli.options import SUFFIXES, add_command, check_outputs
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline
    from riff.tasks.provenance import Recipe

EXIT_DIFFERS = 3
_EXAMPLES = """\
  riff replay lofi.wav                                   writes lofi-again.wav, the same to the byte
  riff replay remixed.flac --source song.mp3 -o again.flac
  riff replay gift.wav --model path/to/the/model

If the result differs, the exit code is 3 and nothing is written, unless -o or --anyway is given."""


class Differs(RiffError):
    """A replay whose result is not that of the file (exit code 3)."""

    exit_code = EXIT_DIFFERS


def add_replay(verbs: Any) -> None:
    """Add ``riff replay``."""
    parser = add_command(
        verbs,
        "replay",
        run_replay,
        help="make a file again from what it says about itself",
        description="Make a file that riff wrote again, byte for byte where version, model and device are the same, "
        "and say what differs where they are not. Prints the new file's path.",
        examples=_EXAMPLES,
    )
    parser.add_argument("file", metavar="FILE", help="a sound or image that riff wrote")
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
    from riff.tasks.provenance import read_recipe
    from riff.tasks.replay import (
        check_model,
        check_version,
        choose_loras,
        choose_model,
        describe_distance,
        differences,
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
    parts = len(getattr(recipe.request, "mask_start_seconds", [0]))
    steps = recipe.request.num_inference_steps
    with progress(args, total=steps * parts) as bar:
        clip = replay(recipe, pipe.model, recording, callback=bar.callback(steps))
    with tempfile.TemporaryDirectory(prefix="riff-") as folder:
        draft = clip.save(Path(folder) / output.name)
        same = _compare(args.file, draft)
        apart = describe_distance(args.file, draft) if same == "different" else None
    changed = differences(recipe, pipe.model)
    if same != "different" or args.anyway or args.output is not None:
        clip.save(output, overwrite=args.force)
    _report(args, output, same, changed, apart)


def open_pipeline(
    recipe: "Recipe", source: str, loras: Sequence[tuple[Path, float]], *, device: str | None = None
) -> "RiffPipeline":
    """The model as it was: its scheduler, on the same device its number format, and its LoRAs.

    Where the weights are the same it gets the names that the file says, so that the new file says them too.

    Raises:
        ModelError: it cannot be used.
        SystemProblem: there is no such device, or peft is not installed.
    """
    import torch

    from riff.diffusion.model import device_kind, find_device
    from riff.pipeline import RiffPipeline

    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    same_device = device_kind(find_device(device)) == recipe.device
    pipe = RiffPipeline.from_pretrained(
        source,
        device=device,
        dtype=dtypes.get(recipe.dtype or "") if same_device else None,
        scheduler=recipe.scheduler,
        guidance_interval=recipe.guidance_interval,
    )
    for path, weight in loras:
        pipe.load_lora(path, weight=weight)
    if recipe.compiled:
        pipe.compile()
    if pipe.origin.model_hash == recipe.model_hash is not None:
        pipe.model.name = recipe.model
    names = {adapter.digest: adapter.name for adapter in recipe.loras}
    pipe.origin.adapters = tuple(
        dataclasses.replace(adapter, name=names[adapter.digest]) for adapter in pipe.origin.adapters
    )
    return pipe


def _output(args: argparse.Namespace) -> str:
    if args.output is not None:
        if Path(args.output).resolve() == Path(args.file).resolve():
            raise RiffError(f"-o {args.output} is the file that is replayed; give another name")
        return str(args.output)
    path = Path(args.file)
    return str(path.with_name(f"{path.stem}-again{path.suffix}"))


def _compare(file: str, new: Path) -> str:
    """How like the file the new one is: "bytes", "content", "different", or "not compared"."""
    from riff.tasks.replay import compare

    suffixes = {Path(file).suffix.lower(), new.suffix.lower()}
    comparable = len(suffixes) == 1 or suffixes == {".wav", ".flac"}  # both of which lose nothing
    return compare(file, new) if comparable else "not compared"


def _report(args: argparse.Namespace, output: Path, same: str, changed: list[str], apart: str | None) -> None:
    """Say whether the new file is as the old one.

    Raises:
        Differs: it is not, though it was to be.
    """
    written = same != "different" or args.anyway or args.output is not None
    if args.json:
        path = str(output) if written else None
        print(
            json.dumps(
                {"path": path, "from": args.file, "same": same, "differences": changed}
                | ({"apart": apart} if apart else {})
            )
        )
    elif written:
        print(output)
    words = {
        "bytes": "the same, byte for byte",
        "content": "the same in every sample or pixel; the file around it differs",
        "not compared": "not compared, since the formats differ",
    }
    why = f" ({'; '.join(changed)})" if changed else ""
    if same == "different":
        reason = why or " (nothing that it names has changed; the file itself, or the processor, must have)"
        line = f"{output if written else 'the replay'} differs from {args.file}{reason}: {apart}"
        if not args.anyway:
            raise Differs(line if written else f"{line}; nothing was written, -o NEW keeps it")
        print(f"riff: warning: {line}", file=sys.stderr)
    elif not args.quiet:
        print(f"{words[same]}{why}", file=sys.stderr)

"""``riff bench``: how long riff takes on this machine."""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import riff
from riff.apps.cli.options import add_command, number
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.machine import peak_memory_mib, processor_name, usable_cores

PROMPT = "lo-fi hip hop, mellow electric piano, 84 bpm"
# What is shown: name, words, unit, factor.
LINES = (
    ("cold_start_s", "from a cold start to a file", "s", 1.0),
    ("help_s", "riff --help", "s", 1.0),
    ("clip_s", "a clip with the model loaded", "s", 1.0),
    ("step_s", "one denoising step", "ms", 1000.0),
    ("image_to_sound_s", "from image to sound", "s", 1.0),
    ("encode_s", "from sound to image (riff encode)", "s", 1.0),
    ("peak_memory_mib", "memory at the peak", "MiB", 1.0),
    ("threads", "threads", "", 1.0),
)
_EXAMPLES = """\
  riff bench               about half a minute on two cores
  riff bench --quick       each figure measured once
  riff bench --json        for machines

Comparisons with diffusers, torchaudio and librosa: python -m benchmarks, in riff's repository."""


def add_bench(verbs: Any) -> None:
    """Add ``riff bench``."""
    parser = add_command(
        verbs,
        "bench",
        run_bench,
        help="measure speed and memory on this machine",
        description="Measure how long riff takes on this machine, and how much memory.",
        examples=_EXAMPLES,
    )
    parser.add_argument("sections", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--model", help="a folder, a .safetensors file or a hub id; default riff-mini, in the package")
    parser.add_argument("--device", help="cpu, cuda or mps; default the fastest there is")
    parser.add_argument("--steps", type=number(1, 150, whole=True), default=20, help="denoising steps; default 20")
    parser.add_argument("--repeat", type=number(1, 1000, whole=True), help="clips to measure; default 3, --quick 1")
    parser.add_argument("--quick", action="store_true", help="measure each figure once")


def run_bench(args: argparse.Namespace) -> None:
    """Measure, and print a table or JSON."""
    if args.sections:
        moved = " ".join(args.sections)
        raise RiffError(f"riff bench takes no {moved!r}; to compare with other libraries: python -m benchmarks {moved}")
    figures = measure(args)
    if args.json:
        print(json.dumps(figures))
        return
    print(f"riff {figures['riff']}, {figures['model']} on {figures['processor']}, {figures['cores']} cores")
    print(f"{figures['music_s']:.2f} s of music, {figures['steps']} steps, {figures['device']}")
    for name, words, unit, factor in LINES:
        value = figures[name]
        print(f"{'not known' if value is None else f'{value * factor:.4g} {unit}'.strip():>12}  {words}")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures: seconds (``*_s``), mebibytes and counts, the median where something is measured several times."""
    repeat = args.repeat or (1 if args.quick else 3)
    model = [word for name in ("model", "device") if (value := getattr(args, name)) for word in (f"--{name}", value)]
    with tempfile.TemporaryDirectory(prefix="riff-") as folder:
        warm = _measure_warm(args, repeat, Path(folder))
        cold = ["render", PROMPT, "-o", str(Path(folder, "cold.wav")), "--steps", str(args.steps), "--quiet", *model]
        return {
            "riff": riff.__version__,
            "processor": processor_name(),
            "cores": usable_cores(),
            "cold_start_s": _time_command(cold),
            "help_s": min(_time_command(["--help"]) for _ in range(min(3, repeat))),
            "steps": args.steps,
            **warm,
        }


def _measure_warm(args: argparse.Namespace, repeat: int, folder: Path) -> dict[str, Any]:
    """Clips and their parts with the model in memory; the first clip only warms up."""
    import torch

    from riff.pipeline import RiffPipeline
    from riff.spectrogram.codec import SpectrogramCodec

    pipe = RiffPipeline.from_pretrained(args.model, device=args.device)
    codec, clock = SpectrogramCodec(pipe.config), time.perf_counter
    spent: dict[str, list[float]] = {name: [] for name in ("clip_s", "step_s", "image_to_sound_s", "encode_s")}
    ticks: list[float] = []
    for index in range(repeat + 1):
        ticks[:] = [clock()]
        clip = pipe(
            PROMPT, seed=index, num_inference_steps=args.steps, callback_on_step_end=lambda *_: ticks.append(clock())
        ).clips[0]
        clip.save(folder / f"{index}.wav")
        spent["clip_s"].append(clock() - ticks[0])
        spent["step_s"].append(statistics.median(b - a for a, b in itertools.pairwise(ticks)))
        bpm, begun = (clip.bpm if pipe.config.grid == "beats" else None), clock()
        waveform = codec.decode(clip.image, bpm=bpm)
        spent["image_to_sound_s"].append(clock() - begun)
        begun = clock()
        codec.encode(waveform, bpm=bpm)
        spent["encode_s"].append(clock() - begun)
    return {
        "model": pipe.name,
        "device": str(pipe.device),
        "music_s": clip.duration,
        **{name: statistics.median(seconds[1:]) for name, seconds in spent.items()},
        "peak_memory_mib": peak_memory_mib(),
        "threads": torch.get_num_threads(),
    }


def _time_command(words: list[str]) -> float:
    """Seconds that ``riff WORDS`` takes in a new process."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "riff", *words], capture_output=True)
    if done.returncode != 0:
        raise SystemProblem(f"riff {' '.join(words)} ended with code {done.returncode}; run it by itself")
    return time.perf_counter() - begun

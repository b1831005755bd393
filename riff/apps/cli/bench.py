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
from riff.apps.cli.options import add_command, number, reader_of
from riff.tasks.requests import RenderRequest
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.parallel import peak_memory_mib, processor_name, usable_cores

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


def add_bench(verbs: Any) -> None:
    """Add ``riff bench``."""
    parser = add_command(
        verbs,
        "bench",
        run_bench,
        help="measure speed and memory on this machine",
        description="Measure how long riff takes on this machine, and how much memory. To compare it with diffusers, "
        "torchaudio and librosa, use python -m benchmarks in riff's repository.",
        examples="  riff bench               about half a minute on two cores\n"
        "  riff bench --quick       each figure measured once",
    )
    steps = reader_of(RenderRequest, "num_inference_steps")
    parser.add_argument("moved", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--save", "--compile", "--results", nargs="?", const="", help=argparse.SUPPRESS)
    parser.add_argument("--model", help="a folder, a .safetensors file or a hub id; default riff-mini, in the package")
    parser.add_argument("--device", help="cpu, cuda or mps; default the fastest there is")
    parser.add_argument("--steps", type=steps, default=20, help="denoising steps; default 20")
    parser.add_argument("--repeat", type=number(1, 1000, whole=True), help="clips to measure; default 3, --quick 1")
    parser.add_argument("--quick", action="store_true", help="measure each figure once")


def run_bench(args: argparse.Namespace) -> None:
    """Measure, and print a table or JSON."""
    if args.moved or args.save is not None:
        raise RiffError(
            "comparisons with other libraries are no longer here; use python -m benchmarks in riff's repository"
        )
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
    """All figures: seconds (``*_s``), mebibytes and counts; medians where something is measured several times."""
    repeat = args.repeat or (1 if args.quick else 3)
    model = [word for name in ("model", "device") if (value := getattr(args, name)) for word in (f"--{name}", value)]
    figures = {"riff": riff.__version__, "processor": processor_name(), "cores": usable_cores(), "steps": args.steps}
    with tempfile.TemporaryDirectory(prefix="riff-") as folder:
        figures |= _measure_warm(args, repeat, Path(folder))
        cold = ["render", PROMPT, "-o", str(Path(folder, "cold.wav")), "--steps", str(args.steps), "--quiet", *model]
        figures["cold_start_s"] = _time_command(cold)
    return figures | {"help_s": min(_time_command(["--help"]) for _ in range(min(3, repeat)))}


def _measure_warm(args: argparse.Namespace, repeat: int, folder: Path) -> dict[str, Any]:
    """Clips and their parts with the model in memory; the first clip only warms up."""
    import torch

    from riff.pipeline import RiffPipeline
    from riff.spectrogram.codec import SpectrogramCodec

    pipe = RiffPipeline.from_pretrained(args.model, device=args.device)
    codec, clock = SpectrogramCodec(pipe.config), time.perf_counter
    rounds: list[dict[str, float]] = []
    ticks: list[float] = []
    for index in range(repeat + 1):
        ticks[:] = [clock()]
        options = {"num_inference_steps": args.steps, "callback_on_step_end": lambda *_: ticks.append(clock())}
        clip = pipe(PROMPT, seed=index, **options).clips[0]
        clip.save(folder / f"{index}.wav")
        bpm, saved = (clip.bpm if pipe.config.grid == "beats" else None), clock()
        waveform, decoded = codec.decode(clip.image, bpm=bpm), clock()
        codec.encode(waveform, bpm=bpm)
        step = statistics.median(after - before for before, after in itertools.pairwise(ticks))
        parts = {"image_to_sound_s": decoded - saved, "encode_s": clock() - decoded}
        rounds.append({"clip_s": saved - ticks[0], "step_s": step, **parts})
    medians = {name: statistics.median(each[name] for each in rounds[1:]) for name in rounds[0]}
    facts = {"model": pipe.name, "device": str(pipe.device), "music_s": clip.duration}
    return {**facts, **medians, "peak_memory_mib": peak_memory_mib(), "threads": torch.get_num_threads()}


def _time_command(words: list[str]) -> float:
    """Seconds that ``riff WORDS`` takes in a new process."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "riff", *words], capture_output=True)
    if done.returncode != 0:
        raise SystemProblem(f"riff {' '.join(words)} ended with code {done.returncode}; run it by itself")
    return time.perf_counter() - begun

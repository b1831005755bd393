"""How fast and how large riff is on this machine, each figure measured in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from riff.errors import ModelError, RiffError, SystemProblem

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

PROMPT = "lo-fi hip hop, mellow electric piano, 84 bpm"
STAGES = ("text", "unet", "vae", "phase", "encode")
Figures = dict[str, float | int | str | None]


def bench(*, model: str | None = None, device: str | None = None, steps: int = 20, repeat: int = 3) -> Figures:
    """Measure a start, a first sound and renders of one prompt.

    Args:
        model: as for :meth:`riff.pipeline.RiffPipeline.from_pretrained`; None is riff-mini.
        device: "cpu", "cuda" or "mps"; None takes the fastest there is.
        steps: denoising steps.
        repeat: renders measured once the model is warm; the median is reported.

    Returns:
        Seconds (``*_s``), mebibytes, and ratios of figures from the same run. ``music_per_work`` above 1 is
        faster than real time. Memory is None where the system does not tell it.

    Raises:
        RiffError, ModelError, SystemProblem: whatever a render of this model and device would raise.
    """
    arguments = {"model": model, "device": device, "steps": steps, "repeat": repeat}
    figures: Figures = {"help_s": _time_command(["--help"], best_of=3)}
    code = f"from riff.bench import _main; _main({json.dumps(arguments)!r})"
    figures |= json.loads(_run([sys.executable, "-c", code]))
    with tempfile.TemporaryDirectory() as folder:
        words = ["render", PROMPT, "-o", str(Path(folder) / "cold.wav"), "--steps", str(steps), "--seed", "0"]
        words += ["--model", model] if model else []
        words += ["--device", device] if device else []
        figures["cold_start_to_file_s"] = _time_command(words)
    return figures


def measure(*, model: str | None, device: str | None, steps: int, repeat: int) -> Figures:
    """Measure import, load and renders in this process; arguments and result are those of :func:`bench`."""
    clock = time.perf_counter
    began = clock()
    from riff.pipeline import RiffPipeline

    imported = clock()
    pipe = RiffPipeline.from_pretrained(model, device=device)
    loaded = clock()
    stages: list[dict[str, float]] = []
    totals: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(repeat + 1):
            output = Path(folder) / f"{index}.wav"
            start = clock()
            clip = pipe(PROMPT, seed=index, num_inference_steps=steps).clips[0]
            clip.save(output)
            totals.append(clock() - start)
        for index in range(repeat):
            stages.append(_measure_stages(pipe, steps, index, Path(folder) / "stages.wav"))
    render = statistics.median(totals[1:])
    return {
        "model": pipe.name,
        "device": str(pipe.device),
        "threads": _threads(),
        "steps": steps,
        "import_s": imported - began,
        "load_s": loaded - imported,
        "first_render_s": totals[0],
        "render_s": render,
        **{f"{stage}_s": statistics.median(one[stage] for one in stages) for stage in STAGES},
        "music_s": clip.duration,
        "music_per_work": clip.duration / render,
        "real_time_factor": render / clip.duration,
        "peak_memory_mib": _peak_memory(),
    }


def _measure_stages(pipe: "RiffPipeline", steps: int, seed: int, output: Path) -> dict[str, float]:
    """Seconds of each rung of the ladder, walked by hand at the size of a training picture."""
    import torch

    from riff.audio import save_audio
    from riff.diffusion import PlainPrediction, denoise
    from riff.image import image_to_mel
    from riff.latents import downsampling, draw_noise, latents_to_image
    from riff.prompt import embed_prompt
    from riff.spectrogram import mel_to_waveform

    parts, config, seconds = pipe.pipeline, pipe.config, dict.fromkeys(STAGES, 0.0)
    generator = torch.Generator().manual_seed(seed)
    factor = downsampling(parts.vae)
    shape = (1, parts.vae.config.latent_channels, config.n_mels // factor, config.width // factor)
    with torch.inference_mode():
        with _timed(seconds, "text"):
            embeds = embed_prompt([PROMPT, ""], parts.tokenizer, parts.text_encoder)
        with _timed(seconds, "unet"):
            latents = denoise(
                PlainPrediction(parts.unet, embeds[:1], embeds[1:], 3.0),
                type(parts.scheduler).from_config(parts.scheduler.config),
                draw_noise(shape, generator=generator).to(parts.unet.device),
                num_inference_steps=steps,
                generator=generator,
            )
        with _timed(seconds, "vae"):
            image = latents_to_image(latents, parts.vae, channels=config.channels)[0].float().cpu()
        with _timed(seconds, "phase"):
            waveform = mel_to_waveform(image_to_mel(image, config), config, bpm=84.0, generator=generator)
        with _timed(seconds, "encode"):
            save_audio(output, waveform / waveform.abs().max().clamp_min(1.0), config.sample_rate)
    return seconds


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    import torch

    start = time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds[stage] = time.perf_counter() - start


def _main(arguments: str) -> None:
    """What the measuring process runs: the figures, or the error, as one line of JSON."""
    try:
        figures = measure(**json.loads(arguments))
    except RiffError as error:
        figures = {"error": str(error), "exit_code": error.exit_code}
    print(json.dumps(figures))


def _run(command: list[str]) -> str:
    """The last line of what ``command`` prints; its failure is this process's, in the same words."""
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode != 0 or not last:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemProblem(f"the measuring process ended with code {done.returncode}: {reason}")
    figures = json.loads(last)
    if "error" in figures:
        kinds = {4: ModelError, 5: SystemProblem}
        raise kinds.get(figures["exit_code"], RiffError)(figures["error"])
    return last


def _time_command(words: list[str], *, best_of: int = 1) -> float:
    """Seconds that ``riff WORDS`` takes in a new process, at best."""
    seconds = []
    for _ in range(best_of):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "riff", *words], capture_output=True, env=_environment())
        seconds.append(time.perf_counter() - start)
        if done.returncode != 0:
            raise SystemProblem(f"riff {' '.join(words)} ended with code {done.returncode}; run it by itself")
    return min(seconds)


def _environment() -> dict[str, str]:
    """That of this process, with this very riff first on the path."""
    here = str(Path(__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _peak_memory() -> float | None:
    """Most resident memory that this process has had, in MiB."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)

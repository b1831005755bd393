"""Section "render": from a cold start, and with the model in memory, from a prompt to a file, stage by stage."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Figures, Ratio, environment, measure_alone, timed
from benchmarks.history import Section
from riff.utils.errors import SystemProblem
from riff.utils.parallel import peak_memory_mib

if TYPE_CHECKING:
    from torch import Tensor

    from riff.pipeline import RiffPipeline

PROMPT = "lo-fi hip hop, mellow electric piano, 84 bpm"
BPM = 84.0
LIVE_BPM = 120.0
STAGES = ("text", "unet", "vae", "phase", "encode")


def render_section(*, model: str | None, device: str | None, steps: int, repeat: int) -> Section:
    """Measure the start of ``riff --help``, a cold start to a file, and renders of one prompt once all is loaded.

    Args:
        model: as for :meth:`riff.pipeline.RiffPipeline.from_pretrained`; None is riff-mini.
        device: "cpu", "cuda" or "mps"; None takes the fastest there is.
        steps: denoising steps.
        repeat: renders measured once the model is warm; the median is reported.

    Raises:
        RiffError, ModelError, SystemProblem: whatever a render of this model and device would raise.
    """
    figures: Figures = {"help_s": _time_command(["--help"], best_of=3)}
    arguments = {"model": model, "device": device, "steps": steps, "repeat": repeat}
    figures |= measure_alone("benchmarks.render:measure", arguments)
    with tempfile.TemporaryDirectory() as folder:
        words = ["render", PROMPT, "-o", str(Path(folder) / "cold.wav"), "--steps", str(steps), "--seed", "0"]
        words += ["--model", model] if model else []
        words += ["--device", device] if device else []
        figures["cold_start_to_file_s"] = _time_command(words)
    music, work = float(figures["music_s"] or 0.0), float(figures["render_s"] or 1.0)
    meaning = f"as fast as real time: {music:.2f} s of music in {work:.2f} s, {steps} steps, file included"
    ratios = [Ratio.of("real_time", meaning, [music / work])]
    heard, work = float(figures["live_bar_s"] or 0.0), float(figures["live_work_s"] or 1.0)
    meaning = f"as fast as it is heard: a bar of endless music, {heard:.2f} s long, in {work:.2f} s"
    return Section("render", [*ratios, Ratio.of("live_real_time", meaning, [heard / work])], figures)


def measure(*, model: str | None, device: str | None, steps: int, repeat: int) -> Figures:
    """Measure import, load and renders in this process; arguments are those of :func:`render_section`.

    Returns:
        Seconds (``*_s``) and mebibytes. ``music_per_work`` above 1 is faster than real time; ``step_s`` is that of one
        denoising step, guidance included. Memory is None where the system does not tell it.
    """
    clock = time.perf_counter
    began = clock()
    from riff.pipeline import RiffPipeline

    imported = clock()
    pipe = RiffPipeline.from_pretrained(model, device=device)
    loaded = clock()
    stages: list[Figures] = []
    totals: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(repeat + 1):
            output = Path(folder) / f"{index}.wav"
            start = clock()
            clip = pipe(PROMPT, seed=index, num_inference_steps=steps).clips[0]
            clip.save(output, overwrite=True)
            totals.append(clock() - start)
        for index in range(repeat):
            stages.append(_measure_stages(pipe, steps, index, Path(folder) / "stages.wav"))
    live = _measure_live(pipe, repeat)
    render = statistics.median(totals[1:])
    medians = {stage: statistics.median(float(one[stage] or 0.0) for one in stages) for stage in STAGES}
    return {
        "model": pipe.name,
        "device": str(pipe.device),
        "threads": _threads(),
        "steps": steps,
        "import_s": imported - began,
        "load_s": loaded - imported,
        "first_render_s": totals[0],
        "render_s": render,
        "step_s": medians["unet"] / steps,
        **{f"{stage}_s": seconds for stage, seconds in medians.items()},
        "music_s": clip.duration,
        "music_per_work": clip.duration / render,
        "real_time_factor": render / clip.duration,
        **live,
        "peak_memory_mib": peak_memory_mib(),
    }


def draw(pipe: "RiffPipeline", noise: "Tensor", steps: int, found: Figures) -> "Tensor":
    """An image (C, M, N) of :data:`PROMPT` at the size of a training image, its stages' seconds put in ``found``."""
    import torch

    from riff.diffusion.latents import latents_to_image
    from riff.diffusion.sampling import PlainPrediction, denoise
    from riff.prompt.encoder import embed_prompt

    parts = pipe.components
    with torch.inference_mode():
        with timed(found, "text"):
            embeds = embed_prompt([PROMPT, ""], parts.tokenizer, parts.text_encoder)
        with timed(found, "unet"):
            latents = denoise(
                PlainPrediction(parts.unet, embeds[:1], embeds[1:], pipe.model.default_guidance, pipe.model.interval),
                type(parts.scheduler).from_config(parts.scheduler.config),
                noise.to(parts.unet.device),
                num_inference_steps=steps,
                generator=torch.Generator().manual_seed(0),
            )
        with timed(found, "vae"):
            image: Tensor = latents_to_image(latents, parts.vae, channels=pipe.config.channels)[0].float().cpu()
    return image


def plain_noise(pipe: "RiffPipeline", seed: int) -> "Tensor":
    """Noise (1, L, H, W) of a training image's size."""
    import torch

    from riff.diffusion.latents import downsampling, sample_noise

    parts, config = pipe.components, pipe.config
    factor = downsampling(parts.vae)
    shape = (1, parts.vae.config.latent_channels, config.n_mels // factor, config.width // factor)
    return sample_noise(shape, generator=torch.Generator().manual_seed(seed))


def _measure_stages(pipe: "RiffPipeline", steps: int, seed: int, output: Path) -> Figures:
    """Seconds of each rung of the ladder, walked by hand."""
    from riff.audio.io import save_audio
    from riff.spectrogram.image import image_to_mel
    from riff.spectrogram.inversion.waveform import mel_to_waveform

    found: Figures = {}
    image = draw(pipe, plain_noise(pipe, seed), steps, found)
    with timed(found, "phase"):
        waveform = mel_to_waveform(image_to_mel(image, pipe.config), pipe.config, bpm=tempo_of(pipe))
    with timed(found, "encode"):
        save_audio(output, waveform / waveform.abs().max().clamp_min(1.0), pipe.config.sample_rate)
    return found


def _measure_live(pipe: "RiffPipeline", repeat: int) -> Figures:
    """Seconds that a bar of endless music lasts, and that it takes as ``riff serve`` streams it."""
    from riff.tasks.requests import StreamRequest
    from riff.tasks.stream import MusicStream

    bpm = LIVE_BPM if pipe.config.grid == "beats" else None
    music = MusicStream(pipe.model, StreamRequest(prompt=PROMPT.rpartition(",")[0], bpm=bpm, seed=0))
    spent = []
    for _ in range(repeat + 2):  # the first has no bar before it, the second is the first of its kind
        began = time.perf_counter()
        music.next()
        spent.append(time.perf_counter() - began)
    return {"live_bar_s": music.bar_seconds, "live_work_s": statistics.median(spent[2:])}


def tempo_of(pipe: "RiffPipeline") -> float | None:
    """The prompt's tempo, on the beats grid."""
    return BPM if pipe.config.grid == "beats" else None


def _time_command(words: list[str], *, best_of: int = 1) -> float:
    """Seconds that ``riff WORDS`` takes in a new process, at best."""
    seconds = []
    for _ in range(best_of):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "riff", *words], capture_output=True, env=environment())
        seconds.append(time.perf_counter() - start)
        if done.returncode != 0:
            raise SystemProblem(f"riff {' '.join(words)} ended with code {done.returncode}; run it by itself")
    return min(seconds)


def _threads() -> int:
    import torch

    return torch.get_num_threads()

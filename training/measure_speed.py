"""From a prompt to a waveform: riff against diffusers' own pipeline with torchaudio's Griffin-Lim, in pairs.

    python -m training.measure_speed
    python -m training.measure_speed --model FOLDER --steps 4 --repeat 1

Both load the same checkpoint and take as many steps with the same scheduler and guidance. The other way is
StableDiffusionPipeline to a picture, then Riffusion's algorithm (least squares inverse mel, 32 Griffin-Lim iterations)
with the checkpoint's own window and transform. Ratios are medians of pairs taken in turn in one process.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from riff.image import image_to_mel
from riff.latents import take_channels
from riff.pipeline import RiffPipeline
from training.measure_inversion import riffusions_algorithm

PROMPT = "lo-fi hip hop, mellow electric piano, 84 bpm"


def measure(model: str | None, steps: int, repeat: int) -> dict[str, list[float]]:
    """Seconds of ``repeat`` renders of one training picture, one way and the other."""
    pipe = RiffPipeline.from_pretrained(model, device="cpu", dtype=torch.float32)
    config, parts, guidance = pipe.config, pipe.pipeline, pipe.model.default_guidance
    hop = config.hop_length if config.grid == "seconds" else round(config.column_samples(bpm=84.0))
    invert = riffusions_algorithm(config, hop)
    parts.set_progress_bar_config(disable=True)
    found: dict[str, list[float]] = {"riff": [], "diffusers": [], "of it drawing": []}
    for number in range(repeat + 1):
        start = time.perf_counter()
        pipe(PROMPT, seed=number, num_inference_steps=steps, guidance_scale=guidance)
        own = time.perf_counter() - start
        start = time.perf_counter()
        with torch.no_grad():
            pixels = parts(
                PROMPT,
                height=config.n_mels,
                width=config.width,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=torch.Generator().manual_seed(number),
                output_type="pt",
            ).images
            drawn = time.perf_counter() - start
            image = take_channels(pixels.float(), config.channels)[0].cpu()
            invert(image_to_mel(image, config))
        other = time.perf_counter() - start
        if number:  # the first warms up
            for name, seconds in zip(found, (own, other, drawn), strict=True):
                found[name].append(seconds)
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default riff-mini")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args(argv)
    found = measure(arguments.model, arguments.steps, arguments.repeat)
    ratio = statistics.median(b / a for a, b in zip(found["riff"], found["diffusers"], strict=True))
    print("| way | s a clip, median |\n|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {statistics.median(seconds):.2f} |")
    print(f"\nriff is {ratio:.1f} times as fast, {torch.get_num_threads()} thread(s)")


if __name__ == "__main__":
    main()

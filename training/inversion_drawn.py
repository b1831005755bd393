"""Pictures of a model, composed ones through its autoencoder and ones that it drew, to sound and back to pictures.

There is no original, so only the picture itself can be compared: ``mel`` as in training.measure_inversion, and
``codes``, the root mean square difference between the asked picture and one made anew from the sound, in steps of 8
bits.
"""

import functools
import random
from collections.abc import Callable

import torch
from torch import Tensor

from riff.bench.rivals import riffusions_algorithm
from riff.config import SpectrogramConfig
from riff.image import image_to_mel, mel_to_image
from riff.spectrogram import mel_to_waveform, waveform_to_mel
from training.measure_inversion import FIRST_SEED, QUALITIES, Figures, convergence, mean


def models_pictures(model: str | None, count: int) -> tuple[dict[str, list[Tensor]], SpectrogramConfig]:
    """Pictures (1, M, N) by kind: ``count`` composed ones through a model's autoencoder, and as many that it drew."""
    from riff.latents import image_to_latents, latents_to_image
    from riff.pipeline import RiffPipeline
    from training.composer import GENRES, compose
    from training.composer.captions import eval_prompt
    from training.make_dataset import draw

    pipe = RiffPipeline.from_pretrained(model, device="cpu")
    names = sorted(GENRES)
    pictures: dict[str, list[Tensor]] = {"through the autoencoder": [], "drawn": []}
    for number in range(count):
        score = compose(FIRST_SEED + number, genre=names[number * 7 % len(names)], windows=1)
        prompt = eval_prompt(score.windows[0], random.Random(number), kind="plain")
        drawn = pipe(prompt, seed=number, quality="fast").clips[0].image
        composed = torch.from_numpy(draw(score, pipe.config))[None, None].float() / 255.0
        with torch.inference_mode():
            latents = image_to_latents(composed, pipe.pipeline.vae)
            rebuilt = latents_to_image(latents, pipe.pipeline.vae, channels=1)[0].clone()
        pictures["through the autoencoder"].append(rebuilt)
        pictures["drawn"].append(drawn)
    return pictures, pipe.config


def measure_pictures(pictures: list[Tensor], config: SpectrogramConfig) -> dict[str, list[Figures]]:
    """How near each way's sound is to the picture that was asked for."""
    hop = 690  # a whole number of samples a column, as the textbook needs
    bpm = 60.0 * config.sample_rate / (config.frames_per_beat * hop)
    ways: dict[str, Callable[[Tensor], Tensor]] = {"Riffusion": riffusions_algorithm(config, hop)}
    for quality in QUALITIES:
        ways[quality] = functools.partial(mel_to_waveform, config=config, bpm=bpm, quality=quality)
    results: dict[str, list[Figures]] = {name: [] for name in ways}
    for picture in pictures:
        asked = image_to_mel(picture, config)
        for name, way in ways.items():
            found = waveform_to_mel(way(asked), config, bpm=bpm)[..., : asked.shape[-1]]
            codes = float((mel_to_image(found, config) - picture).mul(255.0).square().mean().sqrt())
            results[name].append({"mel": convergence(found, asked), "codes": codes})
    return results


def pictures_table(results: dict[str, dict[str, list[Figures]]]) -> str:
    """Means for every kind of picture as a Markdown table."""
    kinds = list(results)
    lines = [
        "| way | " + " | ".join(f"{kind}: mel dB | codes" for kind in kinds) + " |",
        "|---" * (1 + 2 * len(kinds)) + "|",
    ]
    for name in results[kinds[0]]:
        cells = [f"{mean([row[key] for row in results[kind][name]]):.2f}" for kind in kinds for key in ("mel", "codes")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)

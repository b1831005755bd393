"""Are riff-mini's pictures like composed ones, sharp, various, and not copies?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from riff.evaluate import frechet_distance, mel_statistics, near_copies, psnr, sharpness
from riff.latents import image_to_latents, latents_to_image
from training.clips import Clips
from training.measure_mini import Row

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline


@torch.inference_mode()
def round_trip_row(pipe: RiffPipeline, pictures: Sequence[Tensor]) -> Row:
    """PSNR of held-out pictures after the VAE, over all their pixels."""
    vae = pipe.pipeline.vae
    squares, pixels = 0.0, 0
    for picture in pictures:
        batch = picture[None].to(vae.device, vae.dtype)
        back = latents_to_image(image_to_latents(batch, vae), vae, channels=len(picture)).cpu().float()[0]
        squares += 10 ** (-psnr(back, picture) / 10) * picture.numel()
        pixels += picture.numel()
    value = -10 * math.log10(max(squares / pixels, 1e-12))
    return Row("VAE round trip PSNR (dB)", value, len(pictures), target=">= 26", met=value >= 26)


def sharpness_row(drawn: Sequence[Tensor], real: Sequence[Tensor]) -> Row:
    """Mean absolute difference along frequency, drawn over real."""
    ratio = float(np.mean([sharpness(image) for image in drawn]) / np.mean([sharpness(image) for image in real]))
    return Row("sharpness, generated / real", ratio, len(drawn), target="0.85..1.15", met=0.85 <= ratio <= 1.15)


def frechet_rows(drawn: Sequence[Tensor], real: Sequence[Tensor], others: Sequence[Tensor]) -> list[Row]:
    """Fréchet distances on mel statistics to ``others`` (real): of the drawn, and of as many real ones."""
    features = [np.concatenate([mel_statistics(image[None]) for image in images]) for images in (drawn, real, others)]
    ours, theirs = frechet_distance(features[0], features[2]), frechet_distance(features[1], features[2])
    return [
        Row(
            "Fréchet (mel statistics), generated to real",
            ours,
            len(drawn),
            target="<= 2 x",
            met=ours <= 2 * theirs,
        ),
        Row("Fréchet (mel statistics), real to real", theirs, len(real)),
        Row("Fréchet, ratio", ours / theirs, len(drawn), target="<= 2", met=ours <= 2 * theirs),
    ]


def copy_rows(drawn: Sequence[Tensor], train: Clips, held_out: Clips) -> list[Row]:
    """Is any drawn 4/4 clip nearer to a training clip than real clips are?"""
    wide = torch.stack([image.mean(0) for image in drawn if image.shape[-1] == train.pictures.shape[-1]])
    fours = [[truth["beats_per_bar"] == 4 for truth in clips.truths] for clips in (train, held_out)]
    found = near_copies(
        wide, train.pictures[torch.tensor(fours[0])], held_out=held_out.pictures[torch.tensor(fours[1])]
    )
    copies = len(found.copies)
    return [
        Row(
            f"near-copies (similarity > {found.threshold:.3f})",
            copies,
            len(wide),
            target="0",
            met=copies == 0,
        ),
        Row("likeness to nearest training clip, generated (mean)", float(found.similarity.mean()), len(wide)),
        Row(
            "likeness to nearest training clip, held-out (mean)",
            float(found.held_out.mean()),
            len(found.held_out),
        ),
    ]


def variety_row(first: Sequence[Tensor], second: Sequence[Tensor]) -> Row:
    """Two seeds of one prompt: the smallest mean absolute difference of their pictures."""
    gaps = []
    for a, b in zip(first, second, strict=True):
        width = min(a.shape[-1], b.shape[-1])
        gaps.append(float((a[..., :width] - b[..., :width]).abs().mean()))
    smallest = min(gaps)
    return Row("two seeds, smallest mean difference", smallest, len(gaps), target="> 0.02", met=smallest > 0.02)

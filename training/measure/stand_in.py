"""A checkpoint of Stable Diffusion 1.5's shape without its weights, to measure speed and memory where there is no hub.

python -m training.measure.stand_in runs/sd15 [--size 512]
python -m benchmarks denoise --model runs/sd15 --steps 2 --repeat 1
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from riff.spectrogram.config import SpectrogramConfig

WORDS = "mellow lo-fi hip hop electric piano jazz guitar in A minor techno fast slow waltz with strings 84 bpm"


def write_sd15(folder: Path, size: int) -> None:
    """A checkpoint of Stable Diffusion 1.5's sizes with random weights, half precision, on Riffusion's grid.

    Args:
        folder: where it goes.
        size: mel bins and columns of a picture, a multiple of 8.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from training.recipes.checkpoint import build_tokenizer

    unet = UNet2DConditionModel(
        sample_size=size // 8, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    text_encoder = CLIPTextModel(CLIPTextConfig(vocab_size=49408, **sizes))
    tokenizer = build_tokenizer(WORDS.split())
    scheduler = PNDMScheduler(beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True)
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.to(torch.float16).save_pretrained(folder)
    dataclasses.replace(SpectrogramConfig.riffusion(), n_mels=size, width=size).save(folder)


def main(argv: list[str] | None = None) -> None:
    """Write it: 2.1 GB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=512, help="of a picture; default 512, as Riffusion's are")
    arguments = parser.parse_args(argv)
    torch.manual_seed(0)
    write_sd15(arguments.folder, arguments.size)


if __name__ == "__main__":
    main()

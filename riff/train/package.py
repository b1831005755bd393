"""From trained parts to the checkpoint a user loads: half precision, plain diffusers, one spectrogram config."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riff.checkpoint import save_checkpoint
from riff.config import SpectrogramConfig
from riff.prior import MusicPrior
from riff.train.denoiser import Denoiser


def write_checkpoint(
    folder: Path,
    denoiser: Denoiser,
    vae: Any,
    tokenizer: Any,
    scheduler: Any,
    config: SpectrogramConfig,
    prior: dict[str, Tensor],
) -> Path:
    """Write trained parts as one checkpoint folder with float16 weights, in place of an older one.

    Args:
        folder: to write.
        denoiser: UNet and text encoder.
        vae: autoencoder with its scaling factor in its config.
        tokenizer: the text encoder's.
        scheduler: the sampler a user gets by default.
        config: of the pictures.
        prior: ``weight`` and ``bias`` of :class:`riff.prior.MusicPrior`.
    """
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=copy.deepcopy(vae).to("cpu", torch.float16),
        text_encoder=copy.deepcopy(denoiser.text_encoder).to("cpu", torch.float16),
        tokenizer=tokenizer,
        unet=copy.deepcopy(denoiser.unet).to("cpu", torch.float16),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return save_checkpoint(pipeline, config, folder, prior=MusicPrior(prior["weight"], prior["bias"]), force=True)

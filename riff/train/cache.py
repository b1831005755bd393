"""Latents and prompt embeddings, worked out once and kept in shards that know what they were made of."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from riff.diffusion.latents import fit_channels
from riff.spectrogram.config import SpectrogramConfig
from riff.train.batches import Latents, Texts, Variant
from riff.train.data.dataset import ClipSet
from riff.train.loop import StopFlag
from riff.train.progress import LoggedProgress
from riff.utils.errors import ModelError
from riff.utils.files import atomic_path

SHARD = 32  # clips a shard: what a kill costs at most
PIXELS = 2**19  # encoded at a time: an autoencoder's first layers need some 2 kB for each
logger = logging.getLogger(__name__)


def weights_hash(module: nn.Module, *, without: tuple[str, ...] = ()) -> str:
    """A hash of a module's weights and names; those that begin with one of ``without`` do not count."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not name.startswith(without):
            digest.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def encode_clips(
    vae: Any,
    clips: ClipSet,
    config: SpectrogramConfig,
    variants: tuple[Variant, ...],
    folder: Path,
    *,
    stop: StopFlag | None = None,
) -> Latents:
    """Latents of every clip in every variant, from ``folder`` where they are there already.

    A shard's name is a hash of the images, the config, the encoder and the variants, so a stale one is never read;
    a damaged one is made again. Images are read one by one, not kept in memory.

    Args:
        vae: AutoencoderKL or AutoencoderTiny; its device and dtype are used.
        clips: of one width.
        config: of the images.
        variants: ways to change a image; the first changes nothing.
        folder: of the shards; made where it is missing.
        stop: looked at before every shard.

    Raises:
        RiffError: a image is damaged or of another config.
        ModelError: the autoencoder gives numbers that are not finite.
    """
    recipe = json.dumps([config.to_dict(), [dataclasses.asdict(each) for each in variants]], sort_keys=True)
    base = weights_hash(vae, without=("decoder.", "post_quant_conv.")) + recipe
    parts = []
    with LoggedProgress(len(clips), "clip", f"latents of {clips.width} columns") as progress:
        for start in range(0, len(clips), SHARD):
            if stop is not None:
                stop.check()
            numbers = range(start, min(start + SHARD, len(clips)))
            digest = hashlib.sha256(base.encode())
            for number in numbers:
                digest.update(hashlib.sha256(clips.content(number)).digest())
            path = folder / f"latents-{digest.hexdigest()[:24]}.safetensors"
            parts.append(cached(path, _encoding(vae, clips, config, variants, numbers)))
            progress.update(len(numbers))
    mean = torch.cat([part["mean"] for part in parts])
    return Latents(mean, torch.cat([part["logvar"] for part in parts]) if "logvar" in parts[0] else None)


def _encoding(
    vae: Any,
    clips: ClipSet,
    config: SpectrogramConfig,
    variants: tuple[Variant, ...],
    numbers: range,
) -> Callable[[], dict[str, Tensor]]:
    @torch.no_grad()
    def work() -> dict[str, Tensor]:
        parts: list[dict[str, Tensor]] = []
        size = max(1, PIXELS // (config.n_mels * clips.width * len(variants)))
        for start in range(0, len(numbers), size):
            chunk = numbers[start : start + size]
            images = torch.stack([variant.apply(clips.read(i), config) for i in chunk for variant in variants])
            parts.append(_distribution(vae, images))
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return {name: value.unflatten(0, (len(numbers), len(variants))) for name, value in joined.items()}

    return work


def _distribution(vae: Any, images: Tensor) -> dict[str, Tensor]:
    pixels = fit_channels(images, vae.config.in_channels).to(device=vae.device, dtype=vae.dtype) * 2.0 - 1.0
    encoded = vae.encode(pixels)
    if hasattr(encoded, "latents"):
        found = {"mean": encoded.latents}
    else:
        found = {"mean": encoded.latent_dist.mean, "logvar": encoded.latent_dist.logvar}
    if not all(bool(torch.isfinite(value).all()) for value in found.values()):
        raise ModelError(f"the autoencoder gives numbers that are not finite in {vae.dtype}; use --mixed_precision no")
    return {name: value.cpu().half() for name, value in found.items()}


@torch.no_grad()
def embed_texts(texts: Texts, text_encoder: Any, folder: Path) -> Tensor:
    """(n, tokens, D) float16 prompt embeddings of every text, from ``folder`` where they are there already."""
    base = weights_hash(text_encoder)
    parts = []
    with LoggedProgress(len(texts.texts), "text", "prompt embeddings") as progress:
        for start in range(0, len(texts.texts), SHARD):
            ids = texts.input_ids[start : start + SHARD].long()
            key = hashlib.sha256(base.encode() + ids.numpy().tobytes()).hexdigest()[:24]
            parts.append(cached(folder / f"prompts-{key}.safetensors", _embedding(text_encoder, ids))["embeds"])
            progress.update(len(ids))
    return torch.cat(parts)


def _embedding(text_encoder: Any, ids: Tensor) -> Callable[[], dict[str, Tensor]]:
    def work() -> dict[str, Tensor]:
        rows = [text_encoder(part.to(text_encoder.device)).last_hidden_state for part in ids.split(16)]
        return {"embeds": torch.cat(rows).cpu().half()}

    return work


def cached(path: Path, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What is in ``path``; else what ``work`` makes, which is kept there."""
    if path.is_file():
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            logger.warning("%s is damaged (%s) and is made again", path, error)
    made = work()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft:
        save_file({name: value.contiguous() for name, value in made.items()}, draft)
    return made

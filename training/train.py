"""Train riff-mini, or any model of its kind, from a folder of captioned pictures to a checkpoint that riff loads.

    python -m training.make_dataset --out runs/data
    python -m training.train vae      --recipe training/recipes/riff_mini_cpu.json --data runs/data --out runs/mini
    python -m training.train denoiser --recipe training/recipes/riff_mini_cpu.json --data runs/data --out runs/mini

Both stages checkpoint as they go, stop cleanly on Ctrl-C or SIGTERM, and go on from the last checkpoint when the
same command is given again. ``--init-from CHECKPOINT`` starts from a finished checkpoint's weights instead of random
ones. The result is ``OUT/checkpoint``, a plain diffusers folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch

from riff.dataset import PictureSet, load_picture_sets
from riff.train.autoencoder import AutoencoderObjective, latent_magnitude, train_autoencoder
from riff.train.denoiser import (
    Denoiser,
    DenoiserObjective,
    LatentSet,
    encode_pictures,
    fit_music_prior,
    tokenize_captions,
    train_denoiser,
)
from riff.train.loop import LoopSettings
from riff.train.package import write_checkpoint
from riff.train.preview import DenoiserPreview
from riff.train.tokenizer import build_tokenizer

PREVIEW_PROMPTS = (
    "lo-fi hip hop, mellow electric piano, 84 bpm",
    "funky jazz saxophone",
    "church bells",
    "techno",
)


def _settings(recipe: dict[str, Any], stage: str, arguments: argparse.Namespace) -> LoopSettings:
    given = {"steps": arguments.steps, "learning_rate": arguments.learning_rate}
    return LoopSettings(**(recipe[f"{stage}_loop"] | {name: value for name, value in given.items() if value}))


def _autoencoder_class(recipe: dict[str, Any]) -> Any:
    """AutoencoderTiny has no norms and a third of the arithmetic at full size, which is what 2 cores can train."""
    import diffusers

    return {"AutoencoderKL": diffusers.AutoencoderKL, "AutoencoderTiny": diffusers.AutoencoderTiny}[recipe["vae_class"]]


def _stage_vae(recipe: dict[str, Any], arguments: argparse.Namespace) -> bool:
    sets, _ = load_picture_sets(arguments.data / "train")
    heldout, _ = load_picture_sets(arguments.data / "heldout", limit=64)
    torch.manual_seed(0)
    kind = _autoencoder_class(recipe)
    vae = kind(**recipe["vae"])
    if arguments.init_from:
        vae = kind.from_pretrained(arguments.init_from, subfolder="vae", use_safetensors=True).float()
    objective = AutoencoderObjective(**recipe["vae_objective"])
    settings = _settings(recipe, "vae", arguments)
    run = arguments.out / "vae"
    finished = train_autoencoder(vae, sets[0], heldout[0], objective, settings, run, until=arguments.until)
    vae.register_to_config(scaling_factor=1.0 / latent_magnitude(vae, sets[0]))
    vae.save_pretrained(arguments.out / "autoencoder", safe_serialization=True)
    return finished


def _new_denoiser(recipe: dict[str, Any], arguments: argparse.Namespace) -> tuple[Denoiser, Any]:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    if arguments.init_from:
        source = arguments.init_from
        tokenizer = CLIPTokenizer.from_pretrained(source, subfolder="tokenizer")
        text_encoder = CLIPTextModel.from_pretrained(source, subfolder="text_encoder", use_safetensors=True)
        unet = UNet2DConditionModel.from_pretrained(source, subfolder="unet", use_safetensors=True)
        return Denoiser(unet.float(), text_encoder.float()), tokenizer
    from training.composer.captions import vocabulary

    tokenizer = build_tokenizer(vocabulary(), model_max_length=recipe["tokens"])
    torch.manual_seed(0)
    text_config = CLIPTextConfig(
        **recipe["text_encoder"],
        vocab_size=len(tokenizer),
        max_position_embeddings=recipe["tokens"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Denoiser(UNet2DConditionModel(**recipe["unet"]), CLIPTextModel(text_config)), tokenizer


def _latent_sets(vae: Any, sets: list[PictureSet], tokenizer: Any, cache: Path) -> list[LatentSet]:
    prepared = []
    for pictures in sets:
        input_ids, empty_ids = tokenize_captions(pictures, tokenizer)
        prepared.append(LatentSet(encode_pictures(vae, pictures, cache=cache), input_ids, empty_ids))
    return prepared


def _stage_denoiser(recipe: dict[str, Any], arguments: argparse.Namespace) -> bool:
    from diffusers import DDIMScheduler

    sets, config = load_picture_sets(arguments.data / "train")
    vae_folder = arguments.out / "autoencoder"
    if not vae_folder.exists():
        vae_folder = Path(arguments.init_from or "") / "vae"
    vae = (
        _autoencoder_class(recipe)
        .from_pretrained(vae_folder, use_safetensors=True)
        .float()
        .eval()
        .requires_grad_(False)
    )
    if torch.cuda.is_available():
        vae.to("cuda")
    denoiser, tokenizer = _new_denoiser(recipe, arguments)
    scheduler = DDIMScheduler(**recipe["scheduler"])
    latents = _latent_sets(vae, sets, tokenizer, arguments.out / "cache")
    preview = DenoiserPreview(vae, tokenizer, scheduler, config, PREVIEW_PROMPTS)

    def package(folder: Path) -> None:
        prior = fit_music_prior(sets, tokenizer, denoiser.text_encoder)
        write_checkpoint(folder, denoiser, vae, tokenizer, scheduler, config, prior)

    def show_and_keep(model: torch.nn.Module, step: int, writer: Any) -> None:
        preview(denoiser, step, writer)
        package(arguments.out / "checkpoint")

    finished = train_denoiser(
        denoiser,
        scheduler,
        latents,
        DenoiserObjective(**recipe["denoiser_objective"]),
        _settings(recipe, "denoiser", arguments),
        arguments.out / "denoiser",
        preview=show_and_keep,
        until=arguments.until,
    )
    package(arguments.out / "checkpoint")
    return finished


def main(argv: list[str] | None = None) -> int:
    """Run one stage; 0 when it is finished, 130 when it was interrupted (give the command again to go on)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["vae", "denoiser"])
    parser.add_argument("--recipe", type=Path, required=True, help="JSON file of architecture and schedule")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and heldout/ shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--init-from", help="checkpoint folder whose weights to start from")
    parser.add_argument("--steps", type=int, help="in place of the recipe's number of steps")
    parser.add_argument("--learning-rate", type=float, help="in place of the recipe's")
    parser.add_argument("--until", type=int, help="stop after this step; give the command again to go on")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = json.loads(arguments.recipe.read_text(encoding="utf-8"))
    stage = {"vae": _stage_vae, "denoiser": _stage_denoiser}[arguments.stage]
    if stage(recipe, arguments):
        return 0
    print("interrupted; the same command goes on from here", file=sys.stderr)
    return 130


if __name__ == "__main__":
    raise SystemExit(main())

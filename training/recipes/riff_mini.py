"""Train riff-mini, or any model of its kind, from a folder of captioned pictures to a checkpoint that riff loads.

    python -m training.recipes.dataset --out runs/data
    python -m training.recipes.riff_mini text     --recipe training/recipes/riff_mini_cpu.json --out runs/mini
    python -m training.recipes.riff_mini vae      --recipe training/recipes/riff_mini_cpu.json --data runs/data --out
    runs/mini
    python -m training.recipes.riff_mini denoiser --recipe training/recipes/riff_mini_cpu.json --data runs/data --out
    runs/mini
    python -m training.recipes.riff_mini decoder  --recipe training/recipes/riff_mini_cpu.json --data runs/data --out
    runs/mini
    python -m training.recipes.riff_mini obey     --recipe training/recipes/riff_mini_cpu.json --data runs/data --out
    runs/mini
    python -m training.recipes.riff_mini polish   --recipe training/recipes/riff_mini_cpu.json --data runs/data --out
    runs/mini

The text stage teaches the text encoder what captions mean, from captions alone; the decoder stage sharpens what the
autoencoder draws and leaves its latents as they are; obey teaches the denoiser to be recognised; polish teaches the
decoder to paint what the denoiser draws as composed pictures are painted.
The stages checkpoint as they go, stop cleanly on Ctrl-C or SIGTERM, and go on from the last checkpoint when the
same command is given again. ``--init-from CHECKPOINT`` starts from a finished checkpoint's weights instead of random
ones; parts that an earlier stage left in OUT come before those. The result is ``OUT/checkpoint``, after obey
``OUT/checkpoint-obedient`` and after polish ``OUT/checkpoint-polished``, plain diffusers folders.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from riff.diffusion.model import MINI_GUIDANCE, MINI_INTERVAL
from riff.diffusion.sampling import choose_scheduler
from riff.pipeline import RiffPipeline
from riff.train.data.images import ImageSet, load_image_sets
from riff.train.loop import train
from riff.train.preview import DenoiserPreview
from riff.train.processes import choose_precision
from riff.train.settings import LoopSettings
from training.recipes.autoencoder import AutoencoderObjective, latent_magnitude, train_autoencoder
from training.recipes.checkpoint import build_tokenizer, write_checkpoint
from training.recipes.denoiser import (
    Denoiser,
    DenoiserObjective,
    LatentSet,
    encode_pictures,
    fit_music_prior,
    tokenize_captions,
    train_denoiser,
)

logger = logging.getLogger(__name__)
SAMPLER = "dpm++"  # by which a checkpoint draws; its noise schedule is the one that it was trained by
PREVIEW_PROMPTS = (
    "lo-fi hip hop, mellow electric piano, 84 bpm",
    "funky jazz saxophone",
    "church bells",
    "techno",
)


def _settings(recipe: dict[str, Any], stage: str, arguments: argparse.Namespace | None = None) -> LoopSettings:
    """The recipe's settings of a loop; of the loop that the command is about, with what its arguments say."""
    given = {name: getattr(arguments, name, None) for name in ("steps", "learning_rate")}
    usual = {"mixed_precision": choose_precision(torch.device("cuda" if torch.cuda.is_available() else "cpu"))}
    return LoopSettings(**(usual | recipe[f"{stage}_loop"] | {name: value for name, value in given.items() if value}))


def _autoencoder_class(recipe: dict[str, Any]) -> Any:
    """AutoencoderTiny has no norms and a third of the arithmetic at full size, which is what 2 cores can train."""
    import diffusers

    return {"AutoencoderKL": diffusers.AutoencoderKL, "AutoencoderTiny": diffusers.AutoencoderTiny}[recipe["vae_class"]]


def _load_autoencoder(recipe: dict[str, Any], arguments: argparse.Namespace) -> Any:
    """The autoencoder of an earlier stage, else of ``--init-from``."""
    folder = arguments.out / "autoencoder"
    if not folder.exists():
        folder = Path(arguments.init_from or "") / "vae"
    return _autoencoder_class(recipe).from_pretrained(folder, use_safetensors=True).float()


def _stage_vae(recipe: dict[str, Any], arguments: argparse.Namespace) -> bool:
    sets, _ = load_image_sets(arguments.data / "train")
    heldout, _ = load_image_sets(arguments.data / "heldout", limit=64)
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


def _stage_decoder(recipe: dict[str, Any], arguments: argparse.Namespace) -> bool:
    """Sharpen the decoder; the latents stay, so the denoiser need not be trained again, only packaged again."""
    sets, _ = load_image_sets(arguments.data / "train")
    heldout, _ = load_image_sets(arguments.data / "heldout", limit=64)
    vae = _load_autoencoder(recipe, arguments)
    vae.encoder.requires_grad_(False)
    objective = AutoencoderObjective(**recipe["decoder_objective"])
    settings = _settings(recipe, "decoder", arguments)
    run = arguments.out / "decoder"
    finished = train_autoencoder(vae, sets[0], heldout[0], objective, settings, run, until=arguments.until)
    vae.save_pretrained(arguments.out / "autoencoder", safe_serialization=True)
    return finished


def _text_parts(recipe: dict[str, Any], arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Text encoder and tokenizer: those of the text stage, else of ``--init-from``, else new ones."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    stage = arguments.out / "text"
    source = stage if (stage / "text_encoder").exists() else arguments.init_from
    if source:
        tokenizer = CLIPTokenizer.from_pretrained(source, subfolder="tokenizer")
        text_encoder = CLIPTextModel.from_pretrained(source, subfolder="text_encoder", use_safetensors=True)
        return text_encoder.float(), tokenizer
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
    return CLIPTextModel(text_config), tokenizer


def _stage_text(recipe: dict[str, Any], arguments: argparse.Namespace) -> bool:
    from training.recipes.text_encoder import TextObjective, train_text

    text_encoder, tokenizer = _text_parts(recipe, arguments)
    run = arguments.out / "text"
    objective = TextObjective(**recipe["text_objective"])
    settings = _settings(recipe, "text", arguments)
    finished = train_text(text_encoder, tokenizer, objective, settings, run, until=arguments.until)
    text_encoder.save_pretrained(run / "text_encoder", safe_serialization=True)
    tokenizer.save_pretrained(run / "tokenizer")
    return finished


def _new_unet(recipe: dict[str, Any], arguments: argparse.Namespace) -> Any:
    """The recipe's UNet; from ``--init-from`` come all weights that fit, and the rest is reported."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**recipe["unet"])
    if arguments.init_from:
        old = UNet2DConditionModel.from_pretrained(arguments.init_from, subfolder="unet", use_safetensors=True)
        own = unet.state_dict()
        fitting = {k: v.float() for k, v in old.state_dict().items() if k in own and own[k].shape == v.shape}
        unet.load_state_dict(fitting, strict=False)
        logger.info("%d of %d weights of the UNet come from %s", len(fitting), len(own), arguments.init_from)
    return unet


def _write_out_attention(unet: Any) -> None:
    """On CPUs the fused attention's backward pass is slow: written out, a step takes 0.75 of the time."""
    from diffusers.models.attention_processor import AttnProcessor

    if not torch.cuda.is_available():
        unet.set_attn_processor(AttnProcessor())


def _latent_sets(vae: Any, sets: list[ImageSet], tokenizer: Any, cache: Path) -> list[LatentSet]:
    prepared = []
    for pictures in sets:
        input_ids, empty_ids = tokenize_captions(pictures, tokenizer)
        prepared.append(LatentSet(encode_pictures(vae, pictures, cache=cache), input_ids, empty_ids))
    return prepared


def _stage_denoiser(recipe: dict[str, Any], arguments: argparse.Namespace) -> bool:
    from diffusers import DDIMScheduler

    sets, config = load_image_sets(arguments.data / "train")
    vae = _load_autoencoder(recipe, arguments).eval().requires_grad_(False)
    if torch.cuda.is_available():
        vae.to("cuda")
    text_encoder, tokenizer = _text_parts(recipe, arguments)
    text_encoder.requires_grad_(recipe.get("train_text_encoder", True))
    unet = _new_unet(recipe, arguments)
    _write_out_attention(unet)
    denoiser = Denoiser(unet, text_encoder)
    scheduler = DDIMScheduler(**recipe["scheduler"])
    sampler = choose_scheduler(SAMPLER, scheduler)
    latents = _latent_sets(vae, sets, tokenizer, arguments.out / "cache")
    preview = DenoiserPreview(vae, tokenizer, sampler, config, PREVIEW_PROMPTS, MINI_GUIDANCE, MINI_INTERVAL)

    def package(folder: Path) -> None:
        prior = fit_music_prior(sets, tokenizer, denoiser.text_encoder)
        write_checkpoint(folder, denoiser, vae, tokenizer, sampler, config, prior)

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


def _stage_obey(recipe: dict[str, Any], arguments: argparse.Namespace) -> bool:
    """Teach the denoiser of the checkpoint in OUT, else of ``--init-from``, to be recognised; 4/4 pictures only."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    from training.recipes.obedience import (
        ObedienceLoss,
        ObedienceObjective,
        accuracies,
        make_lessons,
        told_of,
        train_judge,
        with_short_captions,
    )

    sets, config = load_image_sets(arguments.data / "train")
    heldout, _ = load_image_sets(arguments.data / "heldout")
    widest, unheard = (max(found, key=lambda pictures: pictures.pixels.shape[-1]) for found in (sets, heldout))
    widest = ImageSet(widest.pixels, with_short_captions(widest.clips))
    vae = _load_autoencoder(recipe, arguments).eval().requires_grad_(False)
    text_encoder, tokenizer = _text_parts(recipe, arguments)
    source = arguments.init_from or arguments.out / "checkpoint"
    unet = UNet2DConditionModel.from_pretrained(source, subfolder="unet", use_safetensors=True).float()
    _write_out_attention(unet)
    denoiser = Denoiser(unet, text_encoder.requires_grad_(False))
    scheduler = DDIMScheduler(**recipe["scheduler"])
    latents, others = _latent_sets(vae, [widest, unheard], tokenizer, arguments.out / "cache")
    lessons = make_lessons(latents.latents, widest.clips)
    judge = train_judge(lessons, _settings(recipe, "judge"), arguments.out / "judge", batch_size=48)
    if judge is None:
        return False
    right = accuracies(judge, make_lessons(others.latents, unheard.clips, known=widest.clips))
    logger.info("of held-out clips the judge knows genre %.3f, lead %.3f, key %.3f", *right)
    objective = ObedienceObjective(**recipe["obedience_objective"])
    loss = ObedienceLoss(scheduler, judge, lessons, latents, told_of(widest.clips), objective)
    settings = _settings(recipe, "obedience", arguments)
    finished = train(denoiser, loss, settings, arguments.out / "obedience", until=arguments.until)
    prior = fit_music_prior(sets, tokenizer, text_encoder)
    sampler = choose_scheduler(SAMPLER, scheduler)
    write_checkpoint(arguments.out / "checkpoint-obedient", denoiser, vae, tokenizer, sampler, config, prior)
    return finished


def _stage_polish(recipe: dict[str, Any], arguments: argparse.Namespace) -> bool:
    """Teach the decoder what the denoiser of OUT, else of ``--init-from``, draws; the latents stay what they are."""
    from training.recipes.autoencoder import DecoderStep, PolishObjective, make_lesson

    sets, config = load_image_sets(arguments.data / "train")
    widest = max(sets, key=lambda pictures: pictures.pixels.shape[-1])
    pipe = RiffPipeline.from_pretrained(arguments.init_from or arguments.out / "checkpoint-obedient")
    parts = pipe.components
    parts.vae.float().encoder.requires_grad_(False)
    objective = PolishObjective(**recipe["polish_objective"])
    fidelity = AutoencoderObjective(**recipe["polish_fidelity"])
    lesson = make_lesson(pipe.model, widest, objective, fidelity, arguments.out / "cache")
    settings = _settings(recipe, "polish", arguments)
    finished = train(DecoderStep(parts.vae), lesson, settings, arguments.out / "polish", until=arguments.until)
    denoiser = Denoiser(parts.unet, parts.text_encoder)
    prior = fit_music_prior(sets, parts.tokenizer, parts.text_encoder)
    folder = arguments.out / "checkpoint-polished"
    write_checkpoint(folder, denoiser, parts.vae, parts.tokenizer, parts.scheduler, config, prior)
    return finished


STAGES: dict[str, Callable[[dict[str, Any], argparse.Namespace], bool]] = {
    "text": _stage_text,
    "vae": _stage_vae,
    "denoiser": _stage_denoiser,
    "decoder": _stage_decoder,
    "obey": _stage_obey,
    "polish": _stage_polish,
}


def main(argv: list[str] | None = None) -> int:
    """Run one stage; 0 when it is finished, 130 when it was interrupted (give the command again to go on)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--recipe", type=Path, required=True, help="JSON file of architecture and schedule")
    parser.add_argument("--data", type=Path, help="folder with train/ and heldout/ shards; the text stage needs none")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--init-from", help="checkpoint folder whose weights to start from")
    parser.add_argument("--steps", type=int, help="in place of the recipe's number of steps")
    parser.add_argument("--learning-rate", type=float, help="in place of the recipe's")
    parser.add_argument("--until", type=int, help="stop after this step; give the command again to go on")
    arguments = parser.parse_args(argv)
    if arguments.data is None and arguments.stage != "text":
        parser.error(f"the {arguments.stage} stage needs --data; make it with python -m training.recipes.dataset")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = json.loads(arguments.recipe.read_text(encoding="utf-8"))
    if STAGES[arguments.stage](recipe, arguments):
        return 0
    print("interrupted; the same command goes on from here", file=sys.stderr)
    return 130


if __name__ == "__main__":
    raise SystemExit(main())

"""What the model generates before it is fine-tuned, learned again beside the new clips so that it is not forgotten."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riff.diffusion.latents import downsampling, sample_noise
from riff.diffusion.model import DiffusionModel
from riff.diffusion.sampling import PlainPrediction, denoise
from riff.diffusion.windows import training_width
from riff.prompt.encoder import embed_prompt
from riff.prompt.vocabulary import split_known
from riff.train.batches import Latents, TrainSet
from riff.train.cache import cached, weights_hash
from riff.train.loop import StopFlag
from riff.train.progress import LoggedProgress
from riff.utils.errors import RiffError

AUTO = "auto"
STEPS = 20
BATCH = 8
FEWEST = 16  # clips that are generated however long they take
# Kinds of music that people want; of a closed vocabulary those that it knows are used.
CLASS_PROMPTS = (
    "techno", "house", "trance", "drum and bass", "dubstep", "ambient", "lo-fi hip hop, mellow electric piano",
    "trap", "disco", "funk", "soul", "jazz, saxophone", "swing, big band", "bebop", "blues, guitar",
    "rock, electric guitar", "heavy metal, distorted guitar", "punk", "country, acoustic guitar",
    "bluegrass, banjo", "folk", "reggae", "dub", "ska", "bossa nova", "samba", "salsa, piano",
    "tango, accordion", "flamenco guitar", "waltz, strings", "classical piano", "string quartet",
    "baroque, harpsichord", "church bells", "choir", "gospel, organ", "lullaby, music box", "march, brass",
    "chiptune", "synthwave", "epic orchestra, drums", "horror, strings", "celtic, flute", "klezmer, clarinet",
    "afrobeat", "polka", "new age, harp", "video game music", "ragtime piano", "boom bap", "chinese music",
    "orchestral", "sacred music", "boogie woogie piano", "surf rock",
)  # fmt: skip
Group = list[tuple[int, str]]  # seeds and texts of clips that are generated together


def class_prompts(source: str, components: Any, *, closed: bool) -> list[str]:
    """The prompts of a file, one a line; "auto" is a spread of those that the model knows.

    Raises:
        RiffError: the file cannot be read or holds no prompt.
    """
    if source == AUTO:
        return [text for text in CLASS_PROMPTS if not closed or not split_known(text, components.tokenizer)[1]]
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise RiffError(f"the class prompts {source} cannot be read ({error}); give a text file or 'auto'") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise RiffError(f"the class prompts {source} hold no line; write one prompt a line")
    return prompts


def shared_cache(otherwise: Path) -> Path:
    """The folder of generated clips that all runs share: below ``$RIFF_CACHE``, else the user's cache folder.

    Where that cannot be written it is the folder ``otherwise``.
    """
    try:
        root = os.environ.get("RIFF_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "riff")
        folder = Path(root) / "class-clips"
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) else otherwise
    except (OSError, RuntimeError):  # there is no home
        return otherwise


def generate_class_clips(
    model: DiffusionModel,
    prompts: list[str],
    *,
    count: int,
    seed: int,
    folder: Path,
    seconds: float | None = None,
    stop: StopFlag | None = None,
) -> list[tuple[list[str], Latents]]:
    """Generate clips of the prompts, in turn, with the model as it is, or read them from ``folder``.

    Args:
        model: the untouched model.
        prompts: of the clips.
        count: of clips.
        seed: of the first clip.
        folder: of the cache; every group of eight clips is kept there once it is done.
        seconds: how long this may take; with more clips than fit, only so many are generated, but at least 16.
        stop: looked at before every group.

    Returns:
        For each width: the text that conditioned each clip, and their latents.
    """
    read = [model.interpret(text) for text in prompts]
    widths = [training_width(model.config, each.beats_per_bar) // downsampling(model.components.vae) for each in read]
    key = _key(model)
    groups: dict[int, Group] = {}
    made: dict[int, list[tuple[Group, Tensor]]] = {}
    began, number, done = time.monotonic(), 0, 0

    def finish(width: int) -> None:
        if stop is not None:
            stop.check()
        group = groups.pop(width)
        name = hashlib.sha256(f"{key} {width} {group}".encode()).hexdigest()[:24]
        found = cached(folder / f"class-{name}.safetensors", _generation(model, width, group))
        made.setdefault(width, []).append((group, found["mean"]))
        progress.update(len(group))

    with LoggedProgress(count, "clip", "clips of the model as it is") as progress:
        while number < count:
            width = widths[number % len(read)]
            groups.setdefault(width, []).append((seed + number, read[number % len(read)].text))
            number += 1
            if len(groups[width]) == BATCH:
                finish(width)
                done += BATCH
                if seconds is not None:
                    affordable = int(done * seconds / max(time.monotonic() - began, 1e-9))
                    count = max(FEWEST, min(count, affordable))
                    progress.total = max(count, number)
        for width in list(groups):
            finish(width)
    return [
        ([text for group, _ in parts for _, text in group], Latents(torch.cat([mean for _, mean in parts]), None))
        for parts in made.values()
    ]


def _key(model: DiffusionModel) -> str:
    parts = model.components
    weights = weights_hash(parts.unet) + weights_hash(parts.text_encoder)
    # Private fields hold sets, whose order is another one in every process.
    schedule = sorted((name, str(value)) for name, value in parts.scheduler.config.items() if not name.startswith("_"))
    return f"{weights} {schedule} {STEPS} {model.default_guidance} {model.interval}"


def _generation(model: DiffusionModel, width: int, group: Group) -> Callable[[], dict[str, Tensor]]:
    parts = model.components

    @torch.no_grad()
    def work() -> dict[str, Tensor]:
        shape = (*model.latent_rows, width)
        noise = [sample_noise(shape, generator=torch.Generator().manual_seed(seed)) for seed, _ in group]
        predict = PlainPrediction(
            parts.unet,
            embed_prompt([text for _, text in group], parts.tokenizer, parts.text_encoder),
            embed_prompt([""] * len(group), parts.tokenizer, parts.text_encoder),
            model.default_guidance,
            model.interval,
        )
        scheduler = type(parts.scheduler).from_config(parts.scheduler.config)
        latents = denoise(predict, scheduler, torch.stack(noise).to(model.device), num_inference_steps=STEPS)
        shift = float(getattr(parts.vae.config, "shift_factor", None) or 0.0)
        return {"mean": (latents / parts.vae.config.scaling_factor + shift).cpu().half()[:, None]}

    return work


def class_set(latents: Latents, texts: list[Tensor]) -> TrainSet:
    """Generated clips as a set to train on: one text each, in one variant."""
    count = len(texts)
    return TrainSet(
        latents, texts, ["a clip of the model's own"] * count, [0] * count, torch.ones(count, dtype=torch.bool),
        torch.zeros(1, dtype=torch.bool),
    )  # fmt: skip

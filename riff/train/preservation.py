"""What the model draws before it is fine-tuned, learned again beside the new clips so that it is not forgotten."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from riff.diffusion import PlainPrediction, denoise
from riff.errors import RiffError
from riff.latents import downsampling, draw_noise
from riff.model import Model
from riff.plan import usual_columns
from riff.prompt import embed_prompt, split_known
from riff.reading import Reading, read_prompt
from riff.train.batches import TrainSet
from riff.train.cache import Latents, kept, weights_hash

AUTO = "auto"
STEPS = 20
BATCH = 8
# Kinds of music that people ask for; a closed vocabulary is asked for those that it knows.
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
logger = logging.getLogger(__name__)


def class_prompts(source: str, parts: Any, *, closed: bool) -> list[str]:
    """The prompts of a file, one a line; "auto" is a spread of those that the model knows.

    Raises:
        RiffError: the file cannot be read or holds no prompt.
    """
    if source == AUTO:
        return [text for text in CLASS_PROMPTS if not closed or not split_known(text, parts.tokenizer)[1]]
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise RiffError(f"the class prompts {source} cannot be read ({error}); give a text file or 'auto'") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise RiffError(f"the class prompts {source} hold no line; write one prompt a line")
    return prompts


def draw_class_clips(
    model: Model, prompts: list[str], *, count: int, seed: int, folder: Path
) -> list[tuple[list[str], Latents]]:
    """Draw ``count`` clips of the prompts, in turn, with the model as it is.

    Args:
        model: the untouched model.
        prompts: what to draw.
        count: of clips.
        seed: of the first noise.
        folder: of the cache.

    Returns:
        For each width: what the model was told of each clip, and its latents.
    """
    parts, config, prior = model.parts, model.config, model.prior
    readings = [read_prompt(text, bpm=None, keyscale=None, parts=parts, prior=prior) for text in prompts]
    asked = [readings[number % len(readings)] for number in range(count)]
    widths: dict[int, list[tuple[int, Reading]]] = {}
    for number, reading in enumerate(asked):
        width = usual_columns(config, reading.beats_per_bar) // downsampling(parts.vae)
        widths.setdefault(width, []).append((seed + number, reading))
    key = weights_hash(parts.unet) + weights_hash(parts.text_encoder) + str(parts.scheduler.config)
    drawn = []
    with tqdm(total=count, disable=None, unit="clip", desc="clips of the model as it is") as bar:
        for width, members in widths.items():
            told = [(number, reading.text) for number, reading in members]
            digest = hashlib.sha256(f"{key} {width} {told}".encode()).hexdigest()[:24]
            latents = kept(folder / f"class-{digest}.safetensors", _drawing(model, width, told, bar.update))
            drawn.append(([text for _, text in told], Latents(latents["mean"], None)))
    return drawn


def _drawing(
    model: Model, width: int, told: list[tuple[int, str]], tell: Callable[[int], Any]
) -> Callable[[], dict[str, Tensor]]:
    parts = model.parts

    @torch.no_grad()
    def work() -> dict[str, Tensor]:
        rows = []
        for start in range(0, len(told), BATCH):
            chunk = told[start : start + BATCH]
            noise = torch.stack(
                [
                    draw_noise((*model.latent_rows, width), generator=torch.Generator().manual_seed(number))
                    for number, _ in chunk
                ]
            )
            predict = PlainPrediction(
                parts.unet,
                embed_prompt([text for _, text in chunk], parts.tokenizer, parts.text_encoder),
                embed_prompt([""] * len(chunk), parts.tokenizer, parts.text_encoder),
                model.default_guidance,
                model.interval,
            )
            scheduler = type(parts.scheduler).from_config(parts.scheduler.config)
            latents = denoise(predict, scheduler, noise.to(model.device), num_inference_steps=STEPS)
            rows.append((latents / parts.vae.config.scaling_factor + _shift(parts.vae)).cpu().half())
            tell(len(chunk))
        return {"mean": torch.cat(rows)[:, None]}

    return work


def _shift(vae: Any) -> float:
    return float(getattr(vae.config, "shift_factor", None) or 0.0)


def class_set(latents: Latents, texts: list[Tensor]) -> TrainSet:
    """Drawn clips as a set to train on: one text each, as they are."""
    count = len(texts)
    return TrainSet(
        latents, texts, ["a clip of the model's own"] * count, [0] * count, torch.ones(count, dtype=torch.bool),
        torch.zeros(1, dtype=torch.bool),
    )  # fmt: skip

"""Training text encoder and UNet together on latents, and what riff-mini knows of tempo and meter from words."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from riff.prompt.encoder import embed_prompt
from riff.train.data.images import ImageSet
from riff.train.loop import train
from riff.train.loss import add_noise, loss_weights, stratified_timesteps
from riff.train.processes import choose_precision
from riff.train.settings import LoopSettings
from riff.utils.files import atomic_path
from training.recipes.autoencoder import encode_mode


@dataclasses.dataclass(frozen=True)
class DenoiserObjective:
    """How batches are drawn and weighed.

    Attributes:
        batch_size: clips per step.
        caption_dropout: share of captions replaced by the empty one, so that guidance has its other half.
        snr_gamma: Min-SNR weighting; ``None`` weighs all timesteps alike.
        caption_draws: of so many captions of a clip, drawn at random, the longest is told. A caption that leaves the
            lead instrument out cannot teach it.
    """

    batch_size: int = 32
    caption_dropout: float = 0.1
    snr_gamma: float | None = None
    caption_draws: int = 1


class Denoiser(nn.Module):
    """Text encoder and UNet as one forward pass: noisy latents and token ids to the predicted velocity."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module):
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, input_ids: Tensor) -> Tensor:
        """(B, L, H, W), (B,), (B, tokens) to (B, L, H, W)."""
        prompt_embeds = self.text_encoder(input_ids).last_hidden_state
        return self.unet(noisy, timesteps, encoder_hidden_states=prompt_embeds).sample


@dataclasses.dataclass
class LatentSet:
    """Scaled latents of one picture width with the token ids of every caption, and the empty caption's.

    Attributes:
        latents: (n, L, H, W) float16.
        input_ids: (n, captions, tokens) int32.
        empty_ids: (tokens,) int32.
    """

    latents: Tensor
    input_ids: Tensor
    empty_ids: Tensor

    def batch(self, objective: DenoiserObjective, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch of latents and the ids of one caption each, some of them dropped."""
        n, captions = self.input_ids.shape[:2]
        indices = torch.randint(n, (objective.batch_size,), generator=generator)
        draws = torch.randint(captions, (objective.batch_size, objective.caption_draws), generator=generator)
        # All captions are padded to one length with the token that ends them, which the empty one is full of.
        lengths = (self.input_ids[indices[:, None], draws] != self.empty_ids[-1]).sum(-1)
        chosen = draws.gather(1, lengths.argmax(1, keepdim=True))[:, 0]
        ids = self.input_ids[indices, chosen].long()
        dropped = torch.rand(objective.batch_size, generator=generator) < objective.caption_dropout
        ids[dropped] = self.empty_ids.long()
        return self.latents[indices].float(), ids


def _cache_key(vae: Any, pictures: ImageSet) -> str:
    """Changes whenever the encoder or the pictures do, so that stale latents are never trained on."""
    digest = hashlib.sha256(str(vae.config.scaling_factor).encode())
    for name, value in sorted(vae.state_dict().items()):
        if name.startswith(("decoder.", "post_quant_conv.")):
            continue
        digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
    digest.update(pictures.pixels.numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def encode_pictures(vae: Any, pictures: ImageSet, *, cache: Path, batch_size: int = 8) -> Tensor:
    """Latents of all pictures, read from ``cache`` if that is of this autoencoder and these pictures.

    Eight at once with channels innermost: on a CPU that is the quickest.
    """
    key = _cache_key(vae, pictures)
    path = cache / f"latents-{key}.safetensors"
    if path.exists():
        return load_file(path)["latents"]
    device = next(vae.parameters()).device
    vae.to(memory_format=torch.channels_last)
    latents = []
    with torch.autocast(device.type, torch.bfloat16, enabled=choose_precision(device) != "no"):
        for start in range(0, len(pictures), batch_size):
            images = pictures.images(torch.arange(start, min(start + batch_size, len(pictures)))).to(device)
            mode = encode_mode(vae, images * 2.0 - 1.0).float()
            latents.append((mode * vae.config.scaling_factor).half().cpu())
    vae.to(memory_format=torch.contiguous_format)
    joined = torch.cat(latents).contiguous()
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft:
        save_file({"latents": joined}, draft)
    return joined


def tokenize_captions(pictures: ImageSet, tokenizer: Any) -> tuple[Tensor, Tensor]:
    """Ids of every caption (n, captions, tokens) and of the empty one (tokens,), int32."""
    captions = [clip["captions"] for clip in pictures.clips]
    flat = [text for texts in captions for text in texts] + [""]
    encoded = tokenizer(flat, padding="max_length", truncation=True, max_length=tokenizer.model_max_length)
    ids = torch.tensor(encoded["input_ids"], dtype=torch.int32)
    return ids[:-1].reshape(len(captions), -1, ids.shape[-1]), ids[-1]


def velocity_errors(
    model: nn.Module, latents: Tensor, input_ids: Tensor, alphas: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mean squared error of each predicted velocity, at timesteps and with noise drawn with ``generator``.

    Args:
        model: a :class:`Denoiser`.
        latents: (B, L, H, W).
        input_ids: (B, tokens).
        alphas: (n_timesteps,) of the scheduler.
        generator: on the CPU.

    Returns:
        Errors (B,) on the model's device, timesteps (B,) on the CPU.
    """
    timesteps = stratified_timesteps(len(latents), len(alphas), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    noisy, velocity = add_noise(latents, noise, timesteps, alphas)
    device = next(model.parameters()).device
    predicted = model(noisy.to(device), timesteps.to(device), input_ids.to(device)).float()
    return (predicted - velocity.to(device)).pow(2).mean(dim=(1, 2, 3)), timesteps


def train_denoiser(
    denoiser: Denoiser,
    scheduler: Any,
    sets: list[LatentSet],
    objective: DenoiserObjective,
    settings: LoopSettings,
    run: Path,
    *,
    preview: Any = None,
    until: int | None = None,
) -> bool:
    """Train UNet and text encoder in place to predict velocities; see :func:`riff.train.loop.train`."""
    sizes = torch.tensor([float(len(latents.latents)) for latents in sets])
    alphas = scheduler.alphas_cumprod

    def batch_loss(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        # One width a batch: pictures of 3/4 bars are narrower.
        chosen = sets[int(torch.multinomial(sizes, 1, generator=generator))]
        latents, input_ids = chosen.batch(objective, generator)
        errors, timesteps = velocity_errors(model, latents, input_ids, alphas, generator)
        weights = loss_weights(timesteps, alphas, snr_gamma=objective.snr_gamma).to(errors)
        return (errors * weights).mean(), {}

    return train(denoiser, batch_loss, settings, run, preview=preview, until=until)


@torch.no_grad()
def fit_music_prior(pictures: list[ImageSet], tokenizer: Any, text_encoder: Any, *, n: int = 4000) -> dict[str, Tensor]:
    """What the words say of tempo and meter, as ridge regression on mean prompt embeddings.

    Fitted on captions that name no tempo in numbers and on all that do alike, so both are served: a number in the
    prompt is read before the prior is asked.

    Returns:
        ``weight`` (2, D) and ``bias`` (2,): log2 of beats per minute, and the logit-like score of 3/4 against 4/4.
    """
    texts, targets = [], []
    clips = [clip for chosen in pictures for clip in chosen.clips]
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0)).tolist()
    for index in order[:n]:
        clip = clips[index]
        for text in clip["captions"][:3]:
            texts.append(text)
            targets.append((clip["bpm"], 1.0 if clip["beats_per_bar"] == 3 else -1.0))
    features = torch.cat(
        [
            embed_prompt(texts[i : i + 64], tokenizer, text_encoder).mean(1).double().cpu()
            for i in range(0, len(texts), 64)
        ]
    )
    values = torch.tensor(targets, dtype=torch.float64)
    values[:, 0] = values[:, 0].log2()
    centre, offset = features.mean(0), values.mean(0)
    centred = features - centre
    gram = centred.T @ centred
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    weight = torch.linalg.solve(gram + ridge, centred.T @ (values - offset)).T
    return {"weight": weight.float().contiguous(), "bias": (offset - weight @ centre).float().contiguous()}

"""The loss of a fine-tuning step, and what a denoiser predicts: noised latents, targets and weights."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from riff.train.batches import Batch, Batches, Texts
from riff.utils.errors import RiffError

# Noised clips that one measurement of the validation loss is the mean of, at least.
MEASURED = 64
# Of a new word's tempo beside the loss of the denoiser, which is some tenths at most.
TEMPO_WEIGHT = 0.05


@dataclasses.dataclass(frozen=True)
class WordTempo:
    """Lets the music prior read the clips' tempo and metre in a new word, so that it implies them by itself.

    Attributes:
        input_ids: (1, tokens) of the word alone.
        weight: (2, D) of :class:`riff.prompt.prior.MusicPrior`.
        bias: (2,) of it.
        target: (2,) log2 of the tempo, and the metre from -1 (4/4) to 1 (3/4).
    """

    input_ids: Tensor
    weight: Tensor
    bias: Tensor
    target: Tensor

    def error(self, text_encoder: Any) -> Tensor:
        """Squared error of what the prior reads of the word."""
        device = text_encoder.device
        mean = text_encoder(self.input_ids.to(device)).last_hidden_state[0].float().mean(dim=0)
        # Written as a sum, which mixed precision leaves in float32: a tempo is a matter of small differences.
        read = (self.weight.to(device) * mean).sum(dim=1) + self.bias.to(device)
        return (read - self.target.to(device)).pow(2).sum()


@dataclasses.dataclass(frozen=True)
class DiffusionLoss:
    """The weighted errors of the model on a batch, which is chosen by its number.

    Attributes:
        scheduler: of the checkpoint: its noise schedule and what it predicts.
        vae: of the checkpoint: how its latents are scaled.
        texts: all that condition the model.
        embeds: (n, tokens, D) of them, or None where the text encoder's part changes.
        batches: of the new clips.
        own: of clips that the model generated itself, or None.
        own_weight: of their loss.
        snr_gamma: Min-SNR weighting; None weighs all timesteps alike.
        tempo: of a new word, where the model has a music prior.
        text_encoder: that reads the word.
    """

    scheduler: Any
    vae: Any
    texts: Texts
    embeds: Tensor | None
    batches: Batches
    own: Batches | None = None
    own_weight: float = 1.0
    snr_gamma: float | None = None
    tempo: WordTempo | None = None
    text_encoder: Any = None

    def __call__(self, model: nn.Module, generator: torch.Generator, number: int) -> tuple[Tensor, dict[str, float]]:
        """Loss of micro-batch ``number`` and the figures to log."""
        new = self.error(model, self.batches.batch(number, generator), generator)
        loss, figures = new, {"loss/new": float(new.detach())}
        if self.own is not None:
            own = self.error(model, self.own.batch(number, generator), generator)
            loss, figures["loss/own"] = loss + self.own_weight * own, float(own.detach())
        if self.tempo is not None:
            tempo = self.tempo.error(self.text_encoder)
            loss, figures["loss/tempo"] = loss + TEMPO_WEIGHT * tempo, float(tempo.detach())
        return loss, figures

    def error(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Weighted squared error on one batch, at random timesteps and with random noise of ``generator``."""
        config = self.vae.config
        latents = (batch.latents - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor
        alphas, kind = self.scheduler.alphas_cumprod, self.scheduler.config.prediction_type
        timesteps = stratified_timesteps(len(latents), len(alphas), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        noisy, target = add_noise(latents, noise, timesteps, alphas, prediction_type=kind)
        device = next(model.parameters()).device
        predicted = model(noisy.to(device), timesteps.to(device), self.condition(batch.texts).to(device)).float()
        errors = (predicted - target.to(device)).pow(2).mean(dim=(1, 2, 3))
        weights = loss_weights(timesteps, alphas, snr_gamma=self.snr_gamma, prediction_type=kind)
        return (errors * weights.to(device)).mean()

    def condition(self, texts: Tensor) -> Tensor:
        """Prompt embeddings, or token ids, of texts by their numbers."""
        return self.texts.input_ids[texts].long() if self.embeds is None else self.embeds[texts].float()

    @torch.no_grad()
    def measure(self, model: nn.Module, heldout: Batches) -> float:
        """The loss on held-out clips, always with the same noise and timesteps."""
        rounds = max(heldout.per_epoch, -(-MEASURED // heldout.batch_size))
        losses = []
        for number in range(rounds):
            generator = torch.Generator().manual_seed(number)
            losses.append(float(self.error(model, heldout.batch(number, generator), generator)))
        return sum(losses) / len(losses)


def stratified_timesteps(batch: int, n_timesteps: int, *, generator: torch.Generator) -> Tensor:
    """One timestep from each of ``batch`` equal slices of the schedule, shuffled.

    Every batch then covers the whole schedule, which lowers the variance of the loss against independent samples
    (Kingma et al., 2021, "Variational Diffusion Models").

    Returns:
        (B,) int64 in [0, n_timesteps).
    """
    position = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    position = position[torch.randperm(batch, generator=generator)]
    return (position * n_timesteps).long().clamp(max=n_timesteps - 1)


def add_noise(
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    alphas_cumprod: Tensor,
    *,
    prediction_type: str = "v_prediction",
) -> tuple[Tensor, Tensor]:
    """Noised latents and what the net should predict of them.

    Velocity is v = sqrt(a) noise - sqrt(1 - a) latents (Salimans & Ho, 2022); with zero terminal SNR (Lin et al.,
    2023) it stays defined where a = 0. Stable Diffusion 1 and Riffusion predict the noise itself (Ho et al., 2020).

    Args:
        latents: (B, L, H, W).
        noise: (B, L, H, W) standard normal.
        timesteps: (B,) int64.
        alphas_cumprod: (n_timesteps,) of the scheduler.
        prediction_type: of the scheduler, "v_prediction" or "epsilon".

    Raises:
        RiffError: another prediction type.
    """
    alpha = alphas_cumprod.to(latents)[timesteps.to(latents.device)][:, None, None, None]
    signal, spread = alpha.sqrt(), (1.0 - alpha).sqrt()
    noisy = signal * latents + spread * noise
    if _is_velocity(prediction_type):
        return noisy, signal * noise - spread * latents
    return noisy, noise


def loss_weights(
    timesteps: Tensor, alphas_cumprod: Tensor, *, snr_gamma: float | None, prediction_type: str = "v_prediction"
) -> Tensor:
    """Weight of each sample's squared error.

    Args:
        timesteps: (B,) int64.
        alphas_cumprod: (n_timesteps,) of the scheduler.
        snr_gamma: ``None`` weighs all alike; else Min-SNR (Hang et al., 2023): min(SNR, gamma) / (SNR + 1) for
            velocity, min(SNR, gamma) / SNR for noise.
        prediction_type: of the scheduler, "v_prediction" or "epsilon".

    Returns:
        (B,) float32.

    Raises:
        RiffError: gamma is not positive, or another prediction type.
    """
    if snr_gamma is None:
        return torch.ones(len(timesteps))
    if snr_gamma <= 0:
        raise RiffError(f"snr_gamma is {snr_gamma}; use a number greater than 0, such as 5")
    alpha = alphas_cumprod[timesteps.cpu()].double()
    snr = alpha / (1.0 - alpha).clamp(min=1e-12)
    if _is_velocity(prediction_type):
        return (snr.clamp(max=snr_gamma) / (snr + 1.0)).float()
    # min(snr, gamma) / snr, written so that it is 1 and not 0/0 where nothing of the signal is left.
    return (snr_gamma / snr.clamp(min=snr_gamma)).float()


def _is_velocity(prediction_type: str) -> bool:
    if prediction_type not in ("v_prediction", "epsilon"):
        raise RiffError(f"the model's scheduler predicts {prediction_type!r}; v_prediction and epsilon can be trained")
    return prediction_type == "v_prediction"

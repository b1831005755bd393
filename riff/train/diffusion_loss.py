"""The loss of a fine-tuning step: new clips, the model's own, and what a new word says of the tempo."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from riff.objective import add_noise, loss_weights, stratified_timesteps
from riff.train.batches import Batches, Drawn
from riff.train.captions import Texts

# Noised clips that one measurement of the validation loss is the mean of, at least.
MEASURED = 64
# Of a new word's tempo beside the loss of the denoiser, which is some tenths at most.
TEMPO_WEIGHT = 0.05


@dataclasses.dataclass(frozen=True)
class WordTempo:
    """Lets the music prior read the clips' tempo and metre in a new word, so that it implies them by itself.

    Attributes:
        input_ids: (1, tokens) of the word alone.
        weight: (2, D) of :class:`riff.prior.MusicPrior`.
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
    """Draws a batch by its number and weighs the model's errors on it.

    Attributes:
        scheduler: of the checkpoint: its noise schedule and what it predicts.
        vae: of the checkpoint: how its latents are scaled.
        texts: all that the model is told.
        embeds: (n, tokens, D) of them, or None where the text encoder's part changes.
        batches: of the new clips.
        own: of clips that the model drew itself, or None.
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
        new = self.error(model, self.batches.draw(number, generator), generator)
        loss, figures = new, {"loss/new": float(new.detach())}
        if self.own is not None:
            own = self.error(model, self.own.draw(number, generator), generator)
            loss, figures["loss/own"] = loss + self.own_weight * own, float(own.detach())
        if self.tempo is not None:
            tempo = self.tempo.error(self.text_encoder)
            loss, figures["loss/tempo"] = loss + TEMPO_WEIGHT * tempo, float(tempo.detach())
        return loss, figures

    def error(self, model: nn.Module, drawn: Drawn, generator: torch.Generator) -> Tensor:
        """Weighted squared error on one batch, at timesteps and with noise drawn with ``generator``."""
        config = self.vae.config
        latents = (drawn.latents - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor
        alphas, kind = self.scheduler.alphas_cumprod, self.scheduler.config.prediction_type
        timesteps = stratified_timesteps(len(latents), len(alphas), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        noisy, target = add_noise(latents, noise, timesteps, alphas, prediction_type=kind)
        device = next(model.parameters()).device
        predicted = model(noisy.to(device), timesteps.to(device), self.told(drawn.texts).to(device)).float()
        errors = (predicted - target.to(device)).pow(2).mean(dim=(1, 2, 3))
        weights = loss_weights(timesteps, alphas, snr_gamma=self.snr_gamma, prediction_type=kind)
        return (errors * weights.to(device)).mean()

    def told(self, texts: Tensor) -> Tensor:
        """Prompt embeddings, or token ids, of texts by their numbers."""
        return self.texts.input_ids[texts].long() if self.embeds is None else self.embeds[texts].float()

    @torch.no_grad()
    def measure(self, model: nn.Module, heldout: Batches) -> float:
        """The loss on held-out clips, with the same noise and timesteps whenever it is asked."""
        rounds = max(heldout.per_epoch, -(-MEASURED // heldout.batch_size))
        losses = []
        for number in range(rounds):
            generator = torch.Generator().manual_seed(number)
            losses.append(float(self.error(model, heldout.draw(number, generator), generator)))
        return sum(losses) / len(losses)

"""Patches of drawn pictures against those of composed ones: what the distance sees, and what a decoder learns of it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from training.recipes.autoencoder import AutoencoderObjective, DecoderStep, PolishLoss, PolishObjective, patch_distance


def pictures(seed: int, *, count: int = 8) -> torch.Tensor:
    """Noise with a rhythm, in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    beats = torch.cos(torch.arange(64) * torch.pi / 8).expand(count, 1, 64, 64)
    return (0.3 * beats + 0.2 * torch.randn(count, 1, 64, 64, generator=generator)).clamp(-1, 1)


def distance(drawn: torch.Tensor, composed: torch.Tensor) -> float:
    return float(patch_distance(drawn, composed, torch.Generator().manual_seed(5)))


def test_a_set_is_at_no_distance_from_itself_in_any_order():
    composed = pictures(0)
    assert distance(composed, composed) == 0.0
    assert distance(composed.flip(0), composed) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "spoil",
    [lambda x: 0.7 * x, lambda x: x + 0.2, lambda x: nn.functional.avg_pool2d(x, 5, 1, 2)],
    ids=["flatter", "louder", "blurred"],
)
def test_what_is_spoilt_lies_farther_away_than_other_pictures_of_the_kind(spoil):
    composed, others = pictures(0), pictures(1)
    assert distance(spoil(others), composed) > 2 * distance(others, composed)


def test_of_all_gains_the_one_that_undoes_the_flattening_is_nearest():
    composed, flat = pictures(0), 0.8 * pictures(1)
    found = {gain: distance(gain * flat, composed) for gain in (1.0, 1.125, 1.25, 1.375, 1.5)}
    assert min(found, key=found.get) == 1.25


class Painter(nn.Module):
    """A decoder that can tell drawn latents, by their second channel, and has one gain for them."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))

    def decode(self, latents: torch.Tensor) -> SimpleNamespace:
        picture = self.gain ** latents[:, 1:] * latents[:, :1]
        return SimpleNamespace(sample=nn.functional.interpolate(picture, scale_factor=8, mode="nearest"))


def test_a_decoder_learns_contrast_for_what_is_drawn_flat():
    blocks = nn.functional.avg_pool2d(pictures(2, count=64), 8)
    images = nn.functional.interpolate(blocks, scale_factor=8, mode="nearest")
    drawn, composed = torch.cat([0.8 * blocks, blocks * 0 + 1], 1), torch.cat([blocks, blocks * 0], 1)
    objective = PolishObjective(drawn=8, rebuilt=2, crop=64, noise=0.0)
    loss = PolishLoss(drawn, composed, images, objective, AutoencoderObjective())
    step = DecoderStep(Painter())
    optimizer = torch.optim.Adam(step.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        value, figures = loss(step, generator)
        value.backward()
        optimizer.step()
    assert float(step.vae.gain.detach()) == pytest.approx(1 / 0.8, abs=0.05)
    assert set(figures) == {"loss/drawn", "loss/rebuilt"}


def test_what_is_drawn_in_another_metre_is_left_out_and_pairs_stay_pairs(pipe, tmp_path, monkeypatch):
    from riff.train.data.images import ImageSet
    from training.recipes import autoencoder as polish

    wide = torch.randint(0, 256, (6, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clips = [{"captions": [text]} for text in ("techno", "waltz", "jazz", "waltz", "piano", "guitar")]
    monkeypatch.setattr(polish, "_columns", lambda model, caption: 48 if "waltz" in caption else 64)
    told = []
    draw = polish.generate_class_clips
    monkeypatch.setattr(
        polish, "generate_class_clips", lambda model, texts, **more: told.extend(texts) or draw(model, texts, **more)
    )
    objective = PolishObjective(clips=6)
    loss = polish.make_lesson(pipe.model, ImageSet(wide, clips), objective, AutoencoderObjective(), tmp_path)
    assert sorted(told) == ["guitar", "jazz", "piano", "techno"]
    assert len(loss.drawn) == len(loss.latents) == len(loss.images) == 4
    order = [[clip["captions"][0] for clip in clips].index(text) for text in told]
    assert torch.allclose(loss.images[:, 0], wide[order].float() / 127.5 - 1, atol=1e-6)
    assert torch.equal(
        loss.drawn,
        polish.make_lesson(pipe.model, ImageSet(wide, clips), objective, AutoencoderObjective(), tmp_path).drawn,
    )

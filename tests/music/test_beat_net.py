"""Beats and bars from what a network hears, and the network itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from riff.music.beat_net import (
    FEATURES,
    RATE,
    WEIGHTS,
    BeatNet,
    beat_probabilities,
    levels,
    likely_beats,
    load_net,
    magnitudes,
    save_net,
)
from riff.utils.errors import ModelError

SECONDS = 30.0


def heard(times: np.ndarray, bars: np.ndarray, seconds: float = SECONDS) -> np.ndarray:
    """Likelihoods (3, N) that are unsure of everything, less so at the given beats, of which ``bars`` begin a bar."""
    share = np.full((3, round(seconds * RATE)), 0.02)
    for time, first in zip(times, bars, strict=True):
        place = round(time * RATE)
        if place < share.shape[1]:
            share[1:, place] = (0.25, 0.35) if first else (0.35, 0.25)
    share[0] = 1.0 - share[1:].sum(0)
    return np.log(share)


@pytest.mark.parametrize(("bpm", "beats_per_bar", "first"), [(60, 4, 1), (93.7, 3, 2), (128, 4, 3), (171, 4, 0)])
def test_an_even_beat_is_found_with_its_bars(bpm: float, beats_per_bar: int, first: int) -> None:
    times = np.arange(0.31, SECONDS, 60 / bpm)
    bars = np.arange(len(times)) % beats_per_bar == first
    found, begins = likely_beats(heard(times, bars), RATE, beats_per_bar=beats_per_bar)
    assert np.abs(found[-len(times) :] - times).max() < 0.03
    assert np.abs(found[begins::beats_per_bar][:, None] - times[bars]).min(0).max() < 0.03


def test_a_tempo_that_drifts_is_followed() -> None:
    times = 0.2 + np.cumsum(np.linspace(0.6, 0.45, 55))
    found, _ = likely_beats(heard(times, np.arange(55) % 4 == 0), RATE, beats_per_bar=4)
    assert np.abs(found[:, None] - times).min(0).max() < 0.04


def test_beats_that_are_not_heard_are_put_where_they_would_be() -> None:
    times = np.arange(0.25, SECONDS, 0.5)
    kept = np.abs(times - 15.0) > 3.0
    found, begins = likely_beats(heard(times[kept], (np.arange(len(times)) % 4 == 2)[kept]), RATE, beats_per_bar=4)
    assert np.abs(found[:, None] - times).min(0).max() < 0.03
    assert found[begins] == pytest.approx(1.25, abs=0.03)


@pytest.mark.parametrize("bpm", [70.0, 140.0])
def test_a_tempo_that_is_told_settles_whether_every_beat_counts(bpm: float) -> None:
    times = np.arange(0.1, SECONDS, 60 / 140)
    found, _ = likely_beats(heard(times, np.arange(len(times)) % 8 == 0), RATE, beats_per_bar=4, bpm=bpm)
    assert 60 / np.median(np.diff(found)) == pytest.approx(bpm, rel=0.02)


def test_of_nothing_there_are_no_beats() -> None:
    found, begins = likely_beats(np.zeros((3, 0)), RATE, beats_per_bar=4)
    assert len(found) == 0 and begins == 0


@pytest.mark.parametrize("rate", [32000, 44100, 48000])
def test_what_is_heard_depends_on_neither_level_nor_sample_rate(rate: int) -> None:
    def music(rate: int) -> torch.Tensor:
        time = torch.arange(4 * rate) / rate
        return torch.sin(2 * torch.pi * 220 * time) * torch.exp(-6 * (time % 0.5)) + 0.2 * torch.sin(880 * time)

    expected, found = levels(magnitudes(music(22050), 22050)), levels(magnitudes(0.01 * music(rate), rate))
    assert expected.shape[0] == FEATURES and abs(expected.shape[1] - 4 * RATE) <= 1
    torch.testing.assert_close(found[:, 2:-2], expected[:, 2:-2], atol=0.05, rtol=0)


@pytest.mark.parametrize("seconds", [59.99, 60.0, 60.02, 125.3])
def test_what_is_heard_minute_by_minute_is_what_is_heard_at_once(seconds: float, monkeypatch: Any) -> None:
    sound = torch.randn(round(seconds * 22050), generator=torch.Generator().manual_seed(0))
    found = magnitudes(sound, 22050)
    monkeypatch.setattr("riff.music.beat_net._MINUTE", 10**6)
    torch.testing.assert_close(found, magnitudes(sound, 22050))


def test_likelihoods_are_those_of_three_things_of_which_one_is_true() -> None:
    sound = torch.randn(5 * 22050, generator=torch.Generator().manual_seed(0))
    found = beat_probabilities(sound, 22050)
    assert found.shape[0] == 3
    torch.testing.assert_close(found.exp().sum(0), torch.ones(found.shape[1]))


def test_weights_are_written_and_read(tmp_path: Path) -> None:
    net = load_net()
    save_net(net, tmp_path / "copy.safetensors")
    for name, value in load_net(tmp_path / "copy.safetensors").state_dict().items():
        assert torch.equal(value, net.state_dict()[name])


def test_weights_that_are_not_right_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "beats.safetensors"
    with pytest.raises(ModelError, match="missing or does not hold"):
        load_net(path)
    path.write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(ModelError, match="missing or does not hold"):
        load_net(path)
    tensors = load_file(WEIGHTS)
    save_file({name: value for name, value in tensors.items() if name != "leave.bias"}, path)
    with pytest.raises(ModelError, match="missing or does not hold"):
        load_net(path)
    save_file(tensors | {"leave.bias": torch.full_like(tensors["leave.bias"], float("nan"))}, path)
    with pytest.raises(ModelError, match=r"leave\.bias holds NaN"):
        load_net(path)


def test_the_network_hears_forty_seconds_around_a_moment() -> None:
    net = BeatNet().eval()
    sound = torch.zeros(1, FEATURES, 3001, requires_grad=True)
    (grad,) = torch.autograd.grad(net(sound)[0, :, 1500].sum() + net(sound)[0, 1, 1500], sound)
    reached = grad[0].abs().sum(0).nonzero()[:, 0]
    assert 1500 - int(reached.min()) <= 20.6 * RATE and int(reached.max()) - 1500 <= 20.6 * RATE

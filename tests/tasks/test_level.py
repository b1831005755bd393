"""Dips in level on the way between stations are filled, and the stations are left alone."""

import pytest
import torch

from riff.audio.loudness import loudness
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.mel import waveform_to_mel
from riff.tasks.walk import smooth_levels

CONFIG = SpectrogramConfig()
BAR = 32


def picture(decibels: torch.Tensor) -> torch.Tensor:
    """(1, M, N): noise of an even level, changed by so many decibels (N,)."""
    noise = 0.5 + 0.05 * torch.rand(1, CONFIG.n_mels, len(decibels), generator=torch.Generator().manual_seed(0))
    return noise + decibels / CONFIG.db_range


def way(bars: int) -> torch.Tensor:
    """(N,): two bars at the first station, so many on the way, two at the second."""
    return torch.cat([torch.zeros(2 * BAR), torch.linspace(0, 1, bars * BAR + 2)[1:-1], torch.ones(2 * BAR)])


def levels(image: torch.Tensor) -> torch.Tensor:
    """Mean decibels of every bar."""
    return image.mean((0, 1)).reshape(-1, BAR).mean(1) * CONFIG.db_range


def test_a_dip_is_filled_and_the_stations_keep_every_pixel():
    place = way(12)
    dip = -4.0 * torch.sin(torch.pi * place)
    image = picture(dip)
    filled = smooth_levels(image, place, BAR, CONFIG)
    assert torch.equal(filled[..., : 2 * BAR], image[..., : 2 * BAR])
    assert torch.equal(filled[..., -2 * BAR :], image[..., -2 * BAR :])
    assert float(levels(image).min() - levels(image)[0]) < -3.5
    assert float(levels(filled).min() - levels(filled)[0]) > -1.0


def test_between_a_quiet_and_a_loud_station_the_level_follows_the_line():
    place = way(12)
    image = picture(10.0 * place - 5.0 * torch.sin(torch.pi * place))
    filled = levels(smooth_levels(image, place, BAR, CONFIG))
    line = levels(picture(10.0 * place))
    assert float((line - filled).max()) < 1.5


def test_what_is_loud_stays_loud_and_what_is_even_stays_even():
    place = way(8)
    for decibels in (torch.zeros(len(place)), 5.0 * torch.sin(torch.pi * place)):
        image = picture(decibels)
        torch.testing.assert_close(smooth_levels(image, place, BAR, CONFIG), image, atol=0.01, rtol=0)


def test_at_most_six_decibels_are_given_and_silence_stays_silent():
    place = way(8)
    image = picture(-40.0 * torch.sin(torch.pi * place))
    image[:, :10] = 0.0
    filled = smooth_levels(image, place, BAR, CONFIG)
    assert float((filled - image).max()) <= 6.0 / CONFIG.db_range + 1e-6
    assert float(filled[:, :10].max()) == 0.0


def test_a_dip_of_one_bar_is_filled_though_the_gain_moves_no_faster_than_a_bar():
    place = way(12)
    dip = torch.zeros(len(place))
    dip[7 * BAR : 8 * BAR] = -3.0
    filled = smooth_levels(picture(dip), place, BAR, CONFIG)
    assert float(levels(filled)[0] - levels(filled).min()) < 0.8
    gain = (filled - picture(dip)).mean((0, 1)) * CONFIG.db_range
    assert float(gain.diff().abs().max()) < 1.0  # decibels from one column to the next


def test_a_pattern_of_a_loud_and_a_quiet_bar_stays_one():
    place = way(12)
    pattern = torch.where(torch.arange(len(place)) // BAR % 2 == 0, -2.0, 0.0)
    image = picture(pattern)
    torch.testing.assert_close(smooth_levels(image, place, BAR, CONFIG), image, atol=0.2 / CONFIG.db_range, rtol=0)
    # Thinner on the way as a whole, it is raised as a whole.
    filled = levels(smooth_levels(picture(pattern - 3.0 * torch.sin(torch.pi * place)), place, BAR, CONFIG))
    steps = filled[1:].reshape(-1)[1:-1].diff().abs()
    assert float(steps.min()) > 1.0
    assert float(filled[:2].mean() - filled[2:-2].reshape(-1, 2).mean(1).min()) < 0.7


def test_a_dip_beside_a_station_is_filled_from_half_a_bar_on():
    place = way(12)
    dip = torch.zeros(len(place))
    dip[2 * BAR : 3 * BAR] = dip[13 * BAR : 14 * BAR] = -2.0
    image = picture(dip)
    filled = smooth_levels(image, place, BAR, CONFIG)
    assert float(levels(filled)[0] - levels(filled).min()) < 1.0
    assert torch.equal(filled[..., : 2 * BAR], image[..., : 2 * BAR])
    assert torch.equal(filled[..., -2 * BAR :], image[..., -2 * BAR :])


def test_levels_are_those_of_the_ear():
    """Where high noise gives way to deep noise of the same loudness nothing is missing, though its rows are fewer."""
    beat, bars = CONFIG.frames_per_beat, 12
    time = torch.arange(round(bars * 4 * 0.5 * CONFIG.sample_rate)) / CONFIG.sample_rate
    hertz = torch.fft.rfftfreq(len(time), 1 / CONFIG.sample_rate)
    generator = torch.Generator().manual_seed(0)
    deep, high = (
        torch.fft.irfft(torch.fft.rfft(torch.randn(len(time), generator=generator)) * (abs(hertz - f) < f / 2))
        for f in (100.0, 4000.0)
    )
    high *= 10 ** ((loudness(deep, CONFIG.sample_rate) - loudness(high, CONFIG.sample_rate)) / 20)
    way = (time / time[-1] * bars - 2.0).div(bars - 4).clamp(0, 1)
    there = torch.sin(torch.pi * way)
    sound = high * (1 - there**2).sqrt() + deep * there
    assert float(sound.abs().max()) < 1.0
    image = mel_to_image(waveform_to_mel(sound[None], CONFIG, bpm=120.0), CONFIG)[..., : bars * 4 * beat]
    place = (torch.arange(image.shape[-1]) / (4 * beat) - 2.0).div(bars - 4).clamp(0, 1)
    raised = (smooth_levels(image, place, 4 * beat, CONFIG) - image) * CONFIG.db_range
    assert float(raised.max()) < 1.0


@pytest.mark.parametrize("place", [torch.linspace(0, 1, 256), torch.zeros(256)], ids=["no stay", "one station"])
def test_without_a_stay_at_every_station_nothing_is_changed(place):
    image = picture(-4.0 * torch.sin(torch.pi * torch.linspace(0, 1, 256)))
    torch.testing.assert_close(smooth_levels(image, place, BAR, CONFIG), image)


def test_a_loop_is_filled_on_its_way_back_as_well():
    place = torch.cat([way(8), 1.0 + torch.linspace(0, 1, 8 * BAR + 2)[1:-1]])
    image = picture(-4.0 * torch.sin(torch.pi * place).abs())
    filled = smooth_levels(image, place, BAR, CONFIG)
    assert float(levels(filled)[14:18].min() - levels(filled)[0]) > -1.0
    gain = (filled - image)[0, 0] * CONFIG.db_range
    assert abs(float(gain[0] - gain[-1])) < 1.0  # no jump at the seam

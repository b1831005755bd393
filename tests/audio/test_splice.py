"""New sound in a kept recording: nothing else changes, and the joins keep their level."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from riff.audio.splice import append, band_splice, fade_gains, joined_regions, splice
from riff.utils.errors import RiffError

RATE = 44100
FADE = round(0.03 * RATE)


def noise(seed: int, samples: int = 2 * RATE, channels: int = 2) -> Tensor:
    return 0.1 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))


def tone(hz: float, phase: float, samples: int = 2 * RATE) -> Tensor:
    return torch.sin(2 * math.pi * hz * torch.arange(samples, dtype=torch.float64) / RATE + phase)[None]


def levels(sound: Tensor, hz: float) -> Tensor:
    """Decibels of windows of two periods, which slide by a quarter of one."""
    period = round(RATE / hz)
    return 10 * sound.unfold(-1, 2 * period, max(1, period // 4)).square().mean((0, 2)).log10()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("regions", [[(9000, 30000)], [(0, 500)], [(80000, 88200)], [(0, 88200)],
                                     [(60000, 70000), (5, 6), (65000, 71000), (71000, 72001)]])  # fmt: skip
def test_outside_the_regions_everything_is_the_original_bit_for_bit(
    regions: list[tuple[int, int]], channels: int
) -> None:
    original, new = noise(0, channels=channels), noise(1, channels=channels)
    kept = torch.ones(original.shape[-1], dtype=torch.bool)
    for start, stop in regions:
        kept[start:stop] = False
    before = original.clone()
    banded = band_splice(original, new, regions, sample_rate=RATE, low_hz=200, high_hz=2000, fade_samples=FADE)
    for result in (splice(original, new, regions, fade_samples=FADE), banded):
        assert result.dtype == original.dtype and torch.equal(result[:, kept], original[:, kept])
        assert not torch.equal(result[:, ~kept], original[:, ~kept])
    assert torch.equal(original, before)


def test_inside_and_beyond_the_fades_it_is_the_new_sound_moved_by_at_most_the_shift() -> None:
    original, new = noise(0), noise(1)
    result = splice(original, new, [(9000, 30000)], fade_samples=FADE)[:, 9000 + FADE : 30000 - FADE]
    shifts = [s for s in range(-88, 89) if torch.equal(result, new[:, 9000 + FADE + s : 30000 - FADE + s])]
    assert len(shifts) == 1
    still = splice(original, new, [(9000, 30000)], fade_samples=FADE, shift_samples=0)
    assert torch.equal(still[:, 9000 + FADE : 30000 - FADE], new[:, 9000 + FADE : 30000 - FADE])


def test_at_the_ends_of_the_sound_nothing_is_faded() -> None:
    original, new = noise(0), noise(1)
    assert torch.equal(splice(original, new, [(0, 88200)], fade_samples=FADE), new)
    early = splice(original, new, [(0, 9000)], fade_samples=FADE, shift_samples=0)
    assert torch.equal(early[:, : 9000 - FADE], new[:, : 9000 - FADE])


def test_the_same_sound_comes_back_and_a_shorter_region_than_its_fades_is_fine() -> None:
    original = noise(0)
    for region in ((9000, 30000), (9000, 9100), (9000, 9001)):
        torch.testing.assert_close(splice(original, original, [region], fade_samples=FADE), original)
    band = band_splice(original, original, [(9000, 30000)], sample_rate=RATE, low_hz=99, high_hz=999, fade_samples=9)
    torch.testing.assert_close(band, original)
    assert torch.equal(splice(original, noise(1), [(5, 6)], fade_samples=0)[:, 5], noise(1)[:, 5])


@pytest.mark.parametrize("correlation", [-0.5, -0.2, 0.0, 0.3, 0.7, 1.0])
def test_the_gains_solve_the_level_equation_and_mirror_each_other(correlation: float) -> None:
    before, after = fade_gains(500, correlation)
    power = before**2 + after**2 + 2 * correlation * before * after
    torch.testing.assert_close(power, torch.ones_like(power))
    torch.testing.assert_close(before, after.flip(0))
    assert float(torch.stack([before, after]).max()) <= 1.0 / math.sqrt(1.0 - min(0.0, correlation) ** 2) + 1e-9


def test_the_gains_are_equal_gain_for_equal_sounds_and_equal_power_for_strangers() -> None:
    same, strange = fade_gains(500, 1.0), fade_gains(500, 0.0)
    torch.testing.assert_close(same.sum(0), torch.ones(500, dtype=torch.float64))
    torch.testing.assert_close(strange.square().sum(0), torch.ones(500, dtype=torch.float64))


@pytest.mark.parametrize("hz", [82.4, 110.0, 261.6, 440.0, 1000.0, 3000.0])
def test_a_steady_tone_of_any_phase_keeps_its_level_within_one_decibel(hz: float) -> None:
    for eighth in range(8):
        old, new = tone(hz, 0.3), tone(hz, 0.3 + eighth * math.pi / 4)
        result = splice(old, new, [(30000, 60000)], fade_samples=FADE)
        level = levels(result, hz)
        assert float(level.max() - level.min()) < 1.0


def test_without_moving_and_by_equal_power_alone_the_tone_would_dip() -> None:
    """The shift is worth its lines: an opposed tone cancels without it."""
    result = splice(tone(440, 0.0), tone(440, math.pi), [(30000, 60000)], fade_samples=FADE, shift_samples=0)
    level = levels(result, 440)
    assert float(level.max() - level.min()) > 6.0


def test_noise_keeps_its_level_within_one_decibel_on_average_at_the_join() -> None:
    power = torch.zeros(FADE, dtype=torch.float64)
    for seed in range(100):
        result = splice(noise(seed), noise(seed + 1000), [(30000, 60000)], fade_samples=FADE)
        power += result[:, 30000 : 30000 + FADE].double().square().mean(0) / 100 / 0.01
    level = 10 * power.unfold(0, 100, 50).mean(1).log10()
    assert float(level.abs().max()) < 1.0


def test_between_different_levels_the_mixture_lies_between_them() -> None:
    old, new = tone(440, 0.0), 0.25 * tone(440, 1.0)
    level = levels(splice(old, new, [(30000, 60000)], fade_samples=FADE), 440)
    assert float(level.max()) < -3.0 + 0.1 and float(level.min()) > -3.0 - 12.1


def test_only_the_band_is_replaced() -> None:
    """Of three tones the middle one is the new sound's; the outer two are the original's to -60 dB."""
    old = sum(tone(hz, 0.0) for hz in (150, 1000, 6000))
    new = sum(0.5 * tone(hz, 1.0) for hz in (199, 1500, 5001))
    assert isinstance(old, Tensor) and isinstance(new, Tensor)
    result = band_splice(old, new, [(20000, 70000)], sample_rate=RATE, low_hz=200, high_hz=5000, fade_samples=FADE)
    inside = slice(20000 + FADE, 70000 - FADE)
    expected = tone(150, 0.0) + tone(6000, 0.0)
    # The new tone may have been moved: project it out.
    rest = (result - expected)[0, inside]
    basis = torch.stack([tone(1500, 0.0)[0, inside], tone(1500, math.pi / 2)[0, inside]], dim=1)
    found = torch.linalg.lstsq(basis, rest[:, None]).solution
    assert float(found.norm()) == pytest.approx(0.5, rel=1e-3)
    error = rest - (basis @ found)[:, 0]
    assert 20 * math.log10(float(error.abs().max())) < -60


def test_a_band_of_everything_is_a_splice() -> None:
    original, new = noise(0), noise(1)
    band = band_splice(
        original, new, [(9000, 30000)], sample_rate=RATE, low_hz=0, high_hz=RATE / 2, fade_samples=FADE
    )  # fmt: skip
    torch.testing.assert_close(band, splice(original, new, [(9000, 30000)], fade_samples=FADE), atol=1e-6, rtol=1e-5)


def test_a_recording_goes_on() -> None:
    original, more = noise(0), noise(1, samples=30000)
    result = append(original, more, overlap_samples=FADE)
    assert result.shape == (2, 2 * RATE + 30000 - FADE)
    assert torch.equal(result[:, : 2 * RATE - FADE], original[:, : 2 * RATE - FADE])
    assert torch.equal(result[:, 2 * RATE :], more[:, FADE:])
    assert torch.equal(append(original, more, overlap_samples=0), torch.cat([original, more], dim=1))
    whole = tone(440, 0.0)
    torch.testing.assert_close(append(whole[:, :50000], whole[:, 50000 - FADE :], overlap_samples=FADE), whole)


def test_regions_are_sorted_and_joined() -> None:
    assert joined_regions([(5, 9), (0, 2), (8, 12), (2, 3), (6, 7)], 20) == [(0, 3), (5, 12)]


@pytest.mark.parametrize(
    "regions", [[], [(5, 5)], [(9, 5)], [(-1, 5)], [(5, 88201)], [(0.0, 5)], [(0, True)], [5], [(1, 2, 3)], ["ab"]]
)
def test_a_faulty_region_is_refused(regions: Any) -> None:
    with pytest.raises(RiffError, match="region") as caught:
        splice(noise(0), noise(1), regions, fade_samples=FADE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: splice(a, a[:, 1:], [(0, 5)], fade_samples=5), "the sounds have shapes"),
        (lambda a: splice(a[0], a[0], [(0, 5)], fade_samples=5), "the sounds have shapes"),
        (lambda a: splice(a, a, [(0, 5)], fade_samples=-1), "fade_samples is -1"),
        (lambda a: splice(a, a, [(0, 5)], fade_samples=1.5), "fade_samples is 1.5"),
        (lambda a: splice(a, a, [(0, 5)], fade_samples=5, shift_samples=-1), "shift_samples is -1"),
        (lambda a: band_splice(a, a, [(0, 5)], sample_rate=9, low_hz=4, high_hz=3, fade_samples=5), "the band is 4"),
        (lambda a: band_splice(a, a, [(0, 5)], sample_rate=9, low_hz=4, high_hz=5, fade_samples=5), "0 to 4.5 Hz"),
        (lambda a: append(a, a[:1], overlap_samples=5), "the sounds have shapes"),
        (lambda a: append(a, a[:, :4], overlap_samples=5), "use a whole number from 0 to 4"),
    ],
)
def test_other_faults_are_one_line(call: Any, message: str) -> None:
    with pytest.raises(RiffError, match=message) as caught:
        call(noise(0))
    assert "\n" not in str(caught.value)

"""The rung between image and latents."""

import math

import pytest
import torch
from conftest import tiny_autoencoder, tiny_vae

from riff.diffusion.latents import (
    OVERLAP,
    WINDOW,
    downsampling,
    fit_channels,
    image_to_latents,
    latents_to_image,
    sample_noise,
    seeded_generator,
    slerp,
    take_channels,
)
from riff.utils.errors import RiffError


@pytest.fixture(scope="module")
def vae():
    return tiny_vae(picture_channels=1, latent_channels=8)


@pytest.fixture(scope="module")
def rgb_vae():
    return tiny_vae(picture_channels=3, latent_channels=4)


def picture(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_latents_are_an_eighth_of_the_picture_on_each_side(vae):
    assert downsampling(vae) == 8
    assert image_to_latents(picture(2, 1, 32, 64), vae).shape == (2, 8, 4, 8)


def test_latents_equal_the_vaes_scaled_mode(vae):
    image = picture(1, 1, 32, 32)
    with torch.inference_mode():
        expected = vae.encode(image * 2 - 1).latent_dist.mode() * 0.5
    torch.testing.assert_close(image_to_latents(image, vae), expected)


def test_decoding_equals_the_vae_on_unscaled_latents_mapped_to_zero_to_one(vae):
    latents = sample_noise((1, 8, 4, 4), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = (vae.decode(latents / 0.5).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(latents_to_image(latents, vae, channels=1), expected)


def test_shift_factor_is_taken_off_and_put_back():
    vae = tiny_vae(picture_channels=1, latent_channels=8)
    image, latents = picture(1, 1, 32, 32), picture(1, 8, 4, 4)
    plain, decoded = image_to_latents(image, vae), latents_to_image(latents, vae, channels=1)
    vae.register_to_config(shift_factor=0.25)
    torch.testing.assert_close(image_to_latents(image, vae), plain - 0.25 * 0.5)
    torch.testing.assert_close(latents_to_image(latents - 0.25 * 0.5, vae, channels=1), decoded)


def test_a_generator_samples_the_posterior_repeatably(vae):
    image = picture(1, 1, 32, 32)
    first, again, other = (
        image_to_latents(image, vae, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert float((first - other).abs().max()) > 1e-3
    assert float((first - image_to_latents(image, vae)).abs().max()) > 1e-3


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("planes", [1, 2, 3])
def test_reading_channels_back_inverts_laying_them_out(channels, planes):
    image = picture(2, channels, 8, 8)
    if planes < channels or (channels, planes) == (1, 2):
        with pytest.raises(RiffError, match=f"it needs {channels} or 3"):
            fit_channels(image, planes)
        with pytest.raises(RiffError, match=f"it needs {channels} or 3"):
            take_channels(picture(2, planes, 8, 8), channels)
    else:
        torch.testing.assert_close(take_channels(fit_channels(image, planes), channels), image)


def test_mono_is_grey_and_stereo_is_riffusions_green_left_blue_right():
    mono, stereo = picture(1, 1, 4, 4), picture(1, 2, 4, 4)
    grey, colour = fit_channels(mono, 3), fit_channels(stereo, 3)
    for plane in range(3):
        torch.testing.assert_close(grey[:, plane], mono[:, 0])
    assert float(colour[:, 0].abs().max()) == 0.0
    torch.testing.assert_close(colour[:, 1:], stereo)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_three_channel_vae_takes_mono_and_stereo(rgb_vae, channels):
    latents = image_to_latents(picture(1, channels, 32, 32), rgb_vae)
    assert latents.shape == (1, 4, 4, 4)
    image = latents_to_image(latents, rgb_vae, channels=channels)
    assert image.shape == (1, channels, 32, 32)
    assert 0.0 <= float(image.min()) <= float(image.max()) <= 1.0


def test_an_autoencoder_without_variance_serves_as_well():
    vae = tiny_autoencoder(picture_channels=1, latent_channels=8)
    assert downsampling(vae) == 8
    image = picture(1, 1, 32, 32)
    latents = image_to_latents(image, vae, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(latents, vae.encode(image * 2 - 1).latents * 0.5)
        expected = (vae.decode(latents / 0.5).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(latents_to_image(latents, vae, channels=1), expected)


@pytest.mark.parametrize("width", [176, 177, 256, 304, 305, 400])
def test_a_long_picture_decoded_by_windows_equals_one_decoded_at_once(width):
    vae = tiny_autoencoder(picture_channels=1, latent_channels=8)
    latents = sample_noise((1, 8, 2, width), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = (vae.decode(latents / 0.5).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(latents_to_image(latents, vae, channels=1), expected, rtol=0, atol=1e-4)


def test_windows_of_a_decoder_with_group_norms_meet_without_a_seam():
    vae = tiny_vae(picture_channels=1, latent_channels=8)
    latents = sample_noise((1, 8, 2, 300), generator=torch.Generator().manual_seed(0))
    steps = latents_to_image(latents, vae, channels=1).diff(dim=-1).abs().mean(dim=(0, 1, 2))
    inside = (WINDOW + 8) * 8  # where the first window has not begun to fade
    joint = steps[inside : (WINDOW + OVERLAP) * 8]
    assert float(joint.max()) < 1.2 * float(steps[:inside].max())


@pytest.mark.parametrize("shape", [(1, 1, 30, 32), (1, 1, 32, 33), (1, 3, 32, 32), (1, 32, 32)])
def test_pictures_that_do_not_fit_are_refused_with_their_shape(vae, shape):
    with pytest.raises(RiffError, match="multiples of 8"):
        image_to_latents(picture(*shape), vae)


def test_latents_that_do_not_fit_are_refused(vae):
    with pytest.raises(RiffError, match="this VAE decodes"):
        latents_to_image(picture(1, 4, 4, 4), vae, channels=1)


def test_nan_latents_stay_visible_in_the_picture(vae):
    assert bool(torch.isnan(latents_to_image(torch.full((1, 8, 4, 4), torch.nan), vae, channels=1)).any())


def test_latents_are_ordinary_tensors_that_may_be_trained_on(vae):
    weight = torch.ones(1, requires_grad=True)
    (weight * image_to_latents(picture(1, 1, 32, 32), vae)).sum().backward()
    assert weight.grad is not None


def test_noise_is_the_seeds_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    noise = sample_noise((1, 4, 8, 8), generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(noise, torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7)))
    assert torch.equal(before, torch.get_rng_state())


def test_slerp_walks_the_quarter_circle_between_two_unit_vectors():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    for t in (0.0, 0.25, 1 / 3, 1.0):
        expected = torch.tensor([[math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)]])
        torch.testing.assert_close(slerp(a, b, t), expected)


def test_slerp_treats_each_sample_at_its_own_position():
    a, b = picture(2, 3, 4), picture(2, 3, 4).flip(0)
    together = slerp(a, b, torch.tensor([0.2, 0.7]))
    torch.testing.assert_close(together[:1], slerp(a[:1], b[:1], 0.2))
    torch.testing.assert_close(together[1:], slerp(a[1:], b[1:], 0.7))


def test_slerp_keeps_the_norm_of_noise_where_a_straight_line_loses_it():
    a, b = (sample_noise((1, 4, 16, 16), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    middle = slerp(a, b, 0.5)
    assert float(middle.norm() / a.norm()) == pytest.approx(1.0, abs=0.05)
    assert float(((a + b) / 2).norm() / a.norm()) < 0.8


def test_slerp_of_equal_opposite_or_zero_samples_is_finite():
    a = picture(3, 4)
    b = torch.stack([a[0], -a[1], torch.zeros(4)])
    assert bool(torch.isfinite(slerp(a, b, 0.5)).all())
    torch.testing.assert_close(slerp(a, b, 0.5)[0], a[0])


def test_slerp_of_different_shapes_is_refused():
    with pytest.raises(RiffError, match="one shape"):
        slerp(torch.ones(1, 4), torch.ones(1, 5), 0.5)


# Seeds


@pytest.mark.parametrize("seed", [0, 1, 5, 2**31, 2**32 - 1])
def test_seeds_of_32_bits_are_torchs_own(seed):
    wanted = torch.randn(8, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.randn(8, generator=seeded_generator(seed)), wanted)


def test_longer_seeds_are_folded_by_a_hash():
    seeds = [5 + number * 2**32 for number in range(500)]
    first = [float(torch.randn(1, generator=seeded_generator(seed))) for seed in seeds]
    assert len(set(first)) > 490
    assert first == [float(torch.randn(1, generator=seeded_generator(seed))) for seed in seeds]
    assert seeded_generator(2**63 - 1).initial_seed() < 2**32

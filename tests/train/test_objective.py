"""The training objective, against closed forms and diffusers."""

import pytest
import torch
from diffusers import DDIMScheduler

from riff.train.loss import add_noise, loss_weights, stratified_timesteps
from riff.utils.errors import RiffError


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


def test_every_batch_covers_the_schedule_once_per_slice():
    timesteps = stratified_timesteps(10, 1000, generator=torch.Generator().manual_seed(0))
    assert sorted((timesteps // 100).tolist()) == list(range(10))


def test_noising_and_velocity_equal_diffusers():
    generator = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(2, 4, 3, 8, 8, generator=generator).unbind(0)
    timesteps = torch.tensor([0, 1, 500, 999])
    oracle = scheduler()
    noisy, velocity = add_noise(latents, noise, timesteps, oracle.alphas_cumprod)
    torch.testing.assert_close(noisy, oracle.add_noise(latents, noise, timesteps))
    torch.testing.assert_close(velocity, oracle.get_velocity(latents, noise, timesteps))


def test_the_last_timestep_is_pure_noise():
    latents, noise = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0)
    noisy, velocity = add_noise(latents, noise, torch.tensor([999]), scheduler().alphas_cumprod)
    torch.testing.assert_close(noisy, noise, atol=1e-6, rtol=0)
    torch.testing.assert_close(velocity, -latents, atol=1e-6, rtol=0)


def test_min_snr_weights_are_those_of_the_paper_at_known_points():
    alphas = torch.tensor([0.5, 0.9])  # SNR 1 and 9
    weights = loss_weights(torch.tensor([0, 1]), alphas, snr_gamma=5.0)
    torch.testing.assert_close(weights, torch.tensor([1.0 / 2.0, 5.0 / 10.0]))
    torch.testing.assert_close(loss_weights(torch.tensor([0, 1]), alphas, snr_gamma=None), torch.ones(2))


def test_a_gamma_that_is_not_positive_is_refused():
    with pytest.raises(RiffError, match="snr_gamma is 0"):
        loss_weights(torch.tensor([0]), torch.tensor([0.5]), snr_gamma=0)


def test_models_that_predict_the_noise_get_the_noise_and_its_own_weights():
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(2)).unbind(0)
    alphas = torch.tensor([0.5, 0.9, 0.01])  # SNR 1, 9 and about 0.01
    noisy, target = add_noise(latents, noise, torch.tensor([0, 1, 2]), alphas, prediction_type="epsilon")
    assert torch.equal(target, noise)
    torch.testing.assert_close(noisy[0], 0.5**0.5 * (latents[0] + noise[0]))
    weights = loss_weights(torch.tensor([0, 1, 2]), alphas, snr_gamma=5.0, prediction_type="epsilon")
    torch.testing.assert_close(weights, torch.tensor([1.0, 5.0 / 9.0, 1.0]))


def test_another_prediction_type_is_refused():
    with pytest.raises(RiffError, match="'sample'"):
        add_noise(
            torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.tensor([0]), torch.ones(1), prediction_type="sample"
        )

"""The denoising loop, against diffusers' own."""

import pytest
import torch
from conftest import tiny_unet

from riff.diffusion.latents import sample_noise
from riff.diffusion.sampling import Original, PlainPrediction, choose_scheduler, denoise, scheduler_class
from riff.utils.errors import RiffError

SCHEDULERS = ["ddim", "dpmsolver++", "euler", "unipc", "EulerAncestralDiscreteScheduler"]
# PNDM, Riffusion's own, has no zero terminal SNR, which riff-mini is trained with.
FAMILIES = [("mini", name) for name in SCHEDULERS] + [("riffusion", name) for name in [*SCHEDULERS, "PNDMScheduler"]]


@pytest.fixture(scope="module")
def mini(mini_checkpoint):
    from riff.diffusion.checkpoint import load_checkpoint

    return load_checkpoint(mini_checkpoint)[0]


@pytest.fixture(scope="module")
def riffusion(riffusion_checkpoint):
    from riff.diffusion.checkpoint import load_checkpoint

    return load_checkpoint(riffusion_checkpoint)[0]


def noise_of(pipeline, batch: int = 1) -> torch.Tensor:
    channels = pipeline.unet.config.in_channels
    return sample_noise((batch, channels, 4, 8), generator=torch.Generator().manual_seed(5))


def embeds(batch: int = 1, seed: int = 6) -> torch.Tensor:
    return torch.randn(batch, 24, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize(("family", "scheduler"), FAMILIES)
def test_the_loop_equals_that_of_diffusers(family, scheduler, guidance, request):
    pipeline = request.getfixturevalue(family)
    pipeline.scheduler = choose_scheduler(scheduler, pipeline.scheduler)
    noise, prompt, negative = noise_of(pipeline, 2), embeds(2), embeds(2, seed=8)
    ours = denoise(
        PlainPrediction(pipeline.unet, prompt, negative, guidance),
        choose_scheduler(scheduler, pipeline.scheduler),
        noise,
        num_inference_steps=5,
        generator=torch.Generator().manual_seed(9),
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt_embeds=prompt,
        negative_prompt_embeds=negative,
        latents=noise.clone(),
        guidance_scale=guidance,
        num_inference_steps=5,
        generator=torch.Generator().manual_seed(9),
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


RIFFUSION_SCHEDULERS = [name for family, name in FAMILIES if family == "riffusion"]


@pytest.mark.parametrize("strength", [0.0, 0.35, 0.8])
@pytest.mark.parametrize("scheduler", RIFFUSION_SCHEDULERS)
def test_starting_from_latents_equals_the_image_to_image_of_diffusers(riffusion, scheduler, strength):
    from diffusers import StableDiffusionImg2ImgPipeline

    if strength == 0.0:  # diffusers refuses it; nothing is drawn, so the latents stay
        start = noise_of(riffusion)
        ours = start_from(riffusion, scheduler, Original(start, strength=0.0))
        assert torch.equal(ours, start)
        return
    riffusion.scheduler = choose_scheduler(scheduler, riffusion.scheduler)
    theirs = StableDiffusionImg2ImgPipeline(**riffusion.components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    start = noise_of(riffusion) * 0.5
    expected = theirs(
        image=start,  # four channels: taken for latents
        prompt_embeds=embeds(),
        negative_prompt_embeds=embeds(seed=8),
        strength=strength,
        guidance_scale=4.0,
        num_inference_steps=10,
        generator=torch.Generator().manual_seed(9),
        output_type="latent",
    ).images
    ours = start_from(riffusion, scheduler, Original(start, strength=strength))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def start_from(pipeline, scheduler, original) -> torch.Tensor:
    """As diffusers draws: the first noise, then that of the steps, from one generator."""
    generator = torch.Generator().manual_seed(9)
    noise = torch.randn(original.latents.shape, generator=generator)
    return denoise(
        PlainPrediction(pipeline.unet, embeds(), embeds(seed=8), 4.0),
        choose_scheduler(scheduler, pipeline.scheduler),
        noise,
        num_inference_steps=10,
        original=original,
        generator=generator,
    )


@pytest.mark.parametrize("scheduler", ["ddim", "dpmsolver++", "euler", "unipc"])
def test_keeping_a_part_equals_the_inpainting_of_diffusers(riffusion, scheduler):
    from diffusers import StableDiffusionInpaintPipeline

    riffusion.scheduler = choose_scheduler(scheduler, riffusion.scheduler)
    theirs = StableDiffusionInpaintPipeline(**riffusion.components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    start = noise_of(riffusion) * 0.5
    mask = torch.zeros(1, 1, 4, 8)
    mask[..., 3:6] = 1.0
    expected = theirs(
        image=start,
        mask_image=mask.repeat_interleave(8, 2).repeat_interleave(8, 3),
        masked_image_latents=start,
        prompt_embeds=embeds(),
        negative_prompt_embeds=embeds(seed=8),
        strength=1.0,
        height=32,
        width=64,
        guidance_scale=4.0,
        num_inference_steps=10,
        generator=torch.Generator().manual_seed(9),
        output_type="latent",
    ).images
    ours = start_from(riffusion, scheduler, Original(start, mask=mask))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(ours[..., :3], start[..., :3])


def draw(pipeline, *, guidance_scale=3.0, negative=True, **options) -> torch.Tensor:
    predict = PlainPrediction(pipeline.unet, embeds(), embeds(seed=8) if negative else None, guidance_scale)
    return denoise(predict, pipeline.scheduler, noise_of(pipeline), **{"num_inference_steps": 3, **options})


def test_guidance_of_one_ignores_the_negative_prompt(mini):
    plain = draw(mini, guidance_scale=1.0)
    torch.testing.assert_close(plain, draw(mini, guidance_scale=1.0, negative=False))
    assert float((plain - draw(mini)).abs().max()) > 1e-4


def test_guidance_without_negative_embeddings_is_refused(mini):
    with pytest.raises(RiffError, match="without negative_prompt_embeds"):
        draw(mini, negative=False)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_one_step_is_enough_for_every_scheduler(mini, scheduler):
    mini.scheduler = choose_scheduler(scheduler, mini.scheduler)
    assert bool(torch.isfinite(draw(mini, num_inference_steps=1)).all())


def test_too_few_steps_for_a_scheduler_are_one_line(riffusion):
    riffusion.scheduler = scheduler_class("PNDMScheduler")(skip_prk_steps=False)
    with pytest.raises(RiffError, match=r"PNDMScheduler cannot sample in 1 step"):
        draw(riffusion, num_inference_steps=1)


def test_the_callback_sees_every_step_and_may_replace_the_latents(mini):
    seen = []

    def callback(step, steps, latents):
        seen.append((step, steps, tuple(latents.shape)))
        return torch.zeros_like(latents) if step == 2 else None

    assert float(draw(mini, callback_on_step_end=callback).abs().max()) == 0.0
    assert seen == [(0, 3, (1, 8, 4, 8)), (1, 3, (1, 8, 4, 8)), (2, 3, (1, 8, 4, 8))]


def test_a_stochastic_scheduler_is_repeatable_without_the_global_generator(riffusion):
    riffusion.scheduler = choose_scheduler("EulerAncestralDiscreteScheduler", riffusion.scheduler)
    before = torch.get_rng_state()
    first, again = draw(riffusion), draw(riffusion)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert torch.equal(before, torch.get_rng_state())


def test_generators_one_per_sample_give_each_sample_its_own_noise(riffusion):
    scheduler = choose_scheduler("EulerAncestralDiscreteScheduler", riffusion.scheduler)
    noise, prompt = noise_of(riffusion, 2), embeds(2)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    predict = PlainPrediction(riffusion.unet, prompt)
    together = denoise(predict, scheduler, noise, num_inference_steps=3, generator=generators)
    predict = PlainPrediction(riffusion.unet, prompt[1:])
    alone = denoise(predict, scheduler, noise[1:], num_inference_steps=3, generator=generators[1].manual_seed(2))
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-4)


def test_latents_stay_float32_with_a_half_precision_unet(mini):
    unet = tiny_unet(latent_channels=8, cross_attention_dim=16).to(torch.bfloat16)
    latents = denoise(PlainPrediction(unet, embeds()), mini.scheduler, noise_of(mini), num_inference_steps=2)
    assert latents.dtype == torch.float32
    assert bool(torch.isfinite(latents).all())


def test_a_chosen_scheduler_keeps_the_noise_schedule_and_the_prediction_type(mini):
    for name in ("ddim", "dpmsolver++", "euler", "unipc"):
        config = choose_scheduler(name, mini.scheduler).config
        assert config.prediction_type == "v_prediction"
        assert config.rescale_betas_zero_snr
        assert config.timestep_spacing == "trailing"


@pytest.mark.parametrize("name", ["ddmi", "UNet2DConditionModel", "__name__", ""])
def test_an_unknown_scheduler_is_refused_with_the_known_ones(name):
    with pytest.raises(RiffError, match=r"use one of ddim, .*euler, unipc"):
        scheduler_class(name)

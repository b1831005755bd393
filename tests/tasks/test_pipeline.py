"""Everything a user calls, on models with random weights: what is promised of any model."""

import base64
import io
import math
import re
import resource

import numpy as np
import PIL.Image
import pytest
import torch

from riff import RiffPipeline, SpectrogramConfig
from riff.audio.io import load_audio, read_metadata
from riff.diffusion.latents import latents_to_image, sample_noise
from riff.diffusion.sampling import PlainPrediction, choose_scheduler, denoise
from riff.prompt.encoder import embed_prompt
from riff.spectrogram.image import image_to_mel
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.png import read_png
from riff.tasks.provenance import read_sound_tags
from riff.tasks.requests import RenderRequest
from riff.tasks.text_to_music import batches, make_plan, plan_length
from riff.utils.errors import ModelError, RiffError, SystemProblem

QUICK = {"num_inference_steps": 2, "quality": "fast"}


def sound(clip) -> torch.Tensor:
    assert bool(torch.isfinite(clip.waveform).all())
    assert float(clip.waveform.abs().max()) <= 1.0
    return clip.waveform


def test_a_sentence_becomes_one_training_picture_of_sound(pipe, mini_config):
    output = pipe("mellow piano, 120 bpm", seed=1, **QUICK)
    (clip,) = output.clips
    assert clip.image.shape == (1, 32, 64)
    assert sound(clip).shape == (1, 8 * 8000 // 2)  # 64 columns are 8 beats of half a second
    assert clip.duration == 4.0
    assert (clip.prompt, clip.seed, clip.bpm, clip.config) == ("mellow piano, 120 bpm", 1, 120.0, mini_config)
    assert output.sample_rate == pipe.sample_rate == 8000


def test_an_output_is_a_sequence_of_its_clips(pipe):
    output = pipe(["mellow piano", "techno"], seed=1, **QUICK)
    assert len(output) == 2 and list(output) == output.clips
    assert output[0] is output.clips[0] and output[-1] is output.clips[1] and output[:1] == output.clips[:1]
    first, second = output
    assert (first, second) == tuple(output.clips)


def test_pipeline_clip_and_output_are_one_readable_line(pipe):
    output = pipe("mellow piano, 120 bpm", seed=7, **QUICK)
    assert repr(pipe) == "RiffPipeline('riff-tiny', 8000 Hz mono, beats grid, cpu)"
    assert repr(output[0]) == "Clip('mellow piano, 120 bpm', 4.00 s, 120 bpm, seed 7, 8000 Hz mono)"
    assert repr(output) == "RiffOutput(1 clip, 8000 Hz)"
    long = pipe("mellow piano " * 40, seed=7, **QUICK)[0]
    assert len(repr(long)) < 160 and "\n" not in repr(long)


def test_earlier_names_work_with_a_warning(pipe):
    new = pipe("techno", key="A minor", time_signature="3/4", seed=1, **QUICK)[0]
    with pytest.warns(FutureWarning, match="is now"):
        old = pipe("techno", keyscale="A minor", timesignature="3/4", seed=1, **QUICK)
    assert torch.equal(old[0].waveform, new.waveform)
    for thing in (pipe, old):
        with pytest.warns(FutureWarning, match="sampling_rate is now sample_rate"):
            assert thing.sampling_rate == 8000


@pytest.mark.parametrize(
    "call",
    [
        lambda pipe: pipe("x", bmp=90),
        lambda pipe: pipe.walk(["a", "b"], bmp=90),
        lambda pipe: pipe.remix(torch.zeros(1, 8), "x", bmp=90),
    ],
)
def test_a_misspelt_keyword_names_its_neighbour(pipe, call):
    with pytest.raises(TypeError, match="unknown option 'bmp'; did you mean bpm"):
        call(pipe)


def test_seeds_that_differ_beyond_32_bits_are_different_music(pipe):
    clips = [pipe("techno, 120 bpm", seed=seed, **QUICK)[0] for seed in (5, 5 + 2**32, 5 + 2**62)]
    images = [clip.image for clip in clips]
    assert not torch.equal(images[0], images[1]) and not torch.equal(images[1], images[2])
    assert [clip.seed for clip in clips] == [5, 5 + 2**32, 5 + 2**62]
    assert torch.equal(pipe("techno, 120 bpm", seed=5 + 2**32, **QUICK)[0].waveform, clips[1].waveform)


def test_seeds_from_a_generator_have_the_bits_that_count(pipe):
    seeds = [clip.seed for clip in pipe("techno", generator=torch.Generator().manual_seed(3), **QUICK)]
    drawn = int(torch.randint(2**63 - 1, (1,), generator=torch.Generator().manual_seed(3)))
    assert seeds == [drawn % 2**32]


def test_numbers_of_numpy_are_numbers(pipe):
    plain = pipe("techno", seed=5, bars=2, bpm=120.0, num_inference_steps=2, guidance_scale=2.0, quality="fast")[0]
    options = {"seed": np.int64(5), "bars": np.int32(2), "bpm": np.float32(120), "guidance_scale": np.float64(2)}
    given = pipe("techno", num_inference_steps=np.int16(2), quality=np.str_("fast"), **options)[0]
    assert torch.equal(plain.waveform, given.waveform)
    assert plain.provenance == given.provenance
    walked = pipe.walk(["techno", "jazz"], np.array([1, 2]), bars=np.int64(6), bpm=np.float32(90), **QUICK)
    assert walked.seed == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_another_default_dtype_is_one_line(pipe, dtype):
    clip = pipe("techno", seed=1, **QUICK)[0]
    calls = [
        lambda: pipe("techno", seed=1, **QUICK),
        lambda: pipe.walk(["a", "b"], 1, **QUICK),
        lambda: pipe.remix(clip, "techno", **QUICK),
        lambda: mel_to_waveform(torch.zeros(1, 32, 8), pipe.config, bpm=90.0),
    ]
    torch.set_default_dtype(dtype)
    try:
        for call in calls:
            with pytest.raises(RiffError, match=f"default dtype is {dtype}, but riff computes in float32"):
                call()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(pipe("techno", seed=1, **QUICK)[0].waveform, clip.waveform)


# A vocoder of one's own


def test_a_vocoder_makes_the_sound_of_every_task(pipe):
    seen = []

    def vocoder(mel: torch.Tensor) -> torch.Tensor:
        seen.append(mel)
        return torch.full((len(mel), mel.shape[-1] * pipe.config.hop_length), 0.25)

    own = RiffPipeline(pipe.components, pipe.config, prior=pipe.prior, vocoder=vocoder)
    clip = own("techno, 120 bpm", seed=1, **QUICK)[0]
    assert clip.waveform.shape == (1, 32000) and bool((clip.waveform == 0.25).all())
    assert seen[0].shape == (1, 32, 32000 // pipe.config.hop_length + 1) and bool((seen[0] >= 0).all())
    assert clip.provenance["vocoder"] == "own"
    assert "vocoder" not in pipe("techno, 120 bpm", seed=1, **QUICK)[0].provenance
    whole = own.walk(["techno", "jazz"], 1, bars=6, bpm=120.0, **QUICK).waveform
    assert bool((whole == 0.25).all())
    assert not bool((own.remix(clip, "jazz", seed=1, **QUICK).waveform == 0).all())


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.zeros(8), "returned .8,. for a mel of shape"),
        (torch.zeros(3, 8), "return .channels, samples."),
        (np.zeros((1, 8)), "returned ndarray"),
        (torch.full((1, 8), torch.nan), "NaN or infinite"),
    ],
)
def test_what_a_vocoder_returns_is_checked(pipe, returned, message):
    own = RiffPipeline(pipe.components, pipe.config, prior=pipe.prior, vocoder=lambda mel: returned)
    with pytest.raises(RiffError, match=message):
        own("techno", seed=1, **QUICK)


def test_output_arrays_are_numpy_audio_and_pil_images(pipe):
    output = pipe(["mellow piano, 120 bpm", "techno, 240 bpm"], seed=1, **QUICK)
    assert output.audios.dtype == np.float32
    assert output.audios.shape == (2, 1, 32000)
    assert float(np.abs(output.audios[1, :, 16000:]).max()) == 0.0  # the shorter one is followed by silence
    assert [image.size for image in output.images] == [(64, 32), (64, 32)]


def test_the_clip_is_the_ladder_walked_down_by_hand(pipe):
    pipe = RiffPipeline(pipe.components, pipe.config, prior=pipe.prior, guidance_interval=(0.0, 1.0))
    clip = pipe("mellow piano, 120 bpm", seed=5, guidance_scale=2.5, **QUICK).clips[0]
    parts, config = pipe.components, pipe.config
    prompt, empty = (
        embed_prompt([text], parts.tokenizer, parts.text_encoder) for text in ("mellow piano, 120 bpm", "")
    )
    latents = denoise(
        PlainPrediction(parts.unet, prompt, empty, 2.5),
        choose_scheduler("ddim", parts.scheduler),
        sample_noise((1, 8, 4, 8), generator=torch.Generator().manual_seed(5)),
        num_inference_steps=2,
    )
    image = latents_to_image(latents, parts.vae, channels=1)[0]
    torch.testing.assert_close(clip.image, image)
    waveform = mel_to_waveform(
        image_to_mel(image, config), config, bpm=120.0, quality="fast", generator=torch.Generator().manual_seed(5)
    )
    waveform = waveform * min(1.0, 0.97 / float(waveform.abs().max()))
    torch.testing.assert_close(clip.waveform, waveform, rtol=1e-3, atol=1e-4)


def test_clips_are_ordinary_tensors_that_may_be_trained_on(pipe):
    clip = pipe("techno", seed=1, **QUICK).clips[0]
    for tensor in (clip.image, clip.waveform):
        weight = torch.ones(1, requires_grad=True)
        (weight * tensor).sum().backward()
        torch.testing.assert_close(weight.grad, tensor.sum().reshape(1))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_clip(pipe):
    first, again, other = (pipe("techno, 120 bpm", seed=seed, **QUICK).clips[0] for seed in (3, 3, 4))
    assert torch.equal(first.waveform, again.waveform)
    assert torch.equal(first.image, again.image)
    assert float((first.image - other.image).abs().max()) > 1e-3


def test_a_batch_gives_the_clips_that_single_calls_give(pipe):
    prompts = ["mellow piano, 120 bpm", "techno"]
    together = pipe(prompts, seed=10, num_waveforms_per_prompt=2, **QUICK).clips
    assert [clip.seed for clip in together] == [10, 11, 12, 13]
    assert [clip.prompt for clip in together] == [prompts[0], prompts[0], prompts[1], prompts[1]]
    for clip in together:
        alone = pipe(clip.prompt, seed=clip.seed, **QUICK).clips[0]
        assert torch.equal(clip.waveform, alone.waveform)


def test_clips_drawn_side_by_side_as_on_a_gpu_equal_those_drawn_alone(pipe, monkeypatch):
    alone = pipe("techno, 120 bpm", seed=0, num_waveforms_per_prompt=3, **QUICK).clips
    monkeypatch.setattr("riff.tasks.text_to_music.batches", lambda plans, size: batches(plans, size=4))
    together = pipe("techno, 120 bpm", seed=0, num_waveforms_per_prompt=3, **QUICK).clips
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.image, other.image, rtol=1e-4, atol=1e-4)


def test_neither_global_generators_nor_the_schedulers_state_are_touched(pipe):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    config = dict(pipe.components.scheduler.config)
    pipe("techno", **QUICK)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_before, np.random.get_state()[1])
    assert dict(pipe.components.scheduler.config) == config
    assert pipe.components.scheduler.num_inference_steps is None


@pytest.mark.parametrize("count", [1, 3])
def test_a_generator_gives_seeds_that_make_the_clips_again(pipe, count):
    options = {"num_waveforms_per_prompt": count, **QUICK}
    clips = pipe("techno", generator=torch.Generator().manual_seed(1), **options).clips
    again = pipe("techno", generator=torch.Generator().manual_seed(1), **options).clips
    assert len({clip.seed for clip in clips}) == count
    for clip, same in zip(clips, again, strict=True):
        assert clip.seed == same.seed
        assert torch.equal(pipe("techno", seed=clip.seed, **QUICK).clips[0].waveform, clip.waveform)


def test_one_generator_per_clip_is_taken_and_another_number_refused(pipe):
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    assert len(pipe("techno", generator=generators, num_waveforms_per_prompt=2, **QUICK).clips) == 2
    with pytest.raises(RiffError, match="2 generators for 1 clips"):
        pipe("techno", generator=generators, **QUICK)
    with pytest.raises(RiffError, match="give one of them"):
        pipe("techno", generator=generators[0], seed=1, **QUICK)


def test_clips_without_a_seed_differ_and_say_their_seed(pipe):
    first, second = (pipe("techno", **QUICK).clips[0] for _ in range(2))
    assert first.seed != second.seed


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_the_ends_of_the_seed_range_work(pipe, seed):
    clips = pipe("techno", seed=seed, num_waveforms_per_prompt=2, **QUICK).clips
    assert [clip.seed for clip in clips] == [seed, (seed + 1) % 2**63]


def test_given_latents_take_the_place_of_the_seeds_noise(pipe):
    noise = sample_noise((1, 8, 4, 8), generator=torch.Generator().manual_seed(21))
    given = pipe("techno, 120 bpm", seed=99, latents=noise, **QUICK).clips[0]
    torch.testing.assert_close(given.image, pipe("techno, 120 bpm", seed=21, **QUICK).clips[0].image)
    with pytest.raises(RiffError, match=r"needs \(1, 8, 4, 8\)"):
        pipe("techno", latents=noise[:, :4], **QUICK)
    with pytest.raises(RiffError, match="NaN"):
        pipe("techno", latents=noise * torch.nan, **QUICK)


# What a prompt and the arguments mean


@pytest.mark.parametrize(
    ("prompt", "bpm", "expected"),
    [
        ("techno, 128 bpm", None, 128.0),
        ("techno", 84, 84.0),
        ("techno", 84.5, 84.5),
        ("techno", None, 91.0),  # the tiny prior's 2 ** 6.5
    ],
)
def test_the_tempo_is_the_arguments_then_the_prompts_then_the_priors(pipe, prompt, bpm, expected):
    clip = pipe(prompt, bpm=bpm, seed=0, **QUICK).clips[0]
    assert clip.bpm == expected
    assert clip.waveform.shape[-1] == round(8 * 60 / expected * 8000)


def test_without_a_prior_the_tempo_is_120(riffusion_pipe):
    assert riffusion_pipe("techno", seed=0, **QUICK).clips[0].bpm == 120.0


def test_a_tempo_that_contradicts_the_prompt_wins_with_a_warning(pipe):
    with pytest.warns(UserWarning, match="says 120 bpm and the argument 84"):
        assert pipe("techno, 120 bpm", bpm=84, seed=0, **QUICK).clips[0].bpm == 84.0


def text_of(pipe, prompt, **options) -> str:
    return make_plan(pipe.model, RenderRequest(prompt=prompt, seed=0, **options)).prompt.text


def test_the_model_is_told_tempo_and_key_where_the_prompt_leaves_them_open(pipe):
    assert text_of(pipe, "techno", bpm=84.4, key="F# minor") == "techno, 84 bpm, in F# minor"
    assert text_of(pipe, "techno") == "techno, 91 bpm"
    assert text_of(pipe, "techno in C major, 84 bpm", bpm=84, key="C major") == "techno in C major, 84 bpm"


def test_a_riffusion_model_is_told_the_prompt_as_it_is(riffusion_pipe):
    assert text_of(riffusion_pipe, "funky zydeco", bpm=84, key="F# minor") == "funky zydeco"


def test_a_clip_is_made_again_from_its_prompt_seed_and_tempo(pipe):
    clip = pipe("mellow piano", seed=2, **QUICK).clips[0]
    again = pipe(clip.prompt, seed=clip.seed, bpm=clip.bpm, **QUICK).clips[0]
    assert torch.equal(clip.waveform, again.waveform)


def test_words_the_model_was_not_taught_are_ignored_and_named(pipe):
    clip = pipe("mellow zydeco piano, 120 bpm", seed=1, **QUICK).clips[0]
    assert clip.ignored_words == ["zydeco"]
    assert torch.equal(clip.waveform, pipe("mellow piano, 120 bpm", seed=1, **QUICK).clips[0].waveform)


def test_a_prompt_of_unknown_words_plays_with_a_warning(pipe):
    with pytest.warns(UserWarning, match="knows no word of 'zydeco'"):
        assert pipe("zydeco", seed=1, **QUICK).clips[0].ignored_words == ["zydeco"]


def test_words_past_the_length_are_named(pipe):
    clip = pipe("techno jazz " * 11 + "lullaby, 120 bpm", seed=1, **QUICK).clips[0]
    assert clip.dropped_words == ["lullaby", "120", "bpm"]


def test_the_tempo_is_told_to_the_model_however_long_the_prompt_is(pipe):
    long = "techno jazz " * 12
    plan = make_plan(pipe.model, RenderRequest(prompt=long, seed=1, bpm=91))
    assert plan.prompt.text.endswith("91 bpm")
    assert plan.prompt.dropped_words and set(plan.prompt.dropped_words) <= {"techno", "jazz"}


def test_a_negative_prompt_changes_the_clip_and_an_empty_one_does_not(pipe):
    plain, empty, negative = (
        pipe("techno", seed=1, negative_prompt=text, **QUICK).clips[0].image for text in (None, "", "jazz drums")
    )
    assert torch.equal(plain, empty)
    assert float((plain - negative).abs().max()) > 1e-5


@pytest.mark.parametrize(
    ("prompt", "beats"), [("lullaby, 120 bpm", 8), ("waltz, 120 bpm", 6), ("lullaby 3/4 120 bpm", 6)]
)
def test_a_triple_metre_has_two_bars_of_three(pipe, prompt, beats):
    clip = pipe(prompt, seed=1, **QUICK).clips[0]
    assert clip.image.shape[-1] == beats * 8
    assert clip.duration == beats * 0.5


def test_the_prior_decides_the_metre_that_the_prompt_leaves_open(pipe, monkeypatch):
    monkeypatch.setattr(type(pipe.prior), "beats_per_bar", lambda self, embeds: 3)
    assert pipe("lullaby, 120 bpm", seed=1, **QUICK).clips[0].duration == 3.0
    assert pipe("lullaby in 4/4, 120 bpm", seed=1, **QUICK).clips[0].duration == 4.0


@pytest.mark.parametrize(("bars", "seconds"), [(1, 2.0), (2, 4.0), (3, 6.0), (5, 10.0)])
def test_bars_give_an_exact_number_of_beats(pipe, bars, seconds):
    clip = pipe("techno, 120 bpm", bars=bars, seed=1, **QUICK).clips[0]
    assert clip.image.shape[-1] == bars * 4 * 8
    assert clip.duration == seconds


@pytest.mark.parametrize("duration", [0.1, 1.0, 4.0, 5.4321, 9])
@pytest.mark.parametrize("which", ["pipe", "riffusion_pipe"])
def test_a_duration_is_exact_to_the_sample(which, duration, request):
    clip = request.getfixturevalue(which)("techno, 97 bpm", duration=duration, seed=1, **QUICK).clips[0]
    assert clip.waveform.shape[-1] == round(duration * 8000)
    column = clip.config.column_samples(bpm=97)
    assert clip.image.shape[-1] == math.ceil(clip.waveform.shape[-1] / column)


@pytest.mark.parametrize("bpm", [20.0, 83.7, 90.3, 119.9, 121.0, 400.0])
@pytest.mark.parametrize("bars", [1, 7, 512])
def test_planned_columns_hold_the_samples_and_the_model_can_draw_them(mini_config, bpm, bars):
    columns, drawn, samples = plan_length(mini_config, bpm=bpm, beats_per_bar=4, bars=bars, duration=None, multiple=16)
    assert columns == bars * 32
    assert samples == mini_config.frames_to_samples(columns, bpm=bpm)
    assert drawn >= max(columns, 64)
    assert drawn % 16 == 0


def test_a_riffusion_clip_is_512_columns_of_441_samples():
    lengths = plan_length(
        SpectrogramConfig.riffusion(), bpm=120.0, beats_per_bar=4, bars=None, duration=None, multiple=64
    )
    assert lengths == (512, 512, 512 * 441)


# Riffusion's layout


def test_a_riffusion_checkpoint_plays(riffusion_pipe):
    clip = riffusion_pipe("funk bassline with a jazzy saxophone solo", seed=1, **QUICK).clips[0]
    assert clip.image.shape == (1, 32, 64)
    assert sound(clip).shape == (1, 64 * 80)
    assert float(clip.waveform.abs().max()) == pytest.approx(0.97, abs=1e-3)
    assert clip.ignored_words == []
    assert clip.settings["guidance"] == 7.0
    assert clip.settings["guidance_interval"] == "[0.0, 1.0]"


def test_riffs_own_models_are_guided_before_the_middle_of_the_steps_unless_told_otherwise(pipe, mini_checkpoint):
    whole = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu", guidance_interval=(0, 1))
    clips = [each("techno", seed=1, guidance_scale=4.0, **QUICK).clips[0] for each in (pipe, whole)]
    assert [clip.settings["guidance_interval"] for clip in clips] == ["[0.1, 0.5]", "[0.0, 1.0]"]
    assert not torch.equal(clips[0].image, clips[1].image)


@pytest.mark.parametrize("interval", [0.5, (0.5,), (-0.1, 1), (0, 1.5), (0.5, 0.5), (0, float("nan")), "half"])
def test_a_guidance_interval_that_is_none_is_refused(mini_checkpoint, interval):
    with pytest.raises(RiffError, match="guidance_interval"):
        RiffPipeline.from_pretrained(mini_checkpoint, device="cpu", guidance_interval=interval)


def test_a_stereo_picture_of_a_three_channel_vae_gives_two_channels(riffusion_checkpoint):
    pipe = RiffPipeline.from_pretrained(riffusion_checkpoint, device="cpu")
    pipe.model.config = SpectrogramConfig.from_dict(
        {**SpectrogramConfig.riffusion(stereo=True).to_dict(), "n_mels": 64, "width": 64}
    )
    clip = pipe("funk", seed=1, **QUICK).clips[0]
    assert clip.waveform.shape == (2, 64 * 441)
    assert clip.image.shape == (2, 64, 64)


# Options of the model


@pytest.mark.parametrize("scheduler", ["ddim", "dpmsolver++", "euler", "unipc", "DDPMScheduler", None])
def test_any_scheduler_can_be_chosen(mini_checkpoint, scheduler):
    pipe = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu", scheduler=scheduler)
    clip = pipe("techno", seed=1, **QUICK).clips[0]
    assert torch.equal(clip.image, pipe("techno", seed=1, **QUICK).clips[0].image)
    assert clip.settings["scheduler"] == type(pipe.components.scheduler).__name__


def test_the_step_callback_sees_every_step_of_every_clip(pipe):
    seen = []
    pipe(
        ["techno", "jazz"],
        seed=1,
        callback_on_step_end=lambda step, steps, _: seen.append((step, steps)),
        **QUICK,
    )
    assert seen == [(0, 2), (1, 2)] * 2


def test_progress_is_shown_when_asked_for_only(pipe, capsys):
    pipe("techno", seed=1, **QUICK)
    assert capsys.readouterr() == ("", "")
    pipe("techno", seed=1, progress=True, **QUICK)
    assert "step" in capsys.readouterr().err


def test_a_saved_pipeline_makes_the_same_clip(pipe, tmp_path):
    again = RiffPipeline.from_pretrained(pipe.save_pretrained(tmp_path / "saved"), device="cpu")
    assert again.name == "saved"
    assert torch.equal(
        pipe("techno", seed=1, **QUICK).clips[0].waveform, again("techno", seed=1, **QUICK).clips[0].waveform
    )


@pytest.mark.parametrize("device", ["tpu", "cpu:x", ""])
def test_an_unknown_device_is_refused(mini_checkpoint, device):
    with pytest.raises(RiffError, match="use cpu, cuda"):
        RiffPipeline.from_pretrained(mini_checkpoint, device=device)


def test_a_device_that_is_not_there_is_a_system_problem(mini_checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemProblem, match="no cuda device"):
        RiffPipeline.from_pretrained(mini_checkpoint, device="cuda")
    assert RiffPipeline.from_pretrained(mini_checkpoint).device.type in ("cpu", "mps")


def test_a_model_that_draws_nan_is_an_error_not_a_noise(mini_checkpoint):
    pipe = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    pipe.components.unet.conv_out.bias.data.fill_(torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        pipe("techno", seed=1, **QUICK)


BAD = {
    "empty": ({"prompt": ""}, "the prompt is empty"),
    "blank": ({"prompt": " \n\t"}, "the prompt is empty"),
    "none": ({"prompt": None}, "prompt is None"),
    "number": ({"prompt": 7}, "prompt is 7"),
    "no prompts": ({"prompt": []}, r"prompt is \[\]"),
    "list of numbers": ({"prompt": ["techno", 7]}, "prompt is 7"),
    "surrogate": ({"prompt": "techno \ud800"}, "surrogate pair at character 7"),
    "megabyte": ({"prompt": "x" * 1_000_000}, "at most 10000"),
    "negative": ({"negative_prompt": 3}, "negative_prompt is 3"),
    "bpm low": ({"bpm": 19.9}, "bpm is 19.9; use a number from 20 to 400"),
    "bpm high": ({"bpm": 401}, "bpm is 401"),
    "bpm nan": ({"bpm": math.nan}, "bpm is nan"),
    "bpm text": ({"bpm": "fast"}, "bpm is 'fast'"),
    "bpm in prompt": ({"prompt": "techno, 900 bpm"}, "the prompt's tempo is 900"),
    "bars 0": ({"bars": 0}, "bars is 0; use a whole number from 1 to 512"),
    "bars 1.5": ({"bars": 1.5}, "bars is 1.5"),
    "bars true": ({"bars": True}, "bars is True"),
    "duration 0": ({"duration": 0}, "duration is 0"),
    "duration inf": ({"duration": math.inf}, "duration is inf"),
    "duration long": ({"duration": 601}, "duration is 601"),
    "both": ({"bars": 2, "duration": 4.0}, "give one of them"),
    "key": ({"key": "H minor"}, "H minor"),
    "seed -1": ({"seed": -1}, "seed is -1"),
    "seed 2**63": ({"seed": 2**63}, "seed is 9223372036854775808"),
    "seed float": ({"seed": 1.0}, "seed is 1.0"),
    "steps 0": ({"num_inference_steps": 0}, "num_inference_steps is 0; use a whole number from 1 to 150"),
    "steps 151": ({"num_inference_steps": 151}, "num_inference_steps is 151"),
    "steps text": ({"num_inference_steps": "20"}, "num_inference_steps is '20'"),
    "guidance nan": ({"guidance_scale": math.nan}, "guidance_scale is nan"),
    "guidance -1": ({"guidance_scale": -1}, "guidance_scale is -1"),
    "guidance 51": ({"guidance_scale": 51}, "guidance_scale is 51"),
    "count 0": ({"num_waveforms_per_prompt": 0}, "num_waveforms_per_prompt is 0"),
    "count 17": ({"num_waveforms_per_prompt": 17}, "num_waveforms_per_prompt is 17"),
    "quality": ({"quality": "lossless"}, "quality is 'lossless'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_one_line_with_its_value(pipe, case):
    arguments, message = BAD[case]
    with pytest.raises(RiffError, match=message) as caught:
        pipe(**{"prompt": "techno", **arguments})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


# Clips


@pytest.fixture(scope="module")
def clip(pipe):
    return pipe("<mellow> zydeco & piano, 120 bpm", seed=7, key="A minor", **QUICK).clips[0]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_saved_sound_has_its_length_and_says_how_it_was_made(clip, tmp_path, suffix):
    path = clip.save(tmp_path / f"clip{suffix}")
    waveform, rate = load_audio(path)
    assert rate == 8000
    if suffix in (".wav", ".flac"):
        torch.testing.assert_close(waveform, clip.waveform, rtol=0, atol=1 / 32768)
    made = read_sound_tags(read_metadata(path))
    assert made["prompt"] == clip.prompt
    assert made["origin"] == "machine-made"
    assert (made["seed"], made["bpm"], made["steps"], made["keyscale"]) == ("7", "120", "2", "A minor")
    assert made["model"] == "riff-tiny"


def test_a_saved_picture_has_its_config_and_says_how_it_was_made(clip, tmp_path):
    image, config, made = read_png(clip.save(tmp_path / "clip.png"))
    torch.testing.assert_close(image, clip.image, rtol=0, atol=0.5 / 255 + 1e-6)
    assert config == clip.config
    assert made["prompt"] == clip.prompt
    assert made["origin"] == "machine-made"


def test_saving_keeps_an_existing_file_on_request(clip, tmp_path):
    clip.save(tmp_path / "clip.wav")
    with pytest.raises(RiffError, match=r"exists already; give another name.*overwrite=True"):
        clip.save(tmp_path / "clip.wav")
    clip.save(tmp_path / "clip.wav", overwrite=True)
    with pytest.warns(FutureWarning, match="force is now overwrite"):
        clip.save(tmp_path / "clip.wav", force=True)
    with pytest.raises(RiffError):
        clip.save(tmp_path / "clip.xyz")


def test_a_notebook_gets_one_snippet_with_player_picture_and_escaped_facts(clip):
    snippet = clip._repr_html_()
    assert "&lt;mellow&gt; zydeco &amp; piano" in snippet
    assert "seed 7" in snippet
    assert "120 bpm" in snippet
    wav, image = (
        base64.b64decode(re.search(rf"data:{kind};base64,([A-Za-z0-9+/=]+)", snippet)[1])
        for kind in ("audio/wav", "image/webp")
    )
    assert wav[:4] == b"RIFF"
    pixels = np.asarray(PIL.Image.open(io.BytesIO(image)).convert("RGB"), dtype=int)
    assert pixels.shape[1] >= 900, "it is wide"
    assert np.ptp(pixels, axis=2).max() > 60, "it is coloured"
    assert "http" not in snippet


# The real thing, in size


@pytest.mark.slow
def test_the_real_stable_diffusion_configuration_runs_on_a_cpu(tmp_path):
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    from training.recipes.checkpoint import build_tokenizer

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2,
        cross_attention_dim=768, attention_head_dim=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
    )
    scheduler = PNDMScheduler(beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True)
    assert sum(parameter.numel() for parameter in unet.parameters()) == 859_520_964
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=build_tokenizer(["funk"]), unet=unet,
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.to(torch.float16).save_pretrained(tmp_path / "sd")
    del pipeline, unet, vae
    pipe = RiffPipeline.from_pretrained(tmp_path / "sd", device="cpu")
    clip = pipe("funk", seed=0, num_inference_steps=1, quality="fast").clips[0]
    assert clip.image.shape == (1, 512, 512)
    assert sound(clip).shape == (1, 512 * 441)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.1f} GB")

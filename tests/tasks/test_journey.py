"""Walks and timelines: where they begin and end, how long they are, and what the keyframes reach."""

import functools
import json

import pytest
import torch
from conftest import tiny_autoencoder

from riff import RiffPipeline
from riff.diffusion.windows import canvas_noise
from riff.tasks.provenance import read_sound_tags, sound_tags
from riff.tasks.timeline import Keyframe, Timeline
from riff.utils.errors import RiffError

QUICK = {"num_inference_steps": 2, "quality": "fast"}


def latents_of(pipe, call) -> torch.Tensor:
    """The last latents that a call draws."""
    seen = []
    call(lambda step, steps, latents: seen.append(latents.clone()))
    return seen[-1]


@pytest.mark.parametrize("which", ["pipe", "riffusion_pipe"])
def test_a_walk_begins_and_ends_as_the_plain_clips_do_bit_for_bit(which, request):
    pipe = request.getfixturevalue(which)
    options = {"bpm": 120.0, **QUICK}
    walk = latents_of(
        pipe,
        lambda step: pipe.walk(
            ["techno", "jazz"], [3, 4], bars_per_step=5, guidance_scale=[2.0, 3.0], callback_on_step_end=step, **options
        ),
    )
    stations = (("techno", 3, 2.0, slice(0, 8)), ("jazz", 4, 3.0, slice(walk.shape[-1] - 8, walk.shape[-1])))
    for prompt, seed, guidance, place in stations:
        plain = latents_of(pipe, functools.partial(plain_clip, pipe, prompt, seed, guidance, options))
        assert torch.equal(walk[..., place], plain)


def plain_clip(pipe, prompt, seed, guidance, options, step) -> None:
    pipe(prompt, seed=seed, guidance_scale=guidance, callback_on_step_end=step, **options)


def test_a_walks_picture_is_the_plain_clips_out_of_reach_of_the_join(mini_checkpoint):
    pipe = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    pipe.components.vae = tiny_autoencoder(picture_channels=1, latent_channels=8)  # as riff-mini's, without norms
    walk = pipe.walk(["techno", "jazz"], 3, bars_per_step=6, bpm=120.0, **QUICK)
    plain = pipe("techno", seed=3, bpm=120.0, **QUICK).clips[0]
    torch.testing.assert_close(walk.image[..., :24], plain.image[..., :24], rtol=1e-4, atol=1e-5)


def test_a_walk_is_as_long_as_its_steps_and_the_stay_at_its_end(pipe):
    clip = pipe.walk(["techno", "jazz", "lullaby"], 1, bars_per_step=4, bpm=120.0, **QUICK)
    assert clip.image.shape[-1] == (4 + 4 + 2) * 4 * 8
    assert clip.duration == 10 * 4 * 0.5
    assert clip.prompt == "techno -> jazz -> lullaby"
    whole = pipe.walk(["techno", "jazz", "lullaby"], 1, bars=12, bpm=120.0, **QUICK)
    assert whole.duration == 12 * 4 * 0.5


def test_the_tempo_glides_and_every_beat_keeps_its_columns(pipe):
    clip = pipe.walk(["techno", "jazz"], 1, bars_per_step=6, bpm=[100.0, 150.0], **QUICK)
    assert clip.image.shape[-1] == 8 * 4 * 8
    assert float(clip.tempo.bpm_at(0.0)) == 100.0
    assert float(clip.tempo.bpm_at(8.0)) == 100.0  # two bars' stay
    assert float(clip.tempo.bpm_at(24.0)) == pytest.approx(150.0)
    # 8 beats at 100, 16 of the way, 8 at 150; the way lasts the integral of 60 / bpm.
    seconds = 8 * 0.6 + 16 * 60 / 50 * torch.log(torch.tensor(1.5)).item() + 8 * 0.4
    assert clip.duration == pytest.approx(seconds, abs=1 / 8000)


def test_a_walk_round_a_loop_leads_back_to_its_first_station(pipe):
    clip = pipe.walk(["techno", "jazz"], 1, bars_per_step=4, bpm=120.0, loop=True, **QUICK)
    assert clip.duration == 8 * 4 * 0.5


def test_stations_of_a_walk_differ_and_a_walk_is_repeatable(pipe):
    first, again = (pipe.walk(["techno", "jazz"], 1, bars_per_step=4, bpm=120.0, **QUICK) for _ in range(2))
    assert torch.equal(first.waveform, again.waveform)
    other = pipe.walk(["techno", "lullaby"], 1, bars_per_step=4, bpm=120.0, **QUICK)
    assert float((first.image - other.image).abs().max()) > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bars_per_step": 2}, "4 bars are too few for 1 step"),
        ({"bars": 4}, "4 bars are too few"),
        ({"bars": 8, "bars_per_step": 3}, "give one of them"),
        ({"bars_per_step": 0}, "bars_per_step is 0"),
        ({"variation": 1.5}, "variation is 1.5"),
        ({"bpm": [100.0]}, "bpm has 1 values for 2 prompts"),
        ({"bpm": 1000.0}, "bpm is 1000"),
        ({"easing": "bouncy"}, "easing is"),
        ({"key": "H major"}, "key is"),
    ],
)
def test_a_wrong_walk_is_one_line(pipe, options, message):
    with pytest.raises(RiffError, match=message):
        pipe.walk(["techno", "jazz"], 1, **{"bpm": 120.0, **QUICK, **options})


def test_one_prompt_is_no_walk(pipe):
    with pytest.raises(RiffError, match="prompts has 1 value; use 2 to 256"):
        pipe.walk(["techno"], 1, **QUICK)


SONG = Timeline(
    keyframes=(
        Keyframe("techno", bar=0.0, bpm=120.0, seed=5, hold=2.0),
        Keyframe("jazz", bar=4.0, guidance_scale=3.0, key="A minor", easing="step"),
        Keyframe("lullaby", bar=6.0, bpm=90.0, negative_prompt="drums"),
    ),
    bars=8,
)


def test_a_timeline_is_played_from_its_object_and_from_its_file_alike(pipe, tmp_path):
    clip = pipe.render(SONG, seed=1, **QUICK)
    assert clip.image.shape[-1] == 8 * 4 * 8
    for name in ("song.yaml", "song.json"):
        SONG.save(tmp_path / name)
        again = pipe.render(tmp_path / name, seed=1, **QUICK)
        assert torch.equal(clip.waveform, again.waveform)


def test_a_timeline_is_remembered_in_the_file_and_can_be_played_from_there(pipe):
    song = Timeline((Keyframe("jazz", bar=0.0, bpm=120.0),), bars=4)
    clip = pipe.render(song, seed=7, **QUICK)
    made = read_sound_tags(sound_tags(clip.provenance))
    again = pipe.render(Timeline.from_dict(json.loads(made["timeline"])), **QUICK)
    assert torch.equal(clip.waveform, again.waveform)


def test_a_timeline_of_one_keyframe_without_variation_repeats_its_two_bars(pipe, mini_config):
    layout = pipe.model.layout(4 * 4 * 8)
    noise = canvas_noise(pipe.model.latent_rows, layout, [7], variation=0.0)
    assert torch.equal(noise[..., :8], noise[..., 8:16])
    song = Timeline((Keyframe("jazz", bar=0.0, bpm=120.0),), bars=4, variation=0.0, loop=True)
    image = pipe.render(song, seed=7, **QUICK).image
    torch.testing.assert_close(image[..., :64], image[..., 64:], rtol=1e-3, atol=1e-3)


def test_a_loop_of_a_timeline_keeps_its_length(pipe):
    song = Timeline((Keyframe("jazz", bar=0.0, bpm=120.0), Keyframe("techno", bar=2.0)), bars=4, loop=True)
    clip = pipe.render(song, seed=7, **QUICK)
    assert clip.duration == 8.0


def test_riffusions_pictures_carry_a_timeline_at_one_tempo(riffusion_pipe):
    song = Timeline((Keyframe("jazz", seconds=0.0, bpm=120.0), Keyframe("techno", seconds=2.0, bpm=90.0)), seconds=4.0)
    clip = riffusion_pipe.render(song, seed=7, **QUICK)
    assert clip.tempo is None
    assert clip.duration == 4.0


def test_lora_weights_without_a_lora_are_refused(pipe):
    song = Timeline((Keyframe("jazz", bar=0.0, bpm=120.0, lora_weight=0.5),), bars=2)
    with pytest.raises(RiffError, match="no LoRA is loaded"):
        pipe.render(song, seed=7, **QUICK)


def test_a_lora_changes_the_music_by_its_weight_and_none_at_zero(mini_checkpoint, tmp_path):
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipe = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    plain = pipe("techno", seed=1, bpm=120.0, **QUICK).clips[0]
    other = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu").components.unet
    other.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_q", "to_v", "to_out.0"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(other))
    file = tmp_path / "pytorch_lora_weights.safetensors"
    name = pipe.load_lora(file)
    assert name == "pytorch_lora_weights"
    changed = pipe("techno", seed=1, bpm=120.0, **QUICK).clips[0]
    assert float((plain.image - changed.image).abs().max()) > 1e-3
    weights = (0.0, 1.0)
    songs = [Timeline((Keyframe("techno", bar=0.0, bpm=120.0, lora_weight=w),), bars=2) for w in weights]
    off, on = (pipe.render(song, seed=1, **QUICK) for song in songs)
    torch.testing.assert_close(off.image, plain.image, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(on.image, changed.image, rtol=1e-4, atol=1e-4)
    with pytest.raises(RiffError, match="weight is 3"):
        pipe.load_lora(file, weight=3)


def test_a_file_that_is_no_lora_is_refused(mini_checkpoint, tmp_path):
    pytest.importorskip("peft")
    from safetensors.torch import save_file

    pipe = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    (tmp_path / "text.safetensors").write_text("no")
    save_file({"unet.what.lora_A.weight": torch.ones(2, 2)}, tmp_path / "foreign.safetensors")
    save_file({"unet.x": torch.full((2,), float("nan"))}, tmp_path / "nan.safetensors")
    for file in ("missing.safetensors", "text.safetensors", "foreign.safetensors", "nan.safetensors", "a.bin"):
        with pytest.raises(RiffError, match=file.replace(".", r"\.")):
            pipe.load_lora(tmp_path / file)
    assert pipe("techno", seed=1, bpm=120.0, **QUICK).clips


@pytest.mark.parametrize("which", ["pipe", "riffusion_pipe"])
def test_an_interpolation_is_symmetric_and_its_ends_are_one_prompts_alone(which, request):
    pipe = request.getfixturevalue(which)
    ground = torch.rand(1, 32, 64, generator=torch.Generator().manual_seed(0))

    def image(prompts, seeds, strength, alpha):
        options = {"seeds": seeds, "strength": strength, "bpm": 120.0, **QUICK, "num_inference_steps": 4}
        return pipe.interpolate(prompts, alpha, ground, **options).image

    there = image(["techno", "jazz"], [1, 2], [0.9, 0.6], 0.3)
    back = image(["jazz", "techno"], [2, 1], [0.6, 0.9], 0.7)
    torch.testing.assert_close(there, back, rtol=1e-3, atol=1e-3)
    ends = image(["techno", "jazz"], [1, 2], [0.9, 0.6], 1.0), image(["jazz", "lullaby"], [2, 3], [0.6, 0.9], 0.0)
    assert torch.equal(*ends)


def test_a_mask_keeps_the_ground_where_it_is_black(pipe):
    ground = torch.rand(1, 32, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(32, 64)
    mask[:, 32:] = 1.0
    seen = latents_of(
        pipe,
        lambda step: pipe.interpolate(
            ["techno", "jazz"], 0.5, ground, mask=mask, strength=1.0, bpm=120.0, callback_on_step_end=step, **QUICK
        ),
    )
    from riff.diffusion.latents import image_to_latents

    kept = image_to_latents(ground[None], pipe.components.vae)
    torch.testing.assert_close(seen[..., :4], kept[..., :4])
    assert float((seen[..., 4:] - kept[..., 4:]).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"prompts": ["techno"]}, "prompts has . values?; use exactly 2"),
        ({"strength": -1}, "strength is -1"),
        ({"image": torch.zeros(1, 31, 64)}, "this model needs"),
        ({"image": torch.full((1, 32, 64), float("nan"))}, "NaN"),
        ({"mask": torch.zeros(3)}, "a mask has shape"),
    ],
)
def test_a_wrong_interpolation_is_one_line(pipe, options, message):
    given = {"prompts": ["techno", "jazz"], "alpha": 0.5, "image": torch.zeros(1, 32, 64), **QUICK, **options}
    with pytest.raises(RiffError, match=message):
        pipe.interpolate(given.pop("prompts"), given.pop("alpha"), given.pop("image"), **given)


def test_windows_slide_by_bars_and_the_ends_of_a_walk_are_pinned(pipe):
    layout = pipe.model.layout(128, ends_pinned=True)  # four bars of 32 columns
    assert (layout.width, layout.window, layout.stride, layout.pinned) == (16, 8, 4, (0, 8))
    three = pipe.model.layout(96, beats_per_bar=3)
    assert (three.width, three.window, three.stride) == (12, 6, 3)

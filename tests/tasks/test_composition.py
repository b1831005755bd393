"""Prompts with weights, of any length, and joined by AND: from the sentence to the clip."""

import functools
import types

import pytest
import torch
from conftest import growth

from riff import RiffPipeline
from riff.diffusion.conditioning import CanvasConditioning
from riff.diffusion.windows import CanvasPrediction, WindowLayout
from riff.prompt.encoder import embed_prompt
from riff.tasks.text_to_music import batches
from riff.tasks.timeline import Keyframe, Timeline
from riff.utils.errors import RiffError

QUICK = {"num_inference_steps": 2, "quality": "fast"}
AT_120 = {"seed": 3, "bpm": 120.0, **QUICK}
# The tiny models read 22 tokens at once.
LONG = "techno jazz piano guitar mellow electric lullaby waltz drums bass " * 3


@pytest.fixture(scope="module")
def open_pipe(riffusion_checkpoint, mini_config):
    """Of an open vocabulary, which long prompts in chunks are for."""
    import dataclasses

    pipe = RiffPipeline.from_pretrained(riffusion_checkpoint, device="cpu")
    pipe.model.config = dataclasses.replace(
        mini_config, hop_length=80, f_min=0.0, amplitude="power", grid="seconds", stereo="left-right"
    )
    return pipe


def latents_of(call) -> torch.Tensor:
    """The last latents that a call draws."""
    seen = []
    call(callback_on_step_end=lambda step, steps, latents: seen.append(latents.clone()))
    return seen[-1]


def drawn(pipe, prompt, **options) -> torch.Tensor:
    return latents_of(functools.partial(pipe, prompt, **{**AT_120, **options}))


def reading_of(pipe, prompt, **options):
    return pipe.model.interpret(prompt, **options)


# The prediction


def answer(latents, timestep, encoder_hidden_states):
    """A model that answers with what it is told, in every place."""
    return types.SimpleNamespace(sample=encoder_hidden_states[:, :1, :1, None].expand(-1, 8, 4, latents.shape[-1]))


answer.device, answer.dtype = torch.device("cpu"), torch.float32


def predict(conditions: CanvasConditioning) -> torch.Tensor:
    predictor = CanvasPrediction(answer, WindowLayout(8, 8, 4), conditions)
    return predictor(torch.zeros(1, 8, 4, 8), torch.tensor(1), 0, 4)[0, 0, 0]


def told(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, -1, 1, 1)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.25, 0.75), (1.0, -0.5), (0.6, 0.4), (1.0, -2.0)])
def test_guidance_goes_to_every_prompt_by_its_weight(weights):
    found = predict(CanvasConditioning(told(10.0, 30.0), torch.tensor([3.0]), told(4.0), blend=torch.tensor([weights])))
    expected = 4.0 + sum(weight * 3.0 * (prompt - 4.0) for weight, prompt in zip(weights, (10.0, 30.0), strict=True))
    torch.testing.assert_close(found, torch.full((8,), expected))


def test_without_guidance_predictions_are_averaged_and_steered_from_their_average():
    def found(*weights):
        return float(
            predict(CanvasConditioning(told(10.0, 30.0, 50.0), torch.ones(1), blend=torch.tensor([weights])))[0]
        )

    assert found(0.5, 0.5, 0.0) == 20.0
    assert found(0.5, 0.5, -0.5) == 20.0 + 0.5 * (20.0 - 50.0)
    # A column without guidance is the same beside one that has some.
    beside = CanvasConditioning(
        told(10.0, 30.0, 10.0),
        torch.tensor([1.0, 3.0]),
        told(4.0, 4.0),
        progress=torch.tensor([0.0] * 4 + [1.0] * 4),
        blend=torch.tensor([[1.0, -0.5, 0.0], [0.0, 0.0, 1.0]]),
    )
    expected = [10.0 + 0.5 * (10.0 - 30.0)] * 4 + [4.0 + 3.0 * (10.0 - 4.0)] * 4
    torch.testing.assert_close(predict(beside), torch.tensor(expected))


def test_equal_shares_are_the_middle_of_a_walk():
    walk = CanvasConditioning(
        told(10.0, 30.0), torch.tensor([3.0, 3.0]), told(4.0, 4.0), progress=torch.full((8,), 0.5)
    )
    both = CanvasConditioning(told(10.0, 30.0), torch.tensor([3.0]), told(4.0), blend=torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(predict(walk), predict(both))


def test_stations_of_a_walk_may_be_composed_and_have_negative_prompts_of_their_own():
    progress = torch.linspace(0, 1, 8)
    conditions = CanvasConditioning(
        told(10.0, 30.0, 50.0),
        torch.tensor([2.0, 4.0]),
        told(1.0, 3.0),
        progress=progress,
        blend=torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]),
    )
    towards, away = 20.0 + 30.0 * progress, 1.0 + 2.0 * progress
    torch.testing.assert_close(predict(conditions), away + (2.0 + 2.0 * progress) * (towards - away))


def test_filling_is_left_out_where_nothing_that_is_heard_needs_it():
    seen = []

    def count(latents, timestep, encoder_hidden_states):
        seen.append(tuple(encoder_hidden_states.shape[:2]))
        return types.SimpleNamespace(sample=latents.repeat(1, 1, 1, 1))

    count.device, count.dtype = torch.device("cpu"), torch.float32
    conditions = CanvasConditioning(
        torch.zeros(1, 2, 12, 3),
        torch.tensor([2.0, 2.0]),
        torch.zeros(1, 2, 12, 3),
        progress=torch.cat([torch.zeros(8), torch.linspace(0, 1, 8), torch.ones(8)]),
        prompt_tokens=(4, 12),
        negative_tokens=(4, 4),
    )
    CanvasPrediction(count, WindowLayout(24, 8, 8), conditions)(torch.zeros(1, 8, 4, 24), torch.tensor(1), 0, 4)
    assert seen == [(2, 4), (3, 12), (2, 12)]


# Composition in clips


@pytest.mark.parametrize("options", [{}, {"bars": 6}, {"bars": 4, "loop": True}], ids=["clip", "canvas", "loop"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_prompts_are_composed_in_clips_canvases_and_loops(pipe, options, guidance):
    options = {**options, "guidance_scale": guidance}
    first, second = drawn(pipe, "techno", **options), drawn(pipe, "jazz piano", **options)
    both = drawn(pipe, "techno AND jazz piano", **options)
    assert float((both - first).abs().max()) > 1e-5
    assert float((both - second).abs().max()) > 1e-5
    torch.testing.assert_close(both, drawn(pipe, "jazz piano AND techno", **options), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(drawn(pipe, "techno AND techno", **options), first, rtol=1e-4, atol=1e-4)
    assert torch.equal(drawn(pipe, "techno AND jazz piano:0", **options), first)
    away = drawn(pipe, "techno AND jazz piano:-0.5", **options)
    assert float((away - first).abs().max()) > 1e-5


def test_one_composed_walk_timeline_edit_and_interpolation(pipe):
    composed, options = "techno AND jazz:0.5", {"bpm": 120.0, **QUICK}
    walk = latents_of(functools.partial(pipe.walk, [composed, "lullaby"], 3, bars_per_step=4, **options))
    assert torch.equal(walk[..., :8], drawn(pipe, composed))
    timeline = Timeline(keyframes=(Keyframe(composed, bar=0, bpm=120.0), Keyframe("lullaby", bar=4)), bars=6)
    assert pipe.render(timeline, seed=1, **QUICK).duration == 12.0
    clip = pipe("techno", **AT_120).clips[0]
    remixed = pipe.remix(clip, composed, seed=1, **QUICK)
    assert remixed.prompt == composed
    assert float((remixed.image - pipe.remix(clip, "techno", seed=1, **QUICK).image).abs().max()) > 1e-6
    between = pipe.interpolate([composed, "lullaby AND bass"], 0.5, clip.image, **options)
    assert bool(torch.isfinite(between.image).all())


def test_clips_composed_alike_are_drawn_side_by_side_and_others_apart(pipe, monkeypatch):
    prompts = ["techno AND jazz", "piano AND bass", "guitar", "techno AND jazz:0.5"]
    alone = [pipe(prompt, **{**AT_120, "seed": 3 + i}).clips[0] for i, prompt in enumerate(prompts)]
    sizes = []

    def side_by_side(plans, size):
        for batch in batches(plans, size=4):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr("riff.tasks.text_to_music.batches", side_by_side)
    for one, other in zip(alone, pipe(prompts, **AT_120).clips, strict=True):
        torch.testing.assert_close(one.image, other.image, rtol=1e-4, atol=1e-4)
    assert sizes == [2, 1, 1]


def test_composed_prompts_share_tempo_key_and_metre(pipe):
    reading = reading_of(pipe, "piano in F# minor AND (waltz:1.2), 90 bpm AND techno, 140 bpm:-1")
    assert (reading.bpm, reading.beats_per_bar) == (90.0, 3)
    assert reading.text == "piano in F# minor, 90 bpm AND waltz, 90 bpm, in F# minor AND techno, 140 bpm, in F# minor"
    assert reading.shares == (0.5, 0.5, -0.5)
    assert reading_of(pipe, "piano AND techno", time_signature="3/4", key="C major").text == (
        "piano, in 3/4, 91 bpm, in C major AND techno, in 3/4, 91 bpm, in C major"
    )
    with pytest.warns(UserWarning, match="say 90 and 120 bpm; 90 is used"):
        assert reading_of(pipe, "piano, 90 bpm AND jazz, 120 bpm").bpm == 90.0


# Weights


@pytest.mark.parametrize("which", ["pipe", "open_pipe"])
def test_weights_change_a_clip_and_those_of_one_do_not(which, request):
    pipe = request.getfixturevalue(which)
    plainly = drawn(pipe, "mellow piano, jazz")
    assert torch.equal(drawn(pipe, "mellow (piano:1), ([jazz])"), plainly)
    assert float((drawn(pipe, "mellow (piano:1.6), jazz") - plainly).abs().max()) > 1e-5
    negative = drawn(pipe, "jazz", negative_prompt="drums and bass")
    assert torch.equal(drawn(pipe, "jazz", negative_prompt="(drums:1) and bass"), negative)
    assert float((drawn(pipe, "jazz", negative_prompt="(drums:1.6) and bass") - negative).abs().max()) > 1e-6


def test_tempo_key_and_metre_are_read_without_the_brackets(pipe):
    reading = reading_of(pipe, "mellow (zydeco) (waltz:1.2), (90:1.3) bpm in ((F# minor))")
    assert (reading.bpm, reading.beats_per_bar, reading.ignored_words) == (90.0, 3, ("zydeco",))
    assert reading.text == "mellow waltz, 90 bpm in F# minor"
    assert reading.phrases[0][1] == ("waltz", 1.2)
    told = reading_of(pipe, "(techno:1.5)", bpm=84.0, key="F# minor")
    assert told.phrases == ((("techno", 1.5), (", 84 bpm, in F# minor", 1.0)),)


@pytest.mark.parametrize(
    ("prompt", "told", "counts"),
    [
        ("jazz (piano:0.5)", ["jazz piano", "jazz"], [0.5, 0.5]),
        ("jazz, (piano:0), bass", ["jazz, bass"], [1.0]),
        ("[piano]", ["piano", ""], [1 / 1.1, 1 - 1 / 1.1]),
        ("jazz (piano:0.75) (bass:0.25)", ["jazz piano bass", "jazz piano", "jazz"], [0.25, 0.5, 0.25]),
        ("jazz (zydeco:0.5)", ["jazz"], [1.0]),
        ("jazz AND techno [bass]:3", ["jazz", "techno bass", "techno"], [0.25, 0.75 / 1.1, 0.75 - 0.75 / 1.1]),
        ("jazz AND (techno:0.5):-1", ["jazz", "techno", ""], [1.0, -0.5, -0.5]),
        ("jazz AND jazz", ["jazz"], [1.0]),
        ("[a] [[b]] [[[c]]] [[[[d]]]]", ["a b c d", "a"], [0.75, 0.25]),
    ],
)
def test_riffs_own_models_are_told_light_words_for_a_part_of_the_weight(pipe, prompt, told, counts):
    """Of a closed vocabulary; one prediction more for every weight below 1, three at most."""
    reading = reading_of(pipe, prompt, bpm=84.0)
    assert reading.text.split(" AND ") == [f"{text}, 84 bpm".removeprefix(", ") for text in told]
    assert reading.shares == pytest.approx(counts, abs=1e-5)
    assert all(weight == 1.0 for phrase in reading.phrases for _, weight in phrase)


def test_a_light_word_has_a_part_of_its_effect(pipe):
    """At one step, whose latents are straight in the prediction."""
    options = {"num_inference_steps": 1, "guidance_scale": 3.0}
    heavy, light, none = (drawn(pipe, f"jazz{text}", **options) for text in (" piano", " (piano:0.25)", ""))
    torch.testing.assert_close(light, torch.lerp(none, heavy, 0.25), rtol=1e-3, atol=1e-4)
    assert torch.equal(drawn(pipe, "jazz (piano:0)", **options), none)


def test_weighted_words_give_way_to_the_tempo_as_others_do(pipe):
    reading = reading_of(pipe, "(techno:1.5) " + "(jazz piano:1.2) " * 14)
    assert reading.text.endswith("piano, 91 bpm") or reading.text.endswith("jazz, 91 bpm")
    assert reading.phrases[0][0] == ("techno", 1.5)
    words = 29 - len(reading.dropped_words)
    assert len(reading.text.removesuffix(", 91 bpm").split()) == words
    plainly = reading_of(pipe, "techno " + "jazz piano " * 14)
    assert (reading.text, reading.dropped_words) == (plainly.text, plainly.dropped_words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "piano (solo"}, "prompt opens '\\(solo' at character 6"),
        ({"prompt": "()"}, "the prompt is empty"),
        ({"prompt": "jazz AND"}, "joins nothing with AND"),
        ({"negative_prompt": "drums]"}, "negative_prompt has ']' at character 5"),
        ({"negative_prompt": "drums AND bass"}, "negative_prompt joins prompts with AND"),
    ],
)
def test_wrong_signs_are_one_line_before_anything_is_drawn(pipe, options, message):
    def never(step, steps, latents):
        raise AssertionError

    with pytest.raises(RiffError, match=message) as caught:
        pipe(**{"prompt": "jazz", **options}, callback_on_step_end=never)
    assert "\n" not in str(caught.value)
    text, negative = options.get("prompt", "jazz"), options.get("negative_prompt", "")
    with pytest.raises(RiffError, match=r"AND|character|prompt is empty"):
        Keyframe(text, bar=0, negative_prompt=negative)
    with pytest.raises(RiffError, match=message):
        pipe.walk([text, "techno"], 1, negative_prompt=negative, **QUICK)


# Long prompts


def test_every_word_of_a_long_prompt_is_heard(open_pipe):
    reading = reading_of(open_pipe, LONG)
    assert reading.dropped_words == ()
    assert float((drawn(open_pipe, LONG) - drawn(open_pipe, LONG.removesuffix("bass "))).abs().max()) > 1e-6
    clip = open_pipe(LONG * 3, **AT_120).clips[0]
    assert clip.dropped_words == (LONG * 3).split()[3 * 22 :]


def test_riffs_own_models_read_one_chunk_and_name_the_rest(pipe):
    reading = reading_of(pipe, LONG)
    assert reading.text.endswith("91 bpm")
    assert list(reading.dropped_words) == LONG.split()[-len(reading.dropped_words) :]
    assert pipe.model.conditions([[reading]], [2.0], [LONG]).prompt_embeds.shape == (1, 1, 24, 16)


def test_a_long_prompt_meets_a_short_negative_one_and_the_other_way_round(open_pipe):
    for prompt, negative in ((LONG, "jazz"), ("jazz", LONG), (LONG, None), ("jazz AND " + LONG, "drums")):
        assert bool(torch.isfinite(drawn(open_pipe, prompt, negative_prompt=negative)).all())


def test_the_ends_of_a_walk_may_differ_in_length_and_equal_the_plain_clips(open_pipe):
    options = {"bpm": 120.0, "guidance_scale": 3.0, **QUICK}
    walk = latents_of(functools.partial(open_pipe.walk, ["jazz", LONG], 3, bars_per_step=5, **options))
    assert torch.equal(walk[..., :8], drawn(open_pipe, "jazz", guidance_scale=3.0))
    assert torch.equal(walk[..., -8:], drawn(open_pipe, LONG, guidance_scale=3.0))


def test_prompts_of_different_length_are_drawn_side_by_side(open_pipe, monkeypatch):
    monkeypatch.setattr("riff.tasks.text_to_music.batches", lambda plans, size: batches(plans, size=4))
    clips = open_pipe(["jazz", LONG], **AT_120).clips
    assert torch.equal(clips[1].image, clips[1].image.clamp(0, 1))
    conditions = open_pipe.model.conditions([[reading_of(open_pipe, t)] for t in ("jazz", LONG)], [3.0], ["drums"])
    assert conditions.prompt_embeds.shape[:2] == conditions.negative_prompt_embeds.shape[:2] == (2, 1)
    assert conditions.prompt_tokens == (conditions.prompt_embeds.shape[2],)
    parts = open_pipe.components
    short = embed_prompt(["jazz"], parts.tokenizer, parts.text_encoder)[0]
    assert torch.equal(conditions.prompt_embeds[0, 0, :24], short)


def test_interpolation_between_a_short_and_a_long_prompt(open_pipe):
    ground = torch.rand(1, 32, 64, generator=torch.Generator().manual_seed(1))
    clip = open_pipe.interpolate(["jazz", LONG], 0.5, ground, bpm=120.0, **QUICK)
    assert bool(torch.isfinite(clip.image).all())


@pytest.mark.parametrize("which", ["pipe", "open_pipe"])
@pytest.mark.parametrize("word", ["mellow piano, ", "x", "(a) ", "zydeco "])
def test_ten_times_the_characters_are_read_at_thirty_times_the_cost_at_most(which, word, request):
    pipe = request.getfixturevalue(which)
    assert growth(lambda characters: reading_of(pipe, word * (characters // len(word))), 10_000) < 30

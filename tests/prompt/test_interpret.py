"""What a prompt comes to: unknown words, nearest words, tempo and key by the seed, and what is absent."""

import json
import warnings

import pytest
import torch

from riff.music.theory import KEYS
from riff.prompt.interpret import PromptInterpreter
from riff.prompt.prior import PRIOR_NAME, MusicPrior
from riff.prompt.vocabulary import Vocabulary, read_nearest_words
from riff.utils.errors import ModelError

NEAREST = {"zydeco": "waltz", "boogie": "slow jazz", "polka": "schottische"}
D = 16


def interpreter(pipe, nearest=None, **fields) -> PromptInterpreter:
    prior = MusicPrior(pipe.prior.weight, pipe.prior.bias, **fields)
    return PromptInterpreter(pipe.components, prior, {} if nearest is None else nearest)


def test_an_unknown_word_becomes_its_nearest_and_one_line_says_so(pipe):
    with pytest.warns(UserWarning, match="'Zydeco' was taken as 'waltz'") as caught:
        reading = interpreter(pipe, NEAREST).interpret("mellow Zydeco (piano:1.2), boogie", bpm=90)
    assert reading.text == "mellow waltz piano, slow jazz, 90 bpm"
    assert reading.ignored_words == ()
    assert reading.noise_key == 0
    assert len(caught) == 1 and "\n" not in str(caught[0].message)


def test_a_known_word_is_never_replaced_nor_by_an_unknown_one(pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert interpreter(pipe, {"jazz": "techno"}).interpret("jazz", bpm=90).text == "jazz, 90 bpm"
        reading = interpreter(pipe, NEAREST).interpret("jazz polka", bpm=90)
    assert (reading.text, reading.ignored_words) == ("jazz, 90 bpm", ("polka",))


def test_nearest_words_hold_for_negative_prompts_too(pipe):
    assert interpreter(pipe, NEAREST).negative("zydeco, drums") == (("waltz, drums", 1.0),)


def test_without_a_table_nothing_is_replaced(tmp_path):
    assert read_nearest_words(tmp_path / "missing.json") == {}


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', "{", "\xff"])
def test_a_damaged_table_is_one_line(tmp_path, content):
    (tmp_path / "words.json").write_text(content, encoding="latin-1")
    with pytest.raises(ModelError, match="install riff again"):
        read_nearest_words(tmp_path / "words.json")


def test_the_table_is_read_in_any_case(tmp_path, pipe):
    (tmp_path / "words.json").write_text(json.dumps({"Forró": "waltz"}), encoding="utf-8")
    vocabulary = Vocabulary(pipe.components.tokenizer, read_nearest_words(tmp_path / "words.json"))
    assert vocabulary.split("FORRÓ, piano") == ("waltz, piano", [], {"FORRÓ": "waltz"})


def test_two_unknown_prompts_give_two_clips(pipe):
    options = {"num_inference_steps": 2, "quality": "fast", "seed": 1, "bpm": 120}
    with pytest.warns(UserWarning, match="knows no word"):
        one, same, other = (pipe(text, **options).clips[0].image for text in ("zydeco", " Zydeco ", "forró"))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "prompt", ["zydeco", "zydeco, 120 bpm", "the zydeco in F# minor", "zydeco 3/4", "zydeco AND forró"]
)
def test_a_prompt_of_tempo_key_and_metre_alone_is_unknown(pipe, prompt):
    with pytest.warns(UserWarning, match="knows no word"):
        reading = pipe.model.interpret(prompt)
    assert reading.noise_key != 0
    assert reading.noise_seed(7) != 7


@pytest.mark.parametrize(
    "prompt", ["jazz", "jazz, 120 bpm", "120 bpm", "zydeco jazz", "jazz AND zydeco", "a", "waltz zydeco"]
)
def test_a_prompt_with_any_known_word_has_its_seeds_noise(pipe, prompt):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pipe.model.interpret(prompt).noise_seed(7) == 7


def test_a_model_of_any_words_has_its_seeds_noise(riffusion_pipe):
    assert riffusion_pipe.model.interpret("zydeco").noise_seed(7) == 7


# The prior


def spread(octaves: float) -> dict[str, torch.Tensor]:
    return {"spread_weight": torch.zeros(1, D), "spread_bias": torch.tensor([octaves]).log()}


def test_the_seed_spreads_the_tempo_around_what_suits_the_prompt(pipe):
    reader = interpreter(pipe, **spread(0.1))
    usual = reader.interpret("jazz").bpm
    octaves = torch.tensor([reader.interpret("jazz", seed=seed).bpm / usual for seed in range(400)]).log2()
    assert abs(float(octaves.mean())) < 0.02
    assert float(octaves.std()) == pytest.approx(0.1, rel=0.2)
    assert float(octaves.abs().max()) < 0.21
    assert reader.interpret("jazz", seed=3).bpm == reader.interpret("jazz", seed=3).bpm


def test_a_seed_chooses_a_key_as_often_as_the_prior_says(pipe):
    bias = torch.full((24,), -30.0)
    bias[KEYS.index("D minor")], bias[KEYS.index("C major")] = torch.tensor([0.75, 0.25]).log()
    reader = interpreter(pipe, key_weight=torch.zeros(24, D), key_bias=bias)
    texts = [reader.interpret("jazz", bpm=90, seed=seed).text for seed in range(200)]
    assert set(texts) == {"jazz, 90 bpm, in D minor", "jazz, 90 bpm, in C major"}
    assert 130 < texts.count("jazz, 90 bpm, in D minor") < 170
    assert reader.interpret("jazz", bpm=90).text == "jazz, 90 bpm"
    assert reader.interpret("jazz in F# minor", bpm=90, seed=1).text == "jazz in F# minor, 90 bpm"
    assert reader.interpret("jazz", bpm=90, key="A minor", seed=1).text == "jazz, 90 bpm, in A minor"


def test_an_old_prior_has_one_tempo_and_no_key_for_every_seed(pipe):
    readings = {pipe.model.interpret("jazz", seed=seed).text for seed in (None, 0, 1, 2**63 - 1)}
    assert readings == {"jazz, 91 bpm"}


def test_a_prior_is_saved_whole_and_an_old_one_as_before(tmp_path, pipe):
    from safetensors import safe_open

    whole = MusicPrior(
        pipe.prior.weight, pipe.prior.bias, **spread(0.2), key_weight=torch.ones(24, D), key_bias=torch.zeros(24),
        absence_word="no",
    )  # fmt: skip
    whole.save(tmp_path)
    again = MusicPrior.load(tmp_path)
    assert again.absence_word == "no"
    for name in ("weight", "bias", "spread_weight", "spread_bias", "key_weight", "key_bias"):
        assert torch.equal(getattr(again, name), getattr(whole, name))
    pipe.prior.save(tmp_path)
    with safe_open(tmp_path / PRIOR_NAME, framework="pt") as file:
        assert sorted(file.keys()) == ["bias", "weight"] and not file.metadata()


@pytest.mark.parametrize(
    "fields",
    [
        {"spread_weight": torch.zeros(1, D)},
        {"spread_weight": torch.zeros(2, D), "spread_bias": torch.zeros(2)},
        {"key_weight": torch.zeros(24, 3), "key_bias": torch.zeros(24)},
        {"key_weight": torch.full((24, D), torch.nan), "key_bias": torch.zeros(24)},
    ],
)
def test_a_prior_of_half_a_spread_or_other_shapes_is_refused(pipe, fields):
    with pytest.raises(ModelError, match="music prior"):
        MusicPrior(pipe.prior.weight, pipe.prior.bias, **fields)


# What is absent


@pytest.mark.parametrize(
    ("negative", "text"),
    [
        ("", "jazz, 90 bpm"),
        ("drums", "jazz, 90 bpm, b drums"),
        ("drums, slow guitar and bass", "jazz, 90 bpm, b drums, b slow guitar, b bass"),
        ("(drums:1.4); (bass:0.5)", "jazz, 90 bpm, b drums"),
        ("zydeco", "jazz, 90 bpm"),
    ],
)
def test_a_negative_prompt_is_said_as_absence_where_captions_said_it(pipe, negative, text):
    reader = interpreter(pipe, absence_word="b")  # a word of the tiny vocabulary
    (phrase,) = reader.with_absence(reader.interpret("jazz", bpm=90).phrases, negative)
    assert "".join(words for words, _ in phrase) == text
    plain = interpreter(pipe)
    assert plain.with_absence(plain.interpret("jazz", bpm=90).phrases, negative) == [(("jazz, 90 bpm", 1.0),)]


def test_absence_gives_way_where_there_is_no_room(pipe):
    reader = interpreter(pipe, absence_word="b")
    reading = reader.interpret("jazz piano " * 9, bpm=90)
    (phrase,) = reader.with_absence(reading.phrases, "drums, bass")
    assert phrase == reading.phrases[0]

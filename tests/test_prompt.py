"""Words in, embeddings out; and the closed vocabulary of riff's own models."""

import string

import pytest
import torch
from conftest import WORDS, tiny_text_encoder

from riff.prompt import dropped_words, embed_prompt, split_known
from riff.train.tokenizer import build_tokenizer

# Each is part of another: merges of ordinary byte pair encoding get in each other's way here.
NESTED = [
    "hat",
    "chat",
    "that",
    "hatch",
    "at",
    "a",
    "tech",
    "techno",
    "no",
    "echo",
    "jazz",
    "azzurro",
    "aa",
    "aaa",
    "aab",
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(WORDS, model_max_length=12)


@pytest.mark.parametrize("word", [*NESTED, "forró", "café", "ÉTÉ", "日本"])
def test_every_listed_word_is_one_token(word):
    tokenizer = build_tokenizer([*NESTED, "forró", "Café", "été", "日本"])
    ids = tokenizer(word, add_special_tokens=False).input_ids
    assert len(ids) == 1
    assert ids[0] > tokenizer.eos_token_id


def test_words_of_two_thousand_random_strings_are_one_token_each():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 7, (2000,), generator=generator).tolist()
    words = ["".join("abcd"[i] for i in torch.randint(4, (n,), generator=generator).tolist()) for n in lengths]
    tokenizer = build_tokenizer(words)
    assert all(len(ids) == 1 for ids in tokenizer(words, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("sign", [*string.digits, *string.punctuation])
def test_every_digit_and_punctuation_mark_is_one_token(tokenizer, sign):
    assert len(tokenizer(sign, add_special_tokens=False).input_ids) == 1


@pytest.mark.parametrize("text", ["zydeco", "😀", "שלום", "\x00", "e\u0301", "x" * 500])
def test_unlisted_text_becomes_known_pieces_without_the_unknown_token(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert all(i < tokenizer.eos_token_id for i in ids)


def test_case_and_spacing_do_not_matter(tokenizer):
    assert tokenizer("  MELLOW\n Piano ").input_ids == tokenizer("mellow piano").input_ids


def test_the_tokenizer_survives_saving(tokenizer, tmp_path):
    from transformers import CLIPTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    text = "mellow zydeco piano, 84 bpm, in F# minor"
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.model_max_length == 12
    assert len(loaded) == len(tokenizer)


def test_vocab_and_merges_alone_give_the_same_tokenizer(tokenizer, tmp_path):
    from transformers import CLIPTokenizer

    from riff.checkpoint import save_vocabulary

    save_vocabulary(tokenizer, tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"vocab.json", "merges.txt"}
    text = "mellow zydeco piano, 84 bpm, in F# minor"
    assert loaded(text).input_ids == tokenizer(text).input_ids


@pytest.mark.parametrize(
    ("prompt", "known", "unknown"),
    [
        ("Mellow piano, 84 bpm", "Mellow piano, 84 bpm", []),
        ("mellow zydeco piano, 84 bpm", "mellow piano, 84 bpm", ["zydeco"]),
        ("zydeco, piano", "piano", ["zydeco"]),
        ("piano, zydeco", "piano", ["zydeco"]),
        ("piano, zydeco, bass", "piano, bass", ["zydeco"]),
        ("nu-jazz", "jazz", ["nu"]),
        ("jazz-zydeco", "jazz", ["zydeco"]),
        ("lo-fi hip hop", "lo-fi hip hop", []),
        ("zz", "", ["zz"]),  # a suffix on the way to "jazz" is no word
        ("azz", "", ["azz"]),
        ("80's piano", "80 piano", []),
        ("jazz’s piano", "jazz piano", []),
        ("in F# minor", "in F# minor", []),
        ("in F♯ minor", "in F# minor", []),
        ("piano (zydeco) [bass]", "piano [bass]", ["zydeco"]),
        ("piano 😀 — bass", "piano - bass", ["😀"]),
        ("日本 piano", "piano", ["日本"]),
        ("zydeco", "", ["zydeco"]),
        ("\0 \x07piano", "piano", []),
        ("!?", "!?", []),
    ],
)
def test_known_and_unknown_words_are_told_apart(tokenizer, prompt, known, unknown):
    assert split_known(prompt, tokenizer) == (known, unknown)


def test_what_is_left_of_a_prompt_is_known_throughout(tokenizer):
    left, _ = split_known("a mellow neo-jazz tune; with zydeco & piano!", tokenizer)
    assert split_known(left, tokenizer) == (left, [])


def test_a_prompt_that_fits_loses_no_words(tokenizer):
    assert dropped_words("mellow piano and guitar with the slow bass", tokenizer) == []
    assert dropped_words("a b c d e f g a b c", tokenizer) == []


def test_words_past_the_length_are_named(tokenizer):
    assert dropped_words("a b c d e f g a b c drums, bass", tokenizer) == ["drums", "bass"]


def test_a_word_cut_in_the_middle_counts_as_dropped(tokenizer):
    assert dropped_words("a b c d e f g a zydeco piano", tokenizer) == ["zydeco", "piano"]
    assert dropped_words("a\tb\nc d e f g a  zydeco\npiano", tokenizer) == ["zydeco", "piano"]
    assert dropped_words("z" * 40, tokenizer) == ["z" * 40]


def test_dropping_words_does_not_change_the_embedding(tokenizer):
    encoder = tiny_text_encoder(tokenizer)
    whole = embed_prompt(["a b c d e f g a b c drums bass"], tokenizer, encoder)
    kept = embed_prompt(["a b c d e f g a b c"], tokenizer, encoder)
    torch.testing.assert_close(whole, kept)


def test_embeddings_equal_those_of_diffusers(mini_checkpoint):
    from riff.checkpoint import load_checkpoint

    pipeline, _, _ = load_checkpoint(mini_checkpoint)
    prompts = ["mellow piano", "zydeco in F# minor, 84 bpm"]
    with torch.inference_mode():
        expected, unconditional = pipeline.encode_prompt(prompts, "cpu", 1, True)
    torch.testing.assert_close(embed_prompt(prompts, pipeline.tokenizer, pipeline.text_encoder), expected)
    empty = embed_prompt([""], pipeline.tokenizer, pipeline.text_encoder)
    torch.testing.assert_close(empty.expand(2, -1, -1), unconditional)


def test_a_prompt_alone_has_the_same_embedding_as_in_a_batch(tokenizer):
    encoder = tiny_text_encoder(tokenizer)
    together = embed_prompt(["mellow piano", "techno"], tokenizer, encoder)
    assert together.shape == (2, 12, 16)
    torch.testing.assert_close(together[1:], embed_prompt(["techno"], tokenizer, encoder))


def test_a_tokenizer_saved_without_a_length_uses_the_text_encoders(tokenizer):
    endless = build_tokenizer(WORDS, model_max_length=10**30)
    assert embed_prompt(["techno"], endless, tiny_text_encoder(tokenizer)).shape == (1, 12, 16)

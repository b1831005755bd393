"""Words in, embeddings out; and the closed vocabulary of riff's own models."""

import string

import pytest
import torch
from conftest import WORDS, growth, tiny_text_encoder

from riff.prompt.encoder import dropped_words, embed_phrases, embed_prompt
from riff.prompt.syntax import parse_weights, strip_weights
from riff.prompt.vocabulary import Vocabulary, split_known
from training.recipes.checkpoint import build_tokenizer

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

    from riff.diffusion.checkpoint import save_vocabulary

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
    from riff.diffusion.checkpoint import load_checkpoint

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


# Weights and long prompts


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return tiny_text_encoder(tokenizer)


def pieces(text: str):
    return parse_weights(text)


def test_without_weights_a_phrase_is_embedded_as_a_prompt_bit_for_bit(tokenizer, encoder):
    for text in ("", "mellow piano", "piano, 84 bpm", "a b c d e f g a b c", "a b c d e f g a b c drums bass"):
        plainly = embed_prompt([text], tokenizer, encoder)
        embeds, counts = embed_phrases([pieces(text)], tokenizer, encoder)
        assert counts == [12]
        assert torch.equal(embeds, plainly)
        assert torch.equal(embed_phrases([((text, 1.0),)], tokenizer, encoder)[0], plainly)
    assert torch.equal(embed_phrases([pieces("([mellow]) (piano:1)")], tokenizer, encoder)[0],
                       embed_prompt(["mellow piano"], tokenizer, encoder))  # fmt: skip


def test_a_weight_multiplies_its_words_embeddings_and_the_size_stays(tokenizer, encoder):
    before = embed_prompt(["mellow piano and bass"], tokenizer, encoder)[0]
    after = embed_phrases([pieces("mellow (piano and:1.5) bass")], tokenizer, encoder)[0][0]
    ratio = (after / before).mean(1)
    weighted = torch.tensor([1.0, 1.0, 1.5, 1.5, *[1.0] * 8])
    torch.testing.assert_close(ratio / ratio[0], weighted)
    # This encoder's embeddings have no mean, so their size is kept.
    torch.testing.assert_close(after.square().mean(), before.square().mean())


def test_the_mean_is_brought_back_where_there_is_one(tokenizer):
    """As Riffusion does with Stable Diffusion's CLIP, whose embeddings have a mean of about a tenth of their size."""
    encoder = tiny_text_encoder(tokenizer)
    encoder.final_layer_norm.bias.data.fill_(-0.2)
    before = embed_prompt(["mellow piano"], tokenizer, encoder)
    after, _ = embed_phrases([pieces("mellow (piano:1.8)")], tokenizer, encoder)
    raw = before * torch.tensor([1.0, 1.0, 1.8, *[1.0] * 9])[:, None]
    torch.testing.assert_close(after, raw * before.mean() / raw.mean())
    assert float((after - raw).abs().max()) > 0.01


def test_a_word_in_two_pieces_has_the_tokens_of_the_whole(tokenizer, encoder):
    halves, _ = embed_phrases([(("pia", 1.0), ("no", 2.0))], tokenizer, encoder)
    assert torch.equal(halves, embed_prompt(["piano"], tokenizer, encoder))


def test_a_weight_of_zero_leaves_finite_embeddings(tokenizer, encoder):
    embeds, _ = embed_phrases([pieces("(mellow piano:0)")], tokenizer, encoder)
    assert bool(torch.isfinite(embeds).all())
    assert float(embeds[0, 1:3].abs().max()) == 0.0


def test_a_long_prompt_is_embedded_in_chunks_of_whole_words(tokenizer, encoder):
    text = "a b c d e f g a lullaby bass drums zydeco piano"  # zydeco has six tokens
    embeds, counts = embed_phrases([pieces(text)], tokenizer, encoder, chunks=3)
    assert counts == [24]
    chunks = [embed_prompt([part], tokenizer, encoder)[0] for part in ("a b c d e f g a lullaby bass",
                                                                      "drums zydeco piano")]  # fmt: skip
    torch.testing.assert_close(embeds[0], torch.cat(chunks))


def test_a_word_that_would_be_cut_goes_to_the_next_chunk(tokenizer, encoder):
    text = "a b c d e f g zydeco piano"
    embeds, counts = embed_phrases([pieces(text)], tokenizer, encoder, chunks=3)
    assert counts == [24]
    chunks = [embed_prompt([part], tokenizer, encoder)[0] for part in ("a b c d e f g", "zydeco piano")]
    torch.testing.assert_close(embeds[0], torch.cat(chunks))
    # One that no chunk can hold is cut.
    assert embed_phrases([pieces("z" * 25)], tokenizer, encoder, chunks=3)[1] == [36]


def test_weights_reach_every_chunk(tokenizer, encoder):
    text = "a b c d e f g a b c (piano:2) bass"
    embeds, _ = embed_phrases([pieces(text)], tokenizer, encoder, chunks=2)
    plainly, _ = embed_phrases([pieces(strip_weights(pieces(text)))], tokenizer, encoder, chunks=2)
    ratio = (embeds / plainly).mean(2)[0]
    torch.testing.assert_close(ratio / ratio[0], torch.tensor([*[1.0] * 13, 2.0, *[1.0] * 10]))


def test_words_past_all_chunks_are_named(tokenizer):
    ten = "a b c d e f g a b c "
    assert dropped_words(ten * 3, tokenizer, chunks=3) == []
    assert dropped_words(ten * 3 + "drums, bass", tokenizer, chunks=3) == ["drums", "bass"]
    # A word that is not cut leaves room behind it, and the last one has none.
    assert dropped_words(f"a b c d e f g a zydeco c d e f {ten} lullaby", tokenizer, chunks=3) == ["lullaby"]
    assert dropped_words(ten * 3, tokenizer, length=22, chunks=1) == ["a", "b", "c", "d", "e", "f", "g", "a", "b", "c"]


def test_a_shorter_prompt_is_followed_by_the_empty_one(tokenizer, encoder):
    long = "a b c d e f g a b c drums bass"
    embeds, counts = embed_phrases([pieces(long), pieces("piano"), pieces("")], tokenizer, encoder, chunks=3)
    assert counts == [24, 12, 12]
    empty = embed_prompt([""], tokenizer, encoder)[0]
    assert torch.equal(embeds[1], torch.cat([embed_prompt(["piano"], tokenizer, encoder)[0], empty]))
    assert torch.equal(embeds[2], torch.cat([empty, empty]))
    assert torch.equal(embeds[:1], embed_phrases([pieces(long)], tokenizer, encoder, chunks=3)[0])


@pytest.mark.parametrize(
    ("prompt", "known", "unknown"),
    [
        ("mellow (piano:1.3), 84 bpm", (("mellow", 1.0), (" ", 1.0), ("piano", 1.3), (", ", 1.0), ("84 bpm", 1.0)), []),
        ("(zydeco:2) piano", (("piano", 1.0),), ["zydeco"]),
        ("mellow (zydeco) piano", (("mellow", 1.0), (" ", 1.0), ("piano", 1.0)), ["zydeco"]),
        ("(mellow zydeco, bass:2)!", (("mellow, bass", 2.0), ("!", 1.0)), ["zydeco"]),
        ("mellow, (zydeco)", (("mellow", 1.0),), ["zydeco"]),
        ("lo-(fi:2)", (("lo", 1.0), ("-", 1.0), ("fi", 2.0)), []),
        ("(zydeco)", (), ["zydeco"]),
        ("(piano:2)", (("piano", 2.0),), []),
        ("", (), []),
    ],
)
def test_unknown_words_are_left_out_of_weighted_pieces(tokenizer, prompt, known, unknown):
    assert Vocabulary(tokenizer).split_pieces(pieces(prompt)) == (known, unknown, {})


@pytest.mark.parametrize("word", ["mellow piano, ", "x", "(a:2) "])
def test_embedding_cost_grows_with_the_characters(word, tokenizer, encoder):
    def embed(characters: int) -> None:
        text = word * (characters // len(word))
        parse_weights(text)
        embed_phrases([pieces(text)], tokenizer, encoder, chunks=3)
        dropped_words(strip_weights(pieces(text)), tokenizer, chunks=3)
        Vocabulary(tokenizer).split_pieces(pieces(text))

    assert growth(embed, 10_000) < 30  # 10; the square would be 100

"""The parts of fine-tuning by themselves: orders, captions, augmentation, caches, the new word, the command."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from riff.apps.cli import main
from riff.prompt.vocabulary import add_token, check_word, read_words, split_known, write_words
from riff.spectrogram.config import SpectrogramConfig
from riff.train.batches import (
    Batches,
    Latents,
    TrainSet,
    Variant,
    Wording,
    collect_texts,
    make_variants,
    shift_by_bars,
    unknown_words,
)
from riff.train.cache import encode_clips
from riff.train.data.dataset import ClipSet
from riff.utils.errors import ModelError, RiffError


def train_set(n: int, width: int, *, bar: int = 0) -> TrainSet:
    """Clips whose latents are their own number."""
    mean = torch.arange(n, dtype=torch.float16).reshape(n, 1, 1, 1, 1).expand(n, 1, 1, 1, width)
    texts = [torch.tensor([1 + 2 * i, 2 + 2 * i]) for i in range(n)]
    names = [f"{width}-{i}.png" for i in range(n)]
    return TrainSet(
        Latents(mean, None), texts, names, [bar] * n, torch.ones(n, dtype=torch.bool), torch.zeros(1).bool()
    )


def test_every_epoch_sees_each_clip_once_in_an_order_of_its_own():
    batches = Batches([train_set(8, 4), train_set(4, 2)], 4, seed=3)
    assert batches.per_epoch == 3
    epochs = [[batches.members(3 * epoch + place) for place in range(3)] for epoch in range(5)]
    for epoch in epochs:
        seen = Counter((which, int(clip)) for which, clips in epoch for clip in clips)
        assert seen == {(0, i): 1 for i in range(8)} | {(1, i): 1 for i in range(4)}
    assert len({str(epoch) for epoch in epochs}) == 5
    again = Batches([train_set(8, 4), train_set(4, 2)], 4, seed=3)
    assert all(torch.equal(again.members(m)[1], batches.members(m)[1]) for m in (14, 2, 7))


def test_batches_that_are_not_full_are_filled_up():
    assert len(Batches([train_set(1, 4)], 4, seed=0).members(5)[1]) == 4
    batches = Batches([train_set(5, 4)], 2, seed=0)
    seen = Counter(int(clip) for m in range(3) for clip in batches.members(m)[1])
    assert sorted(seen.values()) == [1, 1, 1, 1, 2]


def test_a_batch_draws_the_clips_own_texts_and_drops_some():
    batches = Batches([train_set(4, 4)], 4, seed=0, caption_dropout=0.5)
    texts = Counter()
    for m in range(200):
        drawn = batches.batch(m, torch.Generator().manual_seed(m))
        numbers = drawn.latents[:, 0, 0, 0].long()
        told = drawn.texts > 0
        assert torch.equal((drawn.texts[told] - 1) // 2, numbers[told])
        texts.update(drawn.texts.tolist())
    assert 0.4 < texts[0] / 800 < 0.6
    assert all(20 < texts[i] < 90 for i in range(1, 9))
    assert "4-2.png" in batches.names(0)


def test_shifting_moves_whole_bars_round():
    latents = torch.arange(8.0).expand(6, 2, 3, 8)
    shifted = shift_by_bars(latents, 4, torch.Generator().manual_seed(0))
    starts = Counter(int(clip[0, 0, 0]) for clip in shifted)
    assert set(starts) == {0, 4}
    assert all(torch.equal(clip.sort(dim=-1).values, latents[0]) for clip in shifted)


def test_only_keyless_clips_change_pitch_and_only_whole_bars_shift():
    mean = torch.stack([torch.zeros(2, 1, 1, 8), torch.ones(2, 1, 1, 8)], dim=1).half()  # plain 0, pitched 1
    keyless, pitched = torch.tensor([True, False]), torch.tensor([False, True])
    texts = [torch.tensor([1]), torch.tensor([2])]
    clips = TrainSet(Latents(mean, None), texts, ["a", "b"], [4, 4], keyless, pitched)
    seen: dict[int, set[float]] = {1: set(), 2: set()}
    for m in range(20):
        drawn = Batches([clips], 2, seed=0, shift=True).batch(m, torch.Generator().manual_seed(m))
        for text, value in zip(drawn.texts.tolist(), drawn.latents[:, 0, 0, 0].tolist(), strict=True):
            seen[text].add(value)
    assert seen == {1: {0.0, 1.0}, 2: {0.0}}
    ramp = Latents(torch.arange(8.0).expand(1, 1, 1, 1, 8).half(), None)
    one, none = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    for bar, starts in ((4, {0.0, 4.0}), (0, {0.0})):
        batches = Batches([TrainSet(ramp, texts[:1], ["a"], [bar], one, none)], 1, seed=0, shift=True)
        found = {float(batches.batch(m, torch.Generator().manual_seed(m)).latents[0, 0, 0, 0]) for m in range(20)}
        assert found == starts


def test_variants_of_a_picture_are_louder_and_higher_and_leave_silence_silent(mini_config):
    image = torch.zeros(1, 32, 16)
    image[0, 10] = 0.5
    plain, softer, louder, lower, higher = make_variants(7.0, 1, mini_config)
    assert torch.equal(plain.apply(image, mini_config), image)
    assert float(louder.apply(image, mini_config)[0, 10, 0]) == pytest.approx(0.6)
    assert float(softer.apply(image, mini_config)[0, 10, 0]) == pytest.approx(0.4)
    assert float(louder.apply(image, mini_config)[0, 11, 0]) == 0.0
    rows = torch.arange(32.0)
    centres = [float((v.apply(image, mini_config)[0, :, 0] * rows).sum() / v.apply(image, mini_config)[0, :, 0].sum())
               for v in (higher, plain, lower)]  # fmt: skip
    assert centres == sorted(centres)  # row 0 is the highest
    assert centres[0] < centres[2]


@pytest.mark.parametrize(("gain", "pitch"), [(13.0, 0), (-1.0, 0), (0.0, 4)])
def test_augmentation_out_of_range_is_refused(gain, pitch, mini_config):
    with pytest.raises(RiffError, match="augment_"):
        make_variants(gain, pitch, mini_config)


def test_a_gain_means_nothing_on_the_power_scale():
    with pytest.raises(RiffError, match="power scale"):
        make_variants(3.0, 0, SpectrogramConfig.riffusion())


CLIP = {"captions": ["Foobar piano, mellow, slow", "foobar"], "bpm": 90.2}


def test_a_closed_vocabulary_is_told_what_it_knows_and_always_a_tempo(mini_pipe_parts):
    tokenizer = mini_pipe_parts.tokenizer
    assert Wording(True, None, 0).texts(CLIP, tokenizer) == ["piano, mellow, slow, 90 bpm", "90 bpm"]
    clips = ClipSet(64, [CLIP, {"captions": ["piano quux"]}], lambda i: b"", lambda i: torch.zeros(1))
    assert unknown_words([clips], tokenizer) == [("foobar", 0.5), ("quux", 0.5)]


def test_an_open_vocabulary_is_told_the_captions_with_the_trigger_word(mini_pipe_parts):
    wording = Wording(False, "foobar", 0)
    assert wording.texts(CLIP, mini_pipe_parts.tokenizer) == CLIP["captions"]
    assert wording.texts({"captions": ["a song", ""]}, None) == ["foobar, a song", "foobar"]


def test_shuffled_texts_have_the_same_tags_and_are_always_the_same(mini_pipe_parts):
    wording = Wording(False, None, 5)
    texts = wording.texts({"captions": ["a, b, c, d"]}, mini_pipe_parts.tokenizer)
    assert len(texts) > 3
    assert {frozenset(text.split(", ")) for text in texts} == {frozenset("abcd")}
    assert texts == wording.texts({"captions": ["a, b, c, d"]}, mini_pipe_parts.tokenizer)


def test_texts_are_numbered_from_the_empty_one(mini_pipe_parts):
    texts = collect_texts(["b", "a", "b"], mini_pipe_parts.tokenizer, mini_pipe_parts.text_encoder)
    assert texts.texts == ["", "b", "a"]
    assert texts.numbers(["a", "b"]).tolist() == [2, 1]
    assert texts.input_ids.shape == (3, 24)


@pytest.fixture
def mini_pipe_parts(mini_checkpoint):
    from riff.diffusion.checkpoint import load_checkpoint

    return load_checkpoint(mini_checkpoint)[0]


def clips_of(count: int, seed: int = 0) -> ClipSet:
    images = torch.rand(count, 1, 32, 64, generator=torch.Generator().manual_seed(seed))
    return ClipSet(64, [{"captions": ["x"]}] * count, lambda i: images[i].numpy().tobytes(), lambda i: images[i])


def test_latents_are_worked_out_once_and_again_where_anything_has_changed(
    tmp_path, mini_pipe_parts, mini_config, monkeypatch
):
    monkeypatch.setattr("riff.train.cache.SHARD", 2)
    vae, variants = mini_pipe_parts.vae, (Variant(), Variant(gain=3.0))
    asked = []
    clips = clips_of(3)
    counted = ClipSet(64, clips.clips, clips.content, lambda i: (asked.append(i), clips.read(i))[1])
    first = encode_clips(vae, counted, mini_config, variants, tmp_path)
    assert first.mean.shape == first.logvar.shape == (3, 2, 8, 4, 8)
    with torch.no_grad():
        wanted = vae.encode(clips.read(2)[None] * 2 - 1).latent_dist
    torch.testing.assert_close(first.mean[2, 0].float(), wanted.mean[0], atol=2e-3, rtol=1e-2)
    asked.clear()
    again = encode_clips(vae, counted, mini_config, variants, tmp_path)
    assert torch.equal(again.mean, first.mean)
    assert asked == []
    shard = sorted(tmp_path.iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:100])  # cut short
    assert torch.equal(encode_clips(vae, counted, mini_config, variants, tmp_path).mean, first.mean)
    assert asked
    others = encode_clips(vae, clips_of(3, seed=1), mini_config, variants, tmp_path)
    assert not torch.equal(others.mean, first.mean)
    with torch.no_grad():
        next(vae.encoder.parameters()).add_(0.1)
    assert not torch.equal(encode_clips(vae, counted, mini_config, variants, tmp_path).mean, first.mean)


def test_latents_are_drawn_anew_from_mean_and_variance():
    latents = Latents(torch.zeros(1, 1, 1, 8, 8).half(), torch.full((1, 1, 1, 8, 8), 2.0).half())
    index = torch.zeros(50, dtype=torch.long)
    drawn = latents.sample(index, index, torch.Generator().manual_seed(0))
    assert float(drawn.std()) == pytest.approx(2.718, rel=0.05)
    assert not torch.equal(drawn[0], drawn[1])


def test_a_taught_word_is_known_in_any_case(mini_pipe_parts):
    tokenizer, text_encoder = mini_pipe_parts.tokenizer, mini_pipe_parts.text_encoder
    ids = tokenizer("piano foobars, 120 bpm").input_ids
    with torch.no_grad():
        before = text_encoder(torch.tensor([ids])).last_hidden_state
    number = add_token("foobar", torch.ones(16), tokenizer, text_encoder)
    assert tokenizer("FooBar", add_special_tokens=False).input_ids == [number]
    assert split_known("Foobar, piano, foobars", tokenizer) == ("Foobar, piano", ["foobars"])
    assert tokenizer("piano foobars, 120 bpm").input_ids == ids
    with torch.no_grad():
        assert torch.equal(text_encoder(torch.tensor([ids])).last_hidden_state, before)
    assert add_token("foobar", torch.ones(16), tokenizer, text_encoder) == number
    with pytest.raises(ModelError, match="another embedding already"):
        add_token("foobar", torch.zeros(16), tokenizer, text_encoder)
    with pytest.raises(ModelError, match=r"shape \(8,\)"):
        add_token("other", torch.zeros(8), tokenizer, text_encoder)


@pytest.mark.parametrize("word", ["", "two words", "a", "semi-colon", "x2", "<style>", "b" * 41])
def test_a_trigger_word_is_one_run_of_letters(word):
    with pytest.raises(RiffError, match="trigger word"):
        check_word(word)


def test_words_are_written_and_read(tmp_path):
    write_words(tmp_path / "learned_embeds.safetensors", {"foobar": torch.arange(4.0)})
    assert torch.equal(read_words(tmp_path / "learned_embeds.safetensors")["foobar"], torch.arange(4.0))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["set", "-o", "run", "--random_flip"], 2, "play the music backwards"),
        (["set", "-o", "run", "--resolution", "512"], 2, "never rescaled"),
        (["set", "-o", "run", "--center_crop"], 2, "cut pitches"),
        (["-o", "run"], 2, "give the data set's folder once"),
        (["nowhere", "-o", "run"], 2, "nowhere is not a folder"),
        (["nowhere", "-o", "run", "--trigger", "two words"], 2, "nowhere is not a folder"),
        (["nowhere", "-o", "run", "--method", "dreams"], 2, "invalid choice"),
        (["nowhere", "-o", "run", "--rank", "0"], 2, "'0' is not a whole number"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(tmp_path, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words, "--quiet"]) == code
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_command_hands_its_options_on_by_their_own_names(tmp_path, monkeypatch, capsys):
    from riff.train import card as share
    from riff.train import finetune
    from riff.train.finetune import Outcome

    seen = {}

    def fake(recipe, run):
        seen.update(recipe=recipe, run=run)
        return Outcome(Path("run/model"), [], {"steps": 3})

    pushed = []
    monkeypatch.setattr(finetune, "fine_tune", fake)
    monkeypatch.setattr(share, "check_token", lambda: None)
    monkeypatch.setattr(share, "push", lambda folder, name: pushed.append((folder, name)) or "https://hub/me/mine")
    words = ["train", "--train_data_dir", "set", "--output_dir", "runs/mine", "--rank", "4", "--snr_gamma", "0"]
    words += ["--validation_prompt", "a", "--validation_prompt", "b", "--no-use_ema", "--push_to_hub", "--json"]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"model": "run/model", "hub": "https://hub/me/mine", "steps": 3}
    assert "accelerate launch -m riff.train" in captured.err
    recipe = seen["recipe"]
    assert (recipe.rank, recipe.snr_gamma, recipe.validation_prompt, recipe.loop.ema_decay) == (
        4,
        None,
        ("a", "b"),
        0.0,
    )
    assert pushed == [(Path("run/model"), "mine")]


def test_a_stopped_run_is_exit_130_and_says_how_to_go_on(monkeypatch, capsys):
    from riff.train import finetune

    monkeypatch.setattr(finetune, "fine_tune", lambda recipe, run: None)
    assert main(["train", "set", "-o", "run"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_model_is_pushed_whole_or_refused_in_one_line(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub import RepoUrl

    from riff.train.card import check_token, push
    from riff.utils.errors import SystemProblem

    calls = []

    class Api:
        def create_repo(self, name, exist_ok):
            calls.append((name, exist_ok))
            return RepoUrl(f"https://huggingface.co/me/{name}")

        def upload_folder(self, repo_id, folder_path, commit_message):
            calls.append((repo_id, folder_path))
            return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push(tmp_path, "mine") == "https://huggingface.co/me/mine"
    assert calls == [("mine", True), ("me/mine", tmp_path)]

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(Api, "create_repo", refuse)
    with pytest.raises(SystemProblem, match="no route to host"):
        push(tmp_path, "mine")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(RiffError, match="hf auth login"):
        check_token()


def test_python_m_riff_train_is_riff_train():
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "riff.train", "--help"], capture_output=True, text=True, check=True, env=environment
    )
    assert "accelerate launch" in done.stdout
    assert "--pretrained_model_name_or_path" in done.stdout


def test_a_word_alone_is_loaded_from_its_folder_or_its_file(tmp_path, mini_checkpoint):
    from riff import RiffPipeline

    write_words(tmp_path / "learned_embeds.safetensors", {"foobar": torch.full((16,), 0.1)})
    for place in (tmp_path, tmp_path / "learned_embeds.safetensors"):
        pipe = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
        pipe.load_lora(place)
        assert split_known("foobar", pipe.components.tokenizer) == ("foobar", [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="is no LoRA file"):
        pipe.load_lora(tmp_path / "empty")
    assert load_file(tmp_path / "learned_embeds.safetensors")["foobar"].shape == (16,)

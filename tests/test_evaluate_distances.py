"""Distances between sets and the embeddings they rest on, against closed forms, other code and planted orders."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from riff.errors import ModelError, RiffError
from riff.evaluate.distances import frechet, frechet_limit, kernel_distance
from riff.evaluate.embeddings import Embedding, descriptor_embedding, latent_embedding, mel_embedding, tagger_embedding
from riff.evaluate.figures import mean_figure, share_figure
from riff.evaluate.sets import frechet_distance
from riff.evaluate.sounds import Sound, find_sounds, load_sounds

RATE = 22050


def _gaussian(count: int, *, mean: float = 0.0, spread: float = 1.0, width: int = 4, seed: int = 0) -> np.ndarray:
    return mean + spread * np.random.default_rng(seed).standard_normal((count, width))


def test_frechet_distance_of_gaussians_is_near_its_closed_form_and_inside_its_interval() -> None:
    # |gap|^2 + d (s - 1)^2 = 4 * 1.5^2 + 4 * 0.5^2 = 10
    figure = frechet(_gaussian(400, mean=1.5, spread=1.5), _gaussian(400, seed=1), "numbers")
    assert figure.value == pytest.approx(10.0, rel=0.15)
    assert figure.low < 10.0 < figure.high
    assert figure.name == "Fréchet distance (numbers)"
    assert "numbers" in figure.definition
    assert figure.n == 400


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth, inside = 4 * 1.0, {"frechet": 0, "kernel": 0}
    wide = kernel_distance(_gaussian(1500, mean=1.0, seed=9001), _gaussian(1500, seed=9002), "x", resamplings=2).value
    for trial in range(40):
        a, b = _gaussian(150, mean=1.0, seed=2 * trial), _gaussian(150, seed=2 * trial + 1)
        figure = frechet(a, b, "x", resamplings=100)
        inside["frechet"] += figure.low <= truth <= figure.high
        figure = kernel_distance(a, b, "x", resamplings=100)
        inside["kernel"] += figure.low <= wide <= figure.high
    assert min(inside.values()) >= 34  # of 40; 95 % would be 38, and 34 is left once in 100 times


@pytest.mark.parametrize("width", [3, 60])
def test_more_features_than_clips_give_the_same_distance_as_the_covariances(width: int) -> None:
    a, b = _gaussian(20, width=width, mean=100.0), _gaussian(30, width=width, mean=100.5, spread=2.0, seed=1)
    assert frechet(a, b, "x", resamplings=2).value == pytest.approx(frechet_distance(a, b), rel=1e-6)


def test_frechet_distance_for_endless_clips_is_nearer_the_truth_than_that_of_those_at_hand() -> None:
    reference = _gaussian(4000, width=16, seed=1)
    errors = []
    for seed in range(5):
        few = _gaussian(90, width=16, mean=0.25, seed=10 + seed)
        errors.append((frechet_limit(few, reference, "x").value - 1.0, frechet(few, reference, "x").value - 1.0))
    limit, plain = np.mean(errors, axis=0)
    assert plain > 1.0  # 90 clips of 16 features overstate a distance of 1 more than twice
    assert abs(limit) < 0.35 * plain


def test_unbiased_mmd_equals_the_double_sum_and_is_about_zero_for_one_distribution() -> None:
    a, b = _gaussian(12, mean=0.3), _gaussian(9, seed=1)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1.0) ** 3)

    own = [
        np.mean([kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]) for rows in (a, b)
    ]
    expected = own[0] + own[1] - 2.0 * np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(a, b, "x", kernel="polynomial").value == pytest.approx(expected, rel=1e-9)
    same = [
        kernel_distance(_gaussian(60, seed=2 * s), _gaussian(60, seed=2 * s + 1), "x", resamplings=2).value
        for s in range(40)
    ]
    assert abs(np.mean(same)) < 3.0 * np.std(same) / math.sqrt(40)
    assert min(same) < 0.0 < max(same)


def test_gaussian_kernel_is_as_wide_as_the_references_median_distance() -> None:
    pdist = pytest.importorskip("scipy.spatial.distance").pdist
    a, b = _gaussian(15, mean=0.5), _gaussian(20, seed=1)
    width = np.median(pdist(b))

    def mean(rows: np.ndarray, others: np.ndarray, *, same: bool) -> float:
        values = np.exp(-((rows[:, None] - others) ** 2).sum(2) / (2 * width**2))
        return float(values[~np.eye(len(rows), dtype=bool)].mean() if same else values.mean())

    expected = mean(a, a, same=True) + mean(b, b, same=True) - 2 * mean(a, b, same=False)
    # The median of squared distances is the square of the median only for an odd count of pairs.
    assert kernel_distance(a, b, "x").value == pytest.approx(expected, rel=0.01)


def test_few_clips_give_no_figure_and_bad_features_one_line() -> None:
    few = _gaussian(7)
    for figure in (frechet(few, few, "x"), frechet_limit(few, few, "x"), kernel_distance(few, few, "x")):
        assert math.isnan(figure.value)
    with pytest.raises(RiffError, match="shapes"):
        frechet(few, few[:, :2], "x")
    with pytest.raises(RiffError, match="NaN"):
        kernel_distance(np.full((9, 2), np.nan), np.zeros((9, 2)), "x")
    with pytest.raises(RiffError, match="'sine'"):
        kernel_distance(few, few, "x", kernel="sine")  # type: ignore[arg-type]


def _sines(distortion: float, *, count: int = 12) -> list[Sound]:
    """Chords of sines, with a share of noise, as frechet-audio-distance is checked by its authors."""
    sounds = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        time = torch.arange(4 * RATE) / RATE
        pitches = 110.0 * 2.0 ** (torch.randint(0, 37, (4,), generator=generator) / 12.0)
        tone = torch.sin(2 * math.pi * pitches[:, None] * time).mean(0) * (0.6 + 0.4 * torch.cos(2 * math.pi * 2 * time))
        noise = torch.randn(len(time), generator=torch.Generator().manual_seed(1000 + seed))
        sounds.append(Sound(Path(f"{seed}.wav"), 0.3 * (tone + distortion * noise)[None], RATE))
    return sounds


@pytest.fixture(scope="module")
def distorted() -> dict[float, list[Sound]]:
    return {share: _sines(share) for share in (0.0, 0.01, 0.1, 1.0)}


@pytest.mark.parametrize("make", [mel_embedding, descriptor_embedding], ids=["mel", "descriptors"])
def test_sines_with_more_noise_are_farther_from_clean_ones(make, distorted: dict[float, list[Sound]]) -> None:
    rows = {share: make().rows(sounds) for share, sounds in distorted.items()}
    far = [frechet(rows[share], rows[0.0], "x", resamplings=2).value for share in (0.0, 0.01, 0.1, 1.0)]
    assert far[0] == pytest.approx(0.0, abs=1e-6)
    assert far == sorted(far)
    assert far[3] > 1.5 * far[1] > 0.0
    near = [kernel_distance(rows[share], rows[0.0], "x", kernel="polynomial").value for share in (0.01, 0.1, 1.0)]
    assert near == sorted(near)


@pytest.mark.parametrize("make", [mel_embedding, descriptor_embedding], ids=["mel", "descriptors"])
def test_an_embedding_hears_neither_level_nor_rate_nor_channels_much(make) -> None:
    from riff.audio import resample

    clean, noisy = _sines(0.01, count=1)[0], _sines(0.3, count=1)[0]
    other = resample(clean.waveform, RATE, 44100).repeat(2, 1) * 0.1
    a, b, c = make().rows([clean, Sound(Path("b.wav"), other, 44100), noisy])
    assert np.linalg.norm(a - b) < 0.25 * np.linalg.norm(a - c)


def test_latents_of_a_checkpoint_embed_sounds_of_any_length(pipe) -> None:
    embedding = latent_embedding(pipe.model.parts.vae, pipe.config, "riff-tiny")
    sounds = _sines(0.1, count=2)
    rows = embedding.rows([sounds[0], sounds[1], Sound(Path("short.wav"), sounds[1].waveform[:, :RATE], RATE)])
    assert embedding.name == "latents of riff-tiny"
    assert rows.shape[0] == 3
    assert np.isfinite(rows).all()


def test_tagger_embedding_has_its_2048_features() -> None:
    from riff.tagger import Tagger

    sound = _sines(0.1, count=1)[0]
    told = Sound(sound.path, sound.waveform, RATE, {"bpm": "120"})
    embedding = tagger_embedding(Tagger.load())
    assert embedding.rows([told]).shape == (1, 2048)


def test_silence_cannot_be_embedded_and_is_named() -> None:
    silent = Sound(Path("nothing.wav"), torch.zeros(1, RATE), RATE)
    with pytest.raises(RiffError, match=r"nothing\.wav"):
        mel_embedding().rows([silent])
    broken = Embedding("broken", lambda sound: np.array([math.nan]))
    with pytest.raises(RiffError, match="not finite"):
        broken.rows(_sines(0.0, count=1))


def _tiny_clap(folder: Path) -> Path:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor, RobertaTokenizerFast
    from transformers import ClapAudioConfig, ClapTextConfig

    folder.mkdir()
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "techno", "jazz", "piano"]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    del RobertaTokenizerFast
    text = ClapTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=40, projection_dim=16,
    )  # fmt: skip
    audio = ClapAudioConfig(
        depths=[1, 1], num_attention_heads=[2, 2], hidden_size=32, patch_embeds_hidden_size=16, spec_size=64,
        num_mel_bins=16, window_size=4, projection_dim=16, enable_fusion=False,
    )  # fmt: skip
    torch.manual_seed(0)
    config = ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=16)
    ClapModel(config).save_pretrained(folder)
    extractor = ClapFeatureExtractor(feature_size=16, sampling_rate=48000, truncation="rand_trunc", padding="repeatpad")
    ClapProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder

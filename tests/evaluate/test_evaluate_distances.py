"""Distances between sets and the embeddings they rest on, against closed forms, other code and planted orders."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from riff.evaluate.distances import frechet, frechet_limit, kernel_distance
from riff.evaluate.embeddings import Embedding, descriptor_embedding, latent_embedding, mel_embedding, tagger_embedding
from riff.evaluate.figures import frechet_distance, mean_figure, share_figure
from riff.evaluate.sounds import Sound, find_sounds, load_sounds
from riff.utils.errors import ModelError, RiffError

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
    # Gaussians of unit spread, 2 apart, and a kernel as wide as their median distance (chi squared, 4 degrees).
    width = 2.0 * 3.356694
    mmd = 2.0 * (width / (width + 2.0)) ** 2 * (1.0 - math.exp(-4.0 / (2.0 * (width + 2.0))))
    inside = {"frechet": 0, "kernel": 0}
    for trial in range(40):
        a, b = _gaussian(150, mean=1.0, seed=2 * trial), _gaussian(150, seed=2 * trial + 1)
        figure = frechet(a, b, "x", resamplings=100)
        inside["frechet"] += figure.low <= 4.0 <= figure.high
        figure = kernel_distance(a, b, "x", resamplings=100)
        inside["kernel"] += figure.low <= mmd <= figure.high
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
    assert plain > 0.6  # 90 clips of 16 features overstate a distance of 1 by more than half
    assert abs(limit) < 0.35 * plain


def test_unbiased_mmd_equals_the_double_sum_and_is_about_zero_for_one_distribution() -> None:
    a, b = _gaussian(12, mean=0.3), _gaussian(9, seed=1)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1.0) ** 3)

    own = [np.mean([kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]) for rows in (a, b)]
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
        tone = torch.sin(2 * math.pi * pitches[:, None] * time).mean(0) * (
            0.6 + 0.4 * torch.cos(2 * math.pi * 2 * time)
        )
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
    from riff.audio.io import resample

    clean, noisy = _sines(0.01, count=1)[0], _sines(0.3, count=1)[0]
    other = resample(clean.waveform, RATE, 44100).repeat(2, 1) * 0.1
    a, b, c = make().rows([clean, Sound(Path("b.wav"), other, 44100), noisy])
    assert np.linalg.norm(a - b) < 0.25 * np.linalg.norm(a - c)


def test_latents_of_a_checkpoint_embed_sounds_of_any_length(pipe) -> None:
    embedding = latent_embedding(pipe.model.components.vae, pipe.config, "riff-tiny")
    sounds = _sines(0.1, count=2)
    rows = embedding.rows([sounds[0], sounds[1], Sound(Path("short.wav"), sounds[1].waveform[:, :RATE], RATE)])
    assert embedding.name == "latents of riff-tiny"
    assert rows.shape[0] == 3
    assert np.isfinite(rows).all()


def test_latents_of_riffusions_layout_embed_sounds_too(riffusion_pipe) -> None:
    embedding = latent_embedding(riffusion_pipe.model.components.vae, riffusion_pipe.config, "riffusion-tiny")
    rows = embedding.rows(_sines(0.1, count=2))
    assert rows.shape[0] == 2
    assert np.linalg.norm(rows[0] - rows[1]) > 0.0


def test_tagger_embedding_has_its_2048_features() -> None:
    from riff.music.tagger import Tagger

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


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory) -> Path:
    """CLAP in miniature, with random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapProcessor,
        ClapTextConfig,
        RobertaTokenizer,
    )  # fmt: skip

    folder = tmp_path_factory.mktemp("clap") / "clap-tiny"
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer = RobertaTokenizer(tokenizer_object=inner, vocab={x: i for i, x in enumerate(letters)}, merges=[])
    text = ClapTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=80, projection_dim=16,
    )  # fmt: skip
    audio = ClapAudioConfig(
        depths=[1, 1], num_attention_heads=[2, 2], hidden_size=32, patch_embeds_hidden_size=16, spec_size=256,
        num_mel_bins=64, window_size=4, projection_dim=16, enable_fusion=False,
    )  # fmt: skip
    torch.manual_seed(0)
    ClapModel(ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=16)).save_pretrained(
        folder
    )
    extractor = ClapFeatureExtractor(feature_size=64, sampling_rate=48000, truncation="rand_trunc", padding="repeatpad")
    ClapProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def test_clap_from_a_folder_places_sounds_and_texts_in_one_space(clap_folder: Path) -> None:
    from riff.evaluate.embeddings import Clap

    clap = Clap.load(clap_folder)
    sounds = _sines(0.1, count=2)
    detected, read = clap.embedding.rows(sounds), clap.read(["techno", "jazz piano"])
    assert detected.shape == read.shape == (2, 16)
    assert np.linalg.norm(detected, axis=1) == pytest.approx([1.0, 1.0])
    assert clap.embedding.name == "CLAP clap-tiny"


def test_clap_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    from riff.evaluate.embeddings import Clap

    with pytest.raises(ModelError, match="allow the download") as caught:
        Clap.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_encodec_from_a_folder_embeds_sounds(tmp_path: Path) -> None:
    from transformers import EncodecConfig, EncodecModel

    from riff.evaluate.embeddings import encodec_embedding

    torch.manual_seed(0)
    config = EncodecConfig(
        num_filters=2, hidden_size=12, codebook_size=8, codebook_dim=12, upsampling_ratios=[4, 2], num_lstm_layers=1,
        target_bandwidths=[8.0],
    )  # fmt: skip
    EncodecModel(config).save_pretrained(tmp_path / "encodec-tiny")
    embedding = encodec_embedding(tmp_path / "encodec-tiny")
    assert embedding.name == "EnCodec encodec-tiny"
    assert embedding.rows(_sines(0.1, count=2)).shape == (2, 12)


def test_means_and_shares_have_intervals_and_leave_out_what_is_not_finite() -> None:
    figure = mean_figure("level", [1.0, 2.0, 3.0, math.inf, math.nan], "dB", "a mean")
    assert (figure.value, figure.n) == (2.0, 3)
    assert 1.0 <= figure.low < 2.0 < figure.high <= 3.0
    assert math.isnan(mean_figure("level", [], "dB", "a mean").value)
    figure = share_figure("hits", [True, True, False, True], "a share")
    assert (figure.value, figure.n, figure.unit) == (0.75, 4, "share")
    assert figure.low < 0.75 < figure.high
    assert math.isnan(share_figure("hits", [], "a share").value)


def test_a_corrupt_file_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    from riff.audio.io import save_audio
    from riff.tasks.provenance import provenance, sound_tags

    sound = torch.zeros(1, RATE)
    save_audio(tmp_path / "a.flac", sound, RATE, metadata=sound_tags(provenance("jazz", model="riff-mini", bpm=90.0)))
    (tmp_path / "b.wav").write_bytes(b"RIFF no")
    (tmp_path / "sub").mkdir()
    save_audio(tmp_path / "sub" / "c.ogg", sound, RATE)
    save_audio(tmp_path / ".hidden.wav", sound, RATE)
    paths = find_sounds(tmp_path)
    assert [path.name for path in paths] == ["a.flac", "b.wav", "c.ogg"]
    first, bad, last = load_sounds(paths)
    assert isinstance(first, Sound)
    assert first.metadata["bpm"] == "90"
    assert isinstance(bad, RiffError)
    assert "b.wav" in str(bad)
    assert isinstance(last, Sound)
    with pytest.raises(RiffError, match="no file or folder"):
        find_sounds(tmp_path / "missing")

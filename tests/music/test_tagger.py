"""The tagger in the package: it is whole and small, hears windows as it should, and refuses what it cannot read."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from riff.music.tagger import BUNDLED, Tagger
from riff.music.tagger_net import Labels, TaggerNet, load_net, save_net
from riff.music.theory import KEYS
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.mel import waveform_to_mel
from riff.utils.errors import ModelError, RiffError

RATE = 44100


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return Tagger.load()


def _tone(pitch: float, seconds: float) -> np.ndarray:
    """A fading note of six harmonics."""
    time = np.arange(round(seconds * RATE)) / RATE
    hertz = 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)
    return sum(0.4**n * np.sin(2 * math.pi * hertz * (n + 1) * time) for n in range(6)) * np.exp(-2.0 * time)


def song(tonic: int, *, minor: bool, bpm: float = 120.0, bars: int = 4) -> torch.Tensor:
    """Chords I IV V I (or i iv V i) with their roots in the bass, (1, T): the key is beyond doubt."""
    third = 3 if minor else 4
    beat = 60.0 / bpm
    sound = np.zeros(round((4 * bars * beat + 1) * RATE))
    for number in range(4 * bars):
        # A chord lasts two beats, so that each window of 8 holds the whole cadence.
        root, own_third = ((0, third), (5, third), (7, 4), (0, third))[number // 2 % 4]
        for pitch, level in ((36, 1.0), (60, 0.5), (60 + own_third, 0.5), (67, 0.5)):
            start = round(number * beat * RATE)
            note = level * _tone(pitch + (tonic + root) % 12, beat)
            sound[start : start + len(note)] += note
    return torch.from_numpy(0.1 * sound).float()[None]


def test_the_package_carries_a_tagger_of_under_five_megabytes(tagger: Tagger) -> None:
    assert BUNDLED.stat().st_size < 5_000_000
    assert len(tagger.labels.genres) == 30
    assert {"piano", "drums", "violin"} <= set(tagger.labels.instruments)
    assert all(
        tensor.dtype == torch.float32 for tensor in tagger.net.state_dict().values() if tensor.is_floating_point()
    )
    assert not tagger.net.training


@pytest.mark.parametrize(("tonic", "minor"), [(0, False), (7, False), (9, True), (3, True)])
def test_the_key_of_plain_cadences_is_heard(tagger: Tagger, tonic: int, minor: bool) -> None:
    tags = tagger.tag(song(tonic, minor=minor), RATE, bpm=120.0)
    assert tags.key == KEYS[tonic + 12 * minor]
    assert tags.instruments["drums"] < 0.5


def test_probabilities_are_ranked_and_add_up(tagger: Tagger) -> None:
    tags = tagger.tag(song(0, minor=False), RATE, bpm=120.0)
    for part in (tags.genres, tags.leads, tags.keys):
        assert sum(part.values()) == pytest.approx(1.0, abs=1e-4)
        assert list(part.values()) == sorted(part.values(), reverse=True)
    assert (tags.genre, tags.lead) == (next(iter(tags.genres)), next(iter(tags.leads)))
    assert all(0.0 <= value <= 1.0 for value in tags.instruments.values())


def test_loudness_and_rate_and_channels_do_not_matter(tagger: Tagger) -> None:
    from riff.audio.io import resample

    sound = song(2, minor=False)
    plain = tagger.tag(sound, RATE, bpm=120.0)
    for other, rate in ((0.1 * sound, RATE), (sound.expand(2, -1), RATE), (resample(sound, RATE, 48000), 48000)):
        heard = tagger.tag(other, rate, bpm=120.0)
        assert heard.key == plain.key
        assert heard.genres[plain.genre] == pytest.approx(plain.genres[plain.genre], abs=0.05)


def test_a_long_image_is_the_mean_of_its_windows_without_padding(tagger: Tagger) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 1, 256, 512, generator=generator)
    first, second = tagger.tag_images(images[..., :256])[0], tagger.tag_images(images[..., 256:])[0]
    both = tagger.tag_images(images)[0]
    genre = first.genre
    assert both.genres[genre] == pytest.approx((first.genres[genre] + second.genres[genre]) / 2, abs=1e-5)
    # A stub of less than a bar is left out; what columns leave out is not heard.
    assert tagger.tag_images(images, [300])[0].genres == pytest.approx(first.genres, abs=1e-5)
    stereo = torch.cat([images, 0.0 * images], dim=1)
    assert tagger.tag_images(stereo)[0].genres == pytest.approx(both.genres, abs=1e-5)
    assert tagger.embed(images).shape == (1, 2048)
    assert tagger.tag_images(torch.zeros(0, 1, 256, 256)) == []


def test_a_sound_without_a_beat_is_tagged_on_an_even_grid(tagger: Tagger) -> None:
    drone = torch.from_numpy(0.1 * np.sin(2 * math.pi * 220.0 * np.arange(4 * RATE) / RATE)).float()
    with pytest.warns(UserWarning, match="even grid"):
        tags = tagger.tag(drone, RATE)
    assert tags.key in KEYS


@pytest.mark.parametrize(
    "sound", [torch.zeros(1, RATE), torch.zeros(1, 0), torch.full((1, RATE), math.nan)], ids=["silent", "empty", "NaN"]
)
def test_sounds_that_hold_no_music_are_one_clear_error(tagger: Tagger, sound: torch.Tensor) -> None:
    with pytest.raises(RiffError, match=r"silent|empty"):
        tagger.tag(sound, RATE)


def test_pictures_of_another_kind_are_refused(tagger: Tagger) -> None:
    with pytest.raises(RiffError, match="256, N"):
        tagger.tag_images(torch.zeros(1, 1, 512, 256))
    with pytest.raises(RiffError, match="columns are"):
        tagger.tag_images(torch.zeros(1, 1, 256, 256), [257])
    assert tagger.reads(SpectrogramConfig(channels=2, width=512))
    assert not tagger.reads(SpectrogramConfig.riffusion())
    assert not tagger.reads(dataclasses.replace(SpectrogramConfig(), grid="seconds"))


def test_half_precision_halves_the_file_and_keeps_the_verdict(tmp_path: Path) -> None:
    net = TaggerNet(Labels(("folk", "house"), ("banjo", "drums"), ("banjo",)), SpectrogramConfig()).eval()
    save_net(net, tmp_path / "new" / "full.safetensors")
    save_net(net, tmp_path / "half.safetensors", dtype=torch.float16)
    sizes = [(tmp_path / name).stat().st_size for name in ("new/full.safetensors", "half.safetensors")]
    assert sizes[1] < 0.55 * sizes[0]
    images = torch.rand(2, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    full, half = (Tagger.load(tmp_path / name) for name in ("new/full.safetensors", "half.safetensors"))
    pairs = zip(full.tag_images(images), half.tag_images(images), strict=True)
    assert all(a.genres == pytest.approx(b.genres, abs=0.01) for a, b in pairs)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("missing", "is missing"),
        ("truncated", "truncated or corrupt"),
        ("nan", "NaN or infinite"),
        ("incomplete", "does not hold a tagger's weights"),
        ("foreign", "is not a tagger"),
        ("names", "is not a tagger"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, harm: str, message: str) -> None:
    path = tmp_path / "tagger.safetensors"
    names = {name: json.dumps(["a"]) for name in ("genres", "instruments", "leads")}
    tensors = load_file(BUNDLED)
    if harm == "truncated":
        path.write_bytes(BUNDLED.read_bytes()[:-100])
    elif harm == "nan":
        save_file(tensors | {"genre.bias": torch.full_like(tensors["genre.bias"], math.nan)}, path, metadata=names)
    elif harm == "incomplete":
        save_file({"genre.bias": tensors["genre.bias"]}, path, metadata=names)
    elif harm == "foreign":
        save_file(tensors, path)
    elif harm == "names":
        save_file(tensors, path, metadata=names | {"leads": "{"})
    with pytest.raises(ModelError, match=message):
        load_net(path, SpectrogramConfig())


def test_a_picture_and_its_sound_are_heard_alike(tagger: Tagger) -> None:
    sound = song(9, minor=True, bars=2)[:, : 4 * RATE]
    picture = mel_to_image(waveform_to_mel(0.3 * sound / sound.abs().max(), tagger.config, bpm=120.0), tagger.config)
    assert tagger.tag_images(picture[None])[0].key == tagger.tag(sound, RATE, bpm=120.0).key == "A minor"

"""Tags from CLAP: the likely words are said, the user's stay first, and weights that are missing are one line."""

import json

import numpy as np
import pytest
import torch

from riff.audio.io import save_audio
from riff.train.data import wording as clap_tags
from riff.train.data.prepare import prepare
from riff.train.data.settings import PrepareSettings
from riff.utils.errors import ModelError

WORDS = [word for words in clap_tags.KINDS.values() for word in words]


class Planted:
    """A CLAP whose words are the axes, and which hears what was planted."""

    def __init__(self, heard: dict[str, float]) -> None:
        self.heard = heard

    def hear(self, sound: object) -> np.ndarray:
        return np.array([self.heard.get(word, 0.0) for word in WORDS])

    def read(self, texts: list[str]) -> np.ndarray:
        return np.array([[float(word in text) for word in WORDS] for text in texts])


def plant(monkeypatch: pytest.MonkeyPatch, heard: dict[str, float]) -> None:
    monkeypatch.setattr(clap_tags.Clap, "load", lambda source: Planted(heard))
    clap_tags._loaded.cache_clear()


@pytest.fixture(autouse=True)
def fresh():
    yield
    clap_tags._loaded.cache_clear()


def test_the_likeliest_word_of_each_kind_is_said_where_it_is_likely(monkeypatch) -> None:
    plant(monkeypatch, {"techno": 0.9, "flute": 0.9, "sad": 0.01, "calm": 0.01})
    assert clap_tags.clap_tags(torch.zeros(1, 48000), 48000, "planted") == "techno, flute"


def test_the_users_words_stay_first(monkeypatch, tmp_path) -> None:
    plant(monkeypatch, {"jazz": 0.9})
    (tmp_path / "music").mkdir()
    noise = 0.1 * torch.randn(1, 44100 * 7, generator=torch.Generator().manual_seed(0))
    save_audio(tmp_path / "music/a.wav", noise, 44100)
    (tmp_path / "music/a.txt").write_text("zelvira, slow")
    settings = PrepareSettings(clap="planted", unsteady="keep", validation=0.0)
    prepare(tmp_path / "music", tmp_path / "out", settings, workers=0)
    row = json.loads((tmp_path / "out/train/metadata.jsonl").read_text().splitlines()[0])
    assert row["text"] == "zelvira, slow, jazz"


def test_weights_that_are_missing_stop_it_before_anything_is_cut(tmp_path) -> None:
    (tmp_path / "music").mkdir()
    save_audio(tmp_path / "music/a.wav", torch.zeros(1, 44100), 44100)
    with pytest.raises(ModelError, match="cannot be used as ClapModel"):
        prepare(tmp_path / "music", tmp_path / "out", PrepareSettings(clap=str(tmp_path / "none")), workers=0)
    assert not (tmp_path / "out").exists()

"""The contact sheet: complete, escaped, by itself, and always what is in the folder."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import riff.tasks.gallery
from riff.audio.io import save_audio
from riff.tasks.gallery import ContactSheet, check_sheet, how_made, numbered_files, read_card
from riff.tasks.provenance import provenance, sound_tags
from riff.utils.errors import RiffError

NASTY = """<script>alert("1")</script> & 'quotes' </article> \u202e"""


def add_clip(folder: Path, name: str, prompt: str = "mellow jazz", *, rate: int = 22050, **fields) -> Path:
    made = provenance(prompt, model="riff-mini", seed=7, bpm=84.0, **fields)
    time = torch.arange(rate) / rate
    sound = 0.2 * torch.sin(2 * torch.pi * 440 * time)[None]
    return save_audio(folder / name, sound, rate, metadata=sound_tags(made))


class Tags(HTMLParser):
    """Which tags open, which attributes they have, and whether all that is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_a_page_shows_prompt_seed_tempo_player_and_picture(tmp_path: Path) -> None:
    add_clip(tmp_path, "0000-jazz.wav", keyscale="D minor", steps=20)
    page = ContactSheet(tmp_path).write().read_text()
    tags = Tags(page)
    assert tags.stack == []
    assert tags.all("audio")[0]["src"] == "0000-jazz.wav"
    assert tags.all("img")[0]["src"].startswith("data:image/webp;base64,")
    for text in ("mellow jazz", "seed 7", "84 bpm", "D minor", "1.0 s", "1 clip ·", "riff-mini", "Machine-made"):
        assert text in page
    assert "color-scheme" in page and "viewport" in page and "prefers-color-scheme: dark" in page


def test_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    add_clip(tmp_path, "0000-jazz.wav")
    page = ContactSheet(tmp_path).write().read_text()
    assert "://" not in page and "url(" not in page and "@import" not in page
    assert all("src" not in script for script in Tags(page).all("script"))
    assert len(page) < 40_000


def test_whatever_a_file_says_is_text(tmp_path: Path) -> None:
    add_clip(tmp_path, """0000-a b"#?%20<i>'.wav""", NASTY, negative_prompt=NASTY, keyscale="<u>")
    page = ContactSheet(tmp_path).write().read_text()
    tags = Tags(page)
    assert tags.stack == [] and len(tags.all("script")) == 1 and not tags.all("i")[1:] and not tags.all("u")
    assert "alert(&#34;1&#34;)" in page
    assert tags.all("audio")[0]["src"] == "0000-a%20b%22%23%3F%2520%3Ci%3E%27.wav"
    # Its own memory is not fooled either: the card comes back whole.
    assert ContactSheet(tmp_path).write().read_text() == page


def test_the_folder_is_what_counts(tmp_path: Path) -> None:
    for name in ("0001-b.wav", "0000-a.flac", "10000-c.ogg", "0002-d.mp3"):
        add_clip(tmp_path, name)
    (tmp_path / "notes.txt").write_text("no clip")
    (tmp_path / "song.wav").write_bytes(b"not numbered")
    (tmp_path / "0007-folder.wav").mkdir()
    assert [path.name[:5] for path in numbered_files(tmp_path)] == ["0000-", "0001-", "0002-", "10000"]
    sheet = ContactSheet(tmp_path)
    assert sheet.write().read_text().count("<article") == 4
    (tmp_path / "0001-b.wav").unlink()
    page = sheet.write().read_text()
    assert page.count("<article") == 3 and "0001-b.wav" not in page


def test_a_clip_that_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_clip(tmp_path, "0000-a.wav")
    page = ContactSheet(tmp_path).write().read_text()
    read: list[Path] = []
    monkeypatch.setattr(riff.tasks.gallery, "read_card", lambda path: read.append(path) or read_card(path))
    assert ContactSheet(tmp_path).write().read_text() == page and read == []
    add_clip(tmp_path, "0000-a.wav", "techno, and other things")
    assert "techno" in ContactSheet(tmp_path).write().read_text() and len(read) == 1


def test_another_versions_page_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_clip(tmp_path, "0000-a.wav")
    page = ContactSheet(tmp_path).write()
    page.write_text(page.read_text().replace("mellow", "stale").replace('content="riff ', 'content="riff 0.0-'))
    assert "stale" not in ContactSheet(tmp_path).write().read_text()


def test_damaged_and_foreign_files_have_cards_too(tmp_path: Path) -> None:
    (tmp_path / "0000-broken.wav").write_bytes(b"RIFF....WAVE")
    save_audio(tmp_path / "0001-mine.wav", torch.zeros(2, 100), 8000)
    (tmp_path / "0002-broken.png").write_bytes(b"\x89PNG")
    page = ContactSheet(tmp_path).write().read_text()
    tags = Tags(page)
    assert page.count('class="problem"') == 2 and "no image" in page and tags.stack == []
    assert "0001-mine.wav" in page and len(tags.all("audio")) == 1


def test_a_strangers_metadata_breaks_nothing(tmp_path: Path) -> None:
    tags = {"comment": '{"software": "riff 9", "bpm": "1e999", "seed": [1], "loop": {"a": 1}}'}
    path = save_audio(tmp_path / "0000-a.wav", torch.zeros(1, 500), 8000, metadata=tags)
    assert how_made(path)["bpm"] == "1e999"
    page = ContactSheet(tmp_path).write().read_text()
    assert "data:image/webp" in page and Tags(page).stack == []


def test_how_a_file_that_cannot_be_read_was_made_is_unknown(tmp_path: Path) -> None:
    assert how_made(tmp_path / "none.wav") == {} and how_made(tmp_path / "none.png") == {}


def test_an_empty_folder_has_a_page(tmp_path: Path) -> None:
    assert "no clips yet" in ContactSheet(tmp_path).write().read_text()


def test_a_page_of_somebody_else_is_refused(tmp_path: Path) -> None:
    check_sheet(tmp_path)
    ContactSheet(tmp_path).write()
    check_sheet(tmp_path)
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(RiffError, match="not one of riff's sheets"):
        check_sheet(tmp_path)
    check_sheet(tmp_path, force=True)


def test_long_prompts_stand_in_full_behind_the_card(tmp_path: Path) -> None:
    add_clip(tmp_path, "0000-a.wav", "word " * 60)
    page = ContactSheet(tmp_path).write().read_text()
    assert len(re.findall(r"(?:word ){50}", page)) == 2

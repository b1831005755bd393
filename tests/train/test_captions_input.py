"""Captions as people write them: every one is used, or the report says which is not and why."""

import json
import unicodedata
from pathlib import Path

import pytest

from riff.train.data.captions import Captions
from riff.train.data.sources import list_folder
from riff.utils.errors import RiffError


def sounds(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"RIFF")


def captions(folder: Path, **more) -> dict[str, tuple[str, ...]]:
    return {source.name: source.words for source in list_folder(folder, **more).sources}


TABLES = {
    "space after the comma": ("metadata.csv", "file_name, text\na.wav, zarbel one\n"),
    "column caption": ("metadata.csv", "file_name,caption\na.wav,zarbel one\n"),
    "capitals": ("Metadata.CSV", "File_Name,Text\na.wav,zarbel one\n"),
    "semicolons": ("metadata.csv", "file_name;text\na.wav;zarbel one\n"),
    "tabs": ("metadata.tsv", "file_name\ttext\na.wav\tzarbel one\n"),
    "bars": ("metadata.csv", "file_name|text\na.wav|zarbel one\n"),
    "no header": ("metadata.csv", "a.wav,zarbel one\n"),
    "another name for the file": ("metadata.csv", "path,description\na.wav,zarbel one\n"),
    "quoted": ("metadata.csv", 'file_name,text\n"a.wav","zarbel one"\n'),
    "windows line ends": ("metadata.csv", "file_name,text\r\na.wav,zarbel one\r\n"),
    "old line ends": ("metadata.csv", "file_name,text\ra.wav,zarbel one\r"),
    "byte order mark": ("metadata.csv", "\ufefffile_name,text\na.wav,zarbel one\n"),
    "empty lines": ("metadata.csv", "\nfile_name,text\n\na.wav,zarbel one\n\n"),
    "name without a suffix": ("metadata.csv", "file_name,text\na,zarbel one\n"),
    "name in capitals": ("metadata.csv", "file_name,text\nA.WAV,zarbel one\n"),
    "dot before the name": ("metadata.csv", "file_name,text\n./a.wav,zarbel one\n"),
    "json list": ("metadata.json", '[{"file_name": "a.wav", "text": "zarbel one"}]'),
    "json of several lines": ("metadata.json", '{\n"a.wav": "zarbel one"\n}'),
    "json lines that are a list": ("metadata.jsonl", '[{"file_name": "a.wav", "text": "zarbel one"}]'),
    "json with a list of texts": ("metadata.jsonl", '{"file_name": "a.wav", "text": ["zarbel one"]}'),
    "json with captions": ("metadata.jsonl", '{"file_name": "a.wav", "captions": ["zarbel one"]}'),
    "json with caption": ("metadata.jsonl", '{"file_name": "a.wav", "caption": "zarbel one"}'),
}


@pytest.mark.parametrize("how", TABLES)
def test_a_table_is_read_however_it_is_written(tmp_path, how):
    name, text = TABLES[how]
    sounds(tmp_path, "a.wav")
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert captions(tmp_path) == {"a.wav": ("zarbel one",)}


@pytest.mark.parametrize(
    "name", ["a.txt", "a.Txt", "a.TXT", "A.txt", "a.wav.txt", "a.caption", "metadata.csv"]
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_captions_in_any_encoding_and_spelling_are_read(tmp_path, name, encoding):
    sounds(tmp_path, "a.wav")
    text = "file_name,text\na.wav,zarbél gongs\n" if name == "metadata.csv" else "zarbél gongs\n"
    (tmp_path / name).write_bytes(text.encode(encoding))
    listing = list_folder(tmp_path)
    assert listing.sources[0].words == ("zarbél gongs",)
    assert listing.no_audio == []
    guessed = encoding == "cp1252"
    assert [("Windows-1252" in note) for note in listing.notes] == [True] * guessed


def test_a_json_file_beside_a_sound_is_its_caption(tmp_path):
    sounds(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "a.json").write_text('{"caption": "one", "bpm": 90}')
    (tmp_path / "b.json").write_text('["one", "two"]')
    (tmp_path / "c.json").write_text('{"loudness": -9}')
    listing = list_folder(tmp_path)
    assert [source.words for source in listing.sources] == [("one",), ("one", "two"), ()]
    assert listing.no_audio == ["c.json: it holds no caption"]


def test_composed_and_decomposed_accents_are_one_name(tmp_path):
    sounds(tmp_path, unicodedata.normalize("NFD", "é/sóng.wav"))
    (tmp_path / "metadata.csv").write_text(unicodedata.normalize("NFC", "file_name,text\né/sóng.wav,words\n"))
    assert list(captions(tmp_path).values()) == [("words",)]


def test_windows_separators_name_a_file_in_a_folder(tmp_path):
    sounds(tmp_path, "x/a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text\nx\\a.wav,words\n")
    assert captions(tmp_path) == {"x/a.wav": ("words",)}


def test_commas_in_an_unquoted_last_column_stay_in_the_caption(tmp_path):
    sounds(tmp_path, "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,jazz, slow, piano\n")
    assert captions(tmp_path) == {"a.wav": ("jazz, slow, piano",)}


def test_several_rows_of_a_file_are_several_captions(tmp_path):
    sounds(tmp_path, "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,one\na.wav,two\n")
    assert captions(tmp_path) == {"a.wav": ("one", "two")}


def test_of_equal_names_each_sound_takes_its_own_text(tmp_path):
    sounds(tmp_path, "song.wav", "Song.flac")
    (tmp_path / "song.txt").write_text("small")
    (tmp_path / "Song.txt").write_text("capital")
    assert captions(tmp_path) == {"song.wav": ("small",), "Song.flac": ("capital",)}


def test_the_named_column_is_used_in_tables_too(tmp_path):
    sounds(tmp_path, "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text,mood\na.wav,one,calm\n")
    assert captions(tmp_path, text_column="Mood") == {"a.wav": ("calm",)}


UNUSED = {
    "a.txt": (b"\x00\x01\x02 binary", "a.txt: no text in UTF-8"),
    "a.caption": (b"\x81\x8d\x8f\x90", "a.caption: no text in UTF-8"),
    "metadata.csv": (b"file_name,words\na.wav,x\n", "none is called text or caption"),
    "captions.csv": (b"file_name,text\na.wav,x\n", "call it metadata.csv"),
    "list.tsv": (b"file_name\ttext\na.wav\tx\n", "call it metadata.tsv"),
    "metadata.json": (b'{"file_name": "a.wav"}', "none is called text or caption"),
    "metadata.jsonl": (b'{"file_name": "b.wav", "text": "x"}', "named in metadata.jsonl, but not there"),
    "b.txt": (b"words", "b.txt: no sound file of that name"),
    "metadata.tsv": (b"file_name\ttext\tmore\na.wav\tx\ty\tz\n", "'z' is not used"),
}


@pytest.mark.parametrize("name", UNUSED)
def test_a_caption_that_is_not_used_is_named_with_the_reason(tmp_path, name):
    content, why = UNUSED[name]
    sounds(tmp_path, "a.wav")
    (tmp_path / name).write_bytes(content)
    assert [why in line for line in list_folder(tmp_path).no_audio] == [True]


def test_a_text_file_of_gigabytes_is_not_read(tmp_path):
    sounds(tmp_path, "a.wav")
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(1 << 32)
    assert list_folder(tmp_path).no_audio == ["a.txt: larger than 1,048,576 bytes, so it is not read"]


def test_a_caption_that_was_cut_is_noted(tmp_path):
    sounds(tmp_path, "a.wav")
    (tmp_path / "a.txt").write_text("word " * 1000)
    listing = list_folder(tmp_path)
    assert len(listing.sources[0].words[0]) == 2000
    assert "cut to 2000 characters" in listing.notes[0]


def test_deeply_nested_json_is_one_line(tmp_path):
    sounds(tmp_path, "a.wav")
    (tmp_path / "metadata.jsonl").write_text("[" * 100000)
    assert list_folder(tmp_path).no_audio == ["metadata.jsonl, line 1: no JSON object"]


def test_captions_name_no_file_outside_of_the_folder_to_be_read(tmp_path):
    sounds(tmp_path / "music", "a.wav")
    (tmp_path / "secret.wav").write_bytes(b"RIFF")
    row = {"file_name": "../secret.wav", "text": "x"}
    (tmp_path / "music/metadata.jsonl").write_text(json.dumps(row))
    listing = list_folder(tmp_path / "music")
    assert [source.name for source in listing.sources] == ["a.wav"]
    assert len(listing.no_audio) == 1


def test_a_data_set_never_reads_outside_its_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    from riff.train.data.rows import list_rows, row_file
    from riff.train.data.settings import PrepareSettings

    (tmp_path / "secret.wav").write_bytes(b"RIFF")
    for name in ("secret", "link", "readme"):
        (tmp_path / name).mkdir()
        paths = {"audio": [{"path": str(tmp_path / "secret.wav"), "bytes": None}], "text": ["x"]}
        datasets.Dataset.from_dict(paths).to_parquet(tmp_path / name / "train.parquet")
    (tmp_path / "link/elsewhere.parquet").symlink_to(tmp_path / "secret/train.parquet")
    (tmp_path / "readme/README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: https://x.invalid/a\n---\n"
    )
    for name in ("secret", "link", "readme"):
        (source,) = list_rows(tmp_path / name, PrepareSettings()).sources
        with pytest.raises(RiffError, match="outside of the data set"), row_file(source, tmp_path):
            pass


def test_a_saved_data_set_names_no_table_elsewhere(tmp_path):
    datasets = pytest.importorskip("datasets")
    from riff.train.data.rows import list_rows
    from riff.train.data.settings import PrepareSettings

    datasets.Dataset.from_dict({"audio": ["a.wav"]}).save_to_disk(tmp_path / "set")
    state = json.loads((tmp_path / "set/state.json").read_text())
    state["_data_files"] = [{"filename": "../other.arrow"}]
    (tmp_path / "set/state.json").write_text(json.dumps(state))
    with pytest.raises(RiffError, match="not in its folder"):
        list_rows(tmp_path / "set", PrepareSettings())


def test_is_caption_knows_what_was_added(tmp_path):
    known = Captions(tmp_path)
    assert [known.is_caption(Path(name)) for name in ("a.txt", "METADATA.CSV", "cover.jpg")] == [True, True, False]

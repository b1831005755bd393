"""``riff render --prompts``: lists, restarts, bad lines, and the folder that comes of it."""

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from riff.apps.cli import main
from riff.apps.cli.lists import NAMES, read_items, slug
from riff.audio.io import save_audio
from riff.tasks.provenance import provenance, sound_tags
from riff.utils.errors import RiffError
from tests.apps.test_cli import run_on


class FakeClip:
    """A tenth of a second of noise that says how it was made."""

    def __init__(self, prompt: str, arguments: dict[str, Any]) -> None:
        self.prompt, self.seed, self.arguments = prompt, arguments["seed"], arguments
        self.bpm, self.duration, self.settings = arguments["bpm"] or 120.0, 0.1, {}

    def save(self, path: Path, *, overwrite: bool, metadata: bool = True) -> Path:
        made = provenance(self.prompt, model="fake", seed=self.seed, bpm=self.bpm)
        noise = 0.1 * torch.randn(1, 4410, generator=torch.Generator().manual_seed(self.seed))
        return save_audio(path, noise, 44100, metadata=sound_tags(made), force=overwrite)


class FakePipeline:
    """Remembers what it drew; a prompt with "bad" in it is refused, one with "stop" ends everything."""

    drawn: list[dict[str, Any]]
    loads = 0

    @classmethod
    def from_pretrained(cls, source: str | None = None, **options: Any) -> "FakePipeline":
        cls.loads += 1
        return cls()

    @property
    def model(self) -> "FakePipeline":
        return self

    def generate(self, request: Any, audio: str | None, callback: Any) -> FakeClip:
        if "bad" in request.prompt:
            raise RiffError("this cannot be drawn")
        if "stop" in request.prompt:
            raise KeyboardInterrupt
        self.drawn.append(dataclasses.asdict(request))
        return FakeClip(request.prompt, self.drawn[-1])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakePipeline]:
    monkeypatch.setattr(FakePipeline, "drawn", [], raising=False)
    monkeypatch.setattr(FakePipeline, "loads", 0)
    module = types.ModuleType("riff.pipeline")
    module.RiffPipeline = FakePipeline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "riff.pipeline", module)
    monkeypatch.setitem(sys.modules, "riff.tasks.run", types.SimpleNamespace(run=run_on))
    return FakePipeline


def write_list(tmp_path: Path, *lines: Any, suffix: str = ".txt") -> str:
    path = tmp_path / f"list{suffix}"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return str(path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Reading a list


def test_blank_lines_and_comments_are_no_prompts(tmp_path: Path) -> None:
    path = Path(write_list(tmp_path, "\ufeff# mine", "", "  mellow jazz  ", "#", "techno\r", "\t"))
    assert [(item.line, item.fields["prompt"]) for item in read_items(path)] == [(3, "mellow jazz"), (5, "techno")]


def test_objects_say_what_they_wish(tmp_path: Path) -> None:
    line = {"prompt": "jazz", "seed": 3, "bpm": 90.5, "bars": 4, "key": "bb min", "negative": "drums", "guidance": 0}
    (item,) = read_items(write_list(tmp_path, {**line, "loop": True, "name": "x", "duration": None}, suffix=".jsonl"))
    assert item.problem is None and item.name == "x"
    fields = {"prompt": "jazz", "seed": 3, "bpm": 90.5, "bars": 4, "key": "A# minor", "loop": True}
    assert item.fields == {**fields, "negative_prompt": "drums", "guidance_scale": 0}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"prompt": "jazz", "bmp": 90}, ["'bmp'", "did you mean bpm?", *NAMES]),
        ({"prompt": "jazz", "Key": "C"}, ["did you mean key?"]),
        ({"prompt": ""}, ["empty"]),
        ({"prompt": None}, ["missing"]),
        ({"seed": 1}, ["missing"]),
        ({"prompt": 7}, ["prompt is 7", "text"]),
        ({"prompt": "jazz", "bpm": 401}, ["bpm is 401", "20 to 400"]),
        ({"prompt": "jazz", "bpm": "90"}, ["bpm is '90'"]),
        ({"prompt": "jazz", "bpm": True}, ["bpm is True"]),
        ({"prompt": "jazz", "bars": 2.5}, ["bars is 2.5", "whole"]),
        ({"prompt": "jazz", "bars": 2, "duration": 9}, ["bars is 2 and duration 9"]),
        ({"prompt": "jazz", "seed": 2**63}, ["seed is", str(2**63 - 1)]),
        ({"prompt": "jazz", "loop": 1}, ["loop is 1"]),
        ({"prompt": "jazz", "key": "H major"}, ["H major"]),
        ({"prompt": "jazz, 500 bpm"}, ["500 bpm"]),
        ({"prompt": "x" * 10_001}, ["10001 characters"]),
        ('{"prompt": "jazz", "bpm": NaN}', ["NaN"]),
        ('{"prompt": "\\ud83d"}', ["half a surrogate"]),
        ('{"prompt": "jazz"', ["not JSON"]),
        ("[" * 100_000, ["not JSON"]),
        ('["jazz"]', ["not an object"]),
        ('"jazz"', ["not an object"]),
    ],
    ids=lambda value: str(value)[:30] if not isinstance(value, list) else "",
)
def test_a_bad_line_has_its_problem_and_its_number(tmp_path: Path, line: Any, says: list[str]) -> None:
    good, bad = read_items(write_list(tmp_path, {"prompt": "jazz"}, "", line, suffix=".jsonl"))
    assert good.problem is None and bad.line == 3
    assert bad.problem and "\n" not in bad.problem and len(bad.problem) < 250
    for text in says:
        assert text in bad.problem


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("list.txt", b"", "empty"),
        ("list.txt", b"\n# nothing\n", "holds no prompt"),
        ("list.txt", b"jazz\nf\xfcnk\n", "not UTF-8 text (line 2)"),
        ("list.json", b'[{"prompt": "jazz"}]', ".jsonl"),
        ("song.yaml", b"bars: 8", ".jsonl"),
    ],
)
def test_what_is_no_list_is_one_line(fake, tmp_path: Path, capsys, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["render", "--prompts", str(tmp_path / name), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists() and fake.loads == 0


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Lo-fi hip hop, 84 bpm!", "lo-fi-hip-hop-84-bpm"),
        ("café été", "cafe-ete"),
        ("../../etc/passwd", "etc-passwd"),
        ("夜の ジャズ", "夜の-ジャズ"),
        ("♯♭", "clip"),
        ("a" * 99, "a" * 40),
        ("one two three four five six seven eight nine ten", "one-two-three-four-five-six-seven-eight"),
    ],
)
def test_a_prompt_names_its_file(prompt: str, name: str) -> None:
    assert slug(prompt) == name


# A run


def test_every_line_becomes_a_file_that_a_page_lists(fake, tmp_path: Path, capsys) -> None:
    path, out = write_list(tmp_path, "mellow jazz", "# no", "techno"), tmp_path / "new" / "out"
    assert main(["render", "--prompts", path, "-o", str(out), "--seed", "10", "--count", "2", "--bpm", "99"]) == 0
    files = ["0000-mellow-jazz.wav", "0001-mellow-jazz.wav", "0002-techno.wav", "0003-techno.wav"]
    assert names(out) == [*files, "index.html"]
    assert [clip["seed"] for clip in fake.drawn] == [10, 11, 12, 13]
    assert {clip["bpm"] for clip in fake.drawn} == {99.0}
    printed = capsys.readouterr()
    assert printed.out.split() == [str(out / name) for name in files]
    assert printed.err == f"made 4; to look and listen: {out / 'index.html'}\n"
    page = (out / "index.html").read_text()
    assert all(f'src="{name}"' in page for name in files) and "seed 13" in page


def test_a_line_says_more_than_the_command(fake, tmp_path: Path) -> None:
    lines = [{"prompt": "jazz", "seed": 5, "duration": 3, "name": "My take"}, {"prompt": "rock", "guidance": 0}]
    path, out = write_list(tmp_path, *lines, suffix=".jsonl"), tmp_path / "out"
    words = ["--seed", "70", "--bars", "4", "--guidance", "2", "--key", "C major", "--format", "flac", "--count", "2"]
    assert main(["render", "--prompts", path, "-o", str(out), *words]) == 0
    assert [clip["seed"] for clip in fake.drawn] == [5, 6, 72, 73]
    assert [(clip["bars"], clip["duration"]) for clip in fake.drawn[1:3]] == [(None, 3), (4, None)]
    assert [clip["guidance_scale"] for clip in fake.drawn[1:3]] == [2, 0]
    assert names(out)[0] == "0000-my-take.flac" and fake.drawn[0]["key"] == "C major"


def test_a_bad_line_is_named_and_counted_and_the_rest_is_made(fake, tmp_path: Path, capsys) -> None:
    lines = [{"prompt": "jazz"}, {"prompt": "rock", "bpm": 9}, {"prompt": "bad"}, {"prompt": "funk"}]
    path, out = write_list(tmp_path, *lines, suffix=".jsonl"), tmp_path / "out"
    assert main(["render", "--prompts", path, "-o", str(out), "--seed", "1"]) == 2
    # A line that is mended later moves no other clip and changes no seed.
    assert names(out) == ["0000-jazz.wav", "0003-funk.wav", "index.html"]
    assert [clip["seed"] for clip in fake.drawn] == [1, 4]
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith("skipped line 2: bpm is 9") and error[1] == "skipped line 3: this cannot be drawn"
    assert error[-1].startswith("riff: error: 2 of 4 prompts could not be played: line 2: bpm is 9")


def test_only_bad_lines_load_no_model_and_leave_no_folder(fake, tmp_path: Path) -> None:
    path = write_list(tmp_path, {"promt": "jazz"}, suffix=".jsonl")
    assert main(["render", "--prompts", path, "-o", str(tmp_path / "out")]) == 2
    assert fake.loads == 0 and not (tmp_path / "out").exists()


def test_a_run_that_was_stopped_goes_on_with_its_seed(fake, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    path = write_list(tmp_path, "jazz", "funk", "stop", "rock")
    assert main(["render", "--prompts", path, "-o", str(out)]) == 130
    seed = int(capsys.readouterr().err.split()[1])
    assert names(out) == ["0000-jazz.wav", "0001-funk.wav", "index.html"]
    assert (out / "index.html").read_text().count("<article") == 2
    first = (out / "0000-jazz.wav").read_bytes()
    (out / "0000-jazz.wav").unlink()
    path = write_list(tmp_path, "jazz", "funk", "go", "rock")
    fake.drawn.clear()
    assert main(["render", "--prompts", path, "-o", str(out)]) == 0
    assert [clip["seed"] for clip in fake.drawn] == [seed, seed + 2, seed + 3]
    assert (out / "0000-jazz.wav").read_bytes() == first
    assert "kept 1 that were there already" in capsys.readouterr().err


def test_what_is_there_is_kept_unless_forced(fake, tmp_path: Path, capsys) -> None:
    path, out = write_list(tmp_path, "jazz", "funk"), tmp_path / "out"
    words = ["render", "--prompts", path, "-o", str(out), "--json", "--seed"]
    assert main([*words, "1"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [(one["line"], one["seed"]) for one in made["results"]] == [(1, 1), (2, 2)]
    assert main([*words, "5"]) == 0
    printed = capsys.readouterr()
    kept = json.loads(printed.out)
    assert kept["results"] == [] and kept["kept"] == 2 and kept["problems"] == [] and fake.loads == 1
    assert kept["sheet"] == str(out / "index.html")
    assert "0000-jazz.wav and 1 more, made from another prompt or seed" in printed.err
    assert main([*words, "5", "--force"]) == 0
    assert [clip["seed"] for clip in fake.drawn] == [1, 2, 5, 6]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-o", "out.wav"], "give a folder"),
        (["rock", "-o", "out"], "give one of them"),
        (["-o", "out", "--seed", str(2**63 - 2)], "leaves no room for 3 clips"),
        (["-o", "out", "--format", "aac"], "invalid choice"),
        (["-o", "list.txt"], "is a file"),
    ],
)
def test_wrong_arguments_are_one_line(fake, tmp_path: Path, capsys, monkeypatch, words: list[str], says: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_list(tmp_path, "jazz", "funk", "soul")
    assert main(["render", "--prompts", "list.txt", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and fake.loads == 0


def test_without_a_list_there_must_be_a_prompt_and_no_format(fake, tmp_path: Path, capsys) -> None:
    assert main(["render", "-o", str(tmp_path / "a.wav")]) == 2
    assert "there is no prompt" in capsys.readouterr().err
    assert main(["render", "jazz", "-o", str(tmp_path / "a.wav"), "--format", "wav"]) == 2
    assert "--format wav goes with --prompts" in capsys.readouterr().err


def test_somebody_elses_page_stays(fake, tmp_path: Path, capsys) -> None:
    page = tmp_path / "index.html"
    page.write_text("<h1>my home page</h1>")
    words = ["render", "--prompts", write_list(tmp_path, "jazz"), "-o", str(tmp_path)]
    assert main(words) == 2
    assert "not one of riff's sheets" in capsys.readouterr().err
    assert page.read_text() == "<h1>my home page</h1>" and fake.loads == 0
    assert main([*words, "--force"]) == 0


def test_a_real_model_plays_a_list(mini_checkpoint, tmp_path: Path, capsys) -> None:
    lines = [{"prompt": "jazz piano", "bpm": 100}, {"prompt": "techno", "bars": 2, "loop": True}]
    path, out = write_list(tmp_path, *lines, suffix=".jsonl"), tmp_path / "out"
    words = ["--model", str(mini_checkpoint), "--steps", "1", "--seed", "3", "--json", "--quality", "fast"]
    assert main(["render", "--prompts", path, "-o", str(out), *words]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [soundfile.info(one["path"]).duration for one in results] == [one["duration_s"] for one in results]
    assert main(["render", "--prompts", path, "-o", str(out), *words, "--format", "png"]) == 0
    page = (out / "index.html").read_text()
    assert page.count("<article") == 4 and page.count("data:image/webp") == 4 and page.count("<audio") == 2

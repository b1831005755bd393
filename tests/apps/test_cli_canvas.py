"""The command's verbs for music with a form: walk, remix, extend, inpaint, timelines, loops and LoRA."""

import ast
import dataclasses
import inspect
import json
import math
import re
import shlex
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from riff.apps.cli import build_parser, main
from riff.audio.io import load_audio, save_audio
from riff.tasks.timeline import Keyframe, Timeline
from riff.utils.errors import ModelError, RiffError, SystemProblem
from tests.apps.test_cli import run_on

RATE = 8000
BEAT = RATE // 2  # samples of a beat at 120 bpm
TIMELINE = """\
bars: 5
keyframes:
- {bar: 0, prompt: "slow jazz, 100 bpm"}
- {bar: 3, prompt: fast techno, bpm: 150, hold: 1}
"""


class FakeClip:
    """A clip whose file is how it was asked for."""

    duration, bpm = 4.0, 120.0

    def __init__(self, verb: str, arguments: dict[str, Any]) -> None:
        self.arguments = {"verb": verb, **arguments}
        self.prompt, self.seed = str(arguments.get("prompt", "a -> b")), arguments["seed"]
        self.settings = {"ignored_words": ["xylo"], "dropped_words": []}

    def save(self, path: Path, *, overwrite: bool, metadata: bool = True) -> Path:
        path.write_text(json.dumps({**self.arguments, "force": overwrite}, default=str))
        return path


class FakePipeline:
    """A pipeline that remembers how it was called."""

    loaded: dict[str, Any] | None = None
    loras: list[tuple[str, float]]
    breaks: BaseException | None = None

    @classmethod
    def from_pretrained(cls, source: str | None = None, **options: Any) -> "FakePipeline":
        cls.loaded = {"source": source, **options}
        cls.loras = []
        return cls()

    def load_lora(self, path: str, *, weight: float) -> None:
        self.loras.append((path, weight))

    @property
    def model(self) -> "FakePipeline":
        return self

    def generate(self, request: Any, audio: str | None, callback: Any) -> FakeClip:
        if self.breaks is not None:
            raise self.breaks
        for step in range(request.num_inference_steps):
            if callback:
                callback(step, request.num_inference_steps, None)
        verb, fields = type(request).__name__.removesuffix("Request").lower(), dataclasses.asdict(request)
        if verb == "timeline":
            fields["keyframes"] = len(fields.pop("timeline")["keyframes"])
            assert (fields.pop("negative_prompt"), fields.pop("ends_pinned")) == (None, False)
        if verb == "walk":
            assert fields.pop("seeds") is None
        return FakeClip(verb, fields if audio is None else {"audio": audio, **fields})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakePipeline]:
    monkeypatch.setattr(FakePipeline, "loaded", None)
    monkeypatch.setattr(FakePipeline, "breaks", None)
    module = types.ModuleType("riff.pipeline")
    module.RiffPipeline = FakePipeline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "riff.pipeline", module)
    monkeypatch.setitem(sys.modules, "riff.tasks.run", types.SimpleNamespace(run=run_on))
    return FakePipeline


def beat_sound(bars: float, *, rate: int = RATE, channels: int = 1) -> torch.Tensor:
    """A short tone on every beat at 120 bpm, higher on the first of each bar, ``(C, T)``."""
    beat = rate // 2
    time = torch.arange(round(bars * 4 * beat)) / rate
    since, count = time % 0.5, (time / 0.5).floor()
    tone = torch.sin(2 * math.pi * torch.where(count % 4 == 0, 880.0, 440.0) * since)
    sound = 0.4 * tone * torch.exp(-12 * since)
    return torch.stack([sound, 0.5 * sound][:channels])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a recording of four bars, a timeline, and files in the way."""
    monkeypatch.chdir(tmp_path)
    save_audio(tmp_path / "in.wav", beat_sound(4), RATE)
    (tmp_path / "song.yaml").write_text(TIMELINE)
    (tmp_path / "taken.wav").write_text("mine")
    (tmp_path / "notes.txt").write_text("no sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    return tmp_path


def made(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(path).read_text())


# Every option reaches the pipeline

DRAWING = [
    *("--seed", "9", "--steps", "3", "--guidance", "2.5", "--quality", "high", "--negative", "noise"),
    *("--key", "bb min", "--model", "folder", "--device", "cpu", "--scheduler", "euler", "--force"),
]
DRAWN = {
    "seed": 9,
    "num_inference_steps": 3,
    "guidance_scale": 2.5,
    "quality": "high",
    "negative_prompt": "noise",
    "key": "A# minor",
    "force": True,
}
LOADED = {"source": "folder", "device": "cpu", "scheduler": "euler", "guidance_interval": None}


def test_every_option_of_walk_reaches_the_pipeline(fake, here) -> None:
    words = ["--step", "4", "--bpm", "90.5", "--easing", "smooth", "--variation", "0.5", "--loop", *DRAWING]
    assert main(["walk", "church bells", "techno", "funk", "-o", "a.wav", *words]) == 0
    expected = {"bars_per_step": 4, "bars": None, "bpm": 90.5, "easing": "smooth", "variation": 0.5, "loop": True}
    assert made("a.wav") == {"verb": "walk", "prompts": ["church bells", "techno", "funk"], **expected, **DRAWN}
    assert fake.loaded == LOADED


def test_a_plain_walk_asks_for_the_pipelines_own_defaults(fake, here) -> None:
    assert main(["walk", "a", "b", "--bars", "32", "--seed", "1", "-o", "a.png"]) == 0
    asked = made("a.png")
    plain = {"bars": 32, "bars_per_step": None, "easing": "linear", "variation": 0.0, "loop": False, "bpm": None}
    assert plain.items() <= asked.items()
    assert (asked["guidance_scale"], asked["force"]) == (None, False)


@pytest.mark.parametrize(
    ("verb", "words", "asked"),
    [
        ("remix", ["--strength", "0.25"], {"strength": 0.25, "stems": None}),
        ("remix", [], {"strength": 0.6, "stems": None}),
        ("extend", ["--bars", "3"], {"bars": 3}),
        ("extend", [], {"bars": 8}),
        (
            "inpaint",
            ["--seconds", "1", "2", "--seconds", "3.5", "4", "--low", "100", "--high", "900"],
            {
                "mask_start_seconds": [1.0, 3.5],
                "mask_end_seconds": [2.0, 4.0],
                "mask_start_bar": None,
                "mask_end_bar": None,
                "low_hz": 100.0,
                "high_hz": 900.0,
            },
        ),
        (
            "inpaint",
            ["--bars", "1", "2.5"],
            {
                "mask_start_seconds": None,
                "mask_end_seconds": None,
                "mask_start_bar": [1.0],
                "mask_end_bar": [2.5],
                "low_hz": None,
                "high_hz": None,
            },
        ),
    ],
    ids=["remix", "remix-plain", "extend", "extend-plain", "inpaint-seconds", "inpaint-bars"],
)
def test_every_option_of_an_edit_reaches_the_pipeline(fake, here, verb, words, asked) -> None:
    timing = ["--bpm", "120", "--downbeat", "0.5"]
    assert main([verb, "in.wav", "organ", "-o", "a.flac", *words, *timing, *DRAWING]) == 0
    expected = {"verb": verb, "audio": "in.wav", "prompt": "organ", "bpm": 120.0, "downbeat": 0.5}
    assert made("a.flac") == {**expected, **asked, **DRAWN}
    assert fake.loaded == LOADED


def test_every_option_of_a_timeline_reaches_the_pipeline(fake, here) -> None:
    words = ["--seed", "9", "--steps", "3", "--guidance", "2.5", "--quality", "fast", "--force"]
    assert main(["render", "song.yaml", "-o", "a.wav", *words]) == 0
    expected = {"seed": 9, "num_inference_steps": 3, "guidance_scale": 2.5, "quality": "fast", "force": True}
    assert made("a.wav") == {"verb": "timeline", "keyframes": 2, **expected}


def test_loop_reaches_the_pipeline(fake, here) -> None:
    assert main(["render", "funk", "--loop", "--bars", "4", "--seed", "1", "-o", "a.wav"]) == 0
    assert made("a.wav")["loop"] is True


@pytest.mark.parametrize("verb", ["walk", "remix", "timeline", "render"])
def test_loras_are_loaded_in_order_with_their_weights(fake, here, monkeypatch, verb) -> None:
    from riff.diffusion import lora

    monkeypatch.setattr(lora, "check_lora", lambda path: None)
    words = {"walk": ["walk", "a", "b"], "remix": ["remix", "in.wav", "a"], "timeline": ["render", "song.yaml"]}
    asked = ["--lora", "x.safetensors", "--lora", "y.safetensors:0.5", "--lora", "c:odd.safetensors"]
    assert main([*words.get(verb, ["render", "jazz"]), "--seed", "1", "-o", "a.wav", *asked]) == 0
    assert fake.loras == [("x.safetensors", 1.0), ("y.safetensors", 0.5), ("c:odd.safetensors", 1.0)]


# What is printed

CALLS = {
    "walk": ["walk", "church bells", "techno"],
    "remix": ["remix", "in.wav", "organ"],
    "extend": ["extend", "in.wav", "organ"],
    "inpaint": ["inpaint", "in.wav", "organ", "--bars", "1", "2"],
    "timeline": ["render", "song.yaml"],
}
each_verb = pytest.mark.parametrize("verb", CALLS)


@each_verb
def test_the_path_goes_to_stdout_seed_and_ignored_words_to_stderr(fake, here, capsys, verb) -> None:
    assert main([*CALLS[verb], "-o", "a.ogg"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "a.ogg\n"
    seed = made("a.ogg")["seed"]
    assert printed.err == f"seed {seed}\nignored (not in riff-mini's vocabulary): xylo\n"


@each_verb
def test_a_seed_that_was_asked_for_is_not_said(fake, here, capsys, verb) -> None:
    assert main([*CALLS[verb], "--seed", "5", "-o", "a.ogg"]) == 0
    assert "seed" not in capsys.readouterr().err
    assert made("a.ogg")["seed"] == 5


@each_verb
def test_quiet_prints_the_path_only(fake, here, capsys, verb) -> None:
    assert main([*CALLS[verb], "--quiet", "-o", "a.mp3"]) == 0
    assert capsys.readouterr() == ("a.mp3\n", "")


@each_verb
def test_json_is_one_object_with_what_a_machine_needs(fake, here, capsys, verb) -> None:
    assert main([*CALLS[verb], "--json", "--seed", "5", "-o", "a.wav"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["seed"], result["bpm"], result["duration_s"]) == (5, 120.0, 4.0)
    assert result["ignored_words"] == ["xylo"]
    assert result.get("path", result.get("paths")) in ("a.wav", ["a.wav"])


@each_verb
def test_a_bar_is_drawn_on_a_terminal_only(fake, here, capsys, monkeypatch, verb) -> None:
    words = [*CALLS[verb], "--seed", "1", "--steps", "3", "--force", "-o", "a.wav"]
    main(words)
    assert "step" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    main(words)
    printed = capsys.readouterr()
    assert "/3" in printed.err
    assert printed.out == "a.wav\n"


@each_verb
def test_two_runs_without_a_seed_differ(fake, here, verb) -> None:
    for name in ("a.wav", "b.wav"):
        assert main([*CALLS[verb], "--quiet", "-o", name]) == 0
    assert made("a.wav")["seed"] != made("b.wav")["seed"]


@pytest.mark.parametrize("where", ["seed: 4\n" + TIMELINE, TIMELINE.replace("{bar: 0,", "{bar: 0, seed: 4,")])
def test_a_timeline_with_its_own_seed_draws_no_other_and_says_none(fake, here, capsys, where) -> None:
    Path("own.yaml").write_text(where)
    assert main(["render", "own.yaml", "-o", "a.wav"]) == 0
    assert "seed" not in capsys.readouterr().err
    assert main(["render", "own.yaml", "--seed", "5", "-o", "b.wav"]) == 2
    assert "--seed 5 would change nothing" in capsys.readouterr().err


def test_every_verb_reads_a_prompt_typed_in_the_c_locale(fake, here) -> None:
    typed = "fado à noite".encode().decode("ascii", "surrogateescape")
    assert main(["remix", "in.wav", typed, "--negative", typed, "--seed", "1", "-o", "a.wav"]) == 0
    assert (made("a.wav")["prompt"], made("a.wav")["negative_prompt"]) == ("fado à noite", "fado à noite")
    assert main(["walk", typed, "b", "--negative", typed, "--seed", "1", "-o", "b.wav"]) == 0
    assert made("b.wav")["prompts"] == ["fado à noite", "b"]


# Mistakes cost one line, before any model is loaded

PAIR, EDIT, PART = ["walk", "a", "b"], ["remix", "in.wav", "a"], ["inpaint", "in.wav", "a"]
OUT = ["-o", "a.wav"]
MISTAKES = [
    (["walk", *OUT], "required: PROMPT"),
    (["walk", "a", *OUT], "a walk needs two prompts or more"),
    (["walk", "a", " ", *OUT], "the prompt is empty"),
    (["walk", "a", "jazz at 999 bpm", *OUT], "the prompt's tempo is 999 bpm"),
    ([*PAIR], "required: -o/--output"),
    ([*PAIR, *OUT, "--step", "8", "--bars", "32"], "not allowed with"),
    ([*PAIR, *OUT, "--easing", "step"], "invalid choice: 'step'"),
    (["remix", "in.wav", *OUT], "required: PROMPT"),
    (["remix", "in.wav", "", *OUT], "the prompt is empty"),
    (["remix", "in.wav", "jazz at 999 bpm", *OUT], "the prompt's tempo is 999 bpm"),
    (["remix", "in.wav", "half \udce9", *OUT], "not UTF-8"),
    *(
        ([verb, audio, "a", *OUT, *words], match)
        for verb, words in {"remix": [], "extend": [], "inpaint": ["--seconds", "0", "1"]}.items()
        for audio, match in {
            "missing.wav": "missing.wav does not exist",
            "notes.txt": "notes.txt is",
            "empty.wav": "empty.wav is empty",
            ".": ". is a folder",
        }.items()
    ),
    *(
        ([*call, "-o", output], match)
        for call in (PAIR, EDIT, [*PART, "--bars", "0", "1"], ["extend", "in.wav", "a"], ["render", "song.yaml"])
        for output, match in {
            "a.aac": "suffix '.aac'",
            "a": "use one of .wav, .flac, .ogg, .mp3, .png",
            "missing/a.wav": "missing does not exist",
            "taken.wav": "--force",
            "taken.wav/a.wav": "is not a folder",
        }.items()
    ),
    *(([*call, *OUT, "--key", "H minor"], "key is 'H minor'") for call in (PAIR, EDIT)),
    *(([*call, *OUT, "--negative", "x" * 10001], "10001 characters") for call in (PAIR, EDIT, ["render", "a"])),
    ([*PART, *OUT], "say what to replace"),
    ([*PART, *OUT, "--seconds", "0", "1", "--bars", "0", "1"], "one kind"),
    ([*PART, *OUT, "--seconds", "1", "1"], "a part from 1 to 1 is empty"),
    ([*PART, *OUT, "--bars", "0", "1", "--bars", "3", "2"], "a part from 3 to 2 is empty"),
    ([*PART, *OUT, "--seconds", "1"], "expected 2 arguments"),
    ([*PART, *OUT, "--seconds", "1", "99"], "a part ends at 99 s, but in.wav lasts 8 s"),
    ([*PART, *OUT, "--bars", "0", "1", "--low", "900", "--high", "100"], "--low 900 is not below --high 100"),
    ([*PAIR, *OUT, "--lora", "x.safetensors:3"], "the weight 3 of x.safetensors is not from 0 to 2"),
    *(
        ([*call, *OUT, option, value, *rest], f"argument {option}: '{value}' is not a ")
        for call, option, values, rest in [
            (PAIR, "--step", ("0", "1.5", "257", "x"), []),
            (PAIR, "--bars", ("0", "513", "nan"), []),
            (PAIR, "--bpm", ("19", "401", "nan", "fast"), []),
            (PAIR, "--variation", ("-0.1", "1.1", "nan"), []),
            (PAIR, "--seed", ("-1", str(2**63)), []),
            (PAIR, "--steps", ("0", "151"), []),
            (EDIT, "--strength", ("-0.1", "1.1", "nan", "half"), []),
            (EDIT, "--bpm", ("0", "inf"), []),
            (EDIT, "--downbeat", ("-1", "nan", "3601"), []),
            (EDIT, "--guidance", ("-1", "51"), []),
            (["extend", "in.wav", "a"], "--bars", ("0", "1.5", "513"), []),
            (PART, "--seconds", ("-1", "nan", "x"), ["1"]),
            (PART, "--bars", ("-1", "nan"), ["1"]),
            ([*PART, "--bars", "0", "1"], "--low", ("-1", "nan"), []),
            ([*PART, "--bars", "0", "1"], "--high", ("0", "inf"), []),
        ]
        for value in values
    ),
]
TIMELINE_MISTAKES = [
    (["missing.yaml"], "missing.yaml does not exist; give a timeline in YAML or JSON"),
    (["missing.json"], "missing.json does not exist"),
    (["folder.yml"], "folder.yml is a folder"),
    (["empty.yaml"], "empty.yaml is empty"),
    (["blank.yaml"], "a timeline is None"),
    (["broken.yaml"], "broken.yaml is not valid YAML (line 1"),
    (["broken.json"], "broken.json is not valid JSON"),
    (["list.yaml"], "a timeline is ['church bells']"),
    (["typo.yaml"], "keyframe 1: unknown field 'promt'; did you mean prompt?"),
    (["tempo.yaml"], "keyframe 1: bpm is 999"),
    (["backwards.yaml"], "backwards.yaml: keyframe"),
    (["lora.yaml"], "lora.yaml gives LoRA weights, but no LoRA is loaded"),
    (["song.yaml", "jazz"], "2 prompts were given with a timeline"),
    (["jazz", "song.yaml"], "2 prompts were given with a timeline"),
    *(
        (["song.yaml", *words], f"{words[0]} cannot go with a timeline; write it into song.yaml")
        for words in (
            ["--bpm", "90"],
            ["--bars", "4"],
            ["--duration", "9"],
            ["--count", "2"],
            ["--negative", "drums"],
            ["--key", "C major"],
            ["--loop"],
        )
    ),
]


@pytest.fixture
def timelines(here: Path) -> None:
    Path("folder.yml").mkdir()
    Path("empty.yaml").write_text("")
    Path("blank.yaml").write_text("# nothing yet\n")
    Path("broken.yaml").write_text("bars: [8")
    Path("broken.json").write_text('{"bars": 8,')
    Path("list.yaml").write_text("- church bells\n")
    Path("typo.yaml").write_text("bars: 8\nkeyframes:\n- {bar: 0, promt: jazz}\n")
    Path("tempo.yaml").write_text("bars: 8\nkeyframes:\n- {bar: 0, prompt: jazz, bpm: 999}\n")
    Path("backwards.yaml").write_text(
        "bars: 8\nkeyframes:\n- {bar: 0, prompt: a}\n- {bar: 4, prompt: b}\n- {bar: 3, prompt: c}\n"
    )
    Path("lora.yaml").write_text("bars: 8\nkeyframes:\n- {bar: 0, prompt: a, lora_weight: 0.5}\n")


def check_mistake(fake: type[FakePipeline], capsys: Any, words: list[str], match: str, *, code: int = 2) -> None:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert main(words) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("riff: error: ")
    assert printed.err.count("\n") == 1
    assert match in printed.err
    assert fake.loaded is None
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def name_of(value: object) -> str:
    return " ".join(str(word)[:20] for word in value)[-50:] if isinstance(value, list) else ""


@pytest.mark.parametrize(("words", "match"), MISTAKES, ids=name_of)
def test_a_mistake_is_one_line_exit_2_and_loads_no_model(fake, here, capsys, words, match) -> None:
    check_mistake(fake, capsys, words, match)


@pytest.mark.parametrize(("words", "match"), TIMELINE_MISTAKES, ids=name_of)
def test_a_wrong_timeline_is_one_line_exit_2_and_loads_no_model(fake, timelines, capsys, words, match) -> None:
    check_mistake(fake, capsys, ["render", *words, "-o", "a.wav"], match)


@pytest.mark.parametrize("call", [["walk", "a", "b"], ["remix", "in.wav", "a"], ["render", "song.yaml"]], ids=name_of)
def test_a_lora_that_is_none_is_named_before_a_model_is_loaded(fake, here, capsys, call) -> None:
    check_mistake(fake, capsys, [*call, *OUT, "--lora", "missing.safetensors"], "is no LoRA file", code=4)
    Path("bad.safetensors").write_text("no weights")
    check_mistake(fake, capsys, [*call, *OUT, "--lora", "bad.safetensors:0.5"], "bad.safetensors", code=4)


@pytest.mark.parametrize(
    ("rate", "suffix"), [(96000, ".mp3"), (12345, ".mp3"), (384000, ".ogg"), (700000, ".flac")], ids=str
)
def test_a_format_that_cannot_hold_the_recordings_rate_is_refused_before_drawing(
    fake, here, capsys, rate, suffix
) -> None:
    """Above 200 kHz libsndfile's Vorbis ends the whole process."""
    save_audio("high.wav", torch.zeros(1, rate), rate)
    words = ["extend", "high.wav", "a", "--bpm", "120", "--seed", "1", "-o", f"a{suffix}"]
    check_mistake(fake, capsys, words, f"{rate} samples per second, which no {suffix} file can hold")
    assert main(["remix", "high.wav", "a", "--seed", "1", "-o", f"a{suffix}"]) == 0  # which has the model's own rate


@each_verb
@pytest.mark.parametrize(
    ("error", "code", "match"),
    [
        (RiffError("no beat was\nfound; give bpm"), 2, "riff: error: no beat was found"),
        (ModelError("numbers that are not finite"), 4, "not finite"),
        (SystemProblem("disk full"), 5, "disk full"),
        (KeyboardInterrupt(), 130, "riff: interrupted"),
        (ZeroDivisionError("division by zero"), 1, "a defect in riff"),
    ],
    ids=["input", "model", "disk", "interrupt", "defect"],
)
def test_each_kind_of_failure_has_its_code_and_one_line(fake, here, capsys, monkeypatch, verb, error, code, match):
    monkeypatch.setattr(FakePipeline, "breaks", error)
    before = sorted(here.iterdir())
    assert main([*CALLS[verb], "-o", "a.wav"]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert match in printed.err
    assert sorted(here.iterdir()) == before


# The real pipeline, in miniature

Facts = dict[str, Any]
REAL = {
    "walk": ["walk", "mellow jazz, 100 bpm", "fast techno, 150 bpm", "--step", "3"],
    "loop": ["render", "techno, 120 bpm", "--loop", "--bars", "3"],
    "timeline": ["render", "song.yaml"],
    "remix": ["remix", "in.wav", "piano", "--bpm", "120", "--downbeat", "0"],
    "extend": ["extend", "in.wav", "piano", "--bars", "2", "--bpm", "120", "--downbeat", "0"],
    "inpaint": ["inpaint", "in.wav", "piano", "--bars", "1", "2", "--bpm", "120", "--downbeat", "0"],
}


@pytest.fixture(params=["mini_checkpoint", "riffusion_checkpoint"])
def options(request: pytest.FixtureRequest) -> list[str]:
    """Each tiny checkpoint, few steps; Riffusion's pictures are wide, so one step of them is enough."""
    steps = "2" if request.param == "mini_checkpoint" else "1"
    folder = str(request.getfixturevalue(request.param))
    return ["--model", folder, "--device", "cpu", "--steps", steps, "--quality", "fast", "--seed", "3"]


@pytest.fixture
def draw(here: Path, options: list[str], capsys: Any) -> Callable[..., Facts]:
    """Run a verb for real and return what --json says; stderr holds riff's own warnings at most."""

    def run(verb: str, *words: str, output: str = "a.wav") -> Facts:
        assert main([*REAL[verb], *words, *options, "--json", "-o", output]) == 0, capsys.readouterr().err
        printed = capsys.readouterr()
        assert all(line.startswith("riff: warning: ") for line in printed.err.splitlines())
        return json.loads(printed.out)

    return run


@pytest.mark.parametrize("verb", REAL)
def test_a_file_comes_out_that_says_how_it_was_made(draw, here, capsys, verb) -> None:
    before = set(here.iterdir())
    result = draw(verb)
    assert set(here.iterdir()) - before == {here / "a.wav"}
    assert main(["info", "a.wav", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["duration_s"] == pytest.approx(result["duration_s"], abs=1e-9)
    assert facts["made"]["seed"] == "3"
    assert facts["made"]["origin"] == "machine-made"
    if verb in ("walk", "timeline"):
        assert len(json.loads(facts["made"]["timeline"])["keyframes"]) == 2
    elif verb == "loop":
        assert facts["made"]["loop"] == "True"
    else:
        assert facts["made"]["task"] == verb


@pytest.mark.parametrize("verb", REAL)
def test_the_same_seed_gives_the_same_bytes(here, mini_checkpoint, verb) -> None:
    words = ["--model", str(mini_checkpoint), "--steps", "2", "--quality", "fast", "--seed", "3", "--quiet"]
    for name in ("a.wav", "b.wav"):
        assert main([*REAL[verb], *words, "-o", name]) == 0
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()


def test_edits_are_as_long_as_they_say_and_keep_what_they_keep(draw) -> None:
    recording, _ = load_audio("in.wav")
    remixed = draw("remix")
    assert remixed["duration_s"] == 8.0
    assert draw("extend", "--force")["duration_s"] == 12.0
    longer, _ = load_audio("a.wav")
    kept = recording.shape[-1] - round(0.03 * RATE)
    assert torch.equal(longer[:, :kept], recording[:, :kept])
    assert draw("inpaint", "--force")["duration_s"] == 8.0
    filled, rate = load_audio("a.wav")
    assert rate == RATE
    assert torch.equal(filled[:, : 4 * BEAT], recording[:, : 4 * BEAT])
    assert torch.equal(filled[:, 8 * BEAT :], recording[:, 8 * BEAT :])
    assert not torch.equal(filled, recording)


def test_a_loop_of_three_bars_is_three_bars_long_to_the_sample(here, mini_checkpoint, capsys) -> None:
    import soundfile

    words = ["--model", str(mini_checkpoint), "--steps", "2", "--seed", "3"]
    assert main([*REAL["loop"], *words, "-o", "a.wav"]) == 0
    assert soundfile.info("a.wav").frames == 3 * 4 * BEAT


def test_strength_0_gives_the_recording_back_as_a_picture_of_it(draw) -> None:
    """No step is drawn, so nothing counts steps either; the bar must bear that."""
    assert draw("remix", "--strength", "0")["duration_s"] == 8.0


@pytest.mark.parametrize(
    ("words", "code", "match"),
    [
        (["walk", "jazz", "techno", "--bars", "3"], 2, "3 bars are too few"),
        (["walk", "jazz", "techno", "--step", "2"], 2, "are too few"),
        (["inpaint", "in.wav", "jazz", "--bpm", "120", "--downbeat", "0", "--bars", "3", "9"], 2, "of 4 bars"),
        (["inpaint", "in.wav", "jazz", "--bpm", "120", "--bars", "0", "1", "--low", "1", "--high", "2"], 2, "no row"),
        (["inpaint", "in.wav", "jazz", "--bpm", "120", "--bars", "0", "1", "--low", "9000"], 2, "low_hz is 9000"),
        (["render", "techno", "--loop", "--duration", "3"], 2, "a loop is a whole number of bars"),
        (["render", "late.yaml"], 2, "music ends after"),
        (["walk", "jazz", "techno", "--model", "missing"], 4, "missing"),
        (["walk", "jazz", "techno", "--scheduler", "euclid"], 2, "euclid"),
        (["remix", "in.wav", "jazz", "--device", "tpu"], 2, "tpu"),
    ],
    ids=name_of,
)
def test_what_only_the_model_can_tell_is_one_line_too(here, mini_checkpoint, capsys, words, code, match) -> None:
    # At 60 bpm, two bars are 8 s, so a keyframe at 9 s is past the end of the music.
    Path("late.yaml").write_text(
        "bars: 2\nkeyframes:\n- {bar: 0, prompt: jazz, bpm: 60}\n- {seconds: 9, prompt: techno}\n"
    )
    before = sorted(here.iterdir())
    own = [] if "--model" in words else ["--model", str(mini_checkpoint)]
    assert main([*words, *own, "--steps", "1", "-o", "a.wav"]) == code
    printed = capsys.readouterr()
    assert printed.err.startswith("riff: error: ")
    assert printed.err.count("\n") == 1
    assert match in printed.err
    assert printed.out == ""
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("verb", REAL)
def test_ctrl_c_inside_drawing_leaves_nothing(here, mini_checkpoint, capsys, monkeypatch, verb) -> None:
    from diffusers import UNet2DConditionModel

    whole, calls = UNet2DConditionModel.forward, []

    def forward(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return whole(self, *arguments, **named)

    monkeypatch.setattr(UNet2DConditionModel, "forward", forward)
    before = sorted(here.iterdir())
    words = ["--model", str(mini_checkpoint), "--steps", "9", "--seed", "1", "-o", "taken.wav", "--force"]
    assert main([*REAL[verb], *words]) == 130
    assert capsys.readouterr().err == "riff: interrupted; no unfinished file was left\n"
    assert sorted(here.iterdir()) == before
    assert Path("taken.wav").read_text() == "mine"


@pytest.mark.parametrize(
    ("sound", "why"), [(torch.zeros(1, 4 * RATE), "silent"), (beat_sound(0.1), "too short")], ids=["silence", "short"]
)
def test_a_recording_without_a_beat_is_used_with_one_warning(here, mini_checkpoint, capsys, sound, why) -> None:
    import soundfile

    save_audio("odd.wav", sound, RATE)
    words = ["--model", str(mini_checkpoint), "--steps", "1", "--quality", "fast", "--seed", "1"]
    assert main(["remix", "odd.wav", "jazz, 100 bpm", *words, "-o", "a.wav"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("riff: warning: ")
    assert err.count("\n") == 1
    assert why in err
    assert soundfile.info("a.wav").frames == sound.shape[-1]


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        *((verb, []) for verb in REAL),
        ("loop", ["--count", "2"]),
        ("loop", ["--scheduler", "PNDMScheduler"]),
        ("remix", ["--strength", "0.5"]),
        ("inpaint", ["--bars", "3", "4"]),
    ],
    ids=name_of,
)
def test_the_bar_is_full_at_the_end(here, mini_checkpoint, monkeypatch, verb, words) -> None:
    """Also with a strength below 1, several parts, and a scheduler that takes more steps than were asked for."""
    import tqdm

    bars: list[Any] = []

    class Bar(tqdm.tqdm):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            bars.append(self)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    own = ["--model", str(mini_checkpoint), "--steps", "6", "--quality", "fast", "--seed", "3"]
    assert main([*REAL[verb], *words, *own, "-o", "a.wav"]) == 0
    (bar,) = [bar for bar in bars if getattr(bar, "unit", "") == "step"]  # a bar that is off has none
    assert bar.n == bar.total > 0


def save_lora(checkpoint: Path, folder: Path) -> str:
    """A LoRA with random weights for a checkpoint's UNet."""
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_q", "to_v", "to_out.0"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet))
    return str(folder / "pytorch_lora_weights.safetensors")


@pytest.mark.parametrize("verb", REAL)
def test_a_lora_is_heard_by_its_weight_in_every_verb(here, mini_checkpoint, verb) -> None:
    lora = save_lora(mini_checkpoint, here / "lora")
    words = ["--model", str(mini_checkpoint), "--steps", "2", "--quality", "fast", "--seed", "3", "--quiet"]
    sounds = {}
    for name, asked in {"none": [], "zero": ["--lora", f"{lora}:0"], "one": ["--lora", lora]}.items():
        assert main([*REAL[verb], *words, *asked, "-o", f"{name}.wav"]) == 0
        sounds[name] = load_audio(f"{name}.wav")[0]
    assert torch.equal(sounds["none"], sounds["zero"])
    assert not torch.equal(sounds["none"], sounds["one"])


def test_a_lora_of_another_model_is_one_line_and_exit_4(here, mini_checkpoint, capsys) -> None:
    pytest.importorskip("peft")
    from safetensors.torch import save_file

    save_file({"unet.what.lora_A.weight": torch.ones(2, 2)}, "foreign.safetensors")
    words = ["--model", str(mini_checkpoint), "--lora", "foreign.safetensors", "-o", "a.wav"]
    assert main(["walk", "a", "b", *words]) == 4
    printed = capsys.readouterr()
    assert printed.err.startswith("riff: error: foreign.safetensors")
    assert printed.err.count("\n") == 1
    assert not Path("a.wav").exists()


# What a file says, and a picture whose tempo changes


def test_info_shows_a_timeline_in_short_and_json_has_all_of_it(draw, capsys) -> None:
    draw("timeline")
    assert main(["info", "a.wav"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "made.timeline: 5 bars, bar 0: slow jazz, 100 bpm -> bar 3: fast techno" in lines
    assert main(["info", "a.wav", "--json"]) == 0
    told = json.loads(json.loads(capsys.readouterr().out)["made"]["timeline"])
    assert told["keyframes"][1] == {"prompt": "fast techno", "bar": 3, "bpm": 150, "hold": 1}


def test_info_shows_what_an_edit_was(draw, capsys) -> None:
    draw("remix", "--strength", "0.5")
    draw("remix", "--strength", "0.5", output="a.png")
    for name in ("a.wav", "a.png"):
        assert main(["info", name]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert {"made.task: remix", "made.strength: 0.5", "made.prompt: piano", "made.seed: 3"} <= set(lines)


@pytest.mark.parametrize("verb", ["walk", "timeline"])
def test_a_picture_whose_tempo_changes_is_played_by_its_map(here, mini_checkpoint, capsys, verb) -> None:
    import soundfile

    words = ["--model", str(mini_checkpoint), "--steps", "2", "--quality", "fast", "--seed", "3", "--quiet"]
    for name in ("a.wav", "a.png"):
        assert main([*REAL[verb], *words, "-o", name]) == 0
    assert main(["decode", "a.png", "-o", "b.wav", "--quality", "fast", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["results"][0]["bpm"] == 100.0
    assert soundfile.info("b.wav").frames == soundfile.info("a.wav").frames
    assert main(["info", "a.png"]) == 0
    assert "made.tempo: changes, 100 to 150 bpm" in capsys.readouterr().out.splitlines()
    assert main(["decode", "a.png", "--bpm", "100", "-o", "c.wav", "--quality", "fast"]) == 0
    assert soundfile.info("c.wav").frames > soundfile.info("a.wav").frames


def test_a_picture_of_one_tempo_says_no_map(here, mini_checkpoint, capsys) -> None:
    words = ["--model", str(mini_checkpoint), "--steps", "1", "--seed", "3", "--quiet", "-o", "a.png"]
    assert main([*REAL["inpaint"], *words]) == 0
    assert main(["info", "a.png", "--json"]) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])["made"]
    assert "tempo" not in made
    assert made["bpm"] == "120"


@pytest.mark.parametrize(
    "tempo",
    [
        "fast",
        {},
        {"beats": [0], "seconds": [0], "tempi": [1e-9], "slopes": [0]},
        {"beats": [0], "seconds": [0], "tempi": [100], "slopes": [-1e9]},
        {"beats": [0, 1], "seconds": [0], "tempi": [100], "slopes": [0]},
    ],
    ids=["text", "empty", "hours", "nonsense", "uneven"],
)
def test_a_strangers_damaged_map_is_one_line_and_bpm_mends_it(here, mini_config, capsys, tempo) -> None:
    from riff.spectrogram.png import write_png

    write_png("odd.png", torch.zeros(1, mini_config.n_mels, 64), mini_config, metadata={"tempo": tempo})
    assert main(["decode", "odd.png", "-o", "a.wav"]) == 2
    err = capsys.readouterr().err
    assert "odd.png has a damaged tempo map" in err
    assert err.count("\n") == 1
    assert not Path("a.wav").exists()
    assert main(["info", "odd.png"]) == 0
    assert main(["decode", "odd.png", "--bpm", "120", "-o", "a.wav"]) == 0


@pytest.mark.parametrize("text", ["{", "[1]", '{"bars": 1}', "x" * 10000, "[" * 9000])
def test_a_strangers_timeline_is_shown_as_it_is(here, mini_config, capsys, text) -> None:
    from riff.spectrogram.png import write_png

    write_png("odd.png", torch.zeros(1, mini_config.n_mels, 64), mini_config, metadata={"timeline": text})
    assert main(["info", "odd.png"]) == 0
    assert f"made.timeline: {text}" in capsys.readouterr().out


# The page for users


def page() -> str:
    return (Path(__file__).parents[2] / "docs" / "canvas.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", page(), re.DOTALL)


@pytest.mark.parametrize(
    "line", [line for block in blocks("sh") for line in block.splitlines() if line.startswith("riff ")]
)
def test_every_command_on_the_page_is_understood(line: str) -> None:
    assert build_parser().parse_args(shlex.split(line)[1:]).output


def test_the_python_on_the_page_calls_the_pipeline_as_it_is() -> None:
    """Every keyword of every call of ``pipe`` and its methods is one of that method's."""
    from riff import RiffPipeline

    calls = 0
    for block in blocks("python"):
        for node in ast.walk(ast.parse(block)):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            name = "__call__" if isinstance(called, ast.Name) and called.id == "pipe" else None
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "pipe":
                name = called.attr
            if name is not None:
                named = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                inspect.signature(getattr(RiffPipeline, name)).bind(None, *node.args, **named)
                calls += 1
    assert calls >= 9


@pytest.mark.parametrize("kind", [Timeline, Keyframe], ids=lambda kind: kind.__name__)
def test_the_page_has_a_line_for_every_field(kind: type) -> None:
    rows = re.findall(r"^\| `(\w+)` \|", page(), re.MULTILINE)
    for field in dataclasses.fields(kind):
        assert field.name in rows
    known = {field.name for each in (Timeline, Keyframe) for field in dataclasses.fields(each)}
    assert set(rows) == known

"""``riff eval``: what it prints and writes, that mistakes are one line, and that a bad file is named and counted."""

import functools
import html
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from riff.apps.cli import main
from riff.audio.io import save_audio
from riff.evaluate.distances import likeness, main_axes
from riff.evaluate.embeddings import OFFLINE, Embedding, check_embeddings
from riff.evaluate.figures import ACCURACY_FILE, Accuracy, Figure
from riff.evaluate.measure import Measured, Plan, Role
from riff.evaluate.obedience import Detected, Requested, obedience
from riff.evaluate.report import ClipRow, Evaluation, Section, histogram, show_interval, show_value, write_page
from riff.evaluate.run import collect, measure_all
from riff.evaluate.sounds import Sound, read_requests
from riff.tasks.provenance import provenance, sound_tags
from riff.utils.errors import RiffError, SystemProblem

RATE = 22050


def music(bpm: float, hertz: float, seconds: float = 4.0) -> torch.Tensor:
    """A note on each beat, (1, T)."""
    time = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    since = time % (60.0 / bpm)
    tone = sum(torch.sin(2 * math.pi * hertz * k * time) / k for k in (1, 2, 3, 4))
    return (0.3 * tone * torch.exp(-6.0 * since))[None].float()


def folder_of(path: Path, count: int, *, first: int = 0, made: bool = False, seconds: float = 4.0) -> Path:
    path.mkdir()
    for index in range(count):
        number = first + index
        bpm, hertz = 90.0 + 5 * (number % 9), 220.0 * 2 ** ((number * 5 % 12) / 12)
        tags = sound_tags(provenance(f"synth arpeggio, {bpm:g} bpm", model="riff-mini", bpm=bpm)) if made else None
        save_audio(path / f"{index:04d}-clip.wav", music(bpm, hertz, seconds), RATE, metadata=tags)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips that say what was requested, one that is no sound, one that is cut short."""
    folder = folder_of(tmp_path_factory.mktemp("eval") / "clips", 3, made=True)
    (folder / "broken.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEjunk")
    (folder / "text.flac").write_text("no sound at all")
    return folder


# The list of what was requested.


def files(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return sorted(folder / name for name in names)


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".csv", "file,prompt,bpm,key\n0000-a.wav,slow jazz,84,F# minor\n0001-b.wav,house,120,\n"),
        (".jsonl", '{"file": "0000-a", "prompt": "slow jazz", "bpm": 84, "key": "Gb minor"}\n'
                   '{"name": "b", "text": "house", "tempo": 120}\n'),
        (".tsv", "path\tcaption\ttempo\tkeyscale\n./0000-a.wav\tslow jazz\t84\tf# min\nb\thouse\t120\t\n"),
    ],
)  # fmt: skip
def test_lists_in_every_form_say_the_same(tmp_path: Path, suffix: str, text: str) -> None:
    a, b = files(tmp_path / "clips", "0000-a.wav", "0001-b.wav")
    listed = tmp_path / f"list{suffix}"
    listed.write_text(text)
    requested, problems = read_requests(listed, [a, b], tmp_path / "clips")
    assert problems == []
    assert requested == {
        a: {"prompt": "slow jazz", "bpm": "84", "keyscale": "F# minor"},
        b: {"prompt": "house", "bpm": "120"},
    }


def test_prompts_without_files_belong_to_them_in_order(tmp_path: Path) -> None:
    a, b = files(tmp_path / "clips", "0000-a.wav", "0001-b.wav")
    listed = tmp_path / "list.txt"
    listed.write_text("# mine\nslow jazz\n\nhouse\n")
    assert read_requests(listed, [a, b], tmp_path / "clips")[0] == {a: {"prompt": "slow jazz"}, b: {"prompt": "house"}}
    listed.write_text("slow jazz\n")
    with pytest.raises(RiffError, match=r"holds 1 prompts and .* 2 sounds"):
        read_requests(listed, [a, b], tmp_path / "clips")


def test_a_line_whose_file_is_missing_or_whose_values_are_wrong_is_named(tmp_path: Path) -> None:
    found = files(tmp_path / "clips", "a.wav", "b.wav")
    listed = tmp_path / "list.csv"
    listed.write_text("file,prompt,bpm\na.wav,jazz,90\nb.wav,house,fast\nghost.wav,rock,100\n")
    requested, problems = read_requests(listed, found, tmp_path / "clips")
    assert list(requested) == [found[0]]
    assert problems == [
        f"list.csv line 4: 'ghost.wav' is not in {tmp_path / 'clips'}",
        "list.csv line 3: bpm is 'fast'; use a number from 20 to 400",
    ]
    listed.write_text("file,prompt\nghost.wav,rock\n")
    with pytest.raises(RiffError, match="fits none of the 2 sounds"):
        read_requests(listed, found, tmp_path / "clips")


# Embeddings, figures, plots.


def test_an_unknown_embedding_is_met_with_the_nearest() -> None:
    assert check_embeddings([]) == OFFLINE
    assert check_embeddings(["mel", "clap=/x", "mel"]) == ("mel", "clap=/x")
    with pytest.raises(RiffError, match="did you mean tagger"):
        check_embeddings(["tager"])
    with pytest.raises(RiffError, match="only clap=FOLDER"):
        check_embeddings(["mel=/x"])


@pytest.mark.parametrize(
    ("figure", "value", "interval"),
    [
        (Figure("a", 0.875, "share", 0.69, 0.957, 24), "87.5 %", "69.0 to 95.7"),
        (Figure("a", -14.237, "LUFS"), "-14.2 LUFS", ""),
        (Figure("a", 0.00123, "", -0.0004, 0.003), "0.00123", "-0.000400 to 0.00300"),
        (Figure("a", 12345.6, "Hz"), "12346 Hz", ""),
        (Figure("a", math.nan, "dB"), "not measured", ""),
        (Figure("a", 0.0, "dB"), "0 dB", ""),
        (Figure("a", -math.inf, "dB"), "-∞ dB", ""),
    ],
)
def test_figures_are_shown_with_unit_and_interval(figure: Figure, value: str, interval: str) -> None:
    assert (show_value(figure), show_interval(figure)) == (value, interval)


def test_the_result_becomes_json_without_nan() -> None:
    figures = [Figure("a", math.nan), Figure("b", 1.0, low=-math.inf)]
    result = Evaluation("x", [Section("s", figures)], [ClipRow("a", "a", values={"v": math.nan})])
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert json.loads(text)["sections"][0]["figures"][0]["value"] is None
    assert result.measured


def test_a_histogram_counts_every_clip_and_leaves_out_nan(tmp_path: Path) -> None:
    assert histogram("x", [1.0, 1.0], [1.0]) is None
    assert histogram("x", [math.nan], []) is None
    clips = [ClipRow("a", "none.wav", values={"a < b": value}) for value in (0.0, 1.0, math.nan)]
    page = write_page(tmp_path / "index.html", Evaluation("x", clips=clips, reference=[{"a < b": 0.5}])).read_text()
    (drawn,) = re.findall("<figure>.*?</figure>", page, re.DOTALL)
    assert drawn.count("<rect") == 2
    assert "a &lt; b" in drawn and "<polyline" in drawn


def test_likeness_is_even_for_the_same_kind_and_zero_for_strangers() -> None:
    rng = np.random.default_rng(0)
    same, reference, strangers = rng.normal(size=(80, 6)), rng.normal(size=(90, 6)), rng.normal(size=(5, 6)) + 20
    assert likeness(same, reference).mean() == pytest.approx(0.5, abs=0.1)
    assert likeness(strangers, reference).max() == 0.0


def test_main_axes_find_the_direction_in_which_clips_differ() -> None:
    rng = np.random.default_rng(0)
    points = np.zeros((40, 5))
    points[:, 3] = rng.normal(size=40) * 10
    points[:, 1] = rng.normal(size=40)
    ours, theirs = main_axes(points[:30], points[30:])
    assert np.abs(np.corrcoef(np.concatenate([ours, theirs])[:, 0], points[:, 3])[0, 1]) > 0.999
    assert main_axes(points[:1], points[:0])[0].shape == (1, 2)


# The page and the processes.


def test_the_page_draws_maps_intervals_and_the_ladder_and_escapes_what_others_wrote(tmp_path: Path) -> None:
    shares = Section("Obedience", [Figure("Key exact", 0.5, "share", 0.2, 0.8, 10, "defined <so>")], ("a & b",))
    trips = [Figure(f"Onset correlation, from {rung}", value) for rung, value in (("mel", 0.9), ("latents", 0.4))]
    maps = {"mel": {"generated": [[0.0, 1.0]], "reference": [[1.0, 0.0], [2.0, 2.0]]}}
    result = Evaluation("<set>", [shares, Section("Round trip", trips)], maps=maps, problems=["<i>.wav is empty"])
    page = write_page(tmp_path / "index.html", result).read_text()
    assert page.count("<circle") == 3
    assert 'class="range"' in page and "defined &lt;so&gt;" in page and "a &amp; b" in page
    assert "&lt;i&gt;.wav is empty" in page and "&lt;set&gt;" in page and "<set>" not in page
    assert page.count("<figure>") == 2  # a map, and a measure of the ladder


def test_a_killed_process_is_one_line_and_not_a_hang() -> None:
    with pytest.raises(SystemProblem, match="use fewer --workers"):
        measure_all(functools.partial(os._exit, 3), [(1,), (2,)], 2, lambda: None)


# The command.


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main(["eval", *(str(word) for word in words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_folder_is_measured_and_bad_files_are_named_and_counted(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report"
    code, out, err = run(capsys, clips, "-o", report, "--workers", "1")
    assert code == 0
    assert "Tempo within 1 %, any octave" in out and "n = 3" in out and "Loudness" in out
    assert "2 files could not be used" in out
    assert "broken.wav" in err and "text.flac" in err
    assert sorted(path.name for path in report.iterdir()) == ["index.html", "report.json"]
    page = (report / "index.html").read_text()
    assert "http" not in page.split("<style>")[1].replace("http-equiv", "")
    assert page.count("<article>") >= 2 and "data:audio/mpeg" in page and "data:image/webp" in page
    assert "broken.wav" in page and "<h2>Definitions</h2>" in page
    told = json.loads((report / "report.json").read_text())
    assert [clip["asked"]["prompt"].startswith("synth arpeggio") for clip in told["clips"]] == [True] * 3
    assert len(told["problems"]) == 2


def test_json_is_one_object_and_the_list_outweighs_the_files(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "requested.csv"
    listed.write_text("file,prompt,bpm\n0000-clip.wav,<b>jazz</b>,91\n0001-clip.wav,jazz,200\nghost.wav,jazz,90\n")
    code, out, err = run(capsys, clips, "--prompts", listed, "--json", "--quiet", "--workers", "1")
    assert (code, err) == (0, "")
    told = json.loads(out)
    requested = {clip["name"]: clip["asked"] for clip in told["clips"]}
    assert requested["0000-clip.wav"] == {"prompt": "<b>jazz</b>", "bpm": "91"}
    assert any("ghost.wav" in problem for problem in told["problems"])
    tempo = {figure["name"]: figure for section in told["sections"] for figure in section["figures"]}
    assert tempo["Tempo within 4 %, any octave"]["n"] == 3


def test_too_few_clips_are_given_no_distance_but_told_how_many_it_needs(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = folder_of(tmp_path / "reference", 4, first=20)
    code, out, _ = run(capsys, clips, "--reference", reference, "--embedding", "mel", "--workers", "1")
    assert code == 0
    assert "needs 20 clips on each side" in out and "3 clips and 4 of the reference" in out
    assert "Fréchet distance (" not in out and "MMD" not in out


def test_distances_rank_sets_with_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, near = folder_of(tmp_path / "ours", 20, seconds=2.0), folder_of(tmp_path / "near", 20, first=3, seconds=2.0)
    far = tmp_path / "far"
    far.mkdir()
    noise = torch.Generator().manual_seed(0)
    for index in range(20):
        save_audio(far / f"{index}.wav", 0.1 * torch.randn(1, 2 * RATE, generator=noise), RATE)
    found = []
    for reference in (near, far):
        words = (ours, "--reference", reference, "--embedding", "mel", "--json", "--workers", "1")
        code, out, _ = run(capsys, *words)
        assert code == 0
        found.append({f["name"]: f for section in json.loads(out)["sections"] for f in section["figures"]})
    name = "MMD, Gaussian kernel (mel statistics)"
    assert found[0][name]["value"] < 0.1 < 0.5 < found[1][name]["value"]
    assert found[0][name]["low"] <= found[0][name]["value"] <= found[0][name]["high"]
    assert "Fréchet distance (mel statistics)" not in found[0]  # of 20 clips it would be bias


def test_several_processes_find_what_one_does(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for workers in ("1", "2"):
        code, out, _ = run(capsys, clips, "--json", "--workers", workers)
        assert code == 0
        told.append({key: value for key, value in json.loads(out).items() if key != "seconds"})
    assert told[0] == told[1]


def test_copies_of_training_music_and_broken_recipes_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = torch.Generator().manual_seed(1)
    ours, training = tmp_path / "ours", folder_of(tmp_path / "training", 2)
    ours.mkdir()
    tunes = [sum(music(100, float(f)) for f in torch.randint(200, 900, (3,), generator=generator)) for _ in range(2)]
    tags = sound_tags(provenance("a", model="riff-mini", seed=7))
    for name, tune in (("new", tunes[0]), ("stolen", tunes[1])):
        save_audio(ours / f"{name}.wav", 0.3 * tune, RATE, metadata=tags)
    save_audio(training / "source.wav", 0.2 * tunes[1], RATE)
    reference = tmp_path / "reference"  # has been trained on, which must not make every copy look honest
    reference.mkdir()
    save_audio(reference / "known.wav", 0.25 * tunes[1], RATE)
    words = (ours, "--training", training, "--reference", reference, "--embedding", "mel", "--json", "--workers", "1")
    code, out, _ = run(capsys, *words)
    assert code == 0
    told = json.loads(out)
    figures = {f["name"]: f["value"] for section in told["sections"] for f in section["figures"]}
    assert figures["Copies of the training set"] == figures["Look-alikes of the training set"] == 0.5
    assert "which flatters a model: 1." in out
    assert figures["Same recipe, same sound"] == 0.0
    stolen = next(clip for clip in told["clips"] if clip["name"] == "stolen.wav")
    assert stolen["reasons"] == ["a copy of source.wav"] and stolen["score"] == 0.0


@pytest.mark.parametrize(("count", "given"), [(19, False), (49, False), (50, True)])
def test_frechet_distances_are_given_from_fifty_clips(count: int, given: bool) -> None:
    rng = np.random.default_rng(0)

    def side(role: Role, number: int) -> list[Measured]:
        return [Measured(Path(f"{i}.wav"), role, vectors={"x": rng.normal(size=3)}) for i in range(number)]

    sides = {"generated": side("generated", count), "reference": side("reference", 60)}
    result = collect({"training": [], "round trip": [], **sides}, Plan(), Path())
    names = [figure.name for figure in result.sections[0].figures]
    assert ("Fréchet distance (x)" in names, "MMD, Gaussian kernel (x)" in names) == (given, count >= 20)
    assert (f"there are {count} clips and 60" in " ".join(result.sections[0].notes)) == (count < 20)
    assert all(0 <= clip.score <= 1 for clip in result.clips)


class FakeClap:
    """Hears nothing but the pitch, and reads every text alike."""

    name = "CLAP fake"

    def hear(self, sound: Sound) -> np.ndarray:
        return np.array([0.6, 0.8])

    def read(self, texts: list[str]) -> list[np.ndarray]:
        return [np.array([1.0, 0.0]) for _ in texts]

    @property
    def embedding(self) -> Embedding:
        return Embedding(self.name, self.hear)


def test_clap_gives_a_text_score_under_its_own_name(
    clips: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("embeddings", "measure"):
        monkeypatch.setattr(f"riff.evaluate.{module}.load_clap", lambda source="", *, download=False: FakeClap())
    code, out, _ = run(capsys, clips, "--embedding", "clap", "--json", "--workers", "1")
    assert code == 0
    figures = {f["name"]: f for section in json.loads(out)["sections"] for f in section["figures"]}
    assert (figures["Text score (CLAP fake)"]["value"], figures["Text score (CLAP fake)"]["n"]) == (0.6, 3)
    assert figures["Diversity (CLAP fake)"]["value"] == 0.0


def test_a_round_trip_needs_no_generated_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mini_checkpoint: Path
) -> None:
    music_folder = folder_of(tmp_path / "music", 1)
    code, out, _ = run(capsys, "--round-trip", music_folder, "--checkpoint", mini_checkpoint, "--workers", "1")
    assert code == 0
    for rung in ("mel", "8-bit image", "latents"):
        assert f"Spectral convergence, from {rung}" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "there is nothing to measure"),
        (("--round-trip", "EMPTY"), 2, "holds no sound file"),
        (("EMPTY",), 2, "holds no sound file"),
        (("MISSING",), 2, "is no file or folder"),
        (("BROKEN",), 2, "no file of"),
        (("CLIPS", "--reference", "CLIPS"), 2, "are the same folder"),
        (("CLIPS", "--reference", "REFERENCE", "--embedding", "tager"), 2, "did you mean tagger"),
        (("CLIPS", "--reference", "REFERENCE", "--embedding", "clap=EMPTY"), 4, "--download"),
        (("CLIPS", "--prompts", "MISSING"), 2, "does not exist; give a list of prompts"),
        (("--reference", "REFERENCE", "--round-trip", "CLIPS"), 2, "--reference goes with a folder of generated"),
        (("CLIPS", "-o", "REPORTED"), 2, "use --force to replace it"),
    ],
)
def test_a_mistake_is_one_line_and_the_right_code(
    words: tuple[str, ...],
    code: int,
    message: str,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {name: tmp_path / name.lower() for name in ("EMPTY", "MISSING", "BROKEN", "REFERENCE", "REPORTED")}
    for name in ("EMPTY", "BROKEN", "REPORTED"):
        places[name].mkdir()
    (places["BROKEN"] / "a.wav").write_bytes(b"RIFF junk")
    (places["REPORTED"] / "index.html").write_text("mine")
    folder_of(places["REFERENCE"], 1)
    places["CLIPS"] = clips
    given = [str(places.get(word, word)).replace("clap=EMPTY", f"clap={places['EMPTY']}") for word in words]
    ended, out, err = run(capsys, *given, "--workers", "1")
    lines = [line for line in err.splitlines() if not line.startswith("left out")]
    assert (ended, out, len(lines)) == (code, "", 1)
    assert message in lines[0]
    assert (places["REPORTED"] / "index.html").read_text() == "mine"


def test_a_figure_says_how_often_its_detector_is_right_in_table_json_and_page(tmp_path) -> None:
    known = (Accuracy(0.974, 0.95, 0.987, 312, "clips <drums>"), Accuracy(0.952, 0.93, 0.967, 500, "clips"))
    figures = [Figure("Key exact", 0.5, "share", 0.2, 0.8, 10, detector=known), Figure("Width", 1.0)]
    result = Evaluation("a", [Section("Obedience", figures)])
    said = "its detector is right about 97.4 % of 312 clips <drums>, 95.2 % of 500 clips"
    assert [line.strip() for line in result.lines()].count(said) == 1
    told = json.loads(json.dumps(result.to_dict()))["sections"][0]["figures"]
    assert told[0]["detector"][0] == {"value": 0.974, "low": 0.95, "high": 0.987, "n": 312, "of": "clips <drums>"}
    assert told[1]["detector"] == []
    page = write_page(tmp_path / "a.html", result).read_text()
    assert page.count(html.escape(said)) == 1


def test_every_figure_that_rests_on_a_detector_has_its_accuracy_and_no_other() -> None:
    if not ACCURACY_FILE.is_file():
        pytest.skip("not measured yet: python -m training.measure.detectors --ship")
    requested = Requested("jazz, piano", bpm=120.0, keyscale="C major", genres=("jazz",), instruments=(("piano",),))
    detected = Detected(120.0, "C major", "jazz", frozenset({"piano"}))
    told = {figure.name: figure.detector for figure in obedience([requested], [detected])}
    assert {name for name, known in told.items() if not known} == {"Key, MIREX score"}
    for known in told.values():
        assert all(0.0 < each.low <= each.value <= each.high <= 1.0 and each.n >= 100 for each in known)


def test_what_is_measured_of_the_detectors_is_what_is_shipped(tmp_path, monkeypatch) -> None:
    from riff.evaluate import figures as accuracy
    from training.measure import detectors as measure_detectors

    rows = []
    for number, (name, groups) in enumerate(accuracy.SHIPPED.items()):
        rows += [(group, Figure(name, 0.5 + number / 100, "share", 0.4, 0.9, 7)) for group in ("all", *groups)]
    monkeypatch.setattr(accuracy, "ACCURACY_FILE", tmp_path / "detectors.json")
    monkeypatch.setattr(measure_detectors, "ACCURACY_FILE", tmp_path / "detectors.json")
    measure_detectors.ship(rows, "a command")
    accuracy._shipped.cache_clear()
    (found,) = accuracy.detector_accuracy("Key exact")
    assert str(found) == "54.0 % of 7 composed clips"
    assert accuracy.detector_accuracy("Loudness") == ()
    accuracy._shipped.cache_clear()

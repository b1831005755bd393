"""How beats are measured, on planted beats; and what the network that hears them is taught."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from riff.music.beat_net import BANDS, FEATURES, RATE, load_net
from training.measure import beats as measure_beats
from training.measure.beats import Answer, f_measure, figures, kind_of, matched, right_clips
from training.measure.detectors import table
from training.recipes import beat_net as train_beats
from training.recipes.beat_net import Piece, draw, load_pieces, main, targets_of

TRUE = (0.3 + 0.5 * np.arange(64)).tolist()


def test_f_is_the_harmonic_mean_of_precision_and_recall_each_beat_used_once() -> None:
    assert f_measure(TRUE, TRUE) == 1.0
    assert f_measure([time + 0.069 for time in TRUE], TRUE) == 1.0
    assert f_measure([time + 0.071 for time in TRUE], TRUE) == 0.0
    assert f_measure(sorted(TRUE + [time + 0.01 for time in TRUE]), TRUE) == pytest.approx(2 / 3)  # precision 1/2
    assert f_measure(TRUE[::2], TRUE) == pytest.approx(2 / 3)  # recall 1/2
    assert f_measure([], []) == 0.0
    assert matched([0.31, 0.9], TRUE) == pytest.approx([0.01])


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (TRUE, "every beat"),
        ([time + 0.25 for time in TRUE], "off beats"),
        ([time + 0.125 for time in TRUE], "other places"),
        ([time + 0.375 for time in TRUE], "other places"),
        (TRUE[::2], "every second beat"),
        (np.arange(0.3, 30.0, 0.25).tolist(), "every half beat"),
        (np.arange(0.3, 30.0, 0.75).tolist(), "another tempo"),
        ([], "none"),
    ],
)
def test_what_was_tracked_is_named(found: list[float], kind: str) -> None:
    assert kind_of(found, TRUE) == kind


def test_a_clip_is_right_that_begins_on_a_bar_line_and_ends_two_bars_later() -> None:
    rate, sound = 44100, torch.zeros(1, 16 * 44100)
    time = torch.arange(4000) / rate
    for beat in range(32):
        struck = torch.exp(-time / 0.006) * torch.sin(2 * torch.pi * 1500 * time)
        struck = struck + (beat % 4 == 0) * torch.exp(-time / 0.02) * torch.sin(2 * torch.pi * 60 * time)
        sound[0, beat * 22050 : beat * 22050 + 4000] += 0.4 * struck
    lines = 2.0 * np.arange(9)
    assert right_clips(sound, lines, 4) == (True,) * 4
    assert right_clips(sound, lines + 0.5, 4) == (False,) * 4


def _answer(kind: str, bars: float, drums: bool) -> Answer:
    beats = {"riff": 1.0, "librosa": 0.5}
    return Answer(1, "folk", drums, beats, {"riff": kind, "librosa": "none"}, (0.001, 0.002), bars, (True, bars > 0.9))


def test_figures_count_by_group() -> None:
    answers = [_answer("every beat", 1.0, True), _answer("every beat", 0.0, True), _answer("off beats", 0.0, False)]
    rows = {(group, figure.name): figure for group, figure in figures(answers)}
    assert rows["all", "riff: tracks every beat"].value == pytest.approx(2 / 3)
    assert rows["all", "riff: beats and bars right"].value == pytest.approx(1 / 3)
    assert rows["with drums", "clips that prepare cuts, right"].value == pytest.approx(3 / 4)
    assert rows["without drums", "riff: tracks off beats"].value == 1.0
    assert math.isnan(rows["without drums", "riff: right beats off, ms"].value)
    assert "| with drums (2) |" in table(figures(answers))


def test_the_measurement_hears_composed_music(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _needs_a_soundfont()
    answer = measure_beats.answer(5_600_001)
    assert set(answer.beats) == {"riff", "librosa"} and 0.0 <= answer.bars <= 1.0
    with pytest.raises(SystemExit):
        measure_beats.main(["--pieces", "1"])
    assert "use at least 2" in capsys.readouterr().err


def _needs_a_soundfont() -> None:
    pytest.importorskip("fluidsynth", exc_type=ImportError)
    from training.composer.render import find_soundfont

    if find_soundfont() is None:
        pytest.skip("no General MIDI soundfont: apt-get install fluidr3mono-gm-soundfont")


def _piece(beats_per_bar: int = 4, seconds: float = 30.0) -> Piece:
    """Silence but for its beats, which sound in every band."""
    levels = torch.full((FEATURES, round(seconds * RATE)), -3.0)
    for beat in range(math.ceil(seconds / 0.5)):
        levels[:, round(0.5 * beat * RATE)] = 0.0
    return Piece(levels, 0.5, beats_per_bar)


def test_targets_lie_on_the_beats_and_say_which_begin_a_bar() -> None:
    targets = targets_of(_piece(), start=0, stride=1.0, count=200)
    torch.testing.assert_close(targets.sum(0), torch.ones(200))
    assert (targets[1:].sum(0) == 1.0).nonzero()[:, 0].tolist() == list(range(0, 200, 25))
    assert (targets[2] == 1.0).nonzero()[:, 0].tolist() == [0, 100]
    assert targets[1, 26] == pytest.approx(1 / 3) and targets[1, 27] == 0.0
    assert targets_of(_piece(0), start=0, stride=1.0, count=200)[0].eq(1.0).all(), "noise has no beats"


def test_a_stretch_that_is_drawn_keeps_its_beats_whatever_is_done_to_it() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        heard, targets = draw(_piece(), 400, generator)
        assert heard.shape == (FEATURES, 400) and targets.shape == (3, 400) and bool(heard.isfinite().all())
        loud = heard[4 : BANDS // 4].mean(0)
        on = targets[0] < 0.5
        assert float(loud[on].mean()) > float(loud[~on].mean()) + 0.2


def test_pieces_are_made_once_and_teach_a_network(tmp_path: Path) -> None:
    _needs_a_soundfont()
    made = ["--out", str(tmp_path / "data"), "--workers", "1", "--pieces", "1", "--clicks", "1", "--noises", "1"]
    main(["make", *made])
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    assert len(stamps) == 3
    main(["make", *made])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()} == stamps
    assert sorted(piece.beats_per_bar == 0 for piece in load_pieces(tmp_path / "data")) == [False, False, True]
    shipped = tmp_path / "beats.safetensors"
    teach = ["train", "--data", str(tmp_path / "data"), "--ship", str(shipped), "--steps", "50", "--batch", "2"]
    main([*teach, "--frames", "100"])
    first = load_file(shipped)
    load_net(shipped)
    main([*teach, "--frames", "100", "--init", str(shipped), "--learning-rate", "1e-9"])
    torch.testing.assert_close(load_file(shipped)["enter.weight"], first["enter.weight"], atol=1e-3, rtol=0)


def test_a_folder_without_pieces_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"holds no pieces; write some with: python -m training.recipes.beat_net make"):
        train_beats.load_pieces(tmp_path)

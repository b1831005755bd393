"""Timelines: read and written without loss, refused in one clear line, and put on the beats exactly."""

import dataclasses
import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import growth

from riff.spectrogram.tempo import TempoMap
from riff.tasks.requests import RenderRequest
from riff.tasks.timeline import JUMP, Keyframe, Timeline, ease, place, progress
from riff.utils.errors import RiffError

FULL = Timeline(
    keyframes=(
        Keyframe("église: bells # no comment", bar=0, seed=2**63 - 1, hold=1.5, key="F# minor"),
        Keyframe("no", seconds=12.5, negative_prompt='say "hush"\nnow', guidance_scale=3, lora_weight=0.5),
        Keyframe("techno 🎹", bar=20.25, bpm=133.3, easing="step"),
    ),
    seconds=90.0,
    loop=True,
    seed=7,
    variation=1.0,
    beats_per_bar=3,
)


def two(first: dict[str, Any] | None = None, second: dict[str, Any] | None = None, **fields: Any) -> Timeline:
    """A timeline of two keyframes."""
    a = Keyframe(**{"prompt": "a", "bar": 0, **(first or {})})
    b = Keyframe(**{"prompt": "b", "bar": 4, **(second or {})})
    return Timeline((a, b), **({"bars": 8} | fields))


def random_timeline(rng: random.Random, *, loop: bool) -> tuple[Timeline, list[float]]:
    """Three to six keyframes in seconds, at least three seconds apart, with tempi and now and then a hold."""
    count = rng.randint(3, 6)
    places = [0.0, *itertools.accumulate(rng.uniform(6.0, 20.0) for _ in range(count - 1))]
    frames = tuple(
        Keyframe("x", seconds=place, hold=rng.choice([0.0, 0.25]), easing=rng.choice(["linear", "smooth", "step"]))
        for place in places
    )
    return Timeline(frames, seconds=places[-1] + 9.0, loop=loop), [rng.uniform(60.0, 200.0) for _ in range(count)]


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_a_saved_timeline_is_read_back_equal(suffix: str, tmp_path: Path) -> None:
    for timeline in (FULL, two(), Timeline((Keyframe("x", seconds=0),), seconds=0.1)):
        timeline.save(tmp_path / f"song{suffix}")
        assert Timeline.load(tmp_path / f"song{suffix}") == timeline


def test_a_dict_holds_plain_values_without_defaults_and_is_the_inverse() -> None:
    assert two().to_dict() == {"keyframes": [{"prompt": "a", "bar": 0}, {"prompt": "b", "bar": 4}], "bars": 8}
    assert Timeline.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


def test_yaml_as_people_write_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "song.yaml").write_text(
        "# my song\nbars: 16\nloop: yes\nkeyframes:\n  - {bar: 0, prompt: church bells, key: F# minor}\n"
        "  - bar: 8\n    prompt: techno, 130 bpm\n    easing: linear\n    hold: 2\n"
    )
    timeline = Timeline.load(tmp_path / "song.yaml")
    assert timeline.loop and timeline.keyframes[0].key == "F# minor" and timeline.keyframes[1].hold == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bars: 8", "keyframes are None; give a list"),
        ("just words", "a timeline is 'just words'; give fields"),
        ("[1, 2]", "a timeline is .1, 2.; give fields"),
        ("bars: 8\nkeyframes: [x]", "keyframe 1: it is 'x'"),
        ("bars: 8\nkeyframes: [{bar: 0}]", "keyframe 1: prompt is missing"),
        ("bars: 8\nkeyframes: [{bar: 0, prompt: a}, {bar: 4, promt: b}]", "keyframe 2: .*'promt'; did you mean prompt"),
        ("bar: 8\nkeyframes: []", "unknown field 'bar'; did you mean bars\\? known are keyframes, bars"),
        ("1: 8\nkeyframes: []", "unknown field 1"),
        ("? [a]\n: 1\n", "the field .* has no name"),
        ("bars: 8\nbars: 9", "the field 'bars' is given twice"),
        ("bars: 8\nkeyframes: [{bar: 0, prompt: no}]", "keyframe 1: prompt is False; use text .in YAML, put it in quo"),
        ("bars: 8\nkeyframes: [{bar: 0, prompt: a, bpm: .nan}]", "keyframe 1: bpm is nan; use a number from 20 to 400"),
        ("bars: 8\nkeyframes: [{bar: 0, prompt: a, easing: [smooth]}]", "keyframe 1: easing is ..smooth.."),
        ("a: [", "is not valid YAML .line 1"),
        ("a: !!python/object/apply:os.getcwd []", "is not valid YAML .*could not determine a constructor"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "unknown field 'a'"),
        ("[" * 5000, "is not valid YAML"),
        ("", "is empty .0 bytes."),
        ("\n", "a timeline is None"),
        ("bars: \x00", "is not valid YAML"),
    ],
)
def test_a_faulty_file_is_one_line_that_names_file_and_field(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "song.yaml"
    path.write_text(text)
    with pytest.raises(RiffError, match=message) as caught:
        Timeline.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


SCALARS = (
    "",
    "x",
    "''",
    "é",
    "0x",
    "1:1:1",
    "[a, b]",
    "{a: 1}",
    "2001-99-99",
    "{[1]: 2}",
    "9" * 5000,
    "1e999",
    "=",
    "12:99:88",
)


@pytest.mark.parametrize(
    "tag", ["int", "float", "bool", "null", "timestamp", "binary", "set", "omap", "pairs", "seq", "map"]
)
def test_a_typed_scalar_is_a_value_or_one_line(tag: str, tmp_path: Path) -> None:
    path = tmp_path / "song.yaml"
    for text in SCALARS:
        for content in (f"!!{tag} {text}\n", f"bars: 8\nkeyframes: [{{bar: !!{tag} {text}, prompt: x}}]\n"):
            path.write_text(content, encoding="utf-8")
            try:
                Timeline.load(path)
            except RiffError as error:
                assert "\n" not in str(error) and len(str(error)) < 600


HOSTILE = {
    "sexagesimal": lambda size: "bars: " + "1:" * (size // 2) + "1\n",
    "digits": lambda size: "bars: " + "9" * size + "\n",
    "hexadecimal": lambda size: "bars: 0x" + "f" * size + "\n",
    "given twice": lambda size: "".join(f"k{n}: 1\n" for n in range(size // 8)) + "k0: 2\n",
    "merges": lambda size: "".join(
        f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}\n" if n else "a0: &a0 {k: 1, l: 2}\n" for n in range(40)
    ),
    "brackets": lambda size: "[" * size,
    "anchors": lambda size: "".join(f"- &a{n} x\n- *a{n}\n" for n in range(size // 14)),
    "directives": lambda size: "".join(f"%TAG !a{n}! x\n" for n in range(size // 12)) + "---\na: 1\n",
    "keyframes": lambda size: "bars: 8\nkeyframes:\n" + "- {bar: 1, prompt: x}\n" * (size // 22),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_file_costs_no_more_than_its_size(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"song{suffix}"

    def read(size: int) -> None:
        path.write_text(HOSTILE[kind](size))
        with pytest.raises(RiffError):
            Timeline.load(path)

    assert growth(read, 20_000) < 40


def test_aliases_that_grow_exponentially_cost_nothing(tmp_path: Path) -> None:
    rows = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" if n else "a0: &a0 [x]" for n in range(30)]
    (tmp_path / "song.yaml").write_text("prompt: {" + ", ".join(rows) + "}\nbars: 1\nkeyframes: *a29\n")
    with pytest.raises(RiffError, match="unknown field 'prompt'"):
        Timeline.load(tmp_path / "song.yaml")
    (tmp_path / "song.yaml").write_text("bars: [" + ", ".join(r.split(": ")[1] for r in rows) + "]\nkeyframes: *a29\n")
    with pytest.raises(RiffError, match="keyframe 1: it is"):
        Timeline.load(tmp_path / "song.yaml")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"bars": 8, "bars": 9}')
    with pytest.raises(RiffError, match="'bars' is given twice"):
        Timeline.load(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"bars": NaN, "keyframes": [{"bar": 0, "prompt": "a"}]}')
    with pytest.raises(RiffError, match="bars is nan"):
        Timeline.load(tmp_path / "a.json")
    for text in ("[" * 200_000, "{", '{"seed": ' + "9" * 10_000 + "}"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(RiffError, match="is not valid JSON"):
            Timeline.load(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RiffError, match="is not UTF-8"):
        Timeline.load(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b" " * 1_000_001)
    with pytest.raises(RiffError, match="more than 1,000,000 bytes"):
        Timeline.load(tmp_path / "a.json")
    for name in ("a.txt", "a"):
        with pytest.raises(RiffError, match=r"a timeline is a file with \.yaml, \.yml, \.json"):
            Timeline.load(tmp_path / name)
        with pytest.raises(RiffError, match="has the suffix"):
            two().save(tmp_path / name)
    with pytest.raises(RiffError, match="does not exist"):
        Timeline.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"prompt": "x" * 10_001}, "prompt has 10001 characters"),
        ({"prompt": "\ud800"}, "half a surrogate pair"),
        ({"negative_prompt": None}, "negative_prompt is None"),
        ({"bar": None}, "neither is given; say where the keyframe is with exactly one of bar and seconds"),
        ({"seconds": 0}, "bar is 0 and seconds 0"),
        ({"bar": True}, "bar is True"),
        ({"bar": "4"}, "bar is '4'; use a number from 0 to 512"),
        ({"bar": math.nan}, "bar is nan"),
        ({"bar": -1}, "bar is -1"),
        ({"bar": 10**400}, "bar is 1000"),
        ({"bar": 10**5000}, "bar is a huge int"),
        ({"hold": math.inf}, "hold is inf"),
        ({"seed": 1.0}, "seed is 1.0; use a whole number"),
        ({"seed": -1}, "seed is -1"),
        ({"guidance_scale": 51}, "guidance_scale is 51"),
        ({"lora_weight": 2.1}, "lora_weight is 2.1"),
        ({"bpm": 19}, "bpm is 19; use a number from 20 to 400"),
        ({"key": "H minor"}, "key is 'H minor'"),
        ({"easing": "cubic"}, "easing is 'cubic'; use linear, smooth, step"),
    ],
)
def test_a_keyframe_checks_every_value(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RiffError, match=message) as caught:
        Keyframe(**{"prompt": "a", "bar": 0, **fields})
    assert len(str(caught.value)) < 300


def at(*bars: float, **fields: Any) -> dict[str, Any]:
    return {"keyframes": tuple(Keyframe("a", bar=bar) for bar in bars), "bars": 8, **fields}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (at(), "there are 0 keyframes; use 1 to 256"),
        (at(*[b / 100 for b in range(257)]), "there are 257 keyframes"),
        (at(1), "keyframe 1 is at bar 1; put the first at 0"),
        (at(0, 4, 4), "keyframe 3 is at bar 4, not after keyframe 2 at 4"),
        (at(0, 4, 3), "keyframe 3 is at bar 3, not after keyframe 2 at 4"),
        (at(0, 9), "keyframe 2 is at bar 9, but the music ends at 8"),
        (at(0, 8), "keyframe 2 is at bar 8, but the music ends at 8"),
        (at(0, bars=None), "neither is given; say how long the music is"),
        (at(0, seconds=9), "bars is 8 and seconds 9"),
        (at(0, bars=0), "bars is 0; use a whole number from 1 to 512"),
        (at(0, bars=513), "bars is 513"),
        (at(0, bars=8.0), "bars is 8.0"),
        (at(0, bars=None, seconds=601), "seconds is 601; use a number from 0.1 to 600"),
        (at(0, loop=1), "loop is 1; use true or false"),
        (at(0, variation=-0.1), "variation is -0.1"),
        (at(0, beats_per_bar=5), "beats_per_bar is 5; use 3 or 4"),
        (at(0, beats_per_bar=3.0), "beats_per_bar is 3.0"),
        (at(0, seed="1"), "seed is '1'"),
        ({"keyframes": "ab", "bars": 8}, "keyframes are 'ab'"),
    ],
)
def test_a_timeline_checks_every_value(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RiffError, match=message):
        Timeline(**fields)


def test_a_hold_past_the_next_keyframe_is_refused_also_round_a_loop_and_in_seconds() -> None:
    two({"hold": 4})
    with pytest.raises(RiffError, match=r"keyframe 1 holds 4\.5 bars, but the next is 4 on"):
        two({"hold": 4.5})
    two(second={"hold": 9})  # after the last it stays anyway
    with pytest.raises(RiffError, match=r"keyframe 2 holds 4\.5 bars"):
        two(second={"hold": 4.5}, loop=True)
    late = Timeline((Keyframe("a", bar=0, hold=2), Keyframe("b", seconds=3)), bars=8)
    with pytest.raises(RiffError, match=r"keyframe 1 holds 8 beats, but keyframe 2 \(at 3 s\) is 6 beats on"):
        place(late, [120, 120], 4)


def test_bars_and_seconds_may_be_mixed_and_are_put_in_order_on_the_beats() -> None:
    mixed = Timeline((Keyframe("a", bar=0), Keyframe("b", seconds=9), Keyframe("c", bar=4)), bars=8)
    with pytest.raises(RiffError, match=r"keyframe 3 \(at bar 4\) is not at least 0.0625 beat after keyframe 2"):
        place(mixed, [120, 120, 120], 4)
    assert place(mixed, [60, 60, 60], 4).beats == (0, 9, 16)
    late = Timeline((Keyframe("a", bar=0), Keyframe("b", seconds=20)), bars=8)
    with pytest.raises(RiffError, match="keyframe 2 is at 20 s, but the music ends after 32 beats"):
        place(late, [120, 120], 4)


def test_more_than_ten_minutes_are_refused() -> None:
    place(at_length := Timeline((Keyframe("a", bar=0),), bars=300), [120], 4)
    with pytest.raises(RiffError, match=r"300 bars last 605\.0 s at these tempi; use at most 600 s"):
        place(at_length, [119], 4)


def test_tempi_are_checked() -> None:
    for bpms in ([120], [120, 19], [120, math.nan]):
        with pytest.raises(RiffError):
            place(two(), bpms, 4)


def test_ranges_are_those_of_a_call() -> None:
    def call(bpm: float = 120.0, seed: int = 0, prompt: str = "x") -> None:
        RenderRequest(prompt=prompt, bpm=bpm, seed=seed)

    for inside in ({"bpm": 20.0}, {"bpm": 400.0}, {"seed": 2**63 - 1}, {"prompt": "x" * 10_000}):
        call(**inside)
        Keyframe(**{"prompt": "x", "bar": 0, **inside})
    for outside in ({"bpm": 19.9}, {"bpm": 400.1}, {"seed": 2**63}, {"seed": -1}, {"prompt": "x" * 10_001}):
        with pytest.raises(RiffError):
            call(**outside)
        with pytest.raises(RiffError):
            Keyframe(**{"prompt": "x", "bar": 0, **outside})


def test_at_one_tempo_seconds_become_beats_in_closed_form() -> None:
    frames = tuple(Keyframe("x", seconds=seconds) for seconds in (0, 4, 7.3, 11.1))
    placed = place(Timeline(frames, seconds=16), [90] * 4, 4)
    assert placed.beats == tuple(round(s * 1.5) for s in (0, 4, 7.3, 11.1)) and placed.total == 24
    assert TempoMap.glide(placed.tempo).steady == 90
    assert place(Timeline(frames, seconds=16.01), [90] * 4, 4).total == 28


@pytest.mark.parametrize("loop", [False, True])
def test_from_seconds_to_beats_and_back_is_within_half_a_beat(loop: bool) -> None:
    rng = random.Random(4)
    for _ in range(200):
        timeline, bpms = random_timeline(rng, loop=loop)
        placed = place(timeline, bpms, 4)
        tempo = TempoMap.glide(placed.tempo)
        for index, (frame, beat) in enumerate(zip(timeline.keyframes, placed.beats, strict=True)):
            assert beat == round(beat)
            half = 0.5 * 60.0 / min(bpms[max(0, index - 1)], bpms[index])
            assert abs(float(tempo.seconds_at(beat)) - float(frame.seconds or 0.0)) <= half + 1e-5
        asked, end = float(timeline.seconds or 0.0), float(tempo.seconds_at(placed.total))
        bar = 240.0 / min(bpms)
        assert placed.total % 4 == 0 and asked - 1e-4 <= end < asked + bar


def test_the_tempo_stays_while_held_then_goes_evenly_in_beats() -> None:
    placed = place(two({"hold": 1}), [100, 140], 4)
    assert placed.tempo == ((0, 100), (4, 100), (16, 140)) and placed.total == 32
    tempo = TempoMap.glide(placed.tempo)
    assert [float(tempo.bpm_at(beat)) for beat in (0, 4, 10, 16, 30)] == [100, 100, 120, 140, 140]


@pytest.mark.parametrize("jumping", [{"second": {"easing": "step"}}, {"first": {"hold": 4}}])
def test_a_step_jumps_at_the_keyframe_to_a_microsecond(jumping: dict[str, Any]) -> None:
    tempo = TempoMap.glide(place(two(**jumping), [100, 140], 4).tempo)
    assert float(tempo.bpm_at(16 - 2 * JUMP)) == 100 and float(tempo.bpm_at(16)) == 140
    assert float(tempo.seconds_at(16)) == pytest.approx(16 * 0.6, abs=1e-6)
    assert float(tempo.seconds_at(32)) == pytest.approx(16 * 0.6 + 16 * 60 / 140, abs=1e-6)


def test_a_loops_tempo_comes_back_to_the_first() -> None:
    placed = place(two(second={"hold": 2}, loop=True), [100, 140], 4)
    assert placed.tempo == ((0, 100), (16, 140), (24, 140), (32, 100))
    assert place(two(), [100, 140], 4).tempo[-1] == (16, 140)
    alone = place(Timeline((Keyframe("a", bar=0),), bars=2, loop=True), [90], 3)
    assert alone.total == 6 and TempoMap.glide(alone.tempo).steady == 90


def test_progress_is_the_keyframe_itself_while_it_holds_and_eases_between() -> None:
    placed = place(two({"hold": 1}, {"easing": "linear"}), [120, 120], 4)
    along = progress(placed, 32, 1.0)
    assert along[:4] == [0.0] * 4 and along[16:] == [1.0] * 16
    assert along[4:16] == pytest.approx([(beat + 0.5 - 4) / 12 for beat in range(4, 16)])
    smooth = progress(place(two({"hold": 1}), [120, 120], 4), 32, 1.0)
    assert smooth[4:16] == pytest.approx([3 * s**2 - 2 * s**3 for s in along[4:16]])
    step = progress(place(two({"hold": 1}, {"easing": "step"}), [120, 120], 4), 32, 1.0)
    assert step == [0.0] * 16 + [1.0] * 16


def test_a_loops_progress_goes_on_to_the_first_keyframe_again() -> None:
    placed = place(two({"easing": "linear"}, {"hold": 1}, loop=True), [120, 120], 4)
    along = progress(placed, 320, 10.0)
    assert along[160:200] == [1.0] * 40 and all(b > a for a, b in itertools.pairwise(along[200:]))
    assert along[-1] == pytest.approx(2.0 - 0.05 / 12)
    assert progress(place(Timeline((Keyframe("a", bar=0),), bars=2, loop=True), [90], 4), 5, 0.5) == [0.0] * 5


def test_progress_never_runs_back_and_meets_every_keyframe() -> None:
    rng = random.Random(5)
    for _ in range(50):
        timeline, bpms = random_timeline(rng, loop=rng.random() < 0.5)
        placed = place(timeline, bpms, 4)
        along = progress(placed, round(placed.total * 4), 4.0)
        assert along == sorted(along) and along[0] >= 0.0 and along[-1] <= len(bpms) - 1 + timeline.loop
        for index, beat in enumerate(placed.beats):
            assert abs(along[round(beat * 4)] - index) < 0.2


@pytest.mark.parametrize("kind", ["linear", "smooth"])
def test_easing_is_symmetric_and_grows(kind: Any) -> None:
    shares = [n / 64 for n in range(65)]
    eased = [ease(kind, share) for share in shares]
    assert eased == sorted(eased) and eased[0] == 0 and eased[-1] == 1
    assert eased == pytest.approx([1 - ease(kind, 1 - share) for share in shares])


def test_a_changed_copy_is_checked_as_well() -> None:
    with pytest.raises(RiffError, match="bars is 0"):
        dataclasses.replace(two(), bars=0)

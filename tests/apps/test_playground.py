"""The playground: what its tabs do, what its server gives out, and (slow) the page used in a browser."""

import ast
import dataclasses
import io
import itertools
import os
import re
import shlex
import shutil
import threading
import time
import types
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("gradio")

from riff.apps.cli import build_parser, main
from riff.apps.playground import compose, edit, live, spectrogram, timeline, walk
from riff.apps.playground.app import make_app
from riff.apps.playground.cards import bar_lines, before, feed, kept_list, read_upload, result_card
from riff.apps.playground.stage import FORMATS, Part, Progress, Sessions, Shelf, Stage, Stopped, _Work, error_line
from riff.apps.playground.widgets import RequestForm
from riff.diffusion.model import DiffusionModel
from riff.tasks.provenance import read_made
from riff.tasks.requests import ExtendRequest, InpaintRequest, RemixRequest, RenderRequest, StreamRequest, WalkRequest
from riff.tasks.timeline import Timeline
from riff.utils.errors import RiffError
from riff.utils.schema import describe_fields
from tests.tasks.test_endless import clicks, onsets

STEPS = 2


@pytest.fixture(scope="module")
def stage(pipe):
    return Stage(pipe, "a/model")


TECHNO = RenderRequest(prompt="techno, 120 bpm", bars=2, seed=1, num_inference_steps=STEPS)


@pytest.fixture(scope="module")
def clip(pipe):
    return compose.compose(pipe, TECHNO)


@pytest.fixture(scope="module")
def beat(tmp_path_factory) -> Path:
    """Eight seconds with a beat every half second."""
    rate, path = 8000, tmp_path_factory.mktemp("sound") / "beat.wav"
    time_s = np.arange(8 * rate) / rate
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * 220 * time_s) * np.exp(-8 * (time_s % 0.5)), rate)
    return path


def code(texts: list[tuple[str, str]], kind: str) -> str:
    """One of the texts to copy: Python or shell."""
    return next(text for title, text in texts if kind in title)


def test_compose_is_the_pipelines_own_clip(pipe, clip) -> None:
    same = pipe("techno, 120 bpm", bars=2, seed=1, num_inference_steps=STEPS).clips[0]
    assert torch.equal(clip.waveform, same.waveform)


def test_the_copied_python_makes_the_same_clip_again(pipe, clip) -> None:
    stage = Stage(pipe, "a/model", (("RUN/model", 0.5),))
    tree = ast.parse(code(compose.code_of(stage, TECHNO), "Python"))
    assert ast.unparse(tree.body[1]) == "pipe = RiffPipeline.from_pretrained('a/model')"
    assert ast.unparse(tree.body[2]) == "pipe.load_lora('RUN/model', weight=0.5)"
    made = eval(compile(ast.Expression(tree.body[3].value), "copied", "eval"), {"pipe": pipe})
    assert torch.equal(made.waveform, clip.waveform)


def test_the_copied_shell_commands_are_ones_that_riff_takes(pipe) -> None:
    request = RenderRequest(
        prompt='it\'s "loud" $HOME', bpm=97.5, bars=3, loop=True, seed=5, guidance_scale=1.5, negative_prompt="a b",
        key="C major",
    )  # fmt: skip
    loaded, stage = Stage(pipe, "a/model", (("c:1", 1.0), ("b", 0.25))), Stage(pipe)
    song = "/tmp/x/my song.wav"
    part = {"mask_start_bar": 1.0, "mask_end_bar": 2.5}
    texts = [
        compose.code_of(loaded, request),
        edit.code_of(stage, "remix", song, RemixRequest(prompt="organ", seed=3, strength=0.4)),
        edit.code_of(stage, "extend", song, ExtendRequest(prompt="organ", seed=3, bars=2)),
        edit.code_of(stage, "inpaint", song, InpaintRequest(prompt="organ", seed=3, **part)),
        walk.code_of(stage, WalkRequest(prompts=["a piano", "b drums"], bars_per_step=4, seed=9, loop=True)),
        timeline.code_of(stage, *song_of(timeline.ROWS)),
    ]
    parsed = [build_parser().parse_args(shlex.split(code(each, "shell"))[1:]) for each in texts]
    assert (parsed[0].prompts, parsed[0].bpm, parsed[0].bars, parsed[0].loop) == ([request.prompt], 97.5, 3, True)
    assert (parsed[0].key, parsed[0].negative_prompt, parsed[0].model) == ("C major", "a b", "a/model")
    assert parsed[0].lora == [("c:1", 1.0), ("b", 0.25)]
    assert parsed[1].strength == 0.4
    assert parsed[2].bars == 2
    assert parsed[3].bars == [[1.0, 2.5]]


def song_of(rows):
    made = timeline.read_rows(rows, 12, False, 3)
    return made, timeline.TimelineRequest(timeline=made.to_dict())


def test_copied_code_leaves_defaults_out(pipe, stage) -> None:
    form = form_of(stage, RenderRequest(prompt="techno", seed=4))
    request = form.read([control.value for control in form.inputs])
    assert code(compose.code_of(Stage(pipe), request), "shell") == "riff render techno --seed 4 -o clip.wav\n"
    assert 'pipe("techno", seed=4)' in code(compose.code_of(Stage(pipe), request), "Python")


def form_of(stage, start) -> RequestForm:
    """All controls of a request."""
    import gradio as gr

    with gr.Blocks():
        form = RequestForm(stage, "test", start)
        for name, field in form.fields.items():
            if field.single and field.kind is not dict:
                form.add(name)
    return form


def test_every_field_of_a_request_has_a_control_with_its_range(stage) -> None:
    form = form_of(stage, RenderRequest(prompt="techno", bars=2, guidance_scale=3.0))
    for field in describe_fields(RenderRequest):
        control = form.controls[field.name]
        assert control.info.lower() == field.option.help.lower()
        if hasattr(control, "minimum") and field.option.slider and control.minimum is not None:
            assert (control.minimum, control.maximum, control.step) == field.option.slider


def test_an_empty_field_is_left_out_and_a_wrong_one_is_named(stage) -> None:
    form = form_of(stage, RenderRequest(prompt="techno"))

    def values(**given):
        return [given.get(name, control.value) for name, control in form.controls.items()]

    assert form.read(values(bpm=" 97,5 ".replace(",", "."), bars="3", key="auto", seed=2)) == RenderRequest(
        prompt="techno", bpm=97.5, bars=3, seed=2
    )
    assert form.read(values()).seed != form.read(values()).seed
    with pytest.raises(RiffError, match="bpm is 'fast'"):
        form.read(values(bpm="fast"))
    with pytest.raises(RiffError, match="the prompt is empty"):
        form.read(values(prompt=" "))


def test_the_shelf_gives_every_format_and_nothing_else(clip) -> None:
    shelf = Shelf(limit=2)
    name = shelf.put(clip)
    for kind in FORMATS[:-1]:
        sound, rate = soundfile.read(shelf.file(f"{name}.{kind}"))
        assert abs(len(sound) / rate - clip.duration) < 0.2
    assert shelf.file(f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for wrong in (f"../{name}.wav", f"{name}.txt", f"{name}", "0" * 16 + ".wav", "/etc/passwd", f"{name}.wav/.."):
        with pytest.raises(RiffError):
            shelf.file(wrong)
    kept = [shelf.put(clip), shelf.put(clip)]
    with pytest.raises(RiffError, match="no longer"):
        shelf.file(f"{name}.wav")
    assert all(each in shelf for each in kept)
    shelf.close()


def test_work_tells_its_progress_and_hands_over_each_part() -> None:
    def make(count_step):
        for step in range(4):
            time.sleep(0.08)
            count_step(step, 4, torch.zeros(1))
        yield "one"
        yield "two"

    seen = list(Sessions().run("me", make))
    assert [each.value for each in seen if isinstance(each, Part)] == ["one", "two"]
    told = [each for each in seen if isinstance(each, Progress)]
    assert told[-1].done == told[-1].total == 4


def test_the_time_left_counts_down_between_two_steps(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("riff.apps.playground.stage.time", types.SimpleNamespace(monotonic=lambda: now[0]))
    doing = _Work(lambda count_step: iter(()), threading.Event(), threading.Lock())
    assert doing.progress.left is None
    left = []
    for step, took in enumerate((5.0, 2.0, 4.0)):  # the first one warms up
        now[0] += took
        doing._step(step, 10, torch.zeros(1))
        left.append(doing.progress.left)
    assert left == [45.0, 16.0, 21.0]
    now[0] += 2.5
    assert doing.progress.left == 18.5
    now[0] += 100.0
    assert doing.progress.left == 0.0


def test_a_stop_is_answered_at_once_and_the_thread_ends_at_its_next_step() -> None:
    works, steps = Sessions(), []

    def make(count_step):
        for step in range(1000):
            time.sleep(0.02)
            count_step(step, 1000, torch.zeros(1))
            steps.append(step)
        yield None

    threading.Timer(0.3, works.stop, ["me"]).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        list(works.run("me", make))
    assert time.monotonic() - began < 2.0
    time.sleep(0.2)
    done = len(steps)
    time.sleep(0.2)
    assert len(steps) == done < 1000


def test_an_error_is_one_line_and_shown_once(pipe, stage) -> None:
    def read() -> RenderRequest:
        return RenderRequest(prompt=" ")

    seen = list(stage.perform("me", read, lambda request, callback: iter([]), lambda *_: ""))
    assert [status for status, _ in seen if "alert" in str(status)] == [seen[-1][0]]
    assert "\n" not in seen[-1][0].strip() and "the prompt is empty" in seen[-1][0]
    assert "defect" in error_line(ValueError("a\nb")) and "\n" not in error_line(ValueError("a\nb"))


def test_cards_escape_what_people_write(clip) -> None:
    clip = type(clip)(**{**vars(clip), "prompt": '<script>alert(1)</script> & "quotes"'})
    for shown in (
        result_card(clip, "0" * 16, code=[("Python", "<b>"), ("shell", "<u>")]),
        kept_list([("0" * 16, clip)]),
    ):
        assert "<script>" not in shown and "<b>" not in shown and "<u>" not in shown
    assert "riff-compare" not in kept_list([("0" * 16, clip)])
    assert "riff-compare" in kept_list([("0" * 16, clip), ("1" * 16, clip)])


def way(*prompts: str) -> WalkRequest:
    return WalkRequest(prompts=list(prompts), bars_per_step=3, seed=7, num_inference_steps=STEPS)


def test_a_walk_begins_with_the_plain_clip_and_its_parts_meet_on_bar_lines(pipe) -> None:
    legs = list(walk.walk(pipe, way("techno 120 bpm", "drums 120 bpm", "bass 120 bpm")))
    plain = pipe("techno 120 bpm", seed=7, num_inference_steps=STEPS).clips[0]
    assert torch.equal(legs[0].clip.waveform, plain.waveform)
    assert [leg.more for leg in legs] == [True, True, False]
    whole, rate = legs[-1].whole, legs[-1].whole.sample_rate
    seam = round(bar_lines(legs[1].clip)[3] * rate)
    assert torch.equal(whole.waveform[:, :seam], legs[1].clip.waveform[:, :seam])
    after = seam + round(0.05 * rate)
    assert torch.equal(whole.waveform[:, after:], legs[2].clip.waveform[:, after - seam :])
    assert whole.duration == pytest.approx((3 + 5) * 2.0, abs=1e-3)
    assert whole.prompt.count("->") == 2


def test_a_walk_whose_tempo_glides_keeps_its_bar_lines(pipe) -> None:
    legs = list(walk.walk(pipe, way("techno 100 bpm", "drums 140 bpm", "bass 90 bpm")))
    lines = bar_lines(legs[-1].whole)
    first, second = bar_lines(legs[1].clip), bar_lines(legs[2].clip)
    assert lines[:4] == pytest.approx(first[:4], abs=1e-6)
    assert lines[3:] == pytest.approx([first[3] + line for line in second], abs=2e-3)


def test_stations_of_two_metres_are_drawn_on_one_canvas(pipe) -> None:
    legs = list(walk.walk(pipe, way("techno 120 bpm", "waltz 120 bpm", "bass 120 bpm")))
    prompts = ["techno 120 bpm", "waltz 120 bpm", "bass 120 bpm"]
    whole = pipe.walk(prompts, 7, bars_per_step=3, num_inference_steps=STEPS)
    assert len(legs) == 2 and torch.equal(legs[1].whole.waveform, whole.waveform)


def test_a_walk_of_one_prompt_is_refused(stage) -> None:
    form = form_of(stage, walk.START)
    with pytest.raises(RiffError, match="prompts has 1 value; use 2 to 256"):
        form.read([control.value for control in form.inputs], prompts=walk.prompts_of("only one\n\n"))


def test_a_live_bar_walks_in_its_first_beat_and_one_that_was_thrown_away_never_was(pipe) -> None:
    was, asked = StreamRequest(prompt="techno", bpm=100.0), StreamRequest(prompt="bass", bpm=150.0)
    first = live.next_bar(pipe, None, was)
    assert np.diff(first.beats) == pytest.approx(0.6, abs=1e-6)
    assert first.clip.settings["steps"] == live.STEPS[0], "the first is to come soon"
    thrown = live.next_bar(pipe, first, was)
    bar = live.next_bar(pipe, first, asked)
    assert (first.music.bars, thrown.music.bars, bar.music.bars) == (1, 2, 2)
    assert np.diff(bar.beats)[1:] == pytest.approx(0.4, abs=1e-6)
    assert 0.4 < np.diff(bar.beats)[0] < 0.6
    told = feed("live", "0" * 16, bar.clip, text='a "b" <c>', beats=bar.beats)
    assert 'data-text="a &#34;b&#34; &lt;c&gt;"' in told and 'data-from="0.000000"' in told
    assert [float(time) for time in re.findall(r'data-beats="([^"]*)"', told)[0].split()] == pytest.approx(bar.beats)


def test_what_is_kept_of_a_bar_is_its_sound_sample_for_sample_and_says_how_it_was_made(pipe) -> None:
    shelf = Shelf()
    bar = live.next_bar(pipe, None, StreamRequest(prompt="techno", bpm=200.0))
    loud = dataclasses.replace(bar.clip, waveform=torch.full_like(bar.clip.waveform, 0.99))
    sound, _ = soundfile.read(shelf.file(f"{live.keep(shelf, loud)}.wav"))
    assert len(sound) == bar.clip.waveform.shape[-1] and np.allclose(sound, 0.99, atol=1e-4)
    assert read_made(shelf.file(f"{live.keep(shelf, bar.clip)}.wav"))["prompt"] == "techno"


def test_the_table_is_a_timeline_and_its_yaml_is_the_same(tmp_path) -> None:
    table = [
        ["0", "techno", "120", "2", "smooth", ""],
        ["", "", "", "", "", ""],
        ["4,5", "bass", "", "", "step", "A minor"],
    ]
    made = timeline.read_rows(table, 8, True, 3)
    assert [frame.bar for frame in made.keyframes] == [0.0, 4.5]
    assert made.keyframes[1].key == "A minor" and made.loop and made.seed == 3
    path = tmp_path / "song.yaml"
    path.write_text(timeline.to_yaml(made), encoding="utf-8")
    assert Timeline.load(path) == made
    drawn = xml.etree.ElementTree.fromstring(timeline.lane(made)).find("svg")
    assert len(drawn.findall("line")) == 9 and drawn.get("aria-label") == "2 keyframes in 8 bars"
    more, bars = timeline.with_row(table, 8)
    assert timeline.read_rows(more, bars, False, 3).keyframes[-1].bar == 8.5


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["x", "techno", "", "", "", ""], "keyframe 1: bar is 'x'"),
        (["", "techno", "", "", "", ""], "keyframe 1: bar is empty"),
        (["0", "", "9", "", "", ""], "keyframe 1: the prompt is empty"),
        (["0", "a", "9", "", "", ""], "keyframe 1: bpm is 9"),
        (["0", "a", "", "", "wild", ""], "keyframe 1: easing"),
    ],
)
def test_a_wrong_cell_is_named(row, said) -> None:
    with pytest.raises(RiffError, match=said):
        timeline.read_rows([row], 8, False, 0)


def test_painting_black_silences_what_is_under_it_and_leaves_the_rest(beat) -> None:
    from PIL import Image

    sheet = spectrogram.draw(str(beat))
    ground = spectrogram.editor_value(sheet)["background"]
    untouched = spectrogram.painted(sheet, ground.convert("RGBA"))
    assert torch.equal(untouched.image, sheet.image)
    half = ground.width // 2
    ground.paste((0, 0, 0), (half, 0, ground.width, ground.height))
    heard = spectrogram.play(spectrogram.painted(sheet, Image.Image.convert(ground, "RGBA")))
    middle = heard.waveform.shape[-1] // 2
    gap = heard.sample_rate // 4
    loud, quiet = heard.waveform[:, : middle - gap].std(), heard.waveform[:, middle + gap :].std()
    assert quiet < 0.01 * loud


def test_riffusions_pictures_go_both_ways(beat, tmp_path) -> None:
    sheet = spectrogram.draw(str(beat), riffusion=True)
    assert not sheet.loud_is_white
    clip = spectrogram.play(sheet)
    path = clip.save(tmp_path / "picture.png")
    again = spectrogram.open_image(str(path))
    assert again.config == sheet.config
    assert spectrogram.play(again).duration == pytest.approx(8.0, abs=0.05)
    sound = clip.save(tmp_path / "sound.wav")
    assert b"trainedAlgorithmicMedia" not in sound.read_bytes(), "a recording that was drawn is no machine's music"


def test_a_picture_on_the_beats_that_says_no_tempo_asks_for_it(tmp_path) -> None:
    from riff.spectrogram.config import SpectrogramConfig
    from riff.spectrogram.png import write_png

    config = SpectrogramConfig()
    path = write_png(tmp_path / "a.png", torch.rand(1, 256, 64), config)
    with pytest.raises(RiffError, match="switch the tempo on"):
        spectrogram.open_image(str(path))
    assert spectrogram.open_image(str(path), bpm=120.0).bpm == 120.0


def test_recordings_are_remixed_extended_and_inpainted(stage, beat) -> None:
    what = {"prompt": "techno drums", "seed": 1, "num_inference_steps": STEPS}
    remixed = edit.change(stage.pipe, "remix", str(beat), RemixRequest(**what, strength=0.5))
    assert remixed.duration == pytest.approx(8.0, abs=1e-3)
    assert edit.change(stage.pipe, "extend", str(beat), ExtendRequest(**what, bars=1)).duration > 9.0
    request = InpaintRequest(**what, **edit.mask_of(2.0, 4.0, "seconds"))
    told = edit.change(stage.pipe, "inpaint", str(beat), request)
    kept, rate = read_upload(str(beat))
    assert torch.equal(told.waveform[:, : 2 * rate], kept[:, : 2 * rate])
    assert not torch.equal(told.waveform[:, 2 * rate : 4 * rate], kept[:, 2 * rate : 4 * rate])


def test_the_part_to_replace_is_given_in_seconds_or_in_bars() -> None:
    assert edit.mask_of(1, 2.5, "seconds") == {"mask_start_seconds": 1.0, "mask_end_seconds": 2.5}
    assert edit.mask_of(0, 2, "bars") == {"mask_start_bar": 0.0, "mask_end_bar": 2.0}
    with pytest.raises(RiffError, match="the part from 2 to 2 bars is empty"):
        edit.mask_of(2, 2, "bars")


def test_a_clip_can_be_sent_on_with_a_name_and_its_bars(stage, clip) -> None:
    path = stage.shelf.named_file(stage.shelf.put(clip))
    assert path.name == "techno-120-bpm-1.wav"
    assert 'data-bar="2.000000"' in before(stage.shelf, str(path), region=True)
    shown = result_card(clip, "0" * 16)
    assert re.findall(r'data-to="(\w+)" data-clip="0{16}"', shown) == ["keep", "remix", "extend", "inpaint"]


def test_what_was_brought_is_played_before_anything_is_done(stage, beat, tmp_path) -> None:
    shown = before(stage.shelf, str(beat), region=True)
    name = re.search(r"clips/([0-9a-f]{16}\.wav)", shown)[1]
    assert soundfile.info(stage.shelf.file(name)).duration == pytest.approx(8.0)
    wrong = tmp_path / "words.wav"
    wrong.write_text("no sound")
    with pytest.raises(RiffError, match=r"^words\.wav"):
        before(stage.shelf, str(wrong))


@pytest.fixture(scope="module")
def client(stage):
    from starlette.testclient import TestClient

    with TestClient(make_app(stage), base_url="http://127.0.0.1") as found:
        yield found


def test_the_page_loads_nothing_from_elsewhere(client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert not re.findall(r'<(?:link|script|img)[^>]*(?:src|href)="(?:https?:)?//[^"]*', answer.text)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    theme = client.get("/theme.css").text
    assert "fonts.googleapis" not in theme


def test_clips_are_given_whole_in_parts_and_to_nobody_else(client, stage, clip) -> None:
    name = stage.shelf.put(clip)
    whole = client.get(f"/clips/{name}.wav")
    sound, rate = soundfile.read(io.BytesIO(whole.content), dtype="float32")
    assert rate == clip.sample_rate and np.allclose(sound, clip.waveform[0].numpy(), atol=1e-4)
    part = client.get(f"/clips/{name}.wav", headers={"Range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == whole.content[100:200]
    for path in ("/clips/..%2f..%2fetc%2fpasswd", "/clips/x.wav", f"/clips/{name}.exe", "/file=/etc/passwd"):
        assert client.get(path).status_code in (403, 404)
    assert client.get("/gradio_api/file=/etc/passwd").status_code in (403, 404)


def test_other_sites_can_link_to_the_page_and_no_more(client) -> None:
    sound = {"files": ("a.wav", b"RIFF", "audio/wav")}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.test"}):
        assert client.get("/", headers=headers).status_code == 200
        assert client.post("/gradio_api/upload", files=sound, headers=headers).status_code == 403
        assert client.get("/gradio_api/queue/data?session_hash=a", headers=headers).status_code == 403
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://127.0.0.1"}, {}):
        assert client.post("/gradio_api/upload", files=sound, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/openapi.json", "/gradio_api/openapi.json", "/docs"])
def test_the_page_describes_no_api(client, path) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 or "openapi" not in answer.text


def test_scripts_and_styles_come_from_files(client) -> None:
    for name in re.findall(r'<script src="(riff/[^"]+)"', client.get("/").text):
        answer = client.get(f"/{name}")
        assert answer.status_code == 200 and "javascript" in answer.headers["content-type"]
    assert client.get("/riff/player.js").status_code == 200
    assert client.get("/riff/../app.py").status_code == 404


def test_another_sites_name_does_not_reach_the_page(stage) -> None:
    from starlette.testclient import TestClient

    client = TestClient(make_app(stage, names=("127.0.0.1", "localhost")), base_url="http://127.0.0.1:7860")
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_play_says_what_it_lacks(monkeypatch, capsys) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main(["play"]) == 5
    assert "riff-music[ui]" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line(stage) -> None:
    import socket

    from riff.apps.playground.app import serve
    from riff.utils.errors import SystemProblem

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemProblem, match="choose another --port"):
        serve(stage, host="127.0.0.1", port=taken.getsockname()[1], announce=print, browser=False)


@pytest.fixture(scope="module")
def address(stage):
    """The page, served as ``riff play`` serves it."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(make_app(stage), port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.1)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def page(address):
    """A person's browser; in the end it must have loaded nothing from elsewhere and thrown nothing."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    asked: list[str] = []
    thrown: list[str] = []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-device-for-media-stream",  # a microphone that hears a beep at each half second
                "--use-fake-ui-for-media-stream",
            ],
        )
        found = browser.new_page(viewport={"width": 1280, "height": 900})
        found.set_default_timeout(300_000)  # of a machine whose cores others use as well
        found.on("request", lambda request: asked.append(request.url))
        found.on("pageerror", lambda error: thrown.append(str(error)))
        found.goto(address)
        found.wait_for_selector("#compose-go")
        yield found
        browser.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert thrown == []


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    page.wait_for_timeout(500)


def keep_picture(page, name: str) -> None:
    """Screenshots go where RIFF_SCREENSHOTS says, for people to look at."""
    folder = os.environ.get("RIFF_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def sound_of(page, selector: str) -> tuple[np.ndarray, int]:
    """What the player under ``selector`` would play, decoded."""
    source = page.get_attribute(f"{selector} audio", "src")
    body = page.request.get(page.url.rstrip("/") + "/" + source).body()
    return soundfile.read(io.BytesIO(body))


def heard(page) -> dict:
    names = "on, made, repeats, gaps, joins, changes, kind"
    return page.evaluate(f"(({{{names}}}) => ({{{names}}}))(window.riffLive)")


@pytest.mark.slow
def test_compose_keep_compare_and_save_in_the_browser(page, tmp_path) -> None:
    seeds = []
    for _ in range(2):
        page.click("#compose-dice")
        field = "document.querySelector('#compose-seed input').value"
        page.wait_for_function(f"seeds => {field} && !seeds.includes({field})", arg=seeds)
        seeds.append(page.input_value("#compose-seed input"))
        page.click("#compose-go")
        page.wait_for_selector(f"#compose-result .riff-facts:has-text('seed {seeds[-1]}')")
        page.click("#compose-result .riff-send[data-to=keep]")
        page.wait_for_selector(f"#riff-kept .riff-facts:has-text('seed {seeds[-1]}')")
    sound, rate = sound_of(page, "#compose-result")
    assert len(sound) / rate == pytest.approx(8 * 4 * 60 / 84, abs=0.01) and np.abs(sound).max() > 0.05
    page.click("#compose-result .riff-play")
    page.wait_for_function("document.querySelector('#compose-result audio').currentTime > 0.5")
    assert page.evaluate("parseFloat(document.querySelector('#compose-result .riff-image i').style.left)") > 1
    for kind in FORMATS:
        with page.expect_download() as download:
            page.click(f"#compose-result .riff-files a:has-text('{kind.upper()}')")
        assert download.value.suggested_filename.endswith(f"-{seeds[-1]}.{kind}")
        assert Path(download.value.path()).stat().st_size > 1000
    page.click(".riff-both")
    page.wait_for_timeout(400)
    page.click(".riff-switch")
    states = page.evaluate("[...document.querySelectorAll('.riff-kept audio')].map(a => [a.paused, a.muted])")
    assert states == [[False, True], [False, False]]
    page.click(".riff-both")
    page.click("#compose-result summary:has-text('shell')")
    keep_picture(page, "compose")
    command = page.inner_text("#compose-result .riff-code[open] pre")
    assert build_parser().parse_args(shlex.split(command)[1:]).seed == int(seeds[-1])


@pytest.mark.slow
def test_a_stop_and_a_mistake_are_told_in_one_line(page) -> None:
    open_tab(page, "Compose")
    page.click("text=More settings")
    page.locator("#compose-num_inference_steps input[type=number]").fill("100")
    page.locator("#compose-bars input[type=number]").fill("64")
    page.click("#compose-go")
    # It is written anew ten times a second, and a person's eye does not mind the moment in between.
    page.wait_for_function("/Step .* s left/.test(document.querySelector('#compose-status').innerText)")
    page.click("#compose-stop")
    page.wait_for_selector("#compose-status :text('Stopped.')", timeout=5000)
    page.fill("#compose-prompt textarea", "")
    page.keyboard.press("Tab")
    page.click("#compose-go")
    page.wait_for_selector("#compose-status [role=alert]")
    assert page.locator(".toast-body").count() == 0
    assert page.inner_text("#compose-status [role=alert]").startswith("the prompt is empty")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Remix", "Extend", "Inpaint"])
def test_a_recording_is_worked_on_in_the_browser(page, beat, name) -> None:
    tab = name.lower()
    open_tab(page, name)
    page.set_input_files(f"#{tab}-sound input[type=file]", str(beat))
    page.wait_for_selector(f"#{tab}-before .riff-card")
    if name == "Inpaint":
        page.wait_for_timeout(500)
        box = page.locator("#inpaint-before .riff-choose").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50, steps=4)
        page.mouse.up()
        page.wait_for_timeout(500)
        assert float(page.input_value("#riff-from input")) == pytest.approx(2.0, abs=0.05)
        assert float(page.input_value("#riff-to input")) == pytest.approx(4.0, abs=0.05)
    page.click(f"#{tab}-go")
    page.wait_for_selector(f"#{tab}-result .riff-card")
    old, rate = sound_of(page, f"#{tab}-before")
    new, new_rate = sound_of(page, f"#{tab}-result")
    assert rate == new_rate and len(old) == 8 * rate
    if name == "Inpaint":
        outside = np.r_[0 : int(1.9 * rate), int(4.1 * rate) : 8 * rate]
        assert np.array_equal(old[outside], new[outside]) and not np.array_equal(old, new)
    elif name == "Remix":
        assert len(new) == len(old)
    else:
        assert len(new) > len(old) and np.array_equal(new[: 7 * rate], old[: 7 * rate])
    keep_picture(page, tab)


@pytest.mark.slow
def test_a_clip_is_sent_to_inpaint_and_its_bars_are_chosen(page) -> None:
    open_tab(page, "Compose")
    page.fill("#compose-prompt textarea", "techno, 120 bpm")
    page.click("#compose-go")
    page.wait_for_selector("#compose-result h3:has-text('techno')")
    page.click("#compose-result .riff-send[data-to=inpaint]")
    page.wait_for_selector("#inpaint-before h3:has-text('techno-120-bpm')")
    page.click("#riff-unit label:has-text('bars')")
    box = page.locator("#inpaint-before .riff-choose").bounding_box()
    page.mouse.move(box["x"] + 0.26 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.49 * box["width"], box["y"] + 50, steps=4)
    page.mouse.up()
    page.wait_for_timeout(500)
    assert [float(page.input_value(f"#riff-{end} input")) for end in ("from", "to")] == [2.0, 4.0]
    page.click("#riff-unit label:has-text('seconds')")


@pytest.mark.slow
def test_what_the_microphone_hears_is_remixed_in_the_browser(page, address) -> None:
    other = page.context.browser.new_page()
    other.set_default_timeout(300_000)
    other.goto(address)
    other.wait_for_selector("#compose-go")
    open_tab(other, "Remix")
    other.click("#remix-sound button[aria-label='Record audio']")
    other.click("#remix-sound .record-button")
    other.wait_for_timeout(5000)
    other.click("#remix-sound .stop-button")
    other.wait_for_selector("#remix-before .riff-card")
    old, rate = sound_of(other, "#remix-before")
    assert len(old) / rate > 4 and np.abs(old).max() > 0.05
    other.click("#remix-go")
    other.wait_for_selector("#remix-result .riff-card")
    new, new_rate = sound_of(other, "#remix-result")
    assert len(new) / new_rate == pytest.approx(len(old) / rate, abs=1 / new_rate) and np.abs(new).max() > 0.01
    other.close()


@pytest.mark.slow
def test_a_picture_is_painted_on_and_heard_in_the_browser(page, beat) -> None:
    open_tab(page, "Spectrogram")
    page.set_input_files("#spectrogram-sound input[type=file]", str(beat))
    page.wait_for_selector("#spectrogram-editor canvas")
    page.wait_for_timeout(6000)
    page.click("#spectrogram-go")
    page.wait_for_selector("#spectrogram-result .riff-card")
    before, rate = sound_of(page, "#spectrogram-result")
    source = page.get_attribute("#spectrogram-result audio", "src")
    box = page.locator("#spectrogram-editor canvas").first.bounding_box()
    for height in np.linspace(0.4, 0.7, 12):  # a black bar through the middle of the picture
        page.mouse.move(box["x"] + box["width"] * 0.49, box["y"] + box["height"] * height)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + box["height"] * height, steps=4)
        page.mouse.up()
    page.wait_for_timeout(1500)
    page.click("#spectrogram-go")
    page.wait_for_function(f"document.querySelector('#spectrogram-result audio').getAttribute('src') != '{source}'")
    after, _ = sound_of(page, "#spectrogram-result")
    keep_picture(page, "spectrogram")
    assert len(before) == len(after)
    early = slice(0, 3 * rate)
    assert np.abs(after[early]).mean() == pytest.approx(np.abs(before[early]).mean(), rel=0.1)
    assert not np.allclose(before, after)


@pytest.mark.slow
def test_a_timeline_is_edited_rendered_and_saved_in_the_browser(page) -> None:
    open_tab(page, "Timeline")
    page.click("#timeline-add")
    page.wait_for_selector("#timeline-lane svg[aria-label='4 keyframes in 16 bars']")
    page.click("#timeline-go")
    page.wait_for_selector("#timeline-result .riff-card")
    sound, rate = sound_of(page, "#timeline-result")
    assert 25 < len(sound) / rate < 60
    with page.expect_download() as download:
        page.click("#timeline-yaml a")
    assert "funky disco" in Path(download.value.path()).read_text()
    keep_picture(page, "timeline")


@pytest.mark.slow
def test_a_walk_is_heard_while_it_is_made(page) -> None:
    open_tab(page, "Walk")
    page.click("#walk-go")
    page.wait_for_function("window.riffLive.made >= 1")
    page.wait_for_function("window.riffLive.made >= 3")
    keep_picture(page, "walk")
    state = heard(page)
    assert state["on"] and state["gaps"] == 0
    page.wait_for_selector("#walk-result h3:has-text('funky disco')")
    sound, rate = sound_of(page, "#walk-result")
    assert 30 < len(sound) / rate < 40
    page.click("#walk-stop")
    page.wait_for_function("!window.riffLive.on")


def laid(page, joins: list[dict]) -> tuple[np.ndarray, int, list[float]]:
    """What Live played from the first bar on, laid out of the files that the page got; and when its beats came."""
    rate, origin, beats = page.evaluate("window.riffLive.context.sampleRate"), joins[0]["at"], []
    sound = np.zeros(round((joins[-1]["until"] - origin) * rate))
    for join in joins:
        bar, found = soundfile.read(io.BytesIO(page.request.get(page.url.rstrip("/") + "/" + join["source"]).body()))
        place = (join["at"] - origin) * rate
        assert found == rate and place == pytest.approx(round(place), abs=1e-3), "it begins on a sample"
        sound[round(place) : round(place) + len(bar)] += bar
        beats += [join["at"] - origin + beat for beat in join["beats"][:-1]]
    return sound, rate, beats


@pytest.mark.slow
def test_live_follows_its_fields_on_the_beat_without_a_gap(page, stage, monkeypatch) -> None:
    """With clicks for music. Where this machine is too busy to keep up, bars are heard again, but on the beat."""
    monkeypatch.setattr(DiffusionModel, "sample_images", clicks)
    open_tab(page, "Live")
    tempo = page.locator("#live-bpm input[type=number]")
    tempo.fill("60")
    page.click("#live-go")
    page.wait_for_function("window.riffLive.made >= 3")
    assert "60 bpm" in page.inner_text("#live-now")
    tempo.fill("90")
    page.wait_for_function("document.querySelector('#live-now').innerText.includes('90 bpm')")
    page.wait_for_function("count => window.riffLive.made >= count", arg=heard(page)["made"] + 2)
    keep_picture(page, "live")
    state = heard(page)
    page.click("#live-stop")
    joins, changed = state["joins"], state["changes"][0]["at"]
    new = [join for join in joins if not join["repeated"]]
    assert state["gaps"] == 0
    assert [join["seamless"] for join in new] == [False] + [True] * (len(new) - 1)
    for last, following in itertools.pairwise(joins):
        if following["seamless"]:
            assert following["at"] == pytest.approx(last["until"], abs=1e-9), "it begins with the sample after the last"
    sound, rate, beats = laid(page, joins)
    assert onsets(sound, rate) == pytest.approx(beats, abs=0.02), "every beat is heard when it is due, and no other"
    way = 4 * next(number for number, join in enumerate(joins) if "90" in join["text"])
    steps = np.diff(beats)
    assert steps[:way] == pytest.approx(1.0, abs=1e-3), "the beat goes on over the joins"
    assert steps[way + 2 : way + 4] == pytest.approx(60 / 90, abs=1e-3), "the new tempo is there within half a bar"
    assert sum("60" in join["text"] for join in new if join["came"] > changed) <= 1, "what was being drawn, and the way"
    if len(new) == len(joins):
        heard_after = np.interp([changed - joins[0]["at"], beats[way + 2]], beats, np.arange(len(beats)))
        assert heard_after[1] - heard_after[0] <= 8
    page.wait_for_function("!window.riffLive.on")


@pytest.mark.slow
def test_the_page_fits_a_phone_and_is_played_by_keyboard(page, address) -> None:
    phone = page.context.browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    phone.goto(address)
    phone.wait_for_selector("#compose-go")
    phone.locator("#compose-prompt textarea").focus()
    phone.keyboard.type(" techno")
    phone.locator("#compose-go").focus()
    phone.keyboard.press("Enter")
    phone.wait_for_selector("#compose-result .riff-card", timeout=300_000)
    button, result = (phone.locator(name).bounding_box() for name in ("#compose-go", "#compose-result"))
    assert 0 < result["y"] - button["y"] - button["height"] < 100
    tabs = [phone.get_by_role("tab", name=name, exact=True) for name in ("Compose", "Inpaint", "Spectrogram", "Live")]
    assert all(tab.is_visible() and tab.bounding_box()["x"] + tab.bounding_box()["width"] <= 390 for tab in tabs)
    unnamed = "img:not([alt]), canvas:not([aria-label])"
    assert phone.locator(unnamed).count() == 0
    phone.locator("#compose-result .riff-image").focus()
    phone.keyboard.press("Enter")
    phone.wait_for_function("!document.querySelector('#compose-result audio').paused")
    phone.keyboard.press("ArrowRight")
    phone.wait_for_function("document.querySelector('#compose-result audio').currentTime > 1")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    keep_picture(phone, "phone")
    phone.close()

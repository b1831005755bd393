"""The server's other routes: Riffusion's own contract, uploads, endless streams, and what one job does to another."""

import base64
import concurrent.futures
import dataclasses
import gc
import io
import json
import select
import socket
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi_offline")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")
httpx = pytest.importorskip("httpx")

import av  # noqa: E402
import PIL.Image  # noqa: E402
import torch  # noqa: E402
from PIL.PngImagePlugin import PngInfo  # noqa: E402

from riff.apps.server.jobs import JobStopped, ModelJob, Result  # noqa: E402
from riff.apps.server.queue import WorkQueue  # noqa: E402
from riff.apps.server.riffusion import MASKS, SEEDS, seed_image, seed_mask  # noqa: E402
from riff.apps.server.settings import ApiError, Metrics, Settings, human  # noqa: E402
from riff.audio.io import save_audio  # noqa: E402
from riff.spectrogram.config import SpectrogramConfig  # noqa: E402
from riff.utils.errors import checkpoint  # noqa: E402
from tests.apps.servers import PATIENCE_S, InProcess, Nothing, until  # noqa: E402


@pytest.fixture(scope="module")
def server(pipe) -> Iterator[InProcess]:
    running = InProcess(pipe, queue_size=4, max_seconds=60, max_streams=1)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def riffusion(riffusion_pipe) -> Iterator[InProcess]:
    running = InProcess(riffusion_pipe)
    yield running
    running.stop()


def inference(
    alpha: Any = 0, *, prompts: tuple[str, str] = ("jazz", "jazz"), seeds: tuple[Any, Any] = (3, 4), **more: Any
) -> dict:
    """A request as Riffusion's web app sends it."""
    ends = [
        {"prompt": text, "seed": seed, "denoising": 0.75, "guidance": 7}
        for text, seed in zip(prompts, seeds, strict=True)
    ]
    return {"alpha": alpha, "num_inference_steps": 4, "seed_image_id": "og_beat", "mask_image_id": None,
            "start": ends[0], "end": ends[1], **more}  # fmt: skip


def sound_of(url: str) -> tuple[Any, int]:
    import soundfile

    kind, _, text = url.partition(",")
    assert kind == "data:audio/wav;base64"
    return soundfile.read(io.BytesIO(base64.b64decode(text, validate=True)))


@pytest.mark.parametrize("door", ["/run_inference", "/run_inference/"])
@pytest.mark.parametrize("kind", ["server", "riffusion"])
def test_the_web_app_s_request_is_answered_at_both_doors(request, kind: str, door: str) -> None:
    running = request.getfixturevalue(kind)
    reply = running.http.post(door, content=json.dumps(inference(0.25)))
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/json"
    got = reply.json()
    assert set(got) == {"image", "audio", "duration_s"}
    assert base64.b64decode(got["image"].removeprefix("data:image/jpeg;base64,")).startswith(b"\xff\xd8")
    samples, rate = sound_of(got["audio"])
    assert len(samples) / rate == got["duration_s"]


@pytest.mark.parametrize("kind", ["server", "riffusion"])
def test_clips_are_equally_long_and_a_pair_ends_where_the_next_starts(request, kind: str) -> None:
    running = request.getfixturevalue(kind)
    body = [
        inference(1, seeds=(3, 4)),
        inference(0, seeds=(4, 5)),
        inference(0.5, prompts=("slow 60 bpm lullaby", "fast techno, 180 bpm")),
        inference(0, seed_image_id="vibes", prompts=("waltz", "waltz")),
    ]
    got = [running.http.post("/run_inference/", json=each).json() for each in body]
    assert len({each["duration_s"] for each in got}) == 1
    assert (sound_of(got[0]["audio"])[0] == sound_of(got[1]["audio"])[0]).all()
    assert got[0]["audio"] != got[2]["audio"]


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 1.0009},
        {"alpha": None},
        {"mask_image_id": ""},
        {"mask_image_id": "mask_gradient_top_70"},
        {"num_inference_steps": None},
        {"seed_image_id": None},
        {"seed_image_id": "marim"},
        {"surprise": {"deep": []}},
        {"start": {"prompt": "jazz", "seed": 1}},
        {"start": {"prompt": "jazz", "seed": None, "denoising": None, "guidance": None}},
        {"start": {"prompt": "", "seed": 1}},
        {"start": {"prompt": "(((", "seed": 1}},
        {"start": {"prompt": "a ] AND [ b", "seed": 1, "negative_prompt": "((x"}},
        {"start": {"prompt": "jazz " * 1000, "seed": -7, "denoising": 9, "guidance": -3}},
        {"end": {"prompt": "jazz", "seed": 2.0, "denoising": 0}},
        {"end": {"prompt": "jazz", "seed": 2**70}},
    ],
    ids=lambda change: json.dumps(change)[:50],
)
def test_what_the_web_app_can_send_by_accident_is_answered(server: InProcess, change: dict) -> None:
    body = {**inference(0.5), "num_inference_steps": 2, **change}
    if body["num_inference_steps"] is None:
        body["start"] = {**body["start"], "denoising": 0.04}
        body["end"] = {**body["end"], "denoising": 0.04}
    reply = server.http.post("/run_inference/", json=body)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"7", b"null", b"\xff", b"[" * 100_000),
        *(json.dumps(inference(seed_image_id=text)).encode() for text in ("nope", "../../etc/passwd", "/etc", "a\x00b")),  # noqa: E501
        *(json.dumps(inference(mask_image_id=text)).encode() for text in ("..\\x", "C:\\x", 7)),
        *(json.dumps({key: inference()[key] for key in inference() if key != gone}).encode() for gone in ("start", "alpha")),  # noqa: E501
        json.dumps(inference(start={"prompt": "jazz"})).encode(),
        json.dumps(inference(start={"prompt": 7, "seed": 1})).encode(),
        json.dumps(inference(alpha="much")).encode(),
    ],
    ids=lambda body: repr(body)[:30],
)  # fmt: skip
def test_what_cannot_be_mended_is_refused_in_json(server: InProcess, body: bytes) -> None:
    reply = server.http.post("/run_inference", content=body)
    assert reply.status_code == 400 and set(reply.json()) == {"error", "id"}
    assert "passwd" not in reply.text


def test_baseten_s_wrapping(server: InProcess) -> None:
    assert "audio" in server.http.post("/run_inference", json={"worklet_input": inference()}).json()["output"]


def test_seeds_are_ours_distinct_deterministic_and_close_round(mini_config) -> None:
    assert set(SEEDS) == {"og_beat", "agile", "marim", "motorway", "vibes"}
    images = {name: seed_image(name, mini_config) for name in SEEDS}
    for name, image in images.items():
        assert image.shape == (1, 32, 64) and torch.equal(image, seed_image(name, mini_config))
        assert sum(torch.equal(image, other) for other in images.values()) == 1
        assert float(image.std()) > 0.05
    for name in MASKS:
        mask = seed_mask(name, mini_config)
        assert mask.shape == (32, 64) and 0.1 <= float(mask.min()) < float(mask.max()) <= 1.0


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> bytes:
    beat = torch.zeros(1, 8000 * 6)
    for place in range(0, 8000 * 6, 4000):
        beat[:, place : place + 400] = 0.5 * torch.sin(torch.arange(400) * 0.3) * torch.linspace(1, 0, 400)
    return save_audio(tmp_path_factory.mktemp("sent") / "beat.wav", beat, 8000).read_bytes()


DRAWING = {"prompt": "jazz", "num_inference_steps": "2", "bpm": "120", "downbeat": "0", "quality": "fast"}


@pytest.mark.parametrize(
    ("kind", "more", "longer"),
    [
        ("remix", {"strength": "0.5"}, 0.0),
        ("extend", {"bars": "1"}, 2.0),
        ("inpaint", {"mask_start_seconds": "[2]", "mask_end_seconds": "[3.5]"}, 0.0),
    ],
)
def test_a_recording_is_sent_as_a_form_and_comes_back(server: InProcess, recording, kind, more, longer) -> None:
    import soundfile

    files = {"audio": ("../../etc/evil\x00name.exe", recording)}
    reply = server.http.post(f"/v1/{kind}", data={**DRAWING, **more}, files=files)
    assert reply.status_code == 200, reply.text
    samples, rate = soundfile.read(io.BytesIO(reply.content))
    assert rate == 8000 and len(samples) / rate == pytest.approx(6.0 + longer, abs=0.02)


def test_a_recording_is_sent_in_base64_encoded_and_played_again(server: InProcess, recording) -> None:
    text = base64.b64encode(recording).decode()
    encoded = server.http.post("/v1/encode", json={"audio": text, "bpm": 120})
    assert encoded.status_code == 200 and encoded.content.startswith(b"\x89PNG"), encoded.text
    played = server.http.post("/v1/decode", files={"picture": encoded.content}, data={"quality": "fast"})
    assert played.status_code == 200, played.text
    assert json.loads(played.headers["x-riff-facts"])["duration_s"] == pytest.approx(6.0, abs=0.01)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
def test_the_tempo_that_riff_wrote_into_its_own_file_is_taken(server: InProcess, kind: str) -> None:
    body = {"prompt": "jazz", "bpm": 101.5, "num_inference_steps": 1, "quality": "fast", "format": kind}
    made = server.http.post("/v1/render", json=body).content
    sent = {"prompt": "techno", "num_inference_steps": "1", "quality": "fast"}
    reply = server.http.post("/v1/remix", data=sent, files={"audio": made})
    assert reply.status_code == 200, reply.text
    assert json.loads(reply.headers["x-riff-facts"])["bpm"] == 101.5


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def bomb(width: int, height: int) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def wav(code: int, *, rate: int = 8000, channels: int = 1, data: bytes = bytes(64)) -> bytes:
    form = struct.pack("<HHIIHH", code, channels, rate, rate * 2 * channels, 2 * channels & 0xFFFF, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("field", "content"),
    [
        ("audio", b""),
        ("audio", b"no sound at all"),
        ("audio", b"\x89PNG\r\n\x1a\n"),
        ("audio", wav(0x11)),
        ("audio", wav(1, rate=0)),
        ("audio", wav(1, channels=65535)),
        ("audio", wav(1, data=b"")),
        ("image", b"GIF89a" + bytes(100)),
        ("image", bomb(60_000, 60_000)),
        ("image", b"%!PS-Adobe-3.0 EPSF-3.0"),
        ("image", bomb(64, 64)[:60]),
    ],
    ids=["empty", "text", "png", "adpcm", "rate 0", "65535 channels", "no samples", "gif", "bomb", "eps", "cut off"],
)
def test_what_is_no_sound_or_image_is_refused_by_one_line(server: InProcess, field: str, content: bytes) -> None:
    reply = server.http.post("/v1/encode" if field == "audio" else "/v1/decode", files={field: ("x", content)})
    assert reply.status_code == 422, reply.text
    assert "/" not in reply.json()["error"] and "riff-upload" not in reply.text


@pytest.mark.parametrize("change", [{"n_fft": 2**18, "hop_length": 1}, {"win_length": 2**18, "n_fft": 2**18}], ids=str)
def test_an_image_cannot_ask_for_gigabytes(server: InProcess, change: dict) -> None:
    config = {**SpectrogramConfig(grid="seconds").to_dict(), **change}
    chunks = PngInfo()
    chunks.add_text("riff", json.dumps({"config": config, "metadata": {}}))
    file = io.BytesIO()
    PIL.Image.new("L", (2000, config["n_mels"])).save(file, format="PNG", pnginfo=chunks)
    reply = server.http.post("/v1/decode", files={"image": file.getvalue()})
    assert reply.status_code == 422, reply.text


def test_a_recording_that_only_ffmpeg_reads_is_taken(server: InProcess) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(torch.zeros(1, 44_100).numpy(), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux([*stream.encode(frame), *stream.encode(None)])
    reply = server.http.post("/v1/encode", files={"audio": file.getvalue()})
    assert reply.status_code == 200, reply.text
    assert json.loads(reply.headers["x-riff-facts"])["duration_s"] == pytest.approx(1.0, abs=0.1)


def test_a_recording_that_ends_early_is_reported(server: InProcess, recording) -> None:
    reply = server.http.post("/v1/encode", files={"audio": recording[: len(recording) // 2]})
    assert reply.status_code == 200, reply.text
    assert json.loads(reply.headers["x-riff-facts"])["faults"]


def test_the_earlier_name_of_an_image_s_field_is_understood(server: InProcess) -> None:
    image = bomb(64, 64)[:60]
    sent = base64.b64encode(image).decode()
    texts = [
        server.http.post("/v1/decode", files={"picture": image}).json()["error"],
        server.http.post("/v1/decode", json={"picture": sent}).json()["error"],
    ]
    assert all("the image is damaged" in text for text in texts)


def test_forms_and_base64_that_are_wrong_are_refused(server: InProcess) -> None:
    def status(path: str, **sent: Any) -> int:
        return server.http.post(path, **sent).status_code

    assert status("/v1/encode", json={"audio": "!!!"}) == 422
    assert status("/v1/encode", json={}) == 422
    assert status("/v1/encode", data={"bpm": "90"}, files={"other": b"x"}) == 422
    assert status("/v1/encode", data={"bpm": "fast"}, files={"audio": b"x"}) == 422
    assert status("/v1/encode", content=b"--x", headers={"content-type": "multipart/form-data"}) == 400
    assert status("/v1/encode", content=b"x", headers={"content-type": "multipart/form-data; boundary=y"}) in (400, 422)


def test_a_long_recording_is_refused_before_it_fills_the_memory(server: InProcess, tmp_path) -> None:
    silence = save_audio(tmp_path / "long.flac", torch.zeros(1, 8000 * 90), 8000).read_bytes()
    assert "60 s" in server.http.post("/v1/encode", files={"audio": silence}).json()["error"]


def test_many_large_bodies_at_once_are_refused_before_they_fill_the_memory(pipe) -> None:
    running = InProcess(pipe, max_body=1000)
    host, port = running.http.base_url.host, running.http.base_url.port
    head = (
        b"POST /v1/render HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n"
    )
    senders = [socket.create_connection((host, port), PATIENCE_S) for _ in range(9)]
    for sender in senders:
        sender.sendall(head + b" " * 950)
    (refused, *_), _, _ = select.select(senders, [], [], PATIENCE_S)
    assert b" 503 " in refused.recv(4096)
    for sender in senders:
        sender.close()
    until(lambda: running.http.post("/v1/render", content=b"x" * 900).status_code == 415)
    running.stop()


def test_a_defect_is_reported_by_its_id_alone(server: InProcess, monkeypatch) -> None:
    def broken(job: ModelJob) -> ModelJob:
        raise RuntimeError("my secret at /root/place.py")

    monkeypatch.setattr(server.queue, "submit", broken)
    reply = server.http.post("/v1/render", json={"prompt": "jazz"})
    assert reply.status_code == 500 and set(reply.json()) == {"error", "id"}
    assert reply.json()["id"] in reply.json()["error"] and "secret" not in reply.text


@pytest.mark.parametrize("kind", ["mp3", "ogg"])
def test_a_stream_plays_on_and_walks_where_it_is_steered(server: InProcess, kind: str) -> None:
    import soundfile

    query = {"prompt": "jazz", "bpm": 400, "format": kind, "id": f"stream-{kind}", "num_inference_steps": 2, "seed": 1}
    received = b""
    with server.http.stream("GET", "/v1/stream", params=query) as reply:
        assert reply.status_code == 200 and reply.headers["x-stream-id"] == f"stream-{kind}"
        assert server.http.get("/v1/stream", params={**query, "id": "another-one"}).status_code == 429
        began = time.monotonic()
        for number, part in enumerate(reply.iter_raw()):
            received += part
            if number == 1:
                got = server.http.patch(f"/v1/stream/stream-{kind}", json={"prompt": "techno", "bpm": 200})
                assert got.status_code == 200 and got.json()["within_bars"] == 2
            if number == 6:
                break
        took = time.monotonic() - began
    samples, rate = soundfile.read(io.BytesIO(received))
    # At most three bars at 400 bpm, the way, and bars at 200: gone there within a bar and a quarter of being steered.
    assert len(samples) / rate > 4.5
    assert took > 2.0, "it is sent as it is played, and not as fast as it can be generated"
    until(lambda: "riff_streams 0.0" in server.http.get("/metrics").text)
    assert server.http.patch(f"/v1/stream/stream-{kind}", json={"bpm": 90}).status_code == 404


def test_a_server_that_goes_down_ends_its_streams(pipe) -> None:
    running = InProcess(pipe)
    query = {"prompt": "jazz", "bpm": 200, "num_inference_steps": 1}
    with running.http.stream("GET", "/v1/stream", params=query) as reply:
        parts = reply.iter_raw()
        assert next(parts)
        running.server.should_exit = True
        for _ in parts:
            pass
    running.stop()


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 422), ("prompt=", 422), ("prompt=jazz&bpm=x", 422), ("prompt=a&prompt=b", 400), ("prompt=a&id=../x", 409),
     ("prompt=jazz&format=wav", 422), ("prompt=(((", 422)],
)  # fmt: skip
def test_streams_that_cannot_be_are_refused(server: InProcess, query: str, status: int) -> None:
    assert server.http.get(f"/v1/stream?{query}").status_code == status


def made(queue: WorkQueue, work: Any, **options: Any) -> ModelJob:
    return queue.submit(ModelJob("render", None, work, time.monotonic() + PATIENCE_S, **options))


@pytest.fixture
def queue() -> Iterator[WorkQueue]:
    running = WorkQueue(lambda: Nothing(), Settings(queue_size=8, batch_size=4), Metrics())  # type: ignore[arg-type, return-value]
    running.start()
    until(lambda: running.state == "ready")
    yield running
    running.close(PATIENCE_S)


def good(pipe: Any, jobs: Any) -> list[Result]:
    return [Result(b"x", "audio/wav") for _ in jobs]


@pytest.mark.parametrize(
    "error", [RuntimeError("boom"), MemoryError(), torch.OutOfMemoryError("CUDA"), OSError(28, "full"), JobStopped()]
)
def test_a_job_that_fails_leaves_the_worker_alive_and_says_nothing(queue: WorkQueue, error: Exception) -> None:
    def bad(pipe: Any, jobs: Any) -> list[Result]:
        raise error

    failed, after = made(queue, bad), made(queue, good)
    until(lambda: after.finished)
    assert after.state == "done" and failed.state == "failed"
    assert failed.fault is not None and failed.fault.status in (500, 503) and "boom" not in failed.fault.message


def test_similar_jobs_are_done_together_and_fail_alone(queue: WorkQueue) -> None:
    sizes, block = [], threading.Event()

    def hold(pipe: Any, jobs: Any) -> list[Result]:
        block.wait(PATIENCE_S)
        return good(pipe, jobs)

    def work(pipe: Any, jobs: Any) -> list[Result]:
        sizes.append(len(jobs))
        if any(job.request_id == "bad" for job in jobs):
            raise RuntimeError("one of them")
        return good(pipe, jobs)

    made(queue, hold)
    jobs = [made(queue, work, group="a") for _ in range(3)]
    jobs += [made(queue, work, group="b"), made(queue, work, group="b", request_id="bad"), made(queue, work, group="a")]
    block.set()
    until(lambda: all(job.finished for job in jobs))
    assert sizes == [3, 2, 1, 1, 1]  # in the order they came; the second batch again, one by one
    assert [job.state for job in jobs] == ["done"] * 4 + ["failed", "done"]


def test_a_batch_is_byte_for_byte_what_its_jobs_are_alone(pipe) -> None:
    from riff.apps.server.handlers import Handlers, render_group
    from riff.apps.server.schemas import Call, Reply
    from riff.tasks.requests import RenderRequest

    handlers = Handlers(Settings(), Metrics())
    requests = [
        RenderRequest(prompt=text, seed=7, num_inference_steps=2, quality="fast") for text in ("jazz", "techno")
    ]
    assert len({render_group(each) for each in requests}) == 1
    calls = [Call(each, Reply()) for each in requests]
    jobs = [ModelJob("render", each, handlers.render, time.monotonic() + 60) for each in calls]
    together = handlers.render(pipe, jobs)
    assert [one.content for one in together] == [handlers.render(pipe, [job])[0].content for job in jobs]


def test_a_message_holds_no_path_and_no_prompt() -> None:
    got = human(
        "/tmp/riff-upload-x/upload: prompt opens '(my secret…' at C:\\Users\\me\\x; use 3/4", ["(my secret thing"]
    )
    assert "secret" not in got and "tmp" not in got and "Users" not in got and "3/4" in got


def test_a_queue_that_goes_down_hands_back_what_waits(queue: WorkQueue) -> None:
    started, going_down = threading.Event(), threading.Event()

    def slow(pipe: Any, jobs: Any) -> list[Result]:
        started.set()
        going_down.wait(PATIENCE_S)
        return good(pipe, jobs)

    running, waiting = made(queue, slow), made(queue, good)
    assert started.wait(PATIENCE_S)
    queue.drain()
    going_down.set()
    queue.close(PATIENCE_S)
    assert running.state == "done" and waiting.fault is not None and waiting.fault.status == 503
    with pytest.raises(ApiError):
        made(queue, good)


def test_a_finished_job_holds_nothing_of_its_request(queue: WorkQueue) -> None:
    class Upload:
        size = 100

    upload = Upload()
    kept = weakref.ref(upload)
    job = queue.submit(
        ModelJob("remix", upload, lambda pipe, jobs: good(pipe, jobs), time.monotonic() + PATIENCE_S, kept=True)
    )
    del upload
    until(lambda: job.finished)
    until(lambda: gc.collect() is not None and kept() is None)
    assert job.size == 0 and queue.find(job.id) is job


def test_a_failed_job_holds_nothing_of_its_work(queue: WorkQueue) -> None:
    held: list[Any] = []

    def bad(pipe: Any, jobs: Any) -> list[Result]:
        latents = torch.zeros(10)
        held.append(weakref.ref(latents))
        try:
            raise ValueError(latents)
        except ValueError as error:
            raise RuntimeError("of it") from error

    job = made(queue, bad, kept=True)
    until(lambda: job.finished)
    until(lambda: gc.collect() is not None and held[0]() is None)


def test_uploads_that_wait_are_counted(queue: WorkQueue) -> None:
    @dataclasses.dataclass
    class Upload:
        size: int

    release = threading.Event()

    def hold(pipe: Any, jobs: Any) -> list[Result]:
        release.wait(PATIENCE_S)
        return good(pipe, jobs)

    def send(size: int) -> ModelJob:
        return queue.submit(ModelJob("remix", Upload(size), hold, time.monotonic() + PATIENCE_S))

    whole = queue.settings.queue_bytes
    first = send(whole + 1)  # alone it may be large
    with pytest.raises(ApiError, match="large uploads") as caught:
        send(1)
    assert caught.value.status == 429
    release.set()
    until(lambda: first.finished)
    send(1)


def test_a_job_is_stopped_between_two_steps_of_its_work(queue: WorkQueue) -> None:
    began = threading.Event()

    def endless(pipe: Any, jobs: Any) -> list[Result]:
        began.set()
        while True:
            checkpoint()
            time.sleep(0.001)

    job = made(queue, endless)
    assert began.wait(PATIENCE_S)
    queue.cancel(job)
    after = made(queue, good)
    until(lambda: after.finished)
    assert job.state == "cancelled" and after.state == "done"


@pytest.mark.parametrize("key_tries", [0, 2])
def test_a_render_is_planned_once(server: InProcess, monkeypatch, key_tries: int) -> None:
    planned = []
    interpret = type(server.pipe.model).interpret

    def counted(*args: Any, **options: Any) -> Any:
        planned.append(args)
        return interpret(*args, **options)

    monkeypatch.setattr(type(server.pipe.model), "interpret", counted)
    body = {"prompt": "jazz", "num_inference_steps": 1, "quality": "fast", "key": "C major", "key_tries": key_tries}
    assert server.http.post("/v1/render", json=body).status_code == 200
    assert len(planned) == 1


@pytest.mark.slow
def test_a_thousand_requests_do_not_grow_the_process(server: InProcess) -> None:
    resource = pytest.importorskip("resource")

    def one(number: int) -> int:
        body = {"prompt": "jazz", "num_inference_steps": 1, "bars": 1, "quality": "fast", "seed": number}
        return int(server.http.post("/v1/render", json=body).status_code)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(200))) == {200}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert set(pool.map(one, range(800))) == {200}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1.05 * before

"""The server as a process: drawing, jobs, the queue, limits, and how it ends."""

import concurrent.futures
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi_offline")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")

import torch  # noqa: E402

from riff.spectrogram.config import SpectrogramConfig  # noqa: E402
from riff.spectrogram.png import write_png  # noqa: E402
from tests.apps.servers import PATIENCE_S, Running, raw, until  # noqa: E402

QUICK = {"prompt": "jazz piano", "num_inference_steps": 2, "quality": "fast"}
# Long enough to be cancelled in its midst.
SLOW = {"prompt": "techno drums", "num_inference_steps": 150, "bars": 64, "quality": "fast"}
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def server(mini_checkpoint, tmp_path_factory) -> Iterator[Running]:
    options = (
        *("--queue", "3", "--idle", str(PATIENCE_S), "--max-body", "1", "--deadline", str(PATIENCE_S)),
        *("--allow-origin", "http://ok.example"),
    )
    running = Running(mini_checkpoint, tmp_path_factory.mktemp("server") / "log", *options)
    yield running.ready()
    assert running.stop() == 0, running.log.read_text()


def seconds(content: bytes) -> float:
    import soundfile

    with soundfile.SoundFile(io.BytesIO(content)) as file:
        return file.frames / file.samplerate


def state(server: Running, job: str) -> str:
    return server.http.get(f"/v1/jobs/{job}").json()["state"]


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "png"])
def test_a_prompt_comes_back_as_a_file_of_the_requested_format(server: Running, kind: str) -> None:
    reply = server.http.post("/v1/render", json={**QUICK, "bars": 1, "bpm": 120, "seed": 4, "format": kind})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == {"png": "image/png", "mp3": "audio/mpeg"}.get(kind, f"audio/{kind}")
    assert json.loads(reply.headers["x-riff-facts"])["seed"] == 4
    if kind == "png":
        assert reply.content.startswith(b"\x89PNG")
    else:
        assert seconds(reply.content) == pytest.approx(2.0, abs=0.3 if kind == "mp3" else 1e-9)


def test_equal_seeds_give_the_pipeline_s_file_alone_and_together(server: Running, pipe, tmp_path) -> None:
    body = {**QUICK, "seed": 11}
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda _: server.http.post("/v1/render", json=body), range(3)))
    assert {reply.status_code for reply in replies} == {200}
    clip = pipe(QUICK["prompt"], seed=11, num_inference_steps=2, quality="fast").clips[0]
    assert {reply.content for reply in replies} == {clip.save(tmp_path / "own.wav").read_bytes()}


def test_a_walk_and_a_timeline(server: Running) -> None:
    walk = {"prompts": ["jazz", "techno"], "bars_per_step": 3, "bpm": 120, "seed": 1, "num_inference_steps": 2}
    assert seconds(server.http.post("/v1/walk", json=walk).content) == pytest.approx(10.0, abs=0.01)
    frames = [{"prompt": "jazz", "bar": 0, "bpm": 120}, {"prompt": "techno", "bar": 2, "bpm": 120}]
    timeline = {"timeline": {"keyframes": frames, "bars": 4}, "num_inference_steps": 2}
    assert seconds(server.http.post("/v1/render", json=timeline).content) == pytest.approx(8.0, abs=0.01)


def test_a_job_has_progress_and_a_result_that_is_fetched(server: Running) -> None:
    reply = server.http.post("/v1/render?wait=false", json=QUICK)
    assert reply.status_code == 202
    job = reply.json()["id"]
    assert reply.headers["location"] == f"/v1/jobs/{job}"
    until(lambda: state(server, job) == "done")
    done = server.http.get(f"/v1/jobs/{job}").json()
    assert done["progress"] == 1.0 and done["steps_done"] == 2
    assert seconds(server.http.get(done["result"]).content) > 0
    # Too late to cancel, which changes nothing.
    assert server.http.delete(f"/v1/jobs/{job}").json()["state"] == "done"


def test_jobs_are_cancelled_before_and_while_they_run_and_twice(server: Running) -> None:
    running, waiting = (server.http.post("/v1/render?wait=false", json=SLOW).json()["id"] for _ in range(2))
    until(lambda: server.http.get(f"/v1/jobs/{running}").json().get("steps_done", 0) > 0)
    assert server.http.get(f"/v1/jobs/{running}/result").status_code == 409
    assert server.http.get(f"/v1/jobs/{waiting}").json()["place_in_queue"] == 0
    assert server.http.delete(f"/v1/jobs/{waiting}").json()["state"] == "cancelled"
    for _ in range(2):
        assert server.http.delete(f"/v1/jobs/{running}").json()["state"] in ("cancelling", "cancelled")
    until(lambda: state(server, running) == "cancelled")
    job = server.http.get(f"/v1/jobs/{running}").json()
    assert job["steps_done"] < job["steps_total"]
    assert server.http.get(f"/v1/jobs/{running}/result").status_code == 409
    assert server.http.delete("/v1/jobs/nothing").status_code == 404
    assert server.http.post("/v1/render", json=QUICK).status_code == 200


def test_a_client_that_goes_away_frees_its_place_within_a_step(server: Running) -> None:
    with pytest.raises(httpx.ReadTimeout):
        server.http.post("/v1/render", json=SLOW, timeout=1.0)
    until(lambda: server.gauge("riff_jobs_running") == 0 and server.gauge("riff_jobs_waiting") == 0)


def test_a_full_queue_refuses_at_once_and_keeps_the_order(server: Running) -> None:
    block = server.http.post("/v1/render?wait=false", json=SLOW).json()["id"]
    until(lambda: state(server, block) == "running")
    jobs = [server.http.post("/v1/render?wait=false", json=QUICK).json()["id"] for _ in range(3)]
    refused = server.http.post("/v1/render", json=QUICK)
    assert state(server, block) == "running", "it waited for the model"
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert server.http.get("/healthz").status_code == 200
    server.http.delete(f"/v1/jobs/{block}")
    until(lambda: state(server, jobs[-1]) == "done")
    order = [event["job"] for event in server.events() if event["event"] == "job" and event["job"] in jobs]
    assert order == jobs


GARBAGE: list[tuple[bytes, int]] = [
    (b"", 400),
    (b"{", 400),
    (b'{"prompt": "a", "prompt": "b"}', 400),
    (b'{"prompt": "a", "bpm": NaN}', 400),
    (b"[" * 100_000, 400),
    (b"\xff\xfe", 400),
    (b"[]", 422),
    (b"null", 422),
    (b"{}", 422),
    (b'{"prompt": "jazz", "surprise": 1}', 422),
    (b'{"prompt": ""}', 422),
    (b'{"prompt": "   "}', 422),
    (b'{"prompt": ["jazz"]}', 422),
    (b'{"prompt": 7}', 422),
    (b'{"prompt": null}', 422),
    (b'{"prompt": "\\ud800"}', 422),
    (b'{"prompt": "' + b"a" * 1001 + b'"}', 422),
    (b'{"prompt": "' + b"(" * 900 + b'"}', 422),
    (b'{"prompt": "jazz", "negative_prompt": "(drums"}', 422),
    (b'{"prompt": "jazz, 999 bpm"}', 422),
    *((b'{"prompt": "jazz", "num_inference_steps": %s}' % v, 422) for v in (b"0", b"-1", b"151", b"1.5", b'"20"')),
    *((b'{"prompt": "jazz", "guidance_scale": %s}' % v, 422) for v in (b"-1", b"51", b"1e999", b'"7"')),
    *((b'{"prompt": "jazz", "seed": %s}' % v, 422) for v in (b"-1", b"18446744073709551616", b"0.5", b'"1"')),
    *((b'{"prompt": "jazz", "bpm": %s}' % v, 422) for v in (b"0", b"1000", b"[]")),
    (b'{"prompt": "jazz", "bars": 512, "bpm": 20}', 422),
    (b'{"prompt": "jazz", "bars": 2, "duration": 3}', 422),
    (b'{"prompt": "jazz", "duration": 601}', 422),
    (b'{"prompt": "jazz", "keyscale": "H dur"}', 422),
    (b'{"prompt": "jazz", "key_tries": 3}', 422),
    (b'{"prompt": "jazz", "format": "../../etc/passwd"}', 422),
    (b'{"timeline": {"keyframes": 3}}', 422),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status"), GARBAGE, ids=lambda value: repr(value)[:40])
def test_garbage_is_answered_with_one_line_and_an_id(server: Running, body: bytes, status: int) -> None:
    reply = server.http.post("/v1/render", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == status, reply.text
    error = reply.json()
    assert set(error) == {"error", "id"} and "\n" not in error["error"] and len(error["error"]) <= 400
    assert error["id"] == reply.headers["x-request-id"]
    assert not re.search(r"Traceback|/root|/usr|/tmp|/work|\.py\b|passwd|aaaa|\(\(", error["error"])


@pytest.mark.parametrize("prompt", ["🎹👩‍🎤 jazz", "جاز", "jazz\nhello", "ja\u0301zz " * 60, "jazz\x00", "slow " * 150])
def test_odd_prompts_are_music_too(server: Running, prompt: str) -> None:
    assert server.http.post("/v1/render", json={**QUICK, "bars": 1, "prompt": prompt}).status_code == 200


def test_bodies_that_are_too_large_or_of_another_kind_are_refused(server: Running) -> None:
    large = b'{"prompt": "' + b"a" * MEBIBYTE + b'"}'
    typed = {"content-type": "application/json"}
    assert server.http.post("/v1/render", content=large, headers=typed).status_code == 413
    assert server.http.post("/v1/render", content=iter([large]), headers=typed).status_code == 413
    assert server.http.post("/v1/render", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    packed = {**typed, "content-encoding": "gzip"}
    assert server.http.post("/v1/render", content=b"\x1f\x8b", headers=packed).status_code == 415


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../../etc/passwd", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/v1/jobs/..%5c..%5cwindows", 404),
        ("/v1/jobs//etc/passwd", 404),
        ("/v1/jobs/a%00b", 404),
        ("/v1/jobs/C:%5cx", 404),
        ("/nothing", 404),
    ],
)
def test_no_path_leads_anywhere(server: Running, path: str, status: int) -> None:
    reply = raw(server.port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert f" {status} ".encode() in reply.splitlines()[0]
    assert b"root:" not in reply


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
def test_other_methods_are_refused(server: Running, method: str) -> None:
    assert server.http.request(method, "/v1/render").status_code == 405


def test_rebound_names_and_pages_of_strangers_are_refused(server: Running) -> None:
    def status(**headers: str) -> int:
        return server.http.get(
            "/healthz", headers={name.replace("_", "-"): text for name, text in headers.items()}
        ).status_code

    assert status(host="evil.example") == 421
    assert status(host="localhost:1") == status(host="127.0.0.1") == status(host="[::1]:3") == 200
    assert status(origin="http://evil.example") == status(origin="null") == 403
    assert status(sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    assert status(origin=server.address) == 200
    assert b" 400 " in raw(server.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").splitlines()[0]
    allowed = server.http.options("/v1/render", headers={"origin": "http://ok.example"})
    assert allowed.status_code == 204 and allowed.headers["access-control-allow-origin"] == "http://ok.example"


def test_health_is_answered_while_the_model_works(server: Running) -> None:
    job = server.http.post("/v1/render?wait=false", json=SLOW).json()["id"]
    until(lambda: state(server, job) == "running")
    for _ in range(10):
        assert server.http.get("/healthz").json()["state"] == "ready"
    assert state(server, job) == "running", "an answer waited for the model"
    server.http.delete(f"/v1/jobs/{job}")


def test_the_log_is_json_without_prompts_and_nobody_forges_a_line(server: Running) -> None:
    secret = 'xyzzy-secret\n{"event": "forged"}'
    server.http.post("/v1/render", json={**QUICK, "prompt": secret})
    server.http.post("/v1/render", json={"prompt": "(xyzzy-secret"})
    server.http.get("/v1/stream", params={"prompt": "(xyzzy-secret"})
    server.http.get("/xyzzy-secret%0a{}")
    assert "xyzzy" not in server.log.read_text() and "forged" not in {event["event"] for event in server.events()}
    requests = [event for event in server.events() if event["event"] == "request"]
    assert {"request_id", "method", "route", "status", "seconds"} <= set(requests[-1])


def test_the_pages_that_describe_it(server: Running) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    kinds = ("render", "walk", "remix", "extend", "inpaint", "encode", "decode", "stream")
    assert {f"/v1/{kind}" for kind in kinds} | {"/run_inference", "/v1/jobs/{job_id}"} <= set(paths)
    info = server.http.get("/v1/info").json()
    assert (info["loras"], len(info["model_hash"]), info["device"]) == ([], 64, "cpu")
    page = server.http.get("/", follow_redirects=True)
    assert not re.search(r"https?://(?!localhost)", page.text), "it works without the network"
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert server.http.get(address).status_code == 200
    assert "riff_requests_total" in server.http.get("/metrics").text


def test_token_and_a_sigterm_that_lets_what_runs_end(mini_checkpoint, tmp_path) -> None:
    token = "s" * 16
    bearer = {"authorization": f"Bearer {token}"}
    options = ("--deadline", str(PATIENCE_S), "--grace", str(PATIENCE_S))
    running = Running(mini_checkpoint, tmp_path / "log", *options, environment={"RIFF_TOKEN": token}).ready()
    assert running.http.post("/v1/render", json=QUICK).status_code == 401
    assert running.http.get("/v1/jobs/x", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert running.http.get("/v1/jobs/x", headers=bearer).status_code == 404
    running.http.auth = ("riff", token)  # as a player sends it
    runs = {**QUICK, "bars": 16, "num_inference_steps": 20}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        render = f"{running.address}/v1/render"
        first = pool.submit(httpx.post, render, json=runs, timeout=PATIENCE_S, headers=bearer)
        until(lambda: running.gauge("riff_jobs_running") == 1)
        second = pool.submit(httpx.post, render, json=runs, timeout=PATIENCE_S, headers=bearer)
        until(lambda: running.gauge("riff_jobs_waiting") == 1)
        assert running.stop() == 0
        assert first.result().status_code == 200 and seconds(first.result().content) > 10
        assert second.result().status_code == 503 and "retry-after" in second.result().headers
    assert running.events()[-1]["event"] == "stopped"


def test_work_past_its_deadline_is_stopped_at_its_next_step(mini_checkpoint, tmp_path) -> None:
    running = Running(mini_checkpoint, tmp_path / "log", "--deadline", "4").ready()
    assert running.http.post("/v1/render", json={**SLOW, "bars": 512, "bpm": 400}).status_code == 504
    until(lambda: running.gauge("riff_jobs_running") == 0)
    assert running.gauge("riff_denoising_steps_total") < 150
    assert running.stop() == 0


def test_sigterm_during_a_long_decode_ends_it_without_an_abort(mini_checkpoint, tmp_path) -> None:
    running = Running(mini_checkpoint, tmp_path / "log", "--grace", "0.1").ready()
    image = tmp_path / "long.png"
    write_png(image, torch.rand(1, 256, 16_000), SpectrogramConfig(grid="seconds"))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sent = {"files": {"image": image.read_bytes()}, "data": {"quality": "best"}, "timeout": PATIENCE_S}
        reply = pool.submit(httpx.post, f"{running.address}/v1/decode", **sent)
        until(lambda: running.gauge("riff_jobs_running") == 1)
        assert running.stop() == 0
        assert reply.result().status_code == 503
    assert running.events()[-1]["event"] == "stopped"


def test_a_lora_shows_in_what_a_server_makes_and_records(mini_checkpoint, tmp_path) -> None:
    from riff.diffusion.fingerprint import lora_hash
    from riff.pipeline import RiffPipeline
    from riff.tasks.provenance import read_made
    from tests.apps.test_cli_canvas import save_lora

    file = Path(save_lora(mini_checkpoint, tmp_path / "lora"))
    token = "t" * 16
    running = Running(
        mini_checkpoint, tmp_path / "log", "--lora", f"{file}:0.5", environment={"RIFF_TOKEN": token}
    ).ready()
    assert running.http.get("/v1/info").status_code == 401
    running.http.auth = ("riff", token)
    loras = running.http.get("/v1/info").json()["loras"]
    assert loras == [{"name": file.stem, "digest": lora_hash(file), "weight": 0.5}]
    got = tmp_path / "got.wav"
    got.write_bytes(running.http.post("/v1/render", json={**QUICK, "seed": 3}).content)
    assert json.loads(read_made(got)["loras"]) == loras
    assert str(tmp_path) not in running.http.get("/v1/info").text
    assert running.stop() == 0
    pipe = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    without = pipe(QUICK["prompt"], seed=3, num_inference_steps=2, quality="fast").clips[0]
    pipe.load_lora(file, weight=0.5)
    own = pipe(QUICK["prompt"], seed=3, num_inference_steps=2, quality="fast").clips[0]
    assert own.save(tmp_path / "own.wav").read_bytes() == got.read_bytes()
    assert not without.waveform.equal(own.waveform)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--host", "0.0.0.0"], 2, "token"),
        (["--model", "missing-folder/x"], 4, "missing-folder"),
        (["--lora", "missing.safetensors:0.5"], 4, "missing.safetensors is no LoRA file"),
        (["--lora", "a.safetensors:3"], 2, "the weight 3"),
        (["--port", "70000"], 2, "70000"),
        (["--allow-origin", "example.org"], 2, "origin"),
        (["--token-file", "missing"], 2, "token-file"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(words: list[str], code: int, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "riff", "serve", "--port", "0", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == code and len(lines) == 1 and says in lines[0], done.stderr


def test_without_the_extra_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from riff.apps.cli import main; sys.exit(main(['serve']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 5 and "riff-music[serve]" in done.stderr and done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_named(server: Running) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "riff", "serve", "--port", str(server.port)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 5 and f"port {server.port}" in done.stderr

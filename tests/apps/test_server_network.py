"""What stands between the network and the routes: slow, many, foreign and broken clients."""

import contextlib
import functools
import json
import random
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi_offline")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")

from starlette.datastructures import Headers  # noqa: E402

from riff.apps.server.process import PatientProtocol  # noqa: E402
from riff.apps.server.security import check_access  # noqa: E402
from riff.apps.server.settings import ApiError, Settings  # noqa: E402
from tests.apps.servers import PATIENCE_S, InProcess, Nothing, raw, until  # noqa: E402

HEAD = b"POST /v1/render HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[InProcess]:
    running = InProcess(Nothing())
    yield running
    running.stop()


@pytest.fixture(scope="module")
def impatient() -> Iterator[InProcess]:
    running = InProcess(Nothing(), idle_s=0.5)
    yield running
    running.stop()


def connect(server: InProcess, content: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
    connection.sendall(content)
    return connection


def test_a_body_that_trickles_in_is_refused_although_it_never_pauses(impatient: InProcess) -> None:
    with connect(impatient, HEAD + b"Content-Length: 999\r\n\r\n{") as slow:
        for _ in range(999):
            if select.select([slow], [], [], 0.1)[0]:
                break
            with contextlib.suppress(ConnectionError):  # it may be refused at this moment
                slow.sendall(b" ")
        assert b" 408 " in slow.recv(4096)


def test_slow_clients_are_let_go(impatient: InProcess) -> None:
    with (
        connect(impatient, b"POST /v1/render HTTP/1.1\r\nHost: loc") as head,
        connect(impatient, HEAD + b'Content-Length: 99\r\n\r\n{"pro') as body,
        connect(impatient, b"") as silent,
    ):
        assert b" 408 " in body.recv(4096)
        assert head.recv(4096) == silent.recv(4096) == b""


def test_slow_bodies_do_not_shut_out_health_probes() -> None:
    server = InProcess(Nothing(), max_connections=8)
    clients = [connect(server, HEAD + b"Content-Length: 99\r\n\r\n{") for _ in range(12)]
    refused = select.select(clients, [], [], PATIENCE_S)[0]
    assert all(b" 503 " in client.recv(4096) for client in refused)
    until(lambda: server.http.get("/v1/info").status_code == 503)
    assert server.http.get("/healthz").status_code == 200 and server.http.get("/readyz").status_code == 200
    for client in clients:
        client.close()
    until(lambda: server.http.get("/openapi.json").status_code == 200)
    server.stop()


def test_idle_connections_give_way_to_health_probes() -> None:
    server = InProcess(Nothing(), max_connections=8)
    idle = [connect(server, b"GET / HT") for _ in range(60)]
    assert b" 200 " in raw(server.port, PROBE, end=False)
    assert select.select(idle, [], [], PATIENCE_S)[0], "the oldest was closed"
    for connection in idle:
        connection.close()
    server.stop()


def test_a_client_that_does_not_read_its_reply_is_let_go() -> None:
    server = InProcess(Nothing(), idle_s=0.2)
    large = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(large)
        connections = server.server.server_state.connections
        until(lambda: connections)
        until(lambda: not connections)
    server.stop()


def test_only_a_reader_without_any_progress_is_let_go() -> None:
    waiting: list[Callable[[], None]] = []
    connection = PatientProtocol.__new__(PatientProtocol)
    connection.settings, connection.flow = Settings(), Mock()
    connection.transport = Mock(get_write_buffer_size=Mock(side_effect=[900, 800, 100, 100]))
    connection.loop = Mock(call_later=lambda delay, call, *given: waiting.append(functools.partial(call, *given)))
    connection.pause_writing()
    for _ in range(2):  # it shrinks
        waiting.pop()()
        assert not connection.transport.abort.called
    waiting.pop()()
    assert connection.transport.abort.called and not waiting


@pytest.mark.parametrize("order", [1, -1])
def test_two_lengths_of_a_body_are_refused(server: InProcess, order: int) -> None:
    lengths = [b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n"][::order]
    smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    reply = raw(server.port, HEAD + b"".join(lengths) + b"\r\n" + smuggled, end=False)
    assert reply.startswith(b"HTTP/1.1 400 ") and reply.count(b"HTTP/1.1") == 1


OTHER_SITES = [
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "audio"},
    {"referer": "http://evil.example/page"},
    {"origin": "null"},
    {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
]


@pytest.mark.parametrize("headers", OTHER_SITES, ids=str)
@pytest.mark.parametrize("path", ["/v1/stream?prompt=jazz", "/v1/jobs/x/result", "/metrics", "/v1/info"])
def test_other_sites_cannot_open_what_does_work(server: InProcess, headers: dict, path: str) -> None:
    assert server.http.get(path, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "audio"},
        {"referer": "http://localhost:3013/docs"},
        {"origin": "http://localhost:3013"},
    ],
    ids=str,
)
def test_the_user_and_the_server_s_own_pages_may(headers: dict) -> None:
    check_access("/v1/stream", Headers({"host": "localhost:3013", **headers}), Settings())


def test_a_link_elsewhere_may_open_the_docs_but_not_frame_them() -> None:
    link = {"host": "localhost", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    check_access("/docs", Headers({**link, "sec-fetch-dest": "document"}), Settings())
    with pytest.raises(ApiError):
        check_access("/docs", Headers({**link, "sec-fetch-dest": "iframe"}), Settings())


def test_every_origin_may_play_a_stream_where_all_are_allowed() -> None:
    audio = {"host": "localhost", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    check_access("/v1/stream", Headers(audio), Settings(allow_origins=("*",)))


BROKEN = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b"\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nZZZ\r\n",
    HEAD + b"Content-Length: -5\r\n\r\n",
    HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    HEAD + b"Content-Length: 3\r\n\r\n{}xGARBAGE\r\n\r\n",
    HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: [::1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n\x00\xffgarbage",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"POST /v1/remix HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=\xff\r\n"
    b"Content-Length: 9\r\n\r\n--a\r\nx\r\n\r\n",
]


@pytest.mark.parametrize("content", [BROKEN[0], BROKEN[1], BROKEN[3], BROKEN[5], BROKEN[6]], ids=repr)
def test_what_is_not_http_is_answered_in_json(server: InProcess, content: bytes) -> None:
    head, _, body = raw(server.port, content, end=False).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request") and set(json.loads(body)) == {"error"}


def mutated(chance: random.Random) -> bytes:
    content = bytearray(chance.choice(BROKEN))
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(content) + 1)
        match chance.randrange(3):
            case 0:
                del content[place : place + chance.randrange(1, 9)]
            case 1:
                content[place:place] = chance.randbytes(chance.randrange(1, 9))
            case _:
                content[place : place + 1] = chance.randbytes(1)
    return bytes(content)


def test_garbage_prints_no_traceback(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom riff.apps.server.process import serve\nfrom riff.apps.server.settings import Settings\n"
        "from tests.apps.servers import Nothing\n"
        "Nothing.__call__ = lambda self, *_, **options: None\n"
        "serve(Nothing, Settings(port=0), lambda address: print(address, flush=True), log=sys.stderr)\n"
    )
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline().strip().rstrip("/").rpartition(":")[2])
    chance = random.Random(0)
    for content in [*BROKEN, *(mutated(chance) for _ in range(300))]:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
            try:
                connection.sendall(content)
                if chance.random() < 0.5:  # else it is closed while the server answers
                    connection.settimeout(0.05)
                    connection.recv(4096)
                connection.sendall(chance.randbytes(20))
            except (TimeoutError, ConnectionError):
                pass
    assert b" 200 " in raw(port, PROBE, end=False)
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert not [event for event in events if event["level"] == "error"]


def test_every_field_and_every_response_is_described(server: InProcess) -> None:
    api = server.http.get("/openapi.json").json()

    def fields(schema: dict) -> Iterator[dict]:
        if "$ref" in schema:
            schema = api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        yield from schema.get("properties", {}).values()
        for each in schema.get("oneOf", []):
            yield from fields(each)

    for path, methods in api["paths"].items():
        for route in methods.values():
            assert route["summary"], path
            assert {"200", "403", "500", "503"} <= set(route["responses"]), path
            assert all(response["description"] for response in route["responses"].values()), path
            assert all("description" in each or each["in"] == "path" for each in route.get("parameters", [])), path
            bodies = [route.get("requestBody", {}), *route["responses"].values()]
            for content in (each for body in bodies for each in body.get("content", {}).values()):
                assert all(field.get("description") for field in fields(content.get("schema", {}))), path

"""``--engine ray``: the same data set and the same clips as without it, also when a worker is killed half-way."""

import functools
import importlib
import json
import operator
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from riff.apps.cli import main
from riff.train.data.prepare import prepare
from riff.train.data.ray import Cutter, list_remote, prepare_on_ray
from riff.train.data.settings import PrepareSettings
from riff.utils.cluster import connected, map_on_cluster
from riff.utils.errors import RiffError, SystemProblem
from tests.train.test_prepare import CONFIG, song, write

SETTINGS = PrepareSettings(CONFIG, tags=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two worker processes on this machine, which all that is asked for Ray in this module joins."""
    pytest.importorskip("ray.data")
    with connected(workers=2):
        yield


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for number in range(4):
        write(folder / f"{'album/' * (number % 2)}{number}.wav", song(100.0 + 10 * number, 14.0, seed=number))
    (folder / "0.txt").write_text("first song\n")
    (folder / "bad.wav").write_bytes(b"no sound at all")
    return folder


@pytest.fixture(scope="module")
def expected(music: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the local engine makes of it."""
    dataset = tmp_path_factory.mktemp("local") / "out"
    prepare(music, dataset, SETTINGS, workers=0)
    return content(dataset)


def content(dataset: Path) -> dict[str, bytes]:
    """The files of a data set, but for those that name their folder."""
    files = (path for split in ("train", "validation") for path in (dataset / split).glob("*"))
    return {path.relative_to(dataset).as_posix(): path.read_bytes() for path in files}


def busy_workers(at: str) -> list[int]:
    """Process numbers of this process's Ray workers that are busy with something."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title = (path / "cmdline").read_bytes().decode(errors="replace")
            if title.startswith("ray::") and at in title and parent(parent(int(path.name))) == os.getpid():
                found.append(int(path.name))
        except OSError:  # ended since
            continue
    return found


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def with_one_killed(work: Callable[[], Any], at: str, ready: Callable[[], bool]) -> Any:
    """Do some work in a thread, and kill a worker that is busy with it once there is a first result."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        while not running.done():
            if ready() and (busy := busy_workers(at)):
                os.kill(busy[0], signal.SIGKILL)
                return running.result()
            time.sleep(0.01)
        running.result()
    raise AssertionError(f"it was done before a worker was seen at {at}")


# Without a cluster


def test_ray_that_is_not_installed_is_one_line_and_exit_code_5(music, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["prepare", str(music), str(tmp_path / "out"), "--engine", "ray", "--quiet"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "riff-music[ray]" in line


def test_a_missing_cluster_is_one_line_and_exit_code_5(music, tmp_path, capsys):
    pytest.importorskip("ray")
    words = ["prepare", str(music), str(tmp_path / "out"), "--engine", "ray", "--address", "127.0.0.1:9", "--quiet"]
    began = time.monotonic()
    assert main(words) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "127.0.0.1:9 cannot be joined" in line
    assert time.monotonic() - began < 30.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["prepare", "m", "d", "--address", "head:6379"], "goes with --engine ray"),
        (["prepare", "m", "d", "--engine", "ray", "--workers", "0"], "--workers 0"),
        (["prepare", "s3://music", "d"], "is a URL; --engine ray"),
        (["prepare", "m", "s3://data"], "is a URL; --engine ray"),
        (["prepare", "nothing://music", "d", "--engine", "ray"], "no file system"),
        (["render", "jazz", "-o", "x.wav", "--engine", "ray"], "goes with --prompts"),
        (["render", "--prompts", "x.txt", "-o", "x", "--workers", "2"], "goes with --engine ray"),
        (["render", "--prompts", "x.txt", "-o", "x", "--address", "a:1"], "goes with --engine ray"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(words, says, capsys, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["head", "head:port", "http://head:1", "a b:1"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(RiffError, match="use HOST:PORT") as caught, connected(address):
        pass
    assert not isinstance(caught.value, SystemProblem)


# File systems


@pytest.fixture
def memory() -> Iterator[str]:
    fsspec = pytest.importorskip("fsspec")
    yield "memory://riff-test"
    system = fsspec.filesystem("memory")
    if system.exists("/riff-test"):
        system.rm("/riff-test", recursive=True)


def test_names_that_lead_out_of_the_folder_are_not_fetched(memory, tmp_path):
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe_file("/riff-test/a/../../x.wav", b"1")
    system.pipe_file("/riff-test/b.wav", b"1")
    assert [source.name for source in list_remote(memory, tmp_path / "here").sources] == ["b.wav"]
    assert [path.name for path in tmp_path.rglob("*.wav")] == ["b.wav"]


def test_remote_music_is_listed_as_a_local_folder_is(music, tmp_path):
    local = prepare_listing(music)
    there = list_remote(f"file://{music}", tmp_path / "all")
    assert [(s.name, s.prefix, s.words, s.size) for s in there.sources] == local
    assert there.sources[0].path == f"file://{music}/0.wav"
    (single,) = list_remote(f"file://{music}/0.wav", tmp_path / "one").sources
    assert (single.name, single.words) == ("0.wav", ("first song",))
    with pytest.raises(RiffError, match="does not exist"):
        list_remote(f"file://{tmp_path}/nowhere", tmp_path / "none")


def prepare_listing(music: Path) -> list:
    from riff.train.data.sources import list_folder

    return [(s.name, s.prefix, s.words, s.size) for s in list_folder(music).sources]


def test_a_name_that_no_file_can_have_is_named_in_the_report(memory, tmp_path):
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe_file(f"/riff-test/{'x' * 300}.wav", b"1")
    system.pipe_file("/riff-test/b.wav", b"1")
    listing = list_remote(memory, tmp_path)
    assert [source.name for source in listing.sources] == ["b.wav"]
    assert [why for why in listing.unused.values() if "no file can have that name" in why]


# On a cluster


@pytest.mark.slow
def test_ray_makes_the_same_data_set_as_local_processes(cluster, music, expected, tmp_path):
    report = prepare_on_ray(music, tmp_path / "out", SETTINGS)
    assert content(tmp_path / "out") == expected
    assert report.dataset == str(tmp_path / "out")
    assert list(report.unused) == ["bad.wav"]


@pytest.mark.slow
def test_remote_music_and_data_set_are_completed_by_a_second_run(cluster, music, expected, tmp_path):
    there, url = tmp_path / "there", f"file://{tmp_path}/there"
    report = prepare_on_ray(f"file://{music}", url, SETTINGS)
    assert content(there) == expected
    assert report.dataset == json.loads((there / "report.json").read_text())["dataset"] == url
    assert "data:image" in (there / "index.html").read_text()
    assert not [path for path in there.rglob(".riff-*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*.png")}
    records = there / ".riff-prepare/records"
    next(records.iterdir()).unlink()
    prepare_on_ray(f"file://{music}", url, SETTINGS)
    assert content(there) == expected
    assert 0 < sum(path.stat().st_mtime_ns != time_of for path, time_of in before.items()) < len(before)
    with pytest.raises(RiffError, match=f"{url} was made with other settings"):
        prepare_on_ray(f"file://{music}", url, PrepareSettings(CONFIG, tags=False, overlap=0.5))


@pytest.mark.slow
def test_shards_elsewhere_hold_the_pictures(cluster, music, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    report = prepare_on_ray(music, f"file://{tmp_path}/there", PrepareSettings(CONFIG, tags=False, shards=True))
    tables = [parquet.read_table(path).to_pylist() for path in (tmp_path / "there/data").glob("*.parquet")]
    rows = [row for table in tables for row in table]
    assert len(rows) == report.clips
    assert all(row["image"]["bytes"].startswith(b"\x89PNG") for row in rows)
    assert not list((tmp_path / "there").rglob("*.png"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_worker_killed_half_way_loses_no_music(cluster, music, expected, tmp_path):
    records = tmp_path / "out/.riff-prepare/records"
    work = functools.partial(prepare_on_ray, music, tmp_path / "out", SETTINGS)
    report = with_one_killed(work, "MapBatches", lambda: records.is_dir() and any(records.glob("*.json")))
    assert content(tmp_path / "out") == expected
    assert list(report.unused) == ["bad.wav"]


class Poison:
    """Ends the process that unpickles it."""

    name, size = "poison", 1

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return os._exit, (1,)


@pytest.mark.slow
def test_music_that_ends_every_process_is_given_up(cluster, music, tmp_path):
    good = list_remote(f"file://{music}", tmp_path).sources[0]
    answers = dict(map_on_cluster(functools.partial(Cutter, SETTINGS), [Poison(), good]))
    assert "ended 3 times" in str(answers[0])
    *clips, record = answers[1].values()
    assert json.loads(record)["source"] == good.name
    assert len(clips) == len(json.loads(record)["clips"]) > 0


@pytest.mark.slow
def test_a_task_that_ends_every_process_is_given_up(cluster):
    tasks = [functools.partial(os._exit, 1), functools.partial(abs, -1), functools.partial(int, "x")]
    answers = dict(map_on_cluster(functools.partial(getattr, operator, "call"), tasks, workers=1))
    assert isinstance(answers[0], RiffError) and "ended 3 times" in str(answers[0])
    assert answers[1] == 1
    assert str(answers[2]).startswith("ValueError: invalid literal")


@pytest.mark.slow
def test_workers_without_the_same_riff_are_one_line(cluster, tmp_path, monkeypatch):
    """Here it is another module that this process has and its workers do not."""
    (tmp_path / "only_here.py").write_text("def make():\n    return abs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    make = importlib.import_module("only_here").make
    (tmp_path / "only_here.py").unlink()
    with pytest.raises(SystemProblem, match=r"install the same riff") as caught:
        list(map_on_cluster(make, [1], workers=1))
    assert "only_here" in str(caught.value)
    assert "\n" not in str(caught.value)


PROMPTS = ["mellow jazz", "techno", "", "slow piano waltz", "lullaby", "drums and bass"]


@pytest.fixture(scope="module")
def rendered(mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """Render a list into a folder of its own name, and return the files."""
    home = tmp_path_factory.mktemp("render")
    (home / "list.txt").write_text("\n".join(prompt for prompt in PROMPTS if prompt))

    def render(name: str, *more: str) -> dict[str, bytes]:
        words = ["render", "--prompts", str(home / "list.txt"), "-o", str(home / name), "--model", str(mini_checkpoint)]
        assert main([*words, "--count", "3", "--seed", "5", "--steps", "4", "--device", "cpu", *more]) == 0
        return {path.name: path.read_bytes() for path in (home / name).glob("*.wav")}

    render.home = home  # type: ignore[attr-defined]
    return render


@pytest.mark.slow
def test_ray_draws_the_same_bytes_and_goes_on_with_what_is_there(cluster, rendered, capsys):
    local = rendered("local", "--quiet")
    assert len(local) == 15
    capsys.readouterr()
    assert rendered("ray", "--engine", "ray") == local
    assert len(capsys.readouterr().out.splitlines()) == 15
    page = (rendered.home / "ray/index.html").read_text()
    assert all(name in page for name in local)
    (rendered.home / "ray" / sorted(local)[3]).unlink()
    assert rendered("ray", "--engine", "ray") == local
    assert "made 1, kept 14" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_worker_killed_half_way_loses_no_clip(cluster, rendered):
    folder = rendered.home / "killed"
    work = functools.partial(rendered, "killed", "--engine", "ray", "--quiet")
    made = with_one_killed(work, "MapBatches", lambda: any(folder.glob("*.wav")))
    assert made == rendered("local", "--quiet")


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_exit_code_4(cluster, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("jazz\ntechno\n")
    (tmp_path / "model").mkdir()
    words = ["--model", str(tmp_path / "model"), "-o", str(tmp_path / "out"), "--engine", "ray", "--quiet"]
    assert main(["render", "--prompts", str(tmp_path / "list.txt"), *words]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "model") in line

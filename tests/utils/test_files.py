"""Files are complete or absent, whatever happens while they are written."""

import errno
import json
import os
import stat

import pytest

from riff.utils import files
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import atomic_path, check_readable, write_bytes, write_json, write_text


def names(folder):
    return sorted(os.listdir(folder))


def fail_with(number):
    def fail(*arguments, **keywords):
        raise OSError(number, os.strerror(number))

    return fail


def test_content_arrives_and_nothing_else_stays(tmp_path):
    write_text(tmp_path / "a.txt", "sound ♪\n")
    assert (tmp_path / "a.txt").read_bytes() == "sound ♪\n".encode()
    assert names(tmp_path) == ["a.txt"]


def test_nothing_is_visible_under_the_final_name_before_the_end(tmp_path):
    with atomic_path(tmp_path / "a.wav") as temporary:
        temporary.write_bytes(b"half")
        assert not (tmp_path / "a.wav").exists()
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".wav"
    assert (tmp_path / "a.wav").read_bytes() == b"half"


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_in_the_block_leaves_the_old_file_and_no_trace(tmp_path, problem):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(problem), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new, but only ha")
        raise problem
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("problem", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_a_failure_at_each_step_of_publishing_leaves_the_old_file(tmp_path, monkeypatch, step, problem):
    (tmp_path / "a.txt").write_text("old")

    def fail(*arguments):
        raise problem

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises((KeyboardInterrupt, SystemProblem)):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_a_system_problem_that_names_path_need_and_free(tmp_path, monkeypatch, number):
    monkeypatch.setattr(files.Path, "write_bytes", fail_with(number))
    with pytest.raises(SystemProblem, match=r"song\.wav.* full \(1,234 bytes needed, [\d,]+ free\)") as caught:
        write_bytes(tmp_path / "song.wav", bytes(1234))
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="resource limits are POSIX")
def test_a_real_file_size_limit_leaves_no_file(tmp_path):
    import resource

    # Python ignores the signal of this limit, so a write beyond it fails as on a full disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(SystemProblem, match="full"):
            write_bytes(tmp_path / "a.bin", bytes(50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_read_only_folder_is_a_system_problem(tmp_path, monkeypatch, number):
    monkeypatch.setattr(files.os, "open", fail_with(number))
    with pytest.raises(SystemProblem, match=r"cannot write .*a\.txt: .*; choose a folder"):
        write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_a_system_problem(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SystemProblem, match="permission denied"):
            write_text(tmp_path / "a.txt", "new")
    finally:
        tmp_path.chmod(0o700)


def test_an_error_of_the_caller_is_not_disguised(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        open(tmp_path / "missing").close()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing/a.txt", "missing does not exist; create it"),
        ("file/a.txt", "file is not a folder"),
        ("folder", "is a folder; give the name of a file in it"),
        ("", "no file name"),
        ("a\0b", "no file name"),
        ("x" * 300, "cannot write"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_any_work(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RiffError, match=message), atomic_path(path):
        pytest.fail("the block ran")
    assert names(tmp_path) == ["file", "folder"]


def test_an_existing_file_is_kept_without_force(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RiffError, match="exists; use --force") as caught:
        write_text(tmp_path / "a.txt", "new", force=False)
    assert caught.value.exit_code == 2
    assert (tmp_path / "a.txt").read_text() == "old"
    write_text(tmp_path / "a.txt", "new", force=True)
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_file_that_appears_meanwhile_is_kept_without_force(tmp_path):
    with pytest.raises(RiffError, match="exists by now"):  # noqa: SIM117 - the block itself is the subject
        with atomic_path(tmp_path / "a.txt", force=False) as temporary:
            temporary.write_text("mine")
            (tmp_path / "a.txt").write_text("yours")
    assert (tmp_path / "a.txt").read_text() == "yours"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_the_file_has_the_permissions_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "a.txt", "x")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_symbolic_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="device files")
def test_a_device_is_not_replaced(tmp_path):
    with pytest.raises(RiffError, match="device or pipe"):
        write_text("/dev/null", "x")
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize("name", ["🎵 größe.txt", "-o.txt", "a\nb.txt", "no suffix", ".hidden"])
def test_odd_names_work(tmp_path, name):
    write_text(tmp_path / name, "x")
    assert names(tmp_path) == [name]


def test_json_reads_back(tmp_path):
    value = {"prompt": "中国 ♪ \ud800", "list": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("value", [float("nan"), {"x": float("inf")}, {"x": object()}])
def test_what_json_cannot_hold_is_refused_without_a_file(tmp_path, value):
    with pytest.raises(RiffError, match=r"a\.json: no JSON"):
        write_json(tmp_path / "a.json", value)
    assert names(tmp_path) == []


def test_half_a_character_is_refused_in_text(tmp_path):
    with pytest.raises(RiffError, match="half a character"):
        write_text(tmp_path / "a.txt", "\ud800")


def test_unreadable_inputs_are_named(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    cases = {
        "missing": "does not exist; give a sound",
        "empty": r"is empty \(0 bytes\); give a sound",
        "dangling": "does not exist",
        ".": "is a folder; give a sound",
        "a\0b": "is no file name",
        "x" * 300: "cannot be read",
    }
    for name, message in cases.items():
        with pytest.raises(RiffError, match=message):
            check_readable(f"{tmp_path}/{name}", expected="a sound")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RiffError, match="pipe or device"):
        check_readable(tmp_path / "pipe", expected="a sound")

"""What the README tells people to type is what the project promises; its Python and its links are real."""

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import riff
from riff.apps.cli import build_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
MAIN_JOB = 'python -m pip install . && riff render "lo-fi hip hop, mellow electric piano, 84 bpm" -o lofi.wav'
TESTS = "python -m pip install '.[test]' && python -m pytest"


@pytest.mark.parametrize("command", [MAIN_JOB, TESTS], ids=["main job", "tests"])
def test_the_two_commands_stand_there_as_lines_to_copy(command: str) -> None:
    assert command in [line for _, block in BLOCKS for line in block.splitlines()]


def test_ci_runs_the_very_test_command() -> None:
    assert TESTS in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_riff_command_shown_is_one_that_riff_takes() -> None:
    shown = [line for _, block in BLOCKS for line in block.splitlines()]
    commands = [part.strip() for line in shown for part in line.removeprefix("$ ").split("&&")]
    riffs = [shlex.split(command, comments=True) for command in commands if command.startswith("riff ")]
    assert riffs
    for words in riffs:
        build_parser().parse_args(words[1:])


def test_the_python_shown_parses_and_imports_names_that_exist() -> None:
    for language, block in BLOCKS:
        if language == "python":
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module == "riff":
                    assert {alias.name for alias in node.names} <= set(riff.__all__)


def test_every_file_linked_is_there() -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", README) + re.findall(r'src="([^"]+)"', README)
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert missing == []


SERVERS = {"riff play": "http://127.0.0.1:7860/", "riff serve": "http://127.0.0.1:3013/healthz"}


def start_and_stop(command: str, url: str, folder: Path) -> None:
    """Start a server, wait until it answers, stop it."""
    server = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command)], cwd=folder, env=os.environ | {"BROWSER": "true"}
    )
    try:
        while True:
            assert server.poll() is None, f"{command} ended by itself"
            try:
                urllib.request.urlopen(url, timeout=60).read()
                break
            except OSError:
                time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        assert server.wait() in (0, 130, 128 + signal.SIGTERM)
    finally:
        server.kill()


@pytest.mark.slow
def test_every_command_runs_as_written_in_order(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    for language, block in BLOCKS:
        if language == "python":
            subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, check=True)
        for line in block.splitlines() if language == "sh" else ():
            for command in (part.strip() for part in line.split("&&")):
                if command in SERVERS:
                    start_and_stop(command, SERVERS[command], tmp_path)
                elif command.startswith("mkdir "):
                    (tmp_path / command.removeprefix("mkdir ")).mkdir()
                elif command.startswith("riff "):
                    words = [sys.executable, "-m", *shlex.split(command)]
                    subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "lofi.wav").is_file()
    assert (tmp_path / "run" / "model").is_dir()

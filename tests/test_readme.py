"""Documentation that does not run drifts: every command of the README is run as it stands."""

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("fieldmark ")]


def test_every_picture_and_page_it_points_to_is_there():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    local = [target for target in targets if "://" not in target]
    assert local
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_pictures_are_small_enough_to_clone():
    pictures = list((ROOT / "docs").rglob("*.png")) + list((ROOT / "docs").rglob("*.jpg"))
    assert pictures
    assert sum(path.stat().st_size for path in pictures) < 3 << 20


def served(arguments: list[str], folder: Path, environment: dict[str, str]) -> str:
    """The first page of a server, which goes on until it is stopped."""
    command = [sys.executable, "-u", "-m", "fieldmark", *arguments, "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as server:
        try:
            for line in server.stdout:
                if address := re.search(r"http://\S+", line):
                    with urllib.request.urlopen(address[0], timeout=60) as page:
                        return page.read().decode()
        finally:
            server.terminate()
    return ""


@pytest.mark.slow
@pytest.mark.timeout(900)  # a demo among them, and a rehearsal
def test_its_commands_run_as_they_stand(tmp_path: Path):
    """In their order, in one folder, as a reader would type them."""
    environment = os.environ | {"FIELDMARK_CACHE": str(tmp_path / "cache"), "COLUMNS": "120"}
    assert len(commands()) >= 5
    for command in commands():
        program, *arguments = shlex.split(command)
        assert program == "fieldmark"
        if arguments[0] == "serve":
            assert "<html" in served(arguments, tmp_path, environment)
            continue
        found = subprocess.run(
            [sys.executable, "-m", "fieldmark", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, f"{command}\n{found.stdout}\n{found.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0][:40])
def test_its_python_runs(code: str, tmp_path: Path):
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr

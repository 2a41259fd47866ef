"""Documentation that does not run drifts: README and docs/layers.md are run as they stand."""

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README, LAYERS = ROOT / "README.md", ROOT / "docs" / "layers.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("fieldmark ")]


@pytest.mark.parametrize("page", [README, LAYERS], ids=lambda page: page.stem)
def test_every_picture_and_page_it_points_to_is_there(page: Path):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    local = [target for target in targets if "://" not in target]
    assert local
    assert [target for target in local if not (page.parent / target).exists()] == []


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


def run_commands(page: Path, folder: Path) -> None:
    """In their order, in one folder, as a reader would type them."""
    environment = os.environ | {"FIELDMARK_CACHE": str(folder / "cache"), "COLUMNS": "120"}
    for command in commands(page):
        program, *arguments = shlex.split(command)
        assert program == "fieldmark"
        if arguments[0] == "serve":
            assert "<html" in served(arguments, folder, environment)
            continue
        found = subprocess.run(
            [sys.executable, "-m", "fieldmark", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, f"{command}\n{found.stdout}\n{found.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(900)  # a demo among them, and a rehearsal
def test_its_commands_run_as_they_stand(tmp_path: Path):
    assert len(commands(README)) >= 5
    run_commands(README, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, LAYERS], ids=lambda page: page.stem)
def test_its_python_runs(page: Path, tmp_path: Path):
    """All of a page as one program, from top to bottom, after the commands it needs."""
    if page != README:
        run_commands(page, tmp_path)
    code = "\n".join(blocks(page, "python"))
    assert "assert" in code
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr

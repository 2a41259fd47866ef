"""What the pages tell to type is there: commands, options, recipes, studies and keys."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from fieldmark.cli import app
from fieldmark.keys import keys
from fieldmark.shipped import recipe_names, study_names
from fieldmark.studies.space import StudyFile

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{n}.md" for n in ("course", "diagnosis", "keys", "layers")),
]
KEYS = {key.key for key in keys("recipe")}
COMMANDS = get_command(app).commands


def told(page: Path) -> list[str]:
    """Every command of a page, in a block or in a line; places to be filled in are left out."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    inline = re.findall(
        r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    lines = [line for block in blocks for line in block.splitlines()] + inline
    found = (
        re.search(r"\bfieldmark ([a-z].*)", line.partition("  #")[0], re.DOTALL) for line in lines
    )
    return [" ".join(one[1].split()).rstrip(" …") for one in found if one]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_option_of_a_page_is_there(page: Path):
    commands = told(page)
    assert commands
    for line in commands:
        name, *rest = shlex.split(line)
        names = name.split("|")
        assert set(names) <= COMMANDS.keys(), line
        command = COMMANDS[names[0]]
        if hasattr(command, "commands") and rest:
            wanted, *rest = rest
            assert set(wanted.split("|")) <= command.commands.keys(), line
            command = command.commands[wanted.split("|")[0]]
        options = {option for each in command.params for option in each.opts}
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given <= options, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_key_set_on_a_page_is_one(page: Path):
    for line in told(page):
        for word in shlex.split(line):
            key, equals, _ = word.partition("=")
            if not equals or word.startswith("--") or key.isupper() or key == "KEY":
                continue
            plain = re.sub(r"^stages\.\w+", "stages.NAME", key)
            assert plain in KEYS or key.split(".")[0] in StudyFile.model_fields, line


def test_every_shipped_study_is_in_the_course():
    course = " ".join(told(ROOT / "docs" / "course.md"))
    assert [name for name in study_names() if f"study run {name} " not in f"{course} "] == []
    assert recipe_names()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_leads_to_the_vocabulary(page: Path):
    assert "vocabulary.md)" in page.read_text(encoding="utf-8")


def test_every_command_is_told_of_somewhere():
    pages = " ".join(" ".join(told(page)) for page in PAGES)
    missing = [name for name in COMMANDS if name not in pages.split()]
    assert missing == []

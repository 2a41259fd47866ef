"""The commands on a live page can be typed where `serve` was started."""

import re

import pytest

from fieldmark.server.app import create_app
from fieldmark.studies.executor import LocalExecutor
from fieldmark.studies.study import Study


@pytest.mark.parametrize("below", [True, False])
def test_commands_name_folders_from_where_serve_was_started(
    fake, design, folder, connect, monkeypatch, tmp_path, below
):
    study = Study.create(folder / "sizes", design())
    list(LocalExecutor(f"{fake}:run_trials").run(study))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(folder.parent if below else tmp_path / "elsewhere")
    with connect(create_app(folder)) as client:
        pages = [client.get(f"/page/{place}").text for place in ("sizes", "runs/toy-1")]
    commands = re.findall(
        r'<pre class="command"[^>]*><code>(.*?)</code>', "".join(pages), re.DOTALL
    )
    assert len(commands) >= 2
    outer = "" if below else f"{folder.parent}/"
    for command in commands:
        assert f" {outer}here/" in command, command
        assert (str(tmp_path) in command) != below, command

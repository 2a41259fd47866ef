"""Who is let in, who may ask for something, and what a browser is told to refuse."""

import re

import pytest

from fieldmark.server.app import create_app
from fieldmark.studies import control

TOKEN = "a-known-token"


def policy(answer):
    """Directive -> sources."""
    parts = answer.headers["content-security-policy"].split("; ")
    return {part.split()[0]: part.split()[1:] for part in parts}


def test_every_answer_forbids_what_no_page_needs(client):
    for address in ("/", "/page/runs/toy-1", "/nothing", "/assets/live.js", "/compare"):
        answer = client.get(address)
        found = policy(answer)
        assert found["default-src"] == ["'none'"]
        assert found["script-src"] == found["style-src"] == found["connect-src"] == ["'self'"]
        assert found["frame-ancestors"] == found["base-uri"] == ["'none'"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers


def test_pages_hold_no_script_or_style_that_the_policy_forbids(client):
    for address in ("/", "/page/runs/toy-1", "/compare?run=runs/toy-1&run=runs/toy-2"):
        html = client.get(address).text
        scripts = re.findall(r"<script([^>]*)>", html)
        assert scripts
        assert all("src=" in script or "application/json" in script for script in scripts)
        assert not re.search(r"<[^>]*\s(on\w+|style)\s*=", html)
        assert "<style" not in html
        assert not re.search(r"""(src|href)=["'](https?:)?//""", html)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "10.0.0.7"])
def test_a_strange_host_is_turned_away(folder, connect, host):
    with connect(create_app(folder)) as client:
        assert client.get("/", headers={"host": host}).status_code == 400
        assert client.get("/events", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1:1", "[::1]:8765"])
def test_this_machine_goes_by_its_names(folder, connect, host):
    with connect(create_app(folder)) as client:
        assert client.get("/", headers={"host": host}).status_code == 200


def test_a_private_server_shows_nothing_without_its_token(folder, connect):
    with connect(create_app(folder, private=True, token=TOKEN)) as client:
        for address in ("/", "/page/runs/toy-1", "/events", "/assets/live.js", "/?token=wrong"):
            answer = client.get(address)
            assert answer.status_code == 403
            assert "toy" not in answer.text
        wrong = {"cookie": "fieldmark-http=wrong"}
        assert client.get("/", headers=wrong).status_code == 403


def test_a_token_moves_from_the_address_into_a_cookie(folder, connect):
    with connect(create_app(folder, private=True, token=TOKEN)) as client:
        answer = client.get(f"/page/runs/toy-1?lang=zh&token={TOKEN}")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/page/runs/toy-1?lang=zh"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/page/runs/toy-1").status_code == 200


def test_no_token_leads_to_another_machine(folder, connect):
    with connect(create_app(folder, private=True, token=TOKEN)) as client:
        answer = client.get(f"http://localhost//evil.example/?token={TOKEN}")
        assert answer.headers["location"].startswith("/evil.example")


def test_two_servers_make_different_tokens(folder):
    tokens = {create_app(folder, private=True).state.token for _ in range(10)}
    assert len(tokens) == 10
    assert min(len(token) for token in tokens) >= 32
    assert create_app(folder).state.token is None


PAUSE = {"place": "runs/toy-3", "wish": "pause"}
OURS = {"origin": "http://localhost"}


@pytest.fixture
def running(folder, make_run):
    with make_run(folder / "runs" / "toy-3", finish=False) as writer:
        yield writer.folder


def test_nothing_can_be_changed_unless_it_is_allowed(folder, running, connect):
    with connect(create_app(folder)) as client:
        answer = client.post("/control", data=PAUSE, headers=OURS)
        assert answer.status_code == 403
        assert "--allow-control" in answer.text
        assert "Pause" not in client.get("/").text
    with connect(create_app(folder, private=True, token=TOKEN)) as client:
        client.get(f"/?token={TOKEN}")  # who may read may not control
        assert client.post("/control", data=PAUSE, headers=OURS).status_code == 403
    assert control.newest(running) is None


@pytest.mark.parametrize(
    ("knows", "headers"),
    [
        (False, OURS),
        (True, {}),
        (True, {"origin": "http://evil.example"}),
        (True, {"origin": "http://localhost:81"}),
        (True, {"origin": "null"}),
        (True, {"origin": "ftp://localhost"}),
    ],
)
def test_a_wish_needs_the_token_and_a_page_of_ours(folder, running, connect, knows, headers):
    with connect(create_app(folder, allow_control=True, token=TOKEN)) as client:
        if knows:
            client.get(f"/?token={TOKEN}")
        answer = client.post("/control", data=PAUSE, headers=headers)
        assert answer.status_code == 403
    assert control.newest(running) is None


def test_with_both_it_is_written_down_who_wished_it(folder, running, connect):
    with connect(create_app(folder, allow_control=True, token=TOKEN)) as client:
        assert "Pause" not in client.get("/").text
        client.get(f"/?token={TOKEN}")
        assert "Pause" in client.get("/").text
        answer = client.post("/control", data=PAUSE, headers=OURS)
        assert (answer.status_code, answer.headers["location"]) == (303, "/page/runs/toy-3")
        order = control.newest(running)
        assert (order.wish, order.by) == ("pause", "a reader at testclient")
        html = client.get("/page/runs/toy-3").text
        assert "A pause was asked for by a reader at testclient" in html
        assert 'value="go on"' in html
        client.post("/control", data=PAUSE | {"wish": "go on"}, headers=OURS)
        assert control.newest(running).wish == "go on"


def test_a_wish_that_makes_no_sense_is_refused(folder, running, connect):
    with connect(create_app(folder, allow_control=True, token=TOKEN)) as client:
        client.get(f"/?token={TOKEN}")
        for fields, told in (
            (PAUSE | {"wish": "explode"}, "must be one of pause, go on, stop, again"),
            (PAUSE | {"place": "../../etc"}, "no run and no study `../../etc`"),
            (PAUSE | {"place": "runs/toy-1"}, "`runs/toy-1` is finished"),
            ({}, "must be one of"),
        ):
            answer = client.post("/control", data=fields, headers=OURS)
            assert answer.status_code == 409
            assert told in answer.text
        long = client.post("/control", content=b"x" * 9000, headers=OURS)
        assert long.status_code == 413


def test_a_failed_run_of_a_study_is_run_again(fake, design, tmp_path, connect):
    from fieldmark.studies.executor import LocalExecutor
    from fieldmark.studies.study import Study

    study = Study.create(tmp_path / "sizes", design())
    list(LocalExecutor(f"{fake}:raises").run(study))
    failed = [slot for slot in study.slots() if study.records.of(slot).status == "failed"]
    wish = {"place": "sizes", "wish": "again", "seed": "0"}
    with connect(create_app(tmp_path, allow_control=True, token=TOKEN)) as client:
        client.get(f"/?token={TOKEN}")
        html = client.get("/page/sizes").text
        assert html.count('value="again"') == len(failed) == 4
        assert "RuntimeError: out of memory" in html
        fields = wish | {"cell": failed[0].cell.hash}
        assert client.post("/control", data=fields, headers=OURS).status_code == 303
        assert client.get("/page/sizes").text.count('value="again"') == 3
        answer = client.post("/control", data=wish | {"cell": "nonsense"}, headers=OURS)
        assert answer.status_code == 409
        assert "no cell 'nonsense'" in answer.text
    assert Study.open(study.folder).records.of(failed[0]) is None

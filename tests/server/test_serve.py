"""`fieldmark serve`: where it listens, what it is called, what it prints."""

import http.client
import io
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fieldmark.errors import SettingError
from fieldmark.server import serve as module
from fieldmark.server.serve import hosts_of, serve

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def told(folder, monkeypatch):
    """What `serve` prints, and the application it would have run."""
    apps = []

    class Server:
        def __init__(self, config, feed):
            assert feed is config.app.state.feed
            apps.append(config)

        def run(self, sockets):
            assert sockets[0].getsockname()[1]

    monkeypatch.setattr(module, "_Server", Server)

    def start(**settings):
        text = io.StringIO()
        serve(Console(file=text, width=300), folder, **{"host": "127.0.0.1", "port": 0} | settings)
        return text.getvalue(), apps[-1]

    return start


def test_this_machine_alone_may_read_and_nobody_may_change_anything(told):
    text, config = told()
    assert re.search(r"is at http://localhost:\d+/\s", text)
    assert config.app.state.token is None
    assert config.access_log is False  # it would write the token down


def test_to_control_takes_the_printed_token(told):
    text, config = told(allow_control=True)
    assert f"/?token={config.app.state.token}" in text


def test_elsewhere_it_takes_the_token_to_read(told):
    text, config = told(host="0.0.0.0")
    assert f"http://{socket.gethostname()}:" in text
    assert f"/?token={config.app.state.token}" in text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_loopback_goes_by_loopbacks_names(host):
    assert hosts_of(host, []) == ["localhost", "127.0.0.1", "[::1]"]


def test_another_address_goes_by_its_own_names_and_those_given():
    hosts = hosts_of("192.0.2.7", ["Birds.example"])
    assert {"192.0.2.7", "birds.example", socket.gethostname().lower()} <= set(hosts)
    assert "*" not in hosts_of("0.0.0.0", [])
    assert "0.0.0.0" not in hosts_of("0.0.0.0", [])


def test_a_port_that_is_taken_is_named(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=rf"Nothing can listen at 127.0.0.1, port {port}: "):
            serve(Console(), folder, host="127.0.0.1", port=port)


def test_an_address_of_another_machine_is_refused(folder):
    with pytest.raises(SettingError, match=r"Nothing can listen at 192.0.2.7, port 0"):
        serve(Console(), folder, host="192.0.2.7", port=0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_the_command_serves_until_it_is_interrupted(folder):
    command = [sys.executable, "-m", "fieldmark", "serve", str(folder), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "COLUMNS": "200"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        port = int(re.search(r"localhost:(\d+)/", process.stdout.readline())[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/")
        with connection.getresponse() as answer:
            assert "runs/toy-1" in answer.read().decode()
            assert answer.headers["server"] is None
        connection.request("GET", "/events")
        listening = connection.getresponse()
        listening.fp.readline()  # a page that listens does not hold it up
        process.send_signal(signal.SIGINT)
        _, wrong = process.communicate(timeout=60)
        assert process.returncode == 0
        assert not wrong
        listening.close()
        connection.close()

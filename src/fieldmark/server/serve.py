"""Runs the server until it is interrupted."""

import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import uvicorn
from rich.console import Console

from fieldmark.errors import SettingError
from fieldmark.server.access import TOKEN
from fieldmark.server.app import LOOPBACK, Predict, create_app

GRACE = 1  # seconds that open pages are given when the server ends; they listen for ever


def serve(
    console: Console,
    folder: Path,
    predict: Predict | None = None,
    *,
    host: str,
    port: int,
    allow_control: bool = False,
    photos: Sequence[Path] = (),
    names: Sequence[str] = (),
) -> None:
    """Print the address and serve until interrupted.

    Args:
        console: Where the address is printed.
        folder: What is shown.
        predict: As for `create_app`.
        host: Address to listen at; of any but this machine's own, the token is needed to read.
        port: 0: any that is free.
        allow_control: As for `create_app`.
        photos: As for `create_app`.
        names: Other names the server is called by, as behind a proxy.

    Raises:
        SettingError: there is no such folder, or the address can't be had.
    """
    listening = _listen(host, port)
    with listening:
        private = not _is_loopback(host)
        app = create_app(
            folder,
            predict,
            allow_control=allow_control,
            private=private,
            hosts=hosts_of(host, names),
            photos=photos,
        )
        shown = host if private and not _is_anywhere(host) else _name_of(private=private)
        query = f"?{urlencode({TOKEN: app.state.token})}" if app.state.token else ""
        address = f"http://{_bracketed(shown)}:{listening.getsockname()[1]}/{query}"
        console.print(f"{folder.resolve()} is at {address}", highlight=False, soft_wrap=True)
        console.print("Ctrl-C ends it.", highlight=False)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # it would print the token
            server_header=False,
            proxy_headers=False,  # whoever reaches us could name any address as its own
            timeout_graceful_shutdown=GRACE,
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def hosts_of(host: str, names: Sequence[str]) -> list[str]:
    """What a server at an address may be called: this machine's names, its own, those given."""
    hosts = [*LOOPBACK, *(name.lower() for name in names)]
    if not _is_loopback(host):
        hosts += [socket.gethostname().lower(), socket.getfqdn().lower()]
        hosts += [] if _is_anywhere(host) else [_bracketed(host).lower()]
        hosts += [_bracketed(address) for address in _own_addresses()]
    return list(dict.fromkeys(hosts))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise SettingError(
            f"Nothing can listen at {host}, port {port}: {error.strerror or error}. "
            "Give another with --port; 0 is any that is free."
        ) from None
    return listening


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _is_anywhere(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return False


def _name_of(*, private: bool) -> str:
    return socket.gethostname() if private else "localhost"


def _own_addresses() -> list[str]:
    """Those that this machine's name stands for."""
    with contextlib.suppress(OSError):
        return [str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None)]
    return []


def _bracketed(host: str) -> str:
    """An IPv6 address as an address line has it."""
    return f"[{host}]" if ":" in host else host

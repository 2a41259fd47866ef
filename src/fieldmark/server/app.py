"""The server: addresses, and what answers them.

``/`` the folder · ``/page/PLACE`` a run or study · ``/compare?run=A&run=B`` any two · ``/events``
what changed, as server-sent events · ``/predict`` name a photo · ``/control`` pause, go on, stop,
run again · ``/assets/NAME`` scripts and styles.
"""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from fieldmark.errors import FieldmarkError, SettingError
from fieldmark.language import LANGUAGES, Lang
from fieldmark.server.access import MAY_CONTROL, Access, new_token
from fieldmark.server.contents import Contents
from fieldmark.server.desk import heed
from fieldmark.server.feed import Feed
from fieldmark.server.look import asset, link
from fieldmark.server.pages import Pages, Reader
from fieldmark.studies.catalog import Catalog

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MOST_MEGABYTES = 32  # of a photo to be named
MOST_FIELDS = 8192  # bytes of a form
LANG_COOKIE = "fieldmark-lang"

Guesses = Sequence[tuple[str, float]]
Predict = Callable[[bytes], Guesses]


def create_app(
    folder: Path,
    predict: Predict | None = None,
    *,
    allow_control: bool = False,
    private: bool = False,
    token: str | None = None,
    hosts: Sequence[str] = LOOPBACK,
    photos: Sequence[Path] = (),
) -> Starlette:
    """The live report of all runs and studies in a folder, as an ASGI application.

    Args:
        folder: What is shown; nothing outside it is.
        predict: Names a photo, given as a file's bytes: classes with their probabilities, best
            first. It may raise a FieldmarkError.
        allow_control: Who knows the token may pause, stop and run again.
        private: Who does not know the token may not even read.
        token: Made by chance unless given; ``app.state.token`` has it.
        hosts: Names by which the server may be called.
        photos: Other folders of which photos may be shown, as thumbnails.

    Raises:
        SettingError: there is no such folder.
    """
    if not folder.is_dir():
        raise SettingError(f"There is no folder `{folder}`. Name one that runs or studies are in.")
    feed = Feed(Catalog(folder))
    shown = [path.resolve() for path in (folder, *photos)]

    def may_show(photo: Path) -> bool:
        return any(photo.is_relative_to(inside) for inside in shown)

    @contextlib.asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        """First what takes a while: a look at all, and on a new machine the charts' script."""
        await asyncio.gather(asyncio.to_thread(feed.look), asyncio.to_thread(asset, "vega.js"))
        yield

    if token is None and (allow_control or private):
        token = new_token()
    access = Middleware(Access, token=token, allow_control=allow_control, private=private)
    host = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app = Starlette(routes=_routes(), middleware=[access, host], lifespan=life)
    app.state.feed, app.state.token, app.state.predict = feed, token, predict
    app.state.pages = Pages(feed, Contents(feed, may_show), names_photos=predict is not None)
    return app


def _routes() -> list[Route]:
    return [
        Route("/", _folder),
        Route("/page/{place:path}", _page),
        Route("/compare", _compare),
        Route("/events", _events),
        Route("/predict", _naming),
        Route("/predict", _predict, methods=["POST"]),
        Route("/control", _control, methods=["POST"]),
        Route("/assets/{name}", _asset),
        Route("/favicon.ico", _icon),
    ]


async def _folder(request: Request) -> Response:
    return await _answer(request, lambda reader: _pages(request).page(".", reader))


async def _page(request: Request) -> Response:
    # The bytes as they were sent: a folder's name need not be Unicode.
    raw = unquote_to_bytes(request.scope["raw_path"].partition(b"?")[0])
    place = os.fsdecode(raw.removeprefix(b"/page/"))
    return await _answer(request, lambda reader: _pages(request).page(place, reader))


async def _compare(request: Request) -> Response:
    chosen = request.query_params.getlist("run")
    if len(chosen) != 2:
        return _told(f"Choose two to compare; {len(chosen)} were chosen.", HTTPStatus.BAD_REQUEST)
    a, b = chosen
    return await _answer(request, lambda reader: _pages(request).compare(a, b, reader))


async def _events(request: Request) -> Response:
    feed: Feed = request.app.state.feed
    return StreamingResponse(
        feed.listen(),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _naming(request: Request) -> Response:
    if request.app.state.predict is None:
        return _told("No model is here to name photos.", HTTPStatus.NOT_FOUND)
    return await _answer(request, lambda reader: _pages(request).naming(reader, MOST_MEGABYTES))


async def _predict(request: Request) -> Response:
    predict: Predict | None = request.app.state.predict
    if predict is None:
        return _told("No model is here to name photos.", HTTPStatus.NOT_FOUND)
    photo = await _body(request, MOST_MEGABYTES << 20)
    if photo is None:
        told = f"A photo has at most {MOST_MEGABYTES} MB."
        return _told(told, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    try:
        guesses = await run_in_threadpool(predict, photo)
    except FieldmarkError as error:
        return _told(str(error), HTTPStatus.UNPROCESSABLE_ENTITY)
    found = [{"name": name, "probability": float(share)} for name, share in guesses]
    return JSONResponse(found, headers={"cache-control": "no-store"})


async def _control(request: Request) -> Response:
    if not request.scope[MAY_CONTROL]:
        told = "Start with --allow-control, and open the address that it prints, with its token."
        return _told(told, HTTPStatus.FORBIDDEN)
    body = await _body(request, MOST_FIELDS)
    if body is None:
        return _told("This is no wish.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    fields = dict(parse_qsl(body.decode(errors="replace")))
    by = f"a reader at {request.client.host if request.client else 'an unknown address'}"
    try:
        place = await run_in_threadpool(heed, request.app.state.feed, fields, by)
    except FieldmarkError as error:
        return _told(str(error), HTTPStatus.CONFLICT)
    return RedirectResponse(link(place), HTTPStatus.SEE_OTHER)


async def _asset(request: Request) -> Response:
    found = await run_in_threadpool(asset, request.path_params["name"])
    if found is None:
        return _told("There is no such file.", HTTPStatus.NOT_FOUND)
    text, kind = found
    tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(text, media_type=kind, headers=headers)


async def _icon(request: Request) -> Response:
    """What browsers ask for by themselves."""
    request.path_params["name"] = "icon.svg"
    return await _asset(request)


async def _answer(request: Request, make: Callable[[Reader], str | None]) -> Response:
    """A page in the reader's language; what can't be shown says why."""
    reader = Reader(_language(request), bool(request.scope[MAY_CONTROL]))
    try:
        html = await run_in_threadpool(make, reader)
    except FieldmarkError as error:
        return _told(str(error), HTTPStatus.CONFLICT)
    if html is None:
        return _told("There is no run and no study of this name here.", HTTPStatus.NOT_FOUND)
    # A name that is no Unicode is shown with a sign in place of what can't be.
    answer = HTMLResponse(html.encode(errors="replace"), headers={"cache-control": "no-store"})
    if request.query_params.get("lang") in LANGUAGES:
        answer.set_cookie(LANG_COOKIE, reader.lang, samesite="strict", httponly=True)
    return answer


def _language(request: Request) -> Lang:
    """As the address says, else as it said before, else as the browser prefers."""
    chosen = request.query_params.get("lang"), request.cookies.get(LANG_COOKIE)
    preferred = request.headers.get("accept-language", "").strip().lower().split("-")[0]
    return next((lang for lang in LANGUAGES if lang in chosen), "zh" if preferred == "zh" else "en")


async def _body(request: Request, most: int) -> bytes | None:
    """What was sent, in memory; None where it is more than `most` bytes."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            return None
    return bytes(content)


def _pages(request: Request) -> Pages:
    pages: Pages = request.app.state.pages
    return pages


def _told(text: str, status: HTTPStatus) -> Response:
    return PlainTextResponse(f"{text}\n", status)

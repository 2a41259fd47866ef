"""Who may read, who may ask for something, and what a browser may do with what it gets.

The Host header is checked by starlette's TrustedHostMiddleware, so that no other site's name can be
made to mean this machine (DNS rebinding). What is checked here:

* A random token, where one is asked for. It comes once in the address that is printed, and moves
  into a cookie that scripts can't read and other sites' requests don't carry.
* To send anything also the Origin header: the request must come from a page of ours (CSRF).
* Every answer says that its page may load nothing but what this server sends, runs no script but
  files of this server, evaluates no text as code, and is shown in no other site's frame.
"""

import secrets
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"
MAY_CONTROL = "fieldmark.may_control"
"""Key of a request's scope: whether who asks knows the token."""
READING = {"GET", "HEAD"}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def new_token() -> str:
    """Nobody guesses it: 192 bits."""
    return secrets.token_urlsafe(24)


class Access:
    """Lets requests pass or answers them; wraps the application.

    Args:
        app: What is wrapped.
        token: What a reader must know; None: there is nothing to know.
        allow_control: Whether who knows it may pause and stop.
        private: Whether it is needed for reading too.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None, allow_control: bool, private: bool
    ) -> None:
        self.app = app
        self.token = token
        self.allow_control = allow_control
        self.private = private

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":  # the end and the beginning of the server; no websockets
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request = Request(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        known = self._fits(request.cookies.get(_cookie(request), ""))
        scope[MAY_CONTROL] = self.allow_control and known
        answer = self._moved_token(request) or self._refusal(request, known=known) or self.app
        await answer(scope, receive, send_with_headers)

    def _fits(self, given: str) -> bool:
        if self.token is None:
            return False
        return secrets.compare_digest(given.encode(), self.token.encode())

    def _moved_token(self, request: Request) -> Response | None:
        """Take a right token out of the address, where it would be seen, into a cookie."""
        given = request.query_params.get(TOKEN)
        if given is None or request.method not in READING or not self._fits(given):
            return None
        rest = urlencode([(k, v) for k, v in request.query_params.multi_items() if k != TOKEN])
        # The path begins with one slash: two would name another machine.
        path = "/" + request.url.path.lstrip("/")
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, HTTPStatus.SEE_OTHER)
        answer.set_cookie(_cookie(request), given, httponly=True, samesite="strict", path="/")
        return answer

    def _refusal(self, request: Request, *, known: bool) -> Response | None:
        """Why this request is not answered; None: it is."""
        if request.method not in READING and not _is_of_our_origin(request):
            return _refused("This must come from a page of this server. Open it, and try there.")
        if self.private and not known:
            return _refused("Open the address that `fieldmark serve` printed, with its token.")
        return None


def _cookie(request: Request) -> str:
    """Its name; browsers do not keep the cookies of two ports apart."""
    return f"fieldmark-{request.url.port or request.url.scheme}"


def _is_of_our_origin(request: Request) -> bool:
    """Whether a page of this very server sent the request; no Origin is no proof."""
    origin = urlsplit(request.headers.get("origin", ""))
    return origin.scheme in {"http", "https"} and origin.netloc == request.headers.get("host")


def _refused(told: str) -> Response:
    return PlainTextResponse(told + "\n", HTTPStatus.FORBIDDEN)

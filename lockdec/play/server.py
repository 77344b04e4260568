"""The page and its few addresses: what they answer, and what they refuse.

Nothing that is sent is executed or kept. The page may load nothing from another server (Content-Security-Policy), other
sites cannot ask in the name of a visitor (Origin, and Host against DNS rebinding), what is sent is bounded, and one
input is captioned at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lockdec.errors import DataError, LockdecError, visible
from lockdec.evaluation.configuration import MBR
from lockdec.play.player import Asked, Player
from lockdec.transformer.configuration import STRATEGIES

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_BYTES = 32_000_000  # of a file that is sent
MOST_TEXT = 100_000  # bytes of a text
MOST_CAPTIONS, MOST_BEAMS = 10, 32
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Guard:
    """Refuses requests of other sites, and sets the headers of all answers.

    Args:
        names: the hosts that a browser may ask for; None where any will do, because the user serves others too.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] | None) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # nothing else is served
            return await self.app(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        known = self.names is None or _hostname(host) in self.names
        own = origin is None or origin in (f"http://{host}", f"https://{host}")
        # A picture that another page wants, say, and not the page itself, to which a link may lead.
        own = own and (headers.get("sec-fetch-site") != "cross-site" or scope["path"] == "/")
        if known and own:
            await self.app(scope, receive, guarded)
        else:
            problem = "another site may not ask for this" if known else f"this page is not to be found at {host}"
            await _refusal(403, problem)(scope, receive, guarded)


def application(players: Sequence[Player], host: str) -> Starlette:
    """What a server has to serve.

    Args:
        host: the address that it listens at.
    """
    one_at_a_time = asyncio.Lock()
    about = [player.about() for player in players]

    def page(request: Request) -> Response:
        name, kind = PAGE[request.url.path]
        return Response(files("lockdec.play").joinpath(name).read_bytes(), media_type=kind)

    def captioners(request: Request) -> Response:
        return JSONResponse(about)

    def example(request: Request) -> Response:
        examples = _player(players, request).examples
        number = _place(request, "example", len(examples))
        if number is None:
            raise HTTPException(404, "there is no such example")
        content = examples[number].content
        return Response(content, media_type="image/png" if isinstance(content, bytes) else "text/plain")

    async def caption(request: Request) -> Response:
        player, asked = _player(players, request), _asked(request)
        is_text = request.headers.get("content-type", "").startswith("text/plain")
        try:
            content = await _body(request, MOST_TEXT if is_text else MOST_BYTES)
        except ClientDisconnect:  # nobody waits for an answer
            return Response(status_code=204)
        name = visible(unquote(request.query_params.get("name", "")))[:200] or "a file"
        given = _text(content) if is_text else content
        async with one_at_a_time:
            if await request.is_disconnected():  # who has asked has asked for something else in the meantime
                return Response(status_code=204)
            return JSONResponse(await run_in_threadpool(player.answer, given, name, asked))

    def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return _refusal(error.status_code, error.detail)
        return _refusal(422, str(error))

    return Starlette(
        routes=[
            *(Route(path, page) for path in PAGE),
            Route("/captioners", captioners),
            Route("/captioners/{captioner}/examples/{example}", example),
            Route("/captioners/{captioner}/captions", caption, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, names=LOOPBACK if host in LOOPBACK else None)],
        exception_handlers={HTTPException: refused, LockdecError: refused},
    )


def _player(players: Sequence[Player], request: Request) -> Player:
    number = _place(request, "captioner", len(players))
    if number is None:
        raise HTTPException(404, f"there are only {len(players)} captioners")
    return players[number]


def _place(request: Request, name: str, count: int) -> int | None:
    """A number of the path, from 0 to `count` - 1; None where it is anything else, such as one of 5,000 digits."""
    text: str = request.path_params[name]
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else count
    return number if number < count else None


def _asked(request: Request) -> Asked:
    """The options in the address; HTTPException, with a line that says what is right, if one is out of range."""

    def number(name: str, low: int, high: int) -> int | None:
        text = request.query_params.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) < 12 and low <= int(text) <= high):
            raise HTTPException(422, f"{name}={text[:20]}: a whole number from {low} to {high}")
        return int(text)

    strategy = request.query_params.get("strategy")
    if strategy is not None and strategy not in (*STRATEGIES, MBR):
        raise HTTPException(422, f"strategy={strategy[:20]} is not one of: {', '.join((*STRATEGIES, MBR))}")
    n = number("n", 1, MOST_CAPTIONS)
    return Asked(5 if n is None else n, strategy, number("beams", 1, MOST_BEAMS), number("seed", 0, 2**31 - 1))


async def _body(request: Request, most: int) -> bytes:
    """What is sent; refused as soon as it is too large."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > most:
            size = f"{most // 1_000_000} MB" if most >= 1_000_000 else f"{most // 1_000} kB"
            raise HTTPException(413, f"at most {size} are read here: make it smaller, or use lockdec caption")
    if not content:
        raise HTTPException(422, "there is nothing to caption")
    return bytes(content)


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError("the text is not UTF-8") from error


def _hostname(host: str) -> str | None:
    """The name in a Host header, without the port; None if there is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _refusal(status: int, problem: str) -> Response:
    line: dict[str, Any] = {"error": visible(" ".join(problem.split()))}
    return JSONResponse(line, status_code=status)

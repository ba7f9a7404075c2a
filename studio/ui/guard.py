"""Who may speak to the studio: the first thing every request meets.

In: a request's raw headers. Out: the request passed on, or refused with one sentence. A page on another site can make
the browser send requests here (DNS rebinding, cross-site forms), so Host, Origin and Sec-Fetch-Site are checked on
every one, websockets too; off the loopback interface a token is asked for as well. Answers leave with headers that
keep foreign scripts and frames out. Knows nothing of what lies behind it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.ui.gate import TokenGate

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_PATHS = frozenset({"/api/hello"})  # tells another start of the studio that it is one; gives nothing away
HEADERS: Mapping[bytes, bytes] = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    # What isn't the page itself (an uploaded file opened in a tab) may run nothing; the page brings its own policy.
    b"content-security-policy": b"default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
    b"frame-ancestors 'none'; sandbox",
}

_TOKEN_REFUSALS: Mapping[str, tuple[int, str]] = {
    "wrong": (401, "Wrong token: open the studio's address with ?token= and the token it was started with."),
    "missing": (401, "Open the studio's address with ?token= and the token it was started with."),
    "throttled": (429, "Too many wrong tokens: wait five minutes, then try again."),
}
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")
_HOST = re.compile(r"(?P<name>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")


def is_loopback(host: str) -> bool:
    """Whether binding to this host keeps the studio on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware. `bound` is the host the server listens on; `gate` is there when a token is asked for."""

    def __init__(self, app: ASGIApp, bound: str = "127.0.0.1", gate: TokenGate | None = None) -> None:
        self._app = app
        self._bound = bound.lower()
        self._gate = gate
        self._own_name = socket.gethostname().lower() if gate else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._foreign(scope)
        if refusal is None and self._gate is not None and scope["path"] not in OPEN_PATHS:
            verdict = self._gate.check(scope)
            if verdict == "fresh" and scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/":
                await _answer(send, 303, "", [(b"location", _without_token(scope)), self._gate.cookie])
                return
            refusal = _TOKEN_REFUSALS.get(verdict)
        elif refusal is None and _changes_state(scope) and not _all(scope, b"origin"):
            refusal = 403, "Refused: a request that changes something must name the page it comes from (Origin)."
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        else:
            cookies = [self._gate.expired_cookie] if self._gate and refusal[0] == 401 else []
            await _refuse(scope, send, *refusal, cookies)

    def _foreign(self, scope: Scope) -> tuple[int, str] | None:
        """Why a request is not from the studio's own page under its own address; None if it may be."""
        hosts = _all(scope, b"host")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if not self._known_host(host):
            return 403, "Refused: the studio answers only under its own address."
        origins = _all(scope, b"origin")
        if origins and (len(origins) > 1 or not _same_origin(origins[0], host, scope["scheme"])):
            return 403, "Refused: this request comes from a page that is not the studio's."
        if not _fetch_allowed(scope):
            return 403, "Refused: another site asked for this."
        return None

    def _known_host(self, host: str) -> bool:
        if _LOOPBACK.fullmatch(host):
            return True
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].strip("[]")
        if name == self._bound:
            return True
        if self._gate is None:
            return False
        # Rebinding needs a name that its owner can point here: an address is safe, and so is this machine's own name.
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in (self._own_name, f"{self._own_name}.local")
        return True


def _without_token(scope: Scope) -> bytes:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    kept = urlencode([(key, value) for key, value in query if key != "token"])
    return b"/" + (b"?" + kept.encode() if kept else b"")


def _all(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _changes_state(scope: Scope) -> bool:
    return scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS


def _same_origin(origin: str, host: str, scheme: str) -> bool:
    """Whether an Origin header names this very server; `null` never does."""
    web = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    default = ":443" if web == "https" else ":80"
    return origin.lower().removesuffix(default) == f"{web}://{host}".removesuffix(default)


def _fetch_allowed(scope: Scope) -> bool:
    """Sec-Fetch-Site, where the browser sends it: own requests, and from elsewhere only a link that opens the page."""
    sites = _all(scope, b"sec-fetch-site")
    if not sites or sites in (["same-origin"], ["none"]):
        return True
    if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
        return False
    return _all(scope, b"sec-fetch-mode") == ["navigate"] and _all(scope, b"sec-fetch-dest") == ["document"]


def _with_headers(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {key.lower() for key, _ in message.get("headers", [])}
            extra = [(key, value) for key, value in HEADERS.items() if key not in own]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return sender


async def _refuse(scope: Scope, send: Send, status: int, sentence: str, headers: list[tuple[bytes, bytes]]) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": sentence})
    else:
        await _answer(send, status, sentence, headers)


async def _answer(send: Send, status: int, sentence: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = sentence.encode()
    plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    sender = _with_headers(send)
    await sender({"type": "http.response.start", "status": status, "headers": [*plain, *headers]})
    await sender({"type": "http.response.body", "body": body})

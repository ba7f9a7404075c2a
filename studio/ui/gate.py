"""The token that others on the network need, and the cookie a browser keeps once it has shown it.

In: a request's query and cookies. Out: a verdict. Wrong tokens are counted by address; after twenty the address waits.
The cookie holds a value derived from the token, never the token: an old cookie ends with the token that made it.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict, deque
from http.cookies import CookieError, SimpleCookie
from typing import Literal
from urllib.parse import parse_qs

from starlette.types import Scope

Verdict = Literal["known", "fresh", "wrong", "missing", "throttled"]
COOKIE = "studio_session"
ALLOWED_MISTAKES = 20
WINDOW = 300.0  # seconds a mistake is remembered
_ADDRESSES = 1024  # addresses remembered at most, so that many of them cannot fill the memory


class TokenGate:
    """Judges requests by a token given as `?token=` or by the cookie that followed it."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._session = hmac.new(self._token, b"studio session", hashlib.sha256).hexdigest()
        self._mistakes: OrderedDict[str, deque[float]] = OrderedDict()

    # Lax: a link from a mail or a chat may open the studio; what changes something needs our own Origin besides.
    @property
    def cookie(self) -> tuple[bytes, bytes]:
        return b"set-cookie", f"{COOKIE}={self._session}; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000".encode()

    @property
    def expired_cookie(self) -> tuple[bytes, bytes]:
        return b"set-cookie", f"{COOKIE}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0".encode()

    def check(self, scope: Scope) -> Verdict:
        """The verdict on a request; a wrong token or cookie counts as a mistake of its address."""
        verdict = self._judge(scope)
        if verdict == "known":
            return verdict
        mistakes = self._recent_mistakes(scope)
        if len(mistakes) >= ALLOWED_MISTAKES:
            return "throttled"
        if verdict == "wrong":
            mistakes.append(time.monotonic())
        return verdict

    def _judge(self, scope: Scope) -> Verdict:
        shown = _cookie(scope)
        if shown and hmac.compare_digest(shown.encode(), self._session.encode()):
            return "known"
        given = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True).get("token", [])
        if given and hmac.compare_digest(given[0].encode(), self._token):
            return "fresh"
        return "wrong" if given or shown else "missing"

    def _recent_mistakes(self, scope: Scope) -> deque[float]:
        address = (scope.get("client") or ("",))[0]
        mistakes = self._mistakes.setdefault(address, deque(maxlen=ALLOWED_MISTAKES))
        self._mistakes.move_to_end(address)
        while len(self._mistakes) > _ADDRESSES:
            self._mistakes.popitem(last=False)
        while mistakes and time.monotonic() - mistakes[0] > WINDOW:
            mistakes.popleft()
        return mistakes


def _cookie(scope: Scope) -> str:
    for key, value in scope["headers"]:
        if key.lower() == b"cookie":
            try:
                found = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            except CookieError:
                continue
            if found is not None:
                return found.value
    return ""

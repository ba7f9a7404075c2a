"""Who may speak to the studio: hosts, origins, other sites, and the token for others on the network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from studio.ui.gate import ALLOWED_MISTAKES, TokenGate
from studio.ui.guard import Guard, is_loopback

TOKEN = "correct horse battery"
OWN = ("host", "127.0.0.1:7860")
ORIGIN = ("origin", "http://127.0.0.1:7860")


class Reached:
    """The application behind the guard: it notes that it was reached."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.times += 1
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"behind"})
        else:
            await send({"type": "websocket.accept"})


def ask(
    *headers: tuple[str, str],
    path: str = "/",
    method: str = "GET",
    query: str = "",
    kind: str = "http",
    gate: TokenGate | None = None,
    bound: str = "127.0.0.1",
    client: str = "127.0.0.1",
) -> tuple[int, dict[str, str]]:
    """What the guard makes of a request: its status (200 where the request came through) and headers."""
    behind, sent = Reached(), []
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "scheme": "ws" if kind == "websocket" else "http",
        "client": (client, 50000),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
    }

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(Guard(behind, bound, gate)(scope, receive, send))
    if kind == "websocket":
        status = 200 if sent[0]["type"] == "websocket.accept" else 403
        return status, {}
    assert (sent[0]["status"] == 200) == (behind.times == 1), "refused requests must not reach the application"
    told = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], told


PATHS = ("/", "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/file=x", "/api/live", "/studio/1/studio.js")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "",
        "[::1]evil",
        "127.0.0.1.evil",
        "127.0.0.1:7860.evil",
        "localhost.evil:7860",
        "evil@127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:7860/",
        " 127.0.0.1",
        "2130706433",
        "[::1",
        "127.0.0.1,evil.example",
    ],
)
def test_S01_a_foreign_host_is_refused_on_every_path(host: str, path: str) -> None:
    assert ask(("host", host), path=path)[0] == 403
    assert ask(("host", host), ("origin", f"http://{host}"), path=path, method="POST")[0] == 403


@pytest.mark.parametrize("hosts", [(), ("127.0.0.1:7860", "evil.example"), ("127.0.0.1:7860", "127.0.0.1:7860")])
def test_S01_no_host_and_more_than_one_are_refused(hosts: tuple[str, ...]) -> None:
    assert ask(*(("host", host) for host in hosts))[0] == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LocalHost:7860", "127.0.0.1:1", "[::1]:65535"])
def test_S01_this_machine_s_own_names_pass(host: str) -> None:
    assert ask(("host", host))[0] == 200
    assert ask(("host", host), ("origin", f"http://{host}"), method="POST")[0] == 200


def test_S01_websockets_are_guarded_alike() -> None:
    assert ask(("host", "evil.example"), kind="websocket")[0] == 403
    assert ask(OWN, ("origin", "http://evil.example"), kind="websocket")[0] == 403
    assert ask(OWN, kind="websocket")[0] == 403
    assert ask(OWN, ORIGIN, kind="websocket")[0] == 200


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:3000",
        "http://localhost:7860",  # another name than the one that was asked
        "https://127.0.0.1:7860",
        "http://127.0.0.1",
        "http://127.0.0.1:7860.evil",
        "",
    ],
)
def test_S02_a_foreign_origin_is_refused(origin: str, method: str) -> None:
    assert ask(OWN, ("origin", origin), method=method)[0] == 403


def test_S02_two_origins_are_refused() -> None:
    assert ask(OWN, ORIGIN, ORIGIN, method="POST")[0] == 403


def test_S02_what_changes_something_must_name_its_page() -> None:
    assert ask(OWN, method="POST")[0] == 403
    assert ask(OWN, method="GET")[0] == 200
    assert ask(OWN, ORIGIN, method="POST")[0] == 200
    assert ask(("host", "localhost"), ("origin", "http://localhost:80"), method="POST")[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_S02_another_site_may_only_link_to_the_page(site: str) -> None:
    opened = (("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"))
    framed = (("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe"))
    fetched = (("sec-fetch-site", site), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image"))
    assert ask(OWN, *opened)[0] == 200
    assert ask(OWN, *framed)[0] == 403
    assert ask(OWN, *fetched)[0] == 403
    assert ask(OWN, *opened, path="/gradio_api/file=x")[0] == 403
    assert ask(OWN, ORIGIN, *opened, method="POST")[0] == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_S02_the_page_s_own_requests_pass(site: str) -> None:
    assert ask(OWN, ("sec-fetch-site", site), path="/api/live")[0] == 200
    assert ask(OWN, ORIGIN, ("sec-fetch-site", site), method="POST")[0] == 200


def test_S04_only_loopback_keeps_the_studio_to_itself() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.0.0.2", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.5", "studio.local", ""))


def test_S04_with_a_token_addresses_are_known_and_foreign_names_are_not() -> None:
    gate = TokenGate(TOKEN)
    cookie = ("cookie", gate.cookie[1].decode().partition(";")[0])
    for host in ("192.168.1.5:7860", "[fe80::1]:7860", "localhost"):
        assert ask(("host", host), cookie, gate=gate, bound="0.0.0.0")[0] == 200
    assert ask(("host", "evil.example"), cookie, gate=gate, bound="0.0.0.0")[0] == 403
    assert ask(("host", "192.168.1.5:7860"))[0] == 403, "without a token only this machine's own names pass"


def test_S11_nothing_is_answered_without_the_token() -> None:
    gate = TokenGate(TOKEN)
    for path in PATHS:
        assert ask(OWN, path=path, gate=gate)[0] == 401
    assert ask(OWN, query="token=wrong", gate=gate)[0] == 401
    assert ask(OWN, ("cookie", "studio_session=wrong"), gate=gate)[0] == 401
    assert ask(OWN, kind="websocket", gate=gate)[0] == 403
    assert ask(OWN, path="/api/hello", gate=gate)[0] == 200


def test_S11_the_token_is_traded_for_a_cookie_that_does_not_hold_it() -> None:
    gate = TokenGate(TOKEN)
    status, headers = ask(OWN, query="token=correct%20horse%20battery&tab=runs&run=%2F%2Fevil", gate=gate)
    assert (status, headers["location"]) == (303, "/?tab=runs&run=%2F%2Fevil")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert TOKEN not in cookie and TOKEN.split()[0] not in cookie
    shown = ("cookie", f"other=1; {cookie.partition(';')[0]}")
    assert ask(OWN, shown, path="/api/live", gate=gate)[0] == 200
    assert ask(OWN, shown, path="/api/runs/x/stop", method="POST", gate=gate)[0] == 200, (
        "the token stands in for Origin"
    )
    assert ask(OWN, shown, gate=TokenGate("another token here"))[0] == 401, "an old cookie ends with its token"


def test_S11_guessing_is_throttled_by_address() -> None:
    gate = TokenGate(TOKEN)
    right = "token=correct%20horse%20battery"
    for number in range(ALLOWED_MISTAKES):
        method = "POST" if number % 2 else "GET"
        assert ask(OWN, query=f"token=guess{number}", method=method, gate=gate)[0] == 401
    assert ask(OWN, query="token=guess", gate=gate)[0] == 429
    assert ask(OWN, query=right, gate=gate)[0] == 429, "or the answer would tell a right guess from a wrong one"
    assert ask(OWN, query=right, method="POST", gate=gate)[0] == 429
    assert ask(OWN, query=right, gate=gate, client="192.168.1.9")[0] == 303
    cookie = ("cookie", gate.cookie[1].decode().partition(";")[0])
    assert ask(OWN, cookie, gate=gate)[0] == 200, "who is known already is not shut out by others' guesses"


def test_answers_leave_with_headers_that_keep_others_out() -> None:
    for headers in (ask(OWN)[1], ask(("host", "evil.example"))[1]):
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "sandbox" in headers["content-security-policy"]

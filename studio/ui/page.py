"""Gradio's page, dressed as the studio's.

In: the HTML that Gradio answers `GET /` with. Out: the same with our header before it, our styles and scripts in it, no
word about Gradio for social networks, and a policy that lets no foreign script run: scripts come from this server, and
the few that stand in the page carry a number used once. Our files are served from here too, each under its own name.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import re
import secrets
from html import escape
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.ui.text import ENGLISH, say
from studio.ui.theme import tokens_css

TABS = ("data", "train", "runs", "chat", "export", "system")
FIRST_TAB = "train"
_SERVED = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".woff2": "font/woff2"}
_STYLES = (
    "vendor/uplot/uplot.css",
    *(f"css/{name}.css" for name in ("base", "header", "gradio", "slider", "parts", "folds")),
)
_FONTS = ("fonts/inter-latin.woff2", "fonts/jetbrains-mono-latin.woff2")
# Before anything is drawn: which of light and dark, so that nothing flashes.
_MODE_SCRIPT = """(() => {
  const saved = localStorage.getItem("studio.mode");
  const dark = saved ? saved === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark", dark);
})();"""


def policy(nonce: str) -> str:
    """The page's Content-Security-Policy: nothing from anywhere else, no inline handlers, no frames.

    'unsafe-eval' is what Gradio needs to run the `js=` of an event; it lets nobody put a script into the page.
    """
    return (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; script-src-attr 'none'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self'; media-src 'self' blob: data:; worker-src 'self' blob:; "
        "base-uri 'self'; form-action 'self'; frame-src 'none'; object-src 'none'; frame-ancestors 'none'"
    )


class Assets:
    """The files of assets/ that the page may fetch, by name; anything else isn't there."""

    def __init__(self, folder: Path) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): path
            for path in folder.rglob("*")
            if path.suffix in _SERVED and path.is_file() and path.relative_to(folder).parts[0] != "datasets"
        }
        stamp = hashlib.sha256()
        for name in sorted(self._files):
            stamp.update(name.encode() + self._files[name].read_bytes())
        self.version = stamp.hexdigest()[:12]
        # The common ones first, in this order, so that those of the tabs may lean on them.
        tabs = [name for name in sorted(self._files) if name.startswith("css/") and name not in _STYLES]
        self.styles = (*_STYLES, *tabs)

    async def __call__(self, request: Request) -> Response:
        """GET /studio/<version>/<name>: kept by browsers for good, as another content has another version."""
        path = self._files.get(request.path_params["name"])
        if path is None:
            return Response("There is no such file.", 404)
        kept = request.path_params["version"] == self.version
        caching = "public, max-age=31536000, immutable" if kept else "no-store"
        return FileResponse(path, media_type=_SERVED[path.suffix], headers={"cache-control": caching})


class Page:
    """ASGI middleware that dresses the answer to `GET /` and touches nothing else."""

    def __init__(self, app: ASGIApp, assets: Assets) -> None:
        self._app = app
        self._assets = assets
        mimetypes.add_type("text/javascript", ".js")  # some Windows registries say text/plain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        plain = [(key, value) for key, value in scope["headers"] if key.lower() != b"accept-encoding"]
        start: Message = {}
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    await self._answer(start, b"".join(parts), send)
            else:
                await send(message)

        await self._app({**scope, "headers": plain}, receive, collect)

    async def _answer(self, start: Message, body: bytes, send: Send) -> None:
        ours = {b"content-length": b""}
        if start["status"] == 200 and _content_type(start).startswith(b"text/html"):
            nonce = secrets.token_urlsafe(16)
            body = dress(body.decode("utf-8"), self._assets, nonce).encode("utf-8")
            ours |= {b"content-security-policy": policy(nonce).encode(), b"cache-control": b"no-store"}
        ours[b"content-length"] = str(len(body)).encode()
        theirs = [(name, value) for name, value in start["headers"] if name not in ours]
        await send({**start, "headers": [*theirs, *ours.items()]})
        await send({"type": "http.response.body", "body": body})


def _content_type(start: Message) -> bytes:
    return next((value for name, value in start["headers"] if name == b"content-type"), b"")


def dress(page: str, assets: Assets, nonce: str) -> str:
    """Gradio's HTML with ours in it."""
    page = re.sub(r'<meta\s+(property="og:|name="twitter:)[^>]*>\s*', "", page)
    page = re.sub(r'<link rel="manifest"[^>]*>\s*', "", page)
    page = page.replace("<head>", "<head>\n" + _head(assets), 1)
    page = re.sub(r"(<body[^>]*>)", lambda match: match[1] + _header(assets.version), page, count=1)
    return re.sub(r"<script(?=[\s>])", f'<script nonce="{nonce}"', page)


def _head(assets: Assets) -> str:
    root = f"studio/{assets.version}"
    texts = json.dumps(ENGLISH, ensure_ascii=False).replace("<", "\\u003c")
    return "\n".join(
        (
            f"<title>{escape(say('app.title'))}</title>",
            f'<link rel="icon" type="image/svg+xml" href="{root}/icon.svg">',
            *(f'<link rel="preload" as="font" type="font/woff2" crossorigin href="{root}/{name}">' for name in _FONTS),
            f"<style>{tokens_css()}{_font_faces(root)}</style>",
            *(f'<link rel="stylesheet" href="{root}/{name}">' for name in assets.styles),
            f"<script>{_MODE_SCRIPT}</script>",
            f'<script type="application/json" id="studio-texts">{texts}</script>',
            f'<script defer src="{root}/vendor/uplot/uplot.js"></script>',
            f'<script type="module" src="{root}/studio.js"></script>',
        )
    )


def _font_faces(root: str) -> str:
    """Named for us, so that no font of the same name on the reader's machine stands in for it."""
    face = (
        "@font-face{{font-family:'{}';font-style:normal;font-weight:100 800;font-display:swap;"
        "src:url('{}') format('woff2')}}"
    )
    return "".join(
        face.format(family, f"{root}/{name}")
        for family, name in zip(("Studio Sans", "Studio Mono"), _FONTS, strict=True)
    )


def _header(version: str) -> str:
    """The frame of every tab. It stands in the page as it arrives, so it is there before anything else has loaded."""
    tabs = "".join(
        f'<button type="button" role="tab" id="nav-{tab}" data-tab="{tab}" aria-controls="tab-{tab}" '
        f'aria-selected="{str(tab == FIRST_TAB).lower()}" tabindex="{0 if tab == FIRST_TAB else -1}">'
        f"{escape(say(f'tab.{tab}'))}</button>"
        for tab in TABS
    )
    return f"""
<a id="studio-skip" href="#studio-tabs">{escape(say("app.skip"))}</a>
<header id="studio-header">
  <a class="brand" href="./?tab={FIRST_TAB}">
    <img src="studio/{version}/icon.svg" alt="" width="20" height="20"><span>{escape(say("app.name"))}</span>
  </a>
  <div id="studio-nav" role="tablist" aria-label="{escape(say("tab.label"))}">{tabs}</div>
  <button type="button" id="studio-live" hidden title="{escape(say("header.live"))}"></button>
  <button type="button" id="studio-device" hidden title="{escape(say("header.device"))}"></button>
  <button type="button" id="studio-mode" aria-label="{escape(say("header.to_dark"))}"></button>
</header>
<div id="studio-notice" role="status" hidden></div>
<noscript>{escape(say("app.noscript"))}</noscript>"""

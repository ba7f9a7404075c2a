"""The studio's server: the guard, our JSON interface, and Gradio mounted behind them.

In: host, port, token. Out: a running server, its address printed, the browser opened. Ending it ends the window alone:
workers have sessions of their own, and the next start finds them by their folders.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

import uvicorn

from studio.core.errors import ConfigError, StudioError
from studio.ui.port import OwnServer, fingerprint, open_port
from studio.ui.text import say

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from studio.ui.context import Studio

LEAST_TOKEN = 12  # characters
_STANDBY_AFTER = 6.0  # seconds from the start, if no page has asked for anything by then
_LAST_ANSWERS = 0.3  # seconds
_LARGEST_UPLOAD = "8gb"
_FIRST_DRIVER_CALL = 5.0  # seconds that waking an NVIDIA driver may take


def create_app(studio: Studio, *, bound: str = "127.0.0.1", port: int = 7860, token: str | None = None) -> FastAPI:
    """The whole application; a test may talk to it without a server."""

    async def created() -> FastAPI:
        return _create(studio, bound, port, token)

    # Outside of a running loop Gradio makes one for each lock it needs, and never closes it.
    return asyncio.run(created())


def _create(studio: Studio, bound: str, port: int, token: str | None) -> FastAPI:
    from fastapi import FastAPI

    from studio.ui import api, api_data, api_datawork, api_estimate, api_export, api_sweeps
    from studio.ui.build import build
    from studio.ui.gate import TokenGate
    from studio.ui.gradio_import import gr
    from studio.ui.guard import Guard
    from studio.ui.page import Assets, Page
    from studio.ui.theme import theme
    from studio.workspace.home import bundled

    assets = Assets(bundled("assets"))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(StudioError, api.studio_error)
    for routes in (api, api_data, api_datawork, api_estimate, api_export, api_sweeps):
        app.include_router(routes.router(studio))
    app.add_api_route("/studio/{version}/{name:path}", assets, methods=["GET"])
    app.add_middleware(Page, assets=assets)
    app.add_middleware(Guard, bound=bound, gate=TokenGate(token) if token else None)
    gr.mount_gradio_app(
        app,
        build(studio),
        path="/",
        server_name=bound,
        server_port=port,
        theme=theme(),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=_LARGEST_UPLOAD,
    )
    return app


def serve(host: str = "127.0.0.1", port: int = 7860, open_browser: bool = True, token: str | None = None) -> None:
    """Serve the studio until Ctrl-C, SIGTERM or the terminal's end; then return within five seconds.

    Raises ConfigError for a host that others can reach without a token, StudioError where it can't listen.
    """
    from studio.ui.guard import is_loopback
    from studio.workspace.home import home

    _check_reach(is_loopback(host), host, token)
    own = fingerprint(home())
    try:
        listener = open_port(host, port, own)
    except OwnServer as other:
        url = _url(host, other.port, None)
        _tell(say("server.already", url=url))
        if open_browser:
            webbrowser.open(url)
        return
    bound = int(listener.getsockname()[1])
    if port and bound != port:
        _tell(say("server.taken", taken=port, port=bound))
    with contextlib.closing(listener), contextlib.suppress(KeyboardInterrupt):
        _run(listener, host, bound, open_browser, token)


def _check_reach(alone: bool, host: str, token: str | None) -> None:
    if token is not None and len(token) < LEAST_TOKEN:
        raise ConfigError("token", f"It has {len(token)} characters.", f"Give a secret of at least {LEAST_TOKEN}.")
    if not alone and token is None:
        raise ConfigError(
            "host",
            f"On {host} other machines could reach the studio, so it doesn't start without a token.",
            "Add --token with a secret of your own, or leave --host out.",
        )


def _run(listener: socket.socket, host: str, port: int, open_browser: bool, token: str | None) -> None:
    from studio.ui.context import Studio
    from studio.workspace.chat import Chat
    from studio.workspace.estimating import Estimating
    from studio.workspace.home import home
    from studio.workspace.supervisor import Supervisor
    from studio.workspace.sweeps import Sweeps

    # Read while Gradio is imported: what is uploaded lies with the rest, not in a folder of all users.
    os.environ.setdefault("GRADIO_TEMP_DIR", str(home() / "uploads"))
    supervisor = Supervisor(standby=True)
    chat = Chat(supervisor.launcher, supervisor.runs, supervisor.desk.shows)
    estimating = Estimating(home(), supervisor.desk, supervisor.learning)
    supervisor.predict = estimating.predict
    sweeps = Sweeps(supervisor)
    studio = Studio(supervisor, chat, estimating=estimating, sweeps=sweeps)

    def adopt() -> None:
        supervisor.adopt()
        sweeps.adopt()

    try:
        app = create_app(studio, bound=host, port=port, token=token)
        gc.freeze()  # what stands now stays: neither each collection nor the end need look through it

        def ready() -> None:
            _tell(say("server.at", url=_url(host, port, None)))
            if token:
                _tell(say("server.token"))
            _tell(say("server.stop_how"))
            threading.Thread(target=adopt, name="adopt", daemon=True).start()
            threading.Thread(target=_tell_of_unused_card, name="card", daemon=True).start()
            # The standby's imports would compete with the page that is just being opened.
            standby = threading.Timer(_STANDBY_AFTER, supervisor.launcher.prepare)
            standby.daemon = True
            standby.start()
            if open_browser:
                threading.Thread(target=webbrowser.open, args=(_url(host, port, token),), daemon=True).start()

        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # it would write the token, which comes in an address
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        _Server(config, ready).run(sockets=[listener])
    finally:
        training = any(run.live for run in supervisor.runs.list(most=5))
        sweeps.close()
        chat.unload()
        estimating.close()
        supervisor.close()
        _tell(say("server.ended_running" if training else "server.ended"))


def _tell_of_unused_card() -> None:
    """A card that the installed torch can't use is said at once; else training would only be slow."""
    from studio.workspace.hardware import torch_build_problem

    problem = torch_build_problem(deadline=_FIRST_DRIVER_CALL)
    if problem:
        _tell(problem)


class _Server(uvicorn.Server):
    """uvicorn's server, saying when it answers, and ending alike however it is told to."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Hang up on open pages, which hold a stream each; questions under way have a moment to be answered."""
        await asyncio.sleep(_LAST_ANSWERS)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.close()
        await super().shutdown(sockets=sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own would raise the signal again at the end, before the supervisor is closed."""
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
        before = {name: signal.signal(getattr(signal, name), self.handle_exit) for name in names}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(getattr(signal, name), handler)


def _url(host: str, port: int, token: str | None) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{port}/" + (f"?token={quote(token)}" if token else "")


def _tell(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()

"""A port to listen on.

In: the host and port wished for. Out: a listening socket on it or on the next free one, or word that another server of
the same studio is there already. The socket listens from the start: whoever asks early waits instead of being refused.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import socket
from pathlib import Path

from studio.core.errors import StudioError

_TRIES = 20
_PATIENCE = 3.0  # seconds for a server on the port to say what it is
_TAKEN = {errno.EADDRINUSE, errno.EACCES}  # Windows says EACCES for a port that another holds exclusively


class OwnServer(Exception):
    """The studio is served already, on `port`."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.port = port


def fingerprint(home: Path) -> str:
    """Tells whether two servers keep their state in the same folder, without giving the folder away."""
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:32]


def open_port(host: str, port: int, own: str) -> socket.socket:
    """A listening socket. `own`: the fingerprint by which a server of the same studio answers.

    Raises OwnServer if one does, StudioError if the host isn't this machine's or no port is free.
    """
    for candidate in range(port, min(port + _TRIES, 65536)) if port else (0,):
        try:
            return _listen(host, candidate)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise StudioError(
                    f"The studio can't listen on {host} ({error.strerror or error}).",
                    "Leave --host out to use this machine's own address.",
                ) from None
        if _answer(host, candidate) == own:
            raise OwnServer(candidate)
    raise StudioError(f"No port is free from {port} to {port + _TRIES - 1}.", "Give another one with --port.")


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _answer(host: str, port: int) -> str | None:
    """What a server on the port says of itself at /api/hello; None if it isn't a studio."""
    reachable = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(reachable, port, timeout=_PATIENCE)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/api/hello")
            told = json.loads(connection.getresponse().read(4096))
        except (OSError, http.client.HTTPException, ValueError):
            return None
    if isinstance(told, dict) and told.get("app") == "studio":
        return str(told.get("home"))
    return None

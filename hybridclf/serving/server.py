"""Draining uvicorn server: on SIGTERM it answers accepted requests and refuses new ones with 503."""

import faulthandler
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from ..errors import InvalidInputError
from ..utils.bounds import check_number, check_whole
from .admission import Admission
from .connections import bounded_protocol
from .request_log import log_config

__all__ = ["check_address", "check_certificate", "check_proxies", "run"]

GRACE = 5
"""Seconds for connections without an accepted request, such as slow uploads, once all accepted ones are answered."""

KEEP_ALIVE = 75
"""Seconds that a connection is kept for after an answer: more than the 60 for which many load balancers keep theirs.

Where the server ends it first, a request under way on it is lost.
"""

LONGEST_PATH = 100
"""Most bytes of a Unix socket's path; systems allow 104 to 108."""

DESCRIPTORS_KEPT = 64
"""File descriptors that connections leave to everything else."""


def check_address(host: str, port: int, uds: str | None = None) -> None:
    """Check that an address, or a path of a Unix socket, can be listened to, before a model is loaded for it.

    Raises
    ------
    InvalidInputError
        If it cannot, as when another server listens there.
    """
    if uds is not None:
        return _check_socket(uds)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidInputError(
            f"cannot listen to port {port} of {host}: {reason}; give another --host or --port"
        ) from error


def run(
    app: FastAPI,
    host: str = "127.0.0.1",
    port: int = 8000,
    log_level: str = "info",
    *,
    drain_seconds: float = 30.0,
    header_seconds: float = 10.0,
    connections: int = 1000,
    on_hangup: Callable[[], None] | None = None,
    json_log: bool = False,
    trusted_proxies: str = "",
    uds: str | None = None,
    root_path: str = "",
    ssl_certfile: str | None = None,
    ssl_keyfile: str | None = None,
) -> int | None:
    """Serve an application of `create_app` until SIGTERM or SIGINT, and return when it has drained.

    A second signal ends the process at once. So does a shutdown that takes too long, as a thread that hangs cannot be
    waited for; the stacks of all threads are then written to the standard error.

    Parameters
    ----------
    app : FastAPI
        Application to serve.
    host, port : str, int
        Address to listen on; port 0 takes any free port, which is logged.
    log_level : str
        Lowest level to log, from "trace" to "critical".
    drain_seconds : float
        Longest time from the signal to the end, above 0.
    header_seconds : float
        Longest time for a request's header, above 0.
    connections : int
        Most connections, at least 1; fewer if the system allows fewer open files.
    on_hangup : function, optional
        Callback of SIGHUP. Default: the signal is ignored. On any thread but the main one neither holds, as signals are
        the main thread's.
    json_log : bool
        Log JSON, a line each, and one for every request but those of probes.
    trusted_proxies : str
        Addresses and networks of proxies whose `X-Forwarded-For` tells the client's address, with commas between them.
        Default: the address is the connection's, as a client can send any header.
    uds : str, optional
        Path of a Unix socket to listen on, in place of host and port. All of its clients are one to the limits.
    root_path : str
        Path below which a proxy shows the server, such as "/clf"; it is part of the addresses in `/openapi.json`.
    ssl_certfile, ssl_keyfile : str, optional
        PEM files of a certificate and its key, for HTTPS.

    Returns
    -------
    int or None
        Signal that ended the server.

    Raises
    ------
    InvalidInputError
        For bounds out of range, or proxies that are no addresses.
    """
    check_proxies(trusted_proxies)
    check_number("drain_seconds", drain_seconds, above=0)
    check_number("header_seconds", header_seconds, above=0)
    check_whole("connections", connections, 1)
    config = uvicorn.Config(
        app,
        host,
        port,
        http=bounded_protocol(_allowed(connections), header_seconds),
        ws="none",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        log_level=log_level,
        log_config=log_config(log_level) if json_log else LOGGING_CONFIG,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies,
        uds=uds,
        root_path=root_path,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
    )
    server = _DrainingServer(config, drain_seconds)
    try:
        with _hangups(on_hangup):
            server.run()
    finally:
        faulthandler.cancel_dump_traceback_later()
        if uds is not None:
            Path(uds).unlink(missing_ok=True)
    return server.ended_by


def _check_socket(path: str) -> None:
    """Check that a Unix socket can be made, and that no server listens to it and nothing else is there."""
    if not os.access(Path(path).absolute().parent, os.W_OK) or len(os.fsencode(path)) > LONGEST_PATH:
        raise InvalidInputError(f"there can be no socket {path}; give a short path in a folder that can be written to")
    if os.path.lexists(path) and not Path(path).is_socket():
        raise InvalidInputError(f"{path} is there and no socket; give another path")
    with socket.socket(socket.AF_UNIX) as ours, suppress(OSError):  # nobody listens: a dead server left it
        ours.connect(path)
        raise InvalidInputError(f"another server listens to {path}; give another path, or end it first")


def check_certificate(certfile: str | None, keyfile: str | None) -> None:
    """Check that a certificate and its key can be loaded, if there are any.

    Raises
    ------
    InvalidInputError
        If they cannot.
    """
    if certfile is None:
        if keyfile is not None:
            raise InvalidInputError("a key alone makes no HTTPS; give its certificate, too (--ssl-certfile)")
        return
    try:  # OpenSSL would ask the terminal for the pass phrase of an encrypted key
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password=lambda: "")
    except OSError as error:  # SSLError is one
        raise InvalidInputError(
            f"the certificate {certfile} cannot be used: {error}; give it as a PEM file, and its key in the same file "
            "or as --ssl-keyfile, without a pass phrase"
        ) from error


def check_proxies(trusted: str) -> None:
    """Check that trusted proxies are addresses or networks with commas between them.

    Raises
    ------
    InvalidInputError
        If one is neither.
    """
    for proxy in trusted.split(",") if trusted else []:
        try:
            ip_network(proxy.strip())
        except ValueError as error:
            raise InvalidInputError(
                f"trusted proxies: {error}; give addresses or networks with commas between them, such as "
                "--trusted-proxies 10.0.0.1,10.1.0.0/16"
            ) from error


@contextmanager
def _hangups(call: Callable[[], None] | None) -> Iterator[None]:
    """Answer SIGHUP by a callback in a `with` block on the main thread; without one, ignore it."""
    if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda *_: call() if call else None)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before or signal.SIG_DFL)  # None for a handler that is not Python's


def _allowed(connections: int) -> int:
    """Lower a number of connections to what the limit of open files allows."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return connections
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - DESCRIPTORS_KEPT))


class _DrainingServer(uvicorn.Server):
    """uvicorn server that listens until all accepted requests are answered; a second signal ends the process."""

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self.drain_seconds = drain_seconds
        self.ended_by: int | None = None

    @property
    def _gates(self) -> list[Admission]:
        """Gates of the service and of those that a reloaded model has replaced; none before the start."""
        return [service.gate for service in self.config.app.state.services]  # type: ignore[union-attr]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.ended_by is not None:
            os._exit(128 + sig)
        self.ended_by = sig
        # a watchdog in C, which neither a hung thread nor a hung event loop keeps from ending the process
        faulthandler.dump_traceback_later(self.drain_seconds, exit=True)
        for gate in self._gates:
            gate.draining = True

    async def on_tick(self, counter: int) -> bool:
        drained = self.ended_by is not None and not any(gate.inside for gate in self._gates)
        return await super().on_tick(counter) or drained  # uvicorn exits when this is true

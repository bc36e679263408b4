"""`hybridclf serve`."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .shared import OFF, Device, Quiet, running

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..estimator import HybridClassifier


def serve(
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR", help="Embedded or saved model; default: cifar10, photographs."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    uds: Annotated[Path | None, typer.Option(help="Unix socket to listen on, in place of host and port.")] = None,
    root_path: Annotated[str, typer.Option(help="Path below which a proxy shows this server.")] = "",
    trusted_proxies: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS,…",
            help="Proxies, or networks of them, whose X-Forwarded-For is the client's address; default: none.",
        ),
    ] = "",
    ssl_certfile: Annotated[Path | None, typer.Option(help="PEM file of a certificate: HTTPS.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="PEM file of its key, unless that is in the first.")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File of keys that may ask, one per line: KEY, or NAME KEY for the log.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A key also for /metrics, /docs, /openapi.json.")] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Denoiser batch; default: the model's.")] = None,
    max_queue: Annotated[int, typer.Option(min=0, help="Images that may wait.")] = 128,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Size of a request.")] = 10 * 2**20,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image.")] = 25_000_000,
    max_bytes: Annotated[
        int, typer.Option(min=2, help="Bodies and images in the server; one client may hold half.")
    ] = 256 * 2**20,
    decoders: Annotated[int, typer.Option(min=1, help="Processes that decode large images.")] = 2,
    decode_seconds: Annotated[float, typer.Option(min=0.1, help="Longest time to decode an image.")] = 5.0,
    stuck_after: Annotated[
        float, typer.Option(min=1, help="Seconds of one batch until /healthz says 503; /readyz after a quarter.")
    ] = 60.0,
    deadline: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds of a request that names no deadline; default: no limit.")
    ] = None,
    max_deadline: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds that a request has at most, whatever it asks for.")
    ] = None,
    header_seconds: Annotated[float, typer.Option(min=0.1, help="Longest time to send a request's header.")] = 10.0,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at a time.")] = 1000,
    drain_seconds: Annotated[float, typer.Option(min=1, help="Longest time from SIGTERM to the end.")] = 30.0,
    images_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Images that a client may ask about in a minute; default: any.")
    ] = None,
    max_documents: Annotated[int, typer.Option(min=1, help="Labels in a request.")] = 100,
    reload_model: Annotated[bool, typer.Option("--reload-model", help="SIGHUP loads the model anew, too.")] = False,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="json: all lines as JSON, and one for each request.")
    ] = "text",
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Rerank and classify over HTTP until SIGTERM; what was accepted by then is answered.

    POST /v1/rerank and /v1/classify, GET /healthz, /readyz and /metrics; /docs has examples.
    """
    with _Hangups() as hangups, running(quiet):
        from .. import serving
        from ..pretrained.catalog import DEFAULT_MODEL

        limits = serving.Limits(
            queue=max_queue,
            body_bytes=max_body_bytes,
            pixels=max_pixels,
            documents=max_documents,
            decoders=decoders,
            decode_seconds=decode_seconds,
            total_bytes=max_bytes,
            stuck_seconds=stuck_after,
            deadline_seconds=deadline,
            max_deadline_seconds=max_deadline,
            images_per_minute=images_per_minute,
        )
        keys = [] if api_key_file is None else serving.read_keys(api_key_file)
        socket, certificate, key = (None if p is None else str(p) for p in (uds, ssl_certfile, ssl_keyfile))
        serving.check_private(private, keys)
        serving.check_address(host, port, socket)
        serving.check_certificate(certificate, key)
        serving.check_proxies(trusted_proxies)
        chosen = model or DEFAULT_MODEL
        load = partial(_load, chosen, device, batch_size)
        name = os.path.basename(os.path.abspath(chosen))  # of "." too; links are names of their own
        clf = load()
        if not (quiet or clf.fusion_.pays):
            typer.echo(OFF, err=True)
        application = serving.create_app(clf, limits, name=name, api_keys=keys, private=private)
        hangups.begin(partial(_read_anew, application, api_key_file, load if reload_model else None))
        ended_by = serving.run(
            application,
            host,
            port,
            "warning" if quiet else "info",
            drain_seconds=drain_seconds,
            header_seconds=header_seconds,
            connections=max_connections,
            json_log=log_format == "json",
            on_hangup=hangups,
            uds=socket,
            root_path=root_path,
            trusted_proxies=trusted_proxies,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        if ended_by == signal.SIGINT:
            raise KeyboardInterrupt


class _Hangups:
    """Handler of SIGHUP in a `with` block: by default the signal ends the process, and a model takes long to load."""

    def __init__(self) -> None:
        self._answer: Callable[[], None] | None = None
        self._missed = False
        self._before: Any = None

    def begin(self, answer: Callable[[], None]) -> None:
        """Call this function from now on, and at once if there was a signal already."""
        self._answer = answer
        if self._missed:
            answer()

    def __call__(self, *_: object) -> None:
        if self._answer is None:
            self._missed = True
        else:
            self._answer()

    def __enter__(self) -> "_Hangups":
        if hasattr(signal, "SIGHUP"):
            self._before = signal.signal(signal.SIGHUP, self)
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._before or signal.SIG_DFL)  # None for a handler that is not Python's


def _load(model: str, device: str | None, batch_size: int | None) -> "HybridClassifier":
    from ..estimator import HybridClassifier

    clf = HybridClassifier.from_pretrained(model, device=device)
    clf.batch_size = batch_size or clf.batch_size
    return clf


def _read_anew(application: "FastAPI", keys: Path | None, load: "Callable[[], HybridClassifier] | None") -> None:
    """Read the keys anew, if there are any, and the model, if it is to be."""
    from .. import serving

    if keys is not None:
        serving.reload_keys(application, keys)
    if load is not None:
        serving.reload_model(application, load)

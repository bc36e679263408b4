"""Draining uvicorn server: on SIGTERM it answers accepted requests and refuses new ones with 503."""

from types import FrameType

import uvicorn
from fastapi import FastAPI

__all__ = ["run"]


def run(app: FastAPI, host: str = "127.0.0.1", port: int = 8000, log_level: str = "info") -> int | None:
    """Serve an application of `create_app` until SIGTERM or SIGINT, and return when it has drained.

    Parameters
    ----------
    app : FastAPI
        Application to serve.
    host, port : str, int
        Address to listen on; port 0 takes any free port, which is logged.
    log_level : str
        Lowest level to log, from "trace" to "critical".

    Returns
    -------
    int or None
        Signal that ended the server.
    """
    config = uvicorn.Config(app, host, port, access_log=False, timeout_keep_alive=30, log_level=log_level)
    server = _DrainingServer(config)
    server.run()
    return server.ended_by


class _DrainingServer(uvicorn.Server):
    """uvicorn server that listens until all accepted requests are answered; a second signal stops it at once."""

    ended_by: int | None = None

    @property
    def _service(self) -> object:
        return getattr(self.config.app.state, "service", None)  # type: ignore[union-attr]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        gate = getattr(self._service, "gate", None)
        # before start-up there is nothing to drain, and a second signal means impatience
        if gate is None or gate.draining:
            super().handle_exit(sig, frame)
        else:
            self.ended_by, gate.draining = sig, True

    async def on_tick(self, counter: int) -> bool:
        gate = getattr(self._service, "gate", None)
        # uvicorn exits when this is true
        return await super().on_tick(counter) or (gate is not None and gate.draining and not gate.inside)

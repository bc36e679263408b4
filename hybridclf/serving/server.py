"""A uvicorn server that drains: on SIGTERM what was accepted is answered, and what comes then gets 503."""

from types import FrameType

import uvicorn
from fastapi import FastAPI

__all__ = ["run"]


def run(app: FastAPI, host: str = "127.0.0.1", port: int = 8000, log_level: str = "info") -> int | None:
    """Serve an application of `create_app` until SIGTERM or SIGINT, and return when it has drained.

    Parameters
    ----------
    app : FastAPI
        What to serve.
    host, port : str, int
        Where to listen; port 0 for any that is free, which the log tells.
    log_level : str
        What to log: from "trace" to "critical".

    Returns
    -------
    int or None
        The signal that ended it.
    """
    config = uvicorn.Config(app, host, port, access_log=False, timeout_keep_alive=30, log_level=log_level)
    server = _DrainingServer(config)
    server.run()
    return server.ended_by


class _DrainingServer(uvicorn.Server):
    """Stops listening only when nothing that was accepted is left; a second signal stops it as uvicorn does."""

    ended_by: int | None = None

    @property
    def _service(self) -> object:
        return getattr(self.config.app.state, "service", None)  # type: ignore[union-attr]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        gate = getattr(self._service, "gate", None)
        if gate is None or gate.draining:
            super().handle_exit(sig, frame)
        else:
            self.ended_by, gate.draining = sig, True

    async def on_tick(self, counter: int) -> bool:
        gate = getattr(self._service, "gate", None)
        return await super().on_tick(counter) or (gate is not None and gate.draining and not gate.inside)

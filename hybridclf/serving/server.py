"""A uvicorn server that drains: on SIGTERM what was accepted is answered, and what comes then gets 503."""

from types import FrameType

import uvicorn
from fastapi import FastAPI

__all__ = ["run"]


def run(app: FastAPI, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve an application of `create_app` until SIGTERM or SIGINT, and return when it has drained.

    Parameters
    ----------
    app : FastAPI
        What to serve.
    host, port : str, int
        Where to listen; port 0 for any that is free, which the log tells.
    """
    _DrainingServer(uvicorn.Config(app, host=host, port=port, access_log=False, timeout_keep_alive=30)).run()


class _DrainingServer(uvicorn.Server):
    """Stops listening only when nothing that was accepted is left; a second signal stops it as uvicorn does."""

    @property
    def _service(self) -> object:
        return getattr(self.config.app.state, "service", None)  # type: ignore[union-attr]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        gate = getattr(self._service, "gate", None)
        if gate is None or gate.draining:
            super().handle_exit(sig, frame)
        else:
            gate.draining = True

    async def on_tick(self, counter: int) -> bool:
        gate = getattr(self._service, "gate", None)
        return await super().on_tick(counter) or (gate is not None and gate.draining and not gate.inside)

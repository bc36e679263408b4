"""Loading of the model anew while the server runs: new requests are the new one's, accepted ones the old one's."""

import asyncio
import logging
from collections.abc import Callable
from threading import Thread
from time import sleep

from fastapi import FastAPI

from ..estimator import HybridClassifier
from ..fitting.outliers import novelty_test
from .service import Service, service_of

__all__ = ["reload_model"]

POLL = 0.05
"""Seconds between two looks at what is left to answer."""

_log = logging.getLogger(__name__)


def reload_model(app: FastAPI, load: Callable[[], HybridClassifier]) -> Thread:
    """Load the model of an application of `create_app` anew, on a thread, and answer with it once it is warm.

    Both models are in memory until the old one has answered its requests. If the new one cannot be loaded, that is
    logged and the old one stays.

    Parameters
    ----------
    app : FastAPI
        Application. Before its start the thread waits for that.
    load : function
        Function that loads the classifier.

    Returns
    -------
    Thread
        Thread at work; it ends when the old model is closed.
    """
    thread = Thread(target=_reload, args=(app, load), name="hybridclf-reload", daemon=True)
    thread.start()
    return thread


def _reload(app: FastAPI, load: Callable[[], HybridClassifier]) -> None:
    app.state.started.wait()
    # one at a time: a signal that comes meanwhile may mean a newer model, so it waits
    with app.state.reloading:
        old = service_of(app)
        try:
            new = _warm_service(load(), old)
        except Exception as error:
            _log.error("the model cannot be loaded anew: %s; the model so far stays", error)
            return
        asyncio.run_coroutine_threadsafe(_swap(app, new), app.state.loop).result()
    _log.warning("the model was loaded anew; requests that the one before still answers: %d", old.requests)
    while old.requests:
        sleep(POLL)
    try:
        old.close()
    finally:
        app.state.services.remove(old)


def _warm_service(clf: HybridClassifier, old: Service) -> Service:
    if clf.reject is not None:
        novelty_test(clf)
    service = Service(clf, old.limits, old.metrics)
    try:
        service.warm_up()
    except BaseException:
        service.close()
        raise
    return service


async def _swap(app: FastAPI, new: Service) -> None:
    """Put the new service in place, on the event loop, where no request is about to use the old one."""
    old = service_of(app)
    new.gate.draining = old.gate.draining
    app.state.service = new
    app.state.services.append(new)

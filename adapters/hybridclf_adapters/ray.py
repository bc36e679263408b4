"""Ray: batches on a cluster, and the HTTP service on Ray Serve (the extra `ray`).

>>> from hybridclf_adapters import ray
>>> hybridclf.batch.run("photos", "answers", "digits", engine=ray.load("auto"))  # doctest: +SKIP
>>> serve.run(ray.deployment("digits", num_replicas=2))  # doctest: +SKIP
"""

import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from hybridclf.batch import Done, Engine, Job, Part, Worker
from hybridclf.batch.output import attempt
from hybridclf.errors import HybridClfError, MissingDependencyError
from hybridclf.estimator import HybridClassifier
from hybridclf.pretrained.catalog import model_folder
from hybridclf.utils.bounds import check_whole
from hybridclf.utils.installing import pip_install

__all__ = ["deployment", "load", "run"]

BUNDLE = 4
"""Parts that an actor is given at a time, where there are plenty: each time costs Ray some 20 ms."""


# --- batches ----------------------------------------------------------------------------------------------------------


def load(address: str, *, actors: int | None = None) -> Engine:
    """The engine that a spec string such as "ray:local" names; see `run` for what the options mean."""
    _require("ray.data")
    return partial(run, address=address, actors=actors)


def run(job: Job, parts: Sequence[Part], address: str = "local", actors: int | None = None) -> Iterator[Done]:
    """Do the parts with a pool of actors, each with the model loaded once.

    An actor that dies is started again and its parts are done again, as often as it takes (Ray Data's own rule); a part
    that several actors have died of ends the run, and so does an error that is raised.

    Parameters
    ----------
    job : Job
        Its three folders must be there, under the same paths, on every machine of the cluster.
    parts : sequence of Part
        In any order.
    address : str
        "auto" for the cluster that this machine belongs to, "HOST:PORT" for another, "local" for one that is started
        here and ends with the run. Ignored where Ray is connected already.
    actors : int or None
        How many. None: one per GPU of the cluster; one per core if there is no GPU.

    Yields
    ------
    Done
        For each part, a few at a time once they are written.

    Raises
    ------
    MissingDependencyError
        If Ray is not installed.
    HybridClfError
        What a worker raised, as it was raised there; InvalidInputError for a part that actors die of, or for `actors`
        that are no whole number of at least 1.
    """
    if actors is not None:
        check_whole("actors", actors, 1)
    ray = _require("ray.data")
    with _connected(ray, address):
        resources = ray.cluster_resources()
        on_gpu = int(resources.get("GPU", 0)) > 0
        n_actors = actors or int(resources["GPU" if on_gpu else "CPU"])
        rows = [{"part": pickle.dumps(part)} for part in parts]  # bytes: names of files need not be Unicode
        n_tasks = max(len(rows) // BUNDLE, min(len(rows), 8 * n_actors))
        done = ray.data.from_items(rows, override_num_blocks=n_tasks).map(
            _Stage,
            fn_constructor_args=(job, uuid4().hex),
            compute=ray.data.ActorPoolStrategy(size=n_actors),
            num_cpus=1,
            num_gpus=1 if on_gpu else 0,
        )
        for row in done.iter_rows():
            outcome = pickle.loads(row["outcome"])
            if isinstance(outcome, HybridClfError):
                raise outcome
            yield outcome


class _Stage:
    """A worker between rows of Ray Data. Our errors are rows, too: Ray would make pages of text of them."""

    def __init__(self, job: Job, run: str) -> None:
        self.job, self.run = job, run
        self.worker: Worker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            outcome: Done | HybridClfError = self._do(pickle.loads(row["part"]))
        except HybridClfError as error:
            outcome = error
        return {"outcome": pickle.dumps(outcome)}

    def _do(self, part: Part) -> Done:
        with attempt(self.job.output, part, self.run):
            self.worker = self.worker or Worker(self.job)
            return self.worker(part)


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Ray while it is needed, quiet since there is a progress bar; a connection that was there before is kept."""
    connects = not ray.is_initialized()
    if connects:
        here = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, logging_level=logging.WARNING, **here)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that it shows no bar
    try:
        yield
    finally:
        if connects:
            ray.shutdown()


# --- the service ------------------------------------------------------------------------------------------------------


def deployment(model: str | Path, *, limits: Any = None, api_keys: Sequence[str] = (), **options: Any) -> Any:
    """The service of `hybridclf serve` as a Ray Serve application, so that replicas and autoscaling are Ray's.

    Parameters
    ----------
    model : path or str
        A saved model, in a folder that every machine sees under the same path, or the name of an embedded one.
    limits : hybridclf.serving.Limits, optional
        What each replica takes at most.
    api_keys : sequence of str
        Keys, one of which a request needs; none: everybody may ask.
    **options
        For `ray.serve.deployment`: num_replicas, autoscaling_config, ray_actor_options and so on.

    Returns
    -------
    ray.serve.Application
        For `ray.serve.run`.

    Raises
    ------
    MissingDependencyError
        If Ray Serve or what the service needs is not installed.
    InvalidInputError
        If there is no such model.
    """
    serve = _require("ray.serve").serve
    serving = import_module("hybridclf.serving")  # says what is missing, here and not on the replicas
    folder, name = model_folder(model).absolute(), Path(model).name

    def build() -> Any:
        """On each replica."""
        return serving.create_app(HybridClassifier.load(folder), limits, name=name, api_keys=api_keys)

    return serve.deployment(serve.ingress(build)(), **options).bind()


def _require(module: str) -> Any:
    """Ray, with that part of it loaded."""
    try:
        import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"{error}; type: {pip_install('ray')}") from error
    return import_module("ray")

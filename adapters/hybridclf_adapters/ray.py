"""Ray: batches on a cluster, and the HTTP service on Ray Serve (the extra `ray`).

>>> from hybridclf_adapters import ray
>>> hybridclf.batch.run("photos", "answers", "digits", engine=ray.load("auto"))  # doctest: +SKIP
>>> serve.run(ray.deployment("digits", num_replicas=2))  # doctest: +SKIP
"""

import logging
import os
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
"""Parts per task of an actor if there are plenty; each task costs Ray some 20 ms."""


# --- batches ----------------------------------------------------------------------------------------------------------


def load(address: str, *, actors: int | None = None) -> Engine:
    """Make the engine of a spec string such as "ray:local"; the options are those of `run`."""
    _require("ray.data")
    return partial(run, address=address, actors=actors)


def run(job: Job, parts: Sequence[Part], address: str = "local", actors: int | None = None) -> Iterator[Done]:
    """Do the parts of a batch job by a pool of Ray actors, each with its own model.

    An actor that dies is restarted and its parts are repeated, without limit (Ray Data's own rule). A part on which
    several actors have died ends the run, and so does an error in a worker.

    Parameters
    ----------
    job : Job
        Job whose three folders exist under the same paths on every machine of the cluster.
    parts : sequence of Part
        Parts, in any order.
    address : str
        "auto" for this machine's cluster, "HOST:PORT" for another, "local" for a new one that ends with the run. It is
        ignored if Ray is connected already.
    actors : int or None
        Number of actors. None: one per GPU of the cluster, or one per core if there is no GPU.

    Yields
    ------
    Done
        Figures of each part, a few at a time once they are written.

    Raises
    ------
    MissingDependencyError
        If Ray is not installed.
    HybridClfError
        The error of a worker. InvalidInputError for a part on which actors die, or for `actors` that is no whole number
        of at least 1.
    """
    if actors is not None:
        check_whole("actors", actors, 1)
    ray = _require("ray.data")
    with _connected(ray, address):
        resources = ray.cluster_resources()
        on_gpu = int(resources.get("GPU", 0)) > 0
        n_actors = actors or int(resources["GPU" if on_gpu else "CPU"])
        rows = [{"part": pickle.dumps(part)} for part in parts]  # bytes: names of files need not be Unicode
        # bundles of parts, but at least eight tasks per actor, so that all end at about the same time
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
    """Worker as a stage of Ray Data. Errors of ours are returned as rows, since Ray would print pages of text."""

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
            # inside `attempt`: loading the model may be what kills the actor
            self.worker = self.worker or Worker(self.job)
            return self.worker(part)


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Connect to Ray in a `with` block, and keep it quiet beside our progress bar; an earlier connection is kept."""
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
    """Make a Ray Serve application of the service of `hybridclf serve`; Ray does the replicas and autoscaling.

    Parameters
    ----------
    model : path or str
        Saved model, in a folder of the same path on every machine, or the name of an embedded one.
    limits : hybridclf.serving.Limits, optional
        Bounds of each replica.
    api_keys : sequence of str
        Accepted keys, of which a request sends one. Without keys, every request is served.
    **options
        Options of `ray.serve.deployment`: num_replicas, autoscaling_config, ray_actor_options and so on.

    Returns
    -------
    ray.serve.Application
        Argument of `ray.serve.run`.

    Raises
    ------
    MissingDependencyError
        If Ray Serve or a package of the service is not installed.
    InvalidInputError
        If there is no such model.
    """
    serve = _require("ray.serve").serve
    serving = import_module("hybridclf.serving")  # a missing package is an error here, not on the replicas
    folder, name = model_folder(model).absolute(), os.path.basename(os.path.abspath(model))  # of "." too

    def build() -> Any:
        """Create the application on a replica."""
        return serving.create_app(HybridClassifier.load(folder), limits, name=name, api_keys=api_keys)

    return serve.deployment(serve.ingress(build)(_Replica), **options).bind()


class _Replica:
    """Deployment whose health is that of `/healthz`: Ray replaces a replica that hangs."""

    app: Any  # set by Ray Serve

    def check_health(self) -> None:
        """Raise if a thread of the service has died or hangs."""
        service = getattr(self.app.state, "service", None)  # there is none before the start
        if service is not None and not service.alive:
            raise RuntimeError("the reranking loop has ended or hangs; the replica must be replaced")


def _require(module: str) -> Any:
    """Import a module of Ray, and return Ray."""
    try:
        import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"{error}; type: {pip_install('ray')}") from error
    return import_module("ray")

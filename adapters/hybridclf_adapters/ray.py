"""Ray: batches on a cluster, "ray:ADDRESS" as an engine of `hybridclf.batch` (pip install "hybridclf[ray]")."""

import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from hybridclf.batch import Done, Engine, Job, Part, Worker
from hybridclf.errors import MissingDependencyError

__all__ = ["load", "run"]


def load(address: str, *, actors: int | None = None) -> Engine:
    """The engine that a spec string such as "ray:local" names; see `run` for what the options mean."""
    _require_ray()
    return partial(run, address=address, actors=actors)


def run(job: Job, parts: Sequence[Part], address: str = "local", actors: int | None = None) -> Iterator[Done]:
    """Do the parts with a pool of actors, each with the model loaded once.

    An actor that dies is started again and its part done again; an error that is raised ends the run.

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
        For each part, as soon as it is written.

    Raises
    ------
    MissingDependencyError
        If Ray is not installed.
    """
    ray = _require_ray()
    with _connected(ray, address):
        resources = ray.cluster_resources()
        on_gpu = int(resources.get("GPU", 0)) > 0
        pool = ray.data.ActorPoolStrategy(size=actors or int(resources["GPU" if on_gpu else "CPU"]))
        rows = [{"part": pickle.dumps(part)} for part in parts]  # bytes: names of files need not be Unicode
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Stage, fn_constructor_args=(job,), compute=pool, num_cpus=1, num_gpus=1 if on_gpu else 0
        )
        for row in done.iter_rows():
            yield Done(**row)


class _Stage:
    """A worker between rows of Ray Data."""

    def __init__(self, job: Job) -> None:
        self.worker = Worker(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return asdict(self.worker(pickle.loads(row["part"])))


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Ray while it is needed, without a bar of its own; a connection that was there before is kept."""
    if ray.is_initialized():
        yield
        return
    ray.init(address=address, logging_level=logging.WARNING)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        yield
    finally:
        ray.shutdown()


def _require_ray() -> Any:
    try:
        import ray.data
    except ImportError as error:
        raise MissingDependencyError('Ray is not installed: pip install "hybridclf[ray]"') from error
    return ray

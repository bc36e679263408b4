"""Gain of a second Ray actor: `OMP_NUM_THREADS=1 python benchmarks/batch_scaling.py` (2 idle cores, Ray).

The same batch, each worker pinned to one thread: the local engine, one actor and two, in turn, `--repeats` times. The
input is scikit-learn's digits as PNG files in a Parquet file, over and over, unless `--input` gives another. Rates are
those of the second half of the parts, when all is warm; the time to the first part is listed apart. Efficiency is the
rate over that of as many local workers. Writes `benchmarks/results/batch_scaling.json`; the exit code is 1 if the claim
does not hold.
"""

import argparse
import io
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf import batch
from hybridclf.batch import Done, Engine, Job, Part
from hybridclf_adapters import ray as on_ray

AT_LEAST = 0.85
RESULTS = Path(__file__).parent / "results" / "batch_scaling.json"
ENGINES: dict[str, tuple[Engine, int]] = {
    "local": (batch.local, 1),
    "1 actor": (partial(on_ray.run, actors=1), 1),
    "2 actors": (partial(on_ray.run, actors=2), 2),
}
"""Engine and number of workers."""


class Stopwatch:
    """An engine that notes when each of its parts was done."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, job: Job, parts: Sequence[Part]) -> Iterator[Done]:
        start = perf_counter()
        self.times, self.images = [], []
        for done in self.engine(job, parts):
            self.times.append(perf_counter() - start)
            self.images.append(done.answered + done.errors)
            yield done

    def rate(self) -> float:
        """Images per second in the second half."""
        half = len(self.times) // 2
        return sum(self.images[half:]) / (self.times[-1] - self.times[half - 1])


def main() -> None:
    """Measure, write, print."""
    asked = arguments()
    torch.set_num_threads(1)
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.WARNING)  # a cluster that all runs share
    with TemporaryDirectory() as folder:
        source = asked.input or write_digits(Path(folder), asked.images)
        runs = [
            measure(source, Path(folder, f"{name} {i}"), asked.model, name)
            for i in range(asked.repeats)
            for name in ENGINES
        ]
    rates = {name: median(run["images_per_second"] for run in runs if run["engine"] == name) for name in ENGINES}
    efficiency = {name: rates[name] / (workers * rates["local"]) for name, (_, workers) in ENGINES.items()}
    report = {"model": asked.model, "images_per_second": rates, "efficiency": efficiency, "runs": runs}
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, rate in rates.items():
        first = median(run["first_part_seconds"] for run in runs if run["engine"] == name)
        print(f"{name:9} {rate:8,.0f} images/s, efficiency {efficiency[name]:.2f}, first part after {first:.1f} s")
    holds = efficiency["2 actors"] >= AT_LEAST
    print(f"{'holds' if holds else 'FAILS'}  efficiency of 2 actors {efficiency['2 actors']:.2f}, wanted >= {AT_LEAST}")
    sys.exit(not holds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits", help="an embedded or a saved model")
    parser.add_argument("--input", type=Path, help="images to classify, of at least a few dozen parts")
    parser.add_argument("--images", type=int, default=40_000, help="digits to write where there is no --input")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def write_digits(folder: Path, n_images: int) -> Path:
    """Digits as PNG files in a Parquet file, in the layout of Hugging Face's datasets."""
    pixels = (load_digits().images * 255 / 16).round().astype(np.uint8)
    files = [{"bytes": png(digit), "path": f"{i}.png"} for i, digit in enumerate(pixels)]
    path = folder / "digits.parquet"
    table = pa.table({"image": [files[i % len(files)] for i in range(n_images)]})
    pq.write_table(table, path, row_group_size=1024)
    return path


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def measure(source: Path, output: Path, model: str, name: str) -> dict:
    """One batch with one engine."""
    watch = Stopwatch(ENGINES[name][0])
    summary = batch.run(source, output, model, engine=watch)
    return {
        "engine": name,
        "images": summary.images,
        "evaluations": summary.evaluations,
        "first_part_seconds": watch.times[0],
        "images_per_second": watch.rate(),
    }


if __name__ == "__main__":
    main()

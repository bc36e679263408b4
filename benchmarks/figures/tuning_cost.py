"""Figure 6: cost of tuning a LoRA on a Stable Diffusion: a training step beside its forward passes, and its memory."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from timing import ratio_range, timings
from tuned import tuning_trainer

from hybridclf.tuning.examples import TuningExamples
from hybridclf.tuning.objective import Conditions, Objective, TimeProfile
from hybridclf.tuning.settings import TuneSettings
from hybridclf.tuning.tune import BATCH_SIZE

from . import stable_diffusion
from .common import Line, bars, styled
from .growth import forget_peaks, gpu_peak, host_peak

LAYOUTS = {"small SD": stable_diffusion.SMALL, "SD 2 size": stable_diffusion.SD_2}
LABELS = ("a tabby", "a siamese", "a lynx")
N_IMAGES = 32
GIB = 2**30


@dataclass(frozen=True)
class Sizes:
    """Layouts by device, and how many steps are timed."""

    layouts: Mapping[str, tuple[str, ...]]
    steps: int


SIZES = {
    "small": Sizes({"cpu": ("small SD",), "cuda": tuple(LAYOUTS)}, 5),
    "full": Sizes({"cpu": ("small SD",), "cuda": tuple(LAYOUTS)}, 20),
}


def measure(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Cost of each layout that the device can take, in a process each: what else was loaded would count as memory."""
    names = sizes.layouts.get(device.type, sizes.layouts["cpu"])
    return {
        "device": device.type,
        "steps": sizes.steps,
        "images_of_a_step": BATCH_SIZE,
        "layouts": {name: in_process(name, sizes.steps, device) for name in names},
    }


def in_process(name: str, steps: int, device: torch.device) -> dict[str, Any]:
    """Cost of one layout, measured by a process that does nothing else."""
    command = [sys.executable, "-m", "figures.tuning_cost", name, str(steps), str(device)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def cost(name: str, steps: int, device: torch.device) -> dict[str, Any]:
    """Seconds of a step and of its forward passes alone, and peaks of memory with and without training."""
    denoiser = stable_diffusion.denoiser(LAYOUTS[name], device, "bf16" if device.type == "cuda" else None)
    pixels = np.random.default_rng(0).integers(0, 256, (N_IMAGES, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        x0 = torch.cat([denoiser.encode(image[None]).float().cpu() for image in pixels])
    others = [[i % 3, (i + 1) % 3, (i + 2) % 3] for i in range(N_IMAGES)]
    examples = TuningExamples.of(x0, others, [np.zeros(3)] * N_IMAGES)
    settings = TuneSettings()
    with denoiser.adapted(settings.rank, (), settings.seed) as adaptation:
        # all times alike: which of them are drawn costs nothing
        flat = TimeProfile.of(torch.zeros(1, 2))
        objective = Objective(denoiser, Conditions(adaptation, LABELS), flat, settings.wrong_class_weight)
        trainer = tuning_trainer(adaptation, objective, examples, 10 * steps)
        index = torch.arange(BATCH_SIZE)

        @torch.no_grad()
        def forward() -> None:
            for part in index.split(trainer.config.micro_batch_size or BATCH_SIZE):
                trainer.loss(trainer.network, x0[part], part, torch.Generator().manual_seed(0))

        forward()  # loads all code
        forget_peaks()
        forward()
        alone = max_bytes()
        going = trainer.run()
        seconds = timings(lambda: next(going), forward, repeats=steps)
    ratio, span = ratio_range(*seconds.T)
    return {
        "weights": sum(parameter.numel() for parameter in denoiser.network.parameters()),
        "tuned": sum(parameter.numel() for parameter in adaptation.parameters.parameters()),
        "micro_batch_size": trainer.config.micro_batch_size,
        "steps_per_second": float(1 / np.median(seconds[:, 0])),
        "ratio": ratio,
        "range": span,
        "forward_bytes": alone,
        "training_bytes": max_bytes(),
    }


def max_bytes() -> int:
    """Peak of memory: the GPU's, or the process's where there is none."""
    return gpu_peak() or host_peak()


def lines(report: dict[str, Any]) -> list[Line]:
    """Time and memory of each layout."""
    return [line for name, one in report["layouts"].items() for line in _lines(name, one)]


def _lines(name: str, one: dict[str, Any]) -> list[Line]:
    return [
        Line(f"a step of a LoRA over its forward passes, {name}", one["ratio"], span=one["range"]),
        Line(f"steps of a LoRA, {name}", one["steps_per_second"], "per second"),
        Line(f"peak memory of a LoRA, {name}", one["training_bytes"] / GIB, "GiB"),
        Line(f"the same without training, {name}", one["forward_bytes"] / GIB, "GiB"),
    ]


@styled
def draw(report: dict[str, Any]) -> Figure:
    """Bars: time over the forward passes, and memory."""
    figure = Figure(figsize=(9, 3.4))
    time, memory = figure.subplots(1, 2)
    layouts = report["layouts"]
    bars(time, {name: one["ratio"] for name, one in layouts.items()}, spans=[one["range"] for one in layouts.values()])
    time.set_xlabel("a training step over its forward passes (median, range)")
    peaks = {name: one["training_bytes"] / GIB for name, one in layouts.items()}
    bars(memory, peaks | {f"{name}, no training": one["forward_bytes"] / GIB for name, one in layouts.items()})
    memory.set_xlabel(f"peak memory, GiB ({report['device']})")
    figure.suptitle(f"Tuning a LoRA, {report['images_of_a_step']} images a step", x=0.01, ha="left")
    return figure


if __name__ == "__main__":
    print(json.dumps(cost(sys.argv[1], int(sys.argv[2]), torch.device(sys.argv[3]))))

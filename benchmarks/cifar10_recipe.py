"""Worth of the wrong-class term: two pairs, trained from nothing for equally long, with it and without.

    python benchmarks/cifar10_recipe.py DATA WORK [--minutes 20]

DATA holds cifar10-train.parquet; the trainings are in WORK, and go on where they were interrupted. The figures are
those that each training ends with, of held-out images on which its fusion was not fitted: tier 2 alone has 32 trials of
every class. Writes `benchmarks/results/cifar10/recipe.json`, prints a table. There is one training of each: intervals
are over images, and know nothing of other seeds.
"""

import argparse
import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from figures.common import machine
from tqdm.auto import tqdm

from hybridclf import train_pair
from hybridclf.devices import as_device
from hybridclf.metrics import accuracy
from hybridclf.pair_training.checkpoint import save_json

VARIANTS = {"with the wrong-class term": 1.0, "without": 0.0}
"""Its weight, by variant."""

TIERS = ("tier_1", "tier_2", "hybrid")
RESULTS = Path(__file__).parent / "results" / "cifar10"


def trained(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The log of a variant's training, which goes on if it was interrupted."""
    folder = args.work / name.replace(" ", "-")
    log = folder / "training" / "log.json"
    if not (folder / "model.json").exists():
        settings = {"minutes": args.minutes, "wrong_class_weight": VARIANTS[name]}
        train_pair(args.data / "cifar10-train.parquet", folder, resume=log.exists(), progress=True, **settings)
    return json.loads(log.read_text(encoding="utf-8"))


def figures(log: dict[str, Any]) -> dict[str, Any]:
    """Steps of tier 2, and accuracy of each tier and of both with Wilson intervals."""
    found = log["validation"]
    n = found["n"]
    right = {tier: np.arange(n) < round(found[tier] * n) for tier in TIERS}
    settings = {name: log["settings"][name] for name in ("minutes", "wrong_class_weight")}
    return (
        settings
        | {"n": n, "steps": log["n_steps"]["denoiser"], "trials": found["tier_2_trials"]}
        | {tier: list(astuple(accuracy(answers))) for tier, answers in right.items()}
    )


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training")
    args = parser.parse_args(arguments)
    rows = {name: figures(trained(name, args)) for name in tqdm(VARIANTS, desc="variants", unit="training")}
    RESULTS.mkdir(parents=True, exist_ok=True)
    save_json(RESULTS / "recipe.json", {"machine": machine(as_device("auto")), "rows": rows})
    print("\n| tier 2 trained | steps | tier 1, % | tier 2, % | hybrid, % |\n|---|---|---|---|---|")
    for name, row in rows.items():
        cells = " | ".join("{:.1f} ({:.1f}-{:.1f})".format(*(100 * v for v in row[tier])) for tier in TIERS)
        print(f"| {name} | {row['steps']} | {cells} |")


if __name__ == "__main__":
    main()

"""Speed and cost, side by side with the published procedure: `make bench`, or
`python benchmarks/speed.py [FIGURE ...] [--profile full] [--device cuda] [--out FOLDER]`.

Writes `benchmarks/results/speed-DEVICE/FIGURE.json` and `.png`, over those of earlier runs and other profiles, and
prints one table. Times are compared as ratios, medians over repeats, both sides in turn in the same run; peaks of
memory are of one process each. The small profile takes about 10 minutes on two cores.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from figures import frontier, growth, loop_share, side_by_side, tiers, tuning_cost
from figures.common import Line, machine
from tqdm.auto import tqdm

FIGURES: dict[str, Any] = {
    "side-by-side": side_by_side,
    "frontier": frontier,
    "loop-share": loop_share,
    "growth": growth,
    "tiers": tiers,
    "tuning": tuning_cost,
}
PROFILES = ("small", "full")
RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; default all")
    parser.add_argument("--profile", choices=PROFILES, default="small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/speed-DEVICE")
    args = parser.parse_args(arguments)
    if unknown := set(args.figures) - set(FIGURES):
        parser.error(f"there is no figure {', '.join(sorted(unknown))}; there is {', '.join(FIGURES)}")
    device = torch.device(args.device)
    out = args.out or RESULTS / f"speed-{device.type}"
    out.mkdir(parents=True, exist_ok=True)
    names = args.figures or list(FIGURES)
    table = [
        (name, line)
        for name in tqdm(names, desc="figures", unit="figure")
        for line in make(name, args.profile, device, out)
    ]
    show(table, device)


def make(name: str, profile: str, device: torch.device, out: Path) -> list[Line]:
    """Measure one figure, write its numbers and its picture; its lines of the table."""
    module = FIGURES[name]
    report = {"profile": profile, "machine": machine(device), **module.measure(module.SIZES[profile], device)}
    (out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    module.draw(report).savefig(out / f"{name}.png")
    return module.lines(report)


def show(table: list[tuple[str, Line]], device: torch.device) -> None:
    """The table, in Markdown, with the machine above it."""
    print(", ".join(f"{key} {value}" for key, value in machine(device).items() if value is not None) + "\n")
    print("| figure | what | measured | wanted | |\n|---|---|---|---|---|")
    for name, line in table:
        print(f"| {name} | {line.what} | {line.measured} | {line.wanted} | {line.verdict} |")


if __name__ == "__main__":
    main()

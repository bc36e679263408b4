"""Worth of a generative second tier on real images, beside all that one would use instead:

    python benchmarks/worth.py DATA WORK [--sets NAME …] [--minutes 6] [--pretrained SPEC] [--from MODEL]
        [--few N …] [--tail] [--corrupted] [--images 1000]

DATA holds NAME-train.parquet and NAME-test.parquet, in the layout of a Hugging Face image dataset. Further files
NAME-test*.parquet, and test files of the same classes that have no training images, are shifted data: rows of their
own. WORK keeps all models and answers; an interrupted run goes on there, with the same minutes, network and start.

For every training set `hybridclf train` makes a pair in the minutes given, from nothing or the weights of a pair in
`--from`; the rival is a second network of tier 1's kind that trains for tier 2's time (with `--from` from the same
weights, so that the order of its images alone differs). It is asked where tier 1's
calibrated probability is below 0.95, whether the hybrid asks tier 2 there or not. With `--pretrained`, a linear
classifier on a pretrained network's features, fine-tuned if the minutes allow, stands beside them, and a pair behind
it, except for sets whose features alone take longer. Tier 2 alone has 16 trials. Every method answers for the same
images, at most `--images` of a test set; they are corrupted in the largest size that a method takes.

Writes `benchmarks/results/worth.json` and `worth.png`, prints a table of the rows and one of the costs: minutes and
FLOPs of each training, and FLOPs of an answer.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from contenders.costs import costs
from contenders.report import cost_table, picture, summary, table, verdict
from contenders.sets import Questions, Row, find_rows, questions
from contenders.training import Contenders
from figures.common import machine
from tqdm.auto import tqdm

from hybridclf.devices import as_device
from hybridclf.pair_training.checkpoint import save_json

RESULTS = Path(__file__).parent / "results"


def answered(row: Row, contenders: Contenders, asked: Questions) -> dict[str, np.ndarray]:
    """Answers to one row, which are kept in the contenders' folder."""
    beside = re.sub(r"\W+", "-", contenders.pretrained if contenders.behind else "nothing")
    path = contenders.folder / f"{row.kind}-{row.test.stem}-{len(asked.y)}-beside-{beside}.npz"
    if not path.exists():
        whole = path.with_suffix(".part.npz")
        np.savez(whole, **contenders.answers(asked.pixels, asked.photos))
        whole.replace(path)
    with np.load(path) as answers:
        return dict(answers)


def main(arguments: list[str] | None = None) -> None:
    """Train, ask, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="default: all with labelled training images")
    parser.add_argument("--minutes", type=float, default=6.0, help="of each pair")
    parser.add_argument("--pretrained", metavar="SPEC", help="network with features, such as timm:local-dir:FOLDER")
    parser.add_argument("--from", dest="start_from", metavar="MODEL", help="such as cifar10")
    parser.add_argument("--few", type=int, nargs="+", default=[], metavar="N", help="rows of N training images a class")
    parser.add_argument("--tail", action="store_true", help="rows of training sets with a long tail")
    parser.add_argument("--corrupted", action="store_true", help="rows of corrupted test images")
    parser.add_argument("--images", type=int, default=1000, help="test images of a row")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(arguments)
    extra = {name for name in ("tail", "corrupted") if getattr(args, name)}
    found: dict[str, Any] = {}
    spent: dict[str, Any] = {}
    contenders: Contenders | None = None
    args.out.mkdir(parents=True, exist_ok=True)
    for row in tqdm(find_rows(args.data, args.work, args.sets, args.few, extra), desc="rows", unit="row"):
        folder = args.work / row.training.replace(", ", "-").replace(" ", "-")
        if contenders is None or contenders.folder != folder:
            contenders = Contenders(row, folder, args.minutes, args.pretrained, args.start_from)
        asked = questions(row, contenders.side, args.images, contenders.pair.classes_, contenders.photo_side)
        found[row.name] = {"kind": row.kind} | summary(answered(row, contenders, asked), asked)
        if row.training not in spent:
            spent[row.training] = costs(contenders, asked.pixels, asked.photos)
        report = {"machine": machine(as_device("auto")), "minutes": args.minutes}
        report |= {"pretrained": args.pretrained, "start_from": args.start_from, "verdict": verdict(found)}
        save_json(args.out / "worth.json", report | {"costs": spent, "rows": found})
    picture(found).savefig(args.out / "worth.png")
    print(table(found), cost_table(spent), sep="\n\n")
    print(json.dumps(verdict(found)))


if __name__ == "__main__":
    main()

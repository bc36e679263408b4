"""What each part of the shapes U-Net's recipe is worth: short trainings of equal length, with all of it and without.

    python benchmarks/shapes_recipe.py WORK [--steps 400] [--batch 32] [--questions 50]

WORK is that of `benchmarks/train_shapes.py`, once tier 1 is trained; variants that are there already are read. Each is
asked which of two captions a picture has that training never saw, in 16 trials, without tier 1 and without weights; of
swapped captions a picture and its counterpart count as one question, half of it each. Writes
`benchmarks/results/shapes-recipe.json`, prints a table. There is one training of each: intervals are over questions,
and know nothing of other seeds. So short a training tells which parts help to start.
"""

import argparse
import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shapes import models
from shapes.intervals import in_percent, mean_interval
from shapes.tasks import Questions, attribute_questions, swap_questions
from tqdm.auto import tqdm
from train_shapes import SEED, Ingredients, Recipe, prepare, train_unet

from hybridclf import FixedTrials, Reranker
from hybridclf_adapters import diffusers

TRIALS = 16
QUESTIONS_SEED = 5 * 10**6
ASKED = ("control, colour", "control, shape", "binding, colour", "binding, shape")
RESULTS = Path(__file__).parent / "results" / "shapes-recipe.json"


@dataclass(frozen=True)
class Variant:
    """What is done otherwise: of the recipe, where there is cross-attention, and whose text encoder it is."""

    changes: dict[str, Any] = field(default_factory=dict)
    attends: tuple[bool, bool] = (True, True)
    own_text: bool = False


VARIANTS = {
    "all of it": Variant(),
    "without the wrong-caption term": Variant({"wrong_caption_weight": 0.0}),
    "little noise from the start": Variant({"first_t": 0, "fine_t": 0}),
    "without single things first": Variant({"single_steps": 0}),
    "attention at the lower resolution only": Variant(attends=(False, True)),
    "a new text encoder, trained along": Variant(own_text=True),
}


def network(variant: Variant, made: Ingredients) -> models.TextToImage:
    """Untrained."""
    torch.manual_seed(SEED)
    unet, encoder = models.unet(variant.attends), made.encoder()
    if variant.own_text:
        encoder = models.text_encoder(models.clip(len(made.words)), len(made.words))
    return models.TextToImage(unet, encoder)


def trained(name: str, args: argparse.Namespace) -> Path:
    """The folder of a trained variant; an interrupted training goes on."""
    variant, made, folder = VARIANTS[name], ingredients(args.work), args.work / "recipe" / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    short = Recipe(steps=args.steps, batch=args.batch, single_steps=args.steps // 8)
    model = train_unet(folder / "unet", network(variant, made), made, replace(short, **variant.changes)).cpu()
    models.save_pipeline(made.vae, model.encoder, made.words, model.network, folder / "sd")
    return folder / "sd"


@lru_cache(maxsize=1)
def ingredients(work: Path) -> Ingredients:
    """Those of the pair's own training."""
    return prepare(work)


def right(folder: Path, asked: dict[str, Questions], n: int) -> dict[str, np.ndarray]:
    """Share of n questions of each kind in which the right caption has the smaller error, float `[n]`."""
    stage = Reranker(diffusers.load(str(folder), prompts="{}"), allocation=FixedTrials(TRIALS), batch_size=128)
    answers = {}
    for kind, questions in asked.items():
        results = stage.rerank(questions.pictures, [list(c) for c in questions.captions])
        answers[kind] = np.array([r.posterior[0] > r.posterior[1] for r in results]).reshape(n, -1).mean(axis=1)
    return answers


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Shares of right answers with intervals, and every variant's minus the recipe's on the same questions."""
    n = args.questions
    attributes = attribute_questions(n, QUESTIONS_SEED, False)
    asked = {k: attributes[k] for k in ASKED} | swap_questions(n, QUESTIONS_SEED, False)
    answers = {name: right(trained(name, args), asked, n) for name in tqdm(VARIANTS, desc="variants")}
    share = {name: np.mean(list(by_kind.values()), axis=0) for name, by_kind in answers.items()}  # [n] each
    return {
        name: {"mean": mean_interval(share[name]), "minus all of it": mean_interval(share[name] - share["all of it"])}
        | {kind: mean_interval(a) for kind, a in by_kind.items()}
        for name, by_kind in answers.items()
    }


def main() -> None:
    """Train what is missing, ask, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--questions", type=int, default=50, help="of each kind")
    args = parser.parse_args()
    rows = measure(args)
    report = {"steps": args.steps, "batch": args.batch, "questions": args.questions, "trials": TRIALS, "rows": rows}
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    kinds = list(next(iter(rows.values())))
    print(f"| variant | {' | '.join(kinds)} |\n|---{'|---' * len(kinds)}|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(in_percent(row[kind]) for kind in kinds) + " |")


if __name__ == "__main__":
    main()

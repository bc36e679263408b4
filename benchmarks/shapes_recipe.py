"""Worth of each part of the shapes U-Net's recipe: short trainings of equal length, with all of it and without.

    python -m benchmarks.shapes_recipe WORK [--pair models/hybridclf_models/shapes] [--steps 500] [--batch 32]

WORK is for the scenes, which `recipes/train_shapes.py --start PAIR` can use as well, and for the variants; what is
there already is read. Tier 1, its tokenizer and the autoencoder are the pair's. So short a training learns what words
mean of single things rather than how they bind: single things are what it is given, and what it is asked about. Which
of two phrases does a picture of one thing have that training never saw? In 16 trials, without tier 1 and without
weights. Writes `benchmarks/results/shapes-recipe.json`, prints a table. There is one training of each variant:
intervals are over pictures, and know nothing of other seeds.
"""

import argparse
import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from benchmarks.shapes import models
from benchmarks.shapes.intervals import in_percent, mean_interval
from benchmarks.shapes.tasks import Questions, changed_questions
from hybridclf import FixedTrials, Reranker
from hybridclf_adapters import diffusers
from recipes.train_shapes import SEED, Ingredients, Recipe, prepare, train_unet

TRIALS = 16
QUESTIONS_SEED = 5 * 10**6
RESULTS = Path(__file__).parent / "results" / "shapes-recipe.json"


@dataclass(frozen=True)
class Variant:
    """A variant of the recipe: its changes, the levels with cross-attention, and its own text encoder or CLIP's."""

    changes: dict[str, Any] = field(default_factory=dict)
    attends: tuple[bool, bool] = (True, True)
    own_text: bool = False


VARIANTS = {
    "all of it": Variant(),
    "without the wrong-caption term": Variant({"wrong_caption_weight": 0.0}),
    "little noise from the start": Variant({"first_t": 0, "fine_t": 0}),
    "all scenes instead of single things": Variant({"single_steps": 0}),
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
    variant, made = VARIANTS[name], ingredients(args.work, args.pair)
    folder = args.work / "recipe" / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    short = Recipe(steps=args.steps, batch=args.batch, single_steps=args.steps)
    model = train_unet(folder / "unet", network(variant, made), made, replace(short, **variant.changes)).cpu()
    models.save_pipeline(made.vae, model.encoder, made.words, model.network, folder / "sd")
    return folder / "sd"


@lru_cache(maxsize=1)
def ingredients(work: Path, pair: Path) -> Ingredients:
    """Those of a further training of the pair."""
    return prepare(work, pair)


def right(folder: Path, asked: dict[str, Questions]) -> dict[str, np.ndarray]:
    """True where the right phrase has the smaller error, bool `[n]` by kind of question."""
    stage = Reranker(diffusers.load(str(folder), prompts="{}"), allocation=FixedTrials(TRIALS), batch_size=128)
    answers = {}
    for kind, questions in asked.items():
        results = stage.rerank(questions.pictures, [list(c) for c in questions.captions])
        answers[kind] = np.array([r.posterior[0] > r.posterior[1] for r in results])
    return answers


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Shares of right answers with intervals, and every variant's minus the recipe's on the same questions."""
    asked = changed_questions(args.questions, QUESTIONS_SEED)
    answers = {name: right(trained(name, args), asked) for name in tqdm(VARIANTS, desc="variants")}
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
    parser.add_argument("--pair", type=Path, default=Path("models/hybridclf_models/shapes"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--questions", type=int, default=200, help="of each kind")
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

"""Tuning the shapes pair to what it confuses, textures: `python -m benchmarks.tuning` (some hours on one core).

Every row is a training of so many steps: pictures with their caption and the one with textures swapped, by a LoRA, new
embeddings of the captions' words, or both, with and without the wrong-class term, alone or beside pictures of what is
to be kept: other swaps, or all other kinds of questions. All are asked the same questions in the same trials as the
pair before, with all of what was learned and with a part of it: which of two captions is right, of pictures that
nothing was trained or chosen on. Other kinds of questions show what was forgotten. A row that is there is not made
again.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shapes.tasks import Questions, attribute_questions, swap_questions
from benchmarks.tuned import tuned
from hybridclf import FixedTrials, HybridClassifier, Reranker
from hybridclf.metrics import accuracy, accuracy_difference

RESULTS = Path(__file__).parent / "results" / "tuning.json"
TRAIN_SEED, TEST_SEED = 6_200_000, 4_500_000
TRIALS, PAIRS, OTHERS = 8, 100, 40
PART = 0.7
"""Part of a LoRA that is asked about beside all of it, between the model before and after (arXiv 2109.01903)."""


@dataclass(frozen=True)
class Setting:
    """One training.

    Attributes
    ----------
    pictures : int
        Pictures with textures swapped.
    rank : int
        Rank of the LoRA; 0 for none.
    words : bool
        Whether the captions' words get new embeddings.
    wrong_class_weight : float
        Weight of the wrong-class term.
    n_steps : int
        Steps of the training.
    kept : int
        Pictures of other kinds of questions.
    all_kinds : bool
        Whether these are of all kinds, or other swaps alone.
    """

    pictures: int
    rank: int
    words: bool
    wrong_class_weight: float
    n_steps: int = 400
    kept: int = 0
    all_kinds: bool = False

    def __str__(self) -> str:
        kind = " and ".join([*(["LoRA"] if self.rank else []), *(["words"] if self.words else [])])
        kept = f" and {self.kept} of {'all other kinds' if self.all_kinds else 'other swaps'}" if self.kept else ""
        term = "" if self.wrong_class_weight else ", no wrong-class term"
        return f"{self.pictures} pictures{kept}, {self.n_steps} steps of {kind}{term}"


KINDS = ((8, False), (0, True), (8, True))
"""LoRA, words, and both."""

SETTINGS = [
    *(Setting(1000, 8, False, 1.0, 2400, kept=900, all_kinds=all_kinds) for all_kinds in (False, True)),
    Setting(1000, 8, True, 1.0, 2400, kept=900, all_kinds=True),
    *(Setting(1000, 8, False, weight, 1200) for weight in (1.0, 0.0)),
    *(Setting(n, *kind, 1.0) for n in (1000, 300, 100) for kind in KINDS),
    *(Setting(n, *kind, 0.0) for n in (1000, 300, 100) for kind in KINDS),
]


def test_questions() -> dict[str, Questions]:
    """Swapped textures, and everything else."""
    swaps = swap_questions(PAIRS, TEST_SEED, False)
    others = {f"{kind}, swapped": _first(asked, 2 * OTHERS) for kind, asked in swaps.items() if kind != "textures"}
    return {"textures, swapped": swaps["textures"]} | others | attribute_questions(OTHERS, TEST_SEED + 1000, False)


def _first(asked: Questions, n: int) -> Questions:
    return Questions(asked.pictures[:n], asked.captions[:n])


def answers(denoiser: Any, questions: dict[str, Questions]) -> dict[str, np.ndarray]:
    """True where the right caption has the lower error, bool `[n]` by kind of question."""
    stage = Reranker(denoiser, allocation=FixedTrials(TRIALS), batch_size=128)
    found = {}
    for kind, asked in questions.items():
        errors = np.stack([result.evidence for result in stage.rerank(asked.pictures, asked.captions)]).sum(axis=1)
        found[kind] = errors[:, 0] < errors[:, 1]
    return found


def training_questions(setting: Setting) -> list[Questions]:
    """Swapped textures, and what is to be kept, an equal part of each kind."""
    swaps = swap_questions(setting.pictures // 2, TRAIN_SEED, False)
    others = [asked for kind, asked in swaps.items() if kind != "textures"]
    if setting.all_kinds:
        others += attribute_questions(setting.kept, TRAIN_SEED + 1000, False).values()
    return [swaps["textures"], *(_first(asked, setting.kept // len(others) // 2 * 2) for asked in others)]


def tuned_answers(denoiser: Any, setting: Setting, questions: dict[str, Questions]) -> dict[float, dict[str, Any]]:
    """Answers after a training, and its loss, by the part of what was learned; the denoiser is as before in the end."""
    used = training_questions(setting)
    pictures, asked = [p for own in used for p in own.pictures], [c for own in used for c in own.captions]
    captions = sorted({caption for own in asked for caption in own})
    number = {caption: i for i, caption in enumerate(captions)}
    candidates = [[number[caption] for caption in own] for own in asked]
    recipe: dict[str, Any] = {
        name: getattr(setting, name) for name in ("rank", "words", "wrong_class_weight", "n_steps")
    }
    recipe |= {"strengths": (PART, 1.0) if setting.kept else (1.0,), "title": str(setting)}
    parts = tuned(denoiser, pictures, captions, candidates, **recipe)
    return {strength: {"answers": answers(denoiser, questions), "loss": loss} for strength, loss in parts}


def _at(one: dict[str, Any]) -> str:
    """End of a row's key: the strength, if it is not whole."""
    return "" if one.get("strength", 1) == 1 else f", at {one['strength']:g}"


def row(setting: Setting | None, right: dict[str, np.ndarray], before: dict[str, np.ndarray]) -> dict[str, Any]:
    """Accuracy and text score by kind with intervals, and paired differences from the pair before."""
    scores = {kind: _scores(kind, right[kind]) for kind in right}
    earlier = {kind: _scores(kind, before[kind]) for kind in right}
    scores["everything else"] = np.concatenate([hits for kind, hits in right.items() if kind != "textures, swapped"])
    earlier["everything else"] = np.concatenate([hits for kind, hits in before.items() if kind != "textures, swapped"])
    return {
        "setting": None if setting is None else asdict(setting),
        "name": "before" if setting is None else str(setting),
        "accuracy": {kind: asdict(accuracy(hits)) for kind, hits in scores.items()},
        "gain": {kind: asdict(accuracy_difference(scores[kind], earlier[kind])) for kind in scores},
    }


def _scores(kind: str, right: np.ndarray) -> np.ndarray:
    """The text score of swaps: both pictures of a pair are answered rightly; other answers as they are."""
    return right.reshape(-1, 2).all(axis=1) if kind.endswith("swapped") else right


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    denoiser = HybridClassifier.from_pretrained("shapes").denoiser_.with_prompts("{}")
    questions = test_questions()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    before = answers(denoiser, questions)
    rows = {f"{one['name']}{_at(one)}": one for one in known} | {"before": row(None, before, before)}
    for setting in SETTINGS:
        if str(setting) in rows:
            continue
        for strength, made in tuned_answers(denoiser, setting, questions).items():
            one = row(setting, made["answers"], before) | {"strength": strength, "loss": made["loss"]}
            rows[f"{one['name']}{_at(one)}"] = one
            print(setting, strength, {k: round(100 * v["value"], 1) for k, v in one["gain"].items()}, flush=True)
        RESULTS.write_text(json.dumps(list(rows.values()), indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Compositional captions and the shapes pair: `python -m benchmarks.compositional [FOLDER]` (an hour on one core).

CLIP alone, diffusion alone and the hybrid, same weights, same pictures, on scenes that training never saw, half of them
with combinations of a colour and a shape that it never saw. Writes `benchmarks/results/compositional.json` and a
picture. Among eighty things diffusion goes in stages, and the hybrid is the classifier as it was saved, racing CLIP's
ten best. Between two captions diffusion and hybrid have all `TRIALS` and a fusion of their own, fitted on other scenes.
Image and group scores rest on error(no prompt) - error(caption), as raw errors do not compare across images. Intervals
are Wilson's; those of means and differences are bootstrapped, without width where all answers are the same. The U-Net
is compiled where that is possible.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.special import log_softmax
from tqdm.auto import tqdm

from benchmarks.figures.common import colour_of, styled
from benchmarks.shapes.intervals import in_percent, mean_interval
from benchmarks.shapes.tasks import Questions, attribute_questions, single_questions, swap_questions
from hybridclf import FixedTrials, HybridClassifier, Reranker, Staged
from hybridclf.devices import can_compile
from hybridclf.fitting.calibration import Calibration, fit_calibration
from hybridclf.fitting.recording import RECORDED_TRIALS, Recording
from hybridclf.metrics import accuracy, accuracy_difference

TRIALS = 32
TEST_SEED, CALIBRATION_SEED = 3 * 10**6, 2 * 10**6
TIERS = ("CLIP", "diffusion", "hybrid")
KINDS = ("text", "image", "group")


class Pair:
    """Both tiers of a saved classifier, and what they say of questions.

    Parameters
    ----------
    folder : Path
        What `train_shapes.save_pair` left.
    """

    def __init__(self, folder: Path) -> None:
        self.clf = HybridClassifier.load(folder)
        self.clip: Any = self.clf.proposer_
        self.denoiser = self.clf.denoiser_
        if can_compile(self.denoiser.device):
            self.denoiser.compile()

    @torch.inference_mode()
    def logits(self, asked: Questions) -> np.ndarray:
        """CLIP's scaled cosine similarities `[n, k]`."""
        from PIL import Image

        pixels = torch.stack([self.clip.transform(Image.fromarray(p)) for p in asked.pictures])
        pixels = pixels.to(self.clip.device)
        image = torch.cat([self.clip.model.encode_image(p, normalize=True) for p in pixels.split(256)])
        texts = sorted({c for captions in asked.captions for c in captions})
        tokens = self.clip.tokenizer(texts).to(self.clip.device)
        text = torch.cat([self.clip.model.encode_text(t, normalize=True) for t in tokens.split(256)])
        where = torch.tensor([[texts.index(c) for c in captions] for captions in asked.captions])
        return (self.clip.model.logit_scale.exp() * torch.einsum("nd,nkd->nk", image, text[where])).cpu().numpy()

    def stage(self, n_trials: int = TRIALS) -> Reranker:
        """Diffusion alone, so many trials."""
        return Reranker(self.denoiser, allocation=FixedTrials(n_trials), batch_size=128)

    def errors(self, asked: Questions, n_trials: int = TRIALS, *, without: bool = False) -> np.ndarray:
        """Errors `[n, n_trials, k]`; `without`: and of no prompt, as the last."""
        captions = [[*c, ""] if without else list(c) for c in asked.captions]
        return np.stack([r.evidence for r in self.stage(n_trials).rerank(asked.pictures, captions)])


def calibrate(pair: Pair, n: int) -> "Calibrated":
    """Fusion and weights for trials in the even order, from scenes that are used for nothing else."""
    asked = attribute_questions(n, CALIBRATION_SEED, False) | swap_questions(n // 2, CALIBRATION_SEED, False)
    logits = np.concatenate([pair.logits(q) for q in asked.values()])
    errors = np.concatenate([pair.errors(q, RECORDED_TRIALS) for q in tqdm(asked.values(), desc="calibrate")])
    log_prior, first = log_softmax(logits, 1), np.zeros(len(logits), int)
    recording = Recording(log_prior, errors, *pair.stage(RECORDED_TRIALS).levels(), first, log_prior, first)
    return Calibrated(pair, fit_calibration(recording, FixedTrials(RECORDED_TRIALS), None, None))


class Calibrated:
    """Scores of each tier, higher is better."""

    def __init__(self, pair: Pair, calibration: Calibration) -> None:
        assert calibration.weighting is not None  # it was not given
        self.pair, self.fusion, self.weighting = pair, calibration.fusion, calibration.weighting
        self.weights = self.weighting(*pair.stage().levels())

    def scores(self, logits: np.ndarray, errors: np.ndarray) -> dict[str, np.ndarray]:
        """`[n, k]` by tier, from CLIP's logits and weighted errors `[n, T, k]`."""
        sums, counts = errors.sum(1), np.full(len(errors), errors.shape[1])
        return {"CLIP": logits, "diffusion": -sums, "hybrid": self.fusion.scores(logits, sums, counts)}

    def choices(self, asked: Questions) -> dict[str, np.ndarray]:
        """True where a tier picks the right caption, bool `[n]`."""
        logits, errors = self.pair.logits(asked), self.pair.errors(asked) * self.weights[:, None]
        return {tier: s[:, 0] > s[:, 1:].max(1) for tier, s in self.scores(logits, errors).items()}

    def winoground(self, asked: Questions) -> dict[str, dict[str, np.ndarray]]:
        """Text, image and group score of each pair of questions, bool `[n / 2]`, by kind and tier (Equation 9)."""
        logits, errors = self.pair.logits(asked), self.pair.errors(asked, without=True) * self.weights[:, None]
        gained = self.scores(logits, errors[..., :2] - errors[..., 2:])
        kinds: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in KINDS}
        for tier, s in gained.items():
            s = s.reshape(-1, 2, 2)  # pair, picture, (right, wrong)
            text = (s[..., 0] > s[..., 1]).all(1)
            image = (s[:, 0, 0] > s[:, 1, 1]) & (s[:, 1, 0] > s[:, 0, 1])
            kinds["text"][tier], kinds["image"][tier], kinds["group"][tier] = text, image, text & image
        return kinds

    def single(self, asked: Questions) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Right answers among eighty, bool `[n]` by tier, and evaluations per image; the diffusion model in stages."""
        right = np.array([captions[0] for captions in asked.captions])
        stages = Staged((16, 4, 1), (4, 16, TRIALS))
        reranker = Reranker(self.pair.denoiser, allocation=stages, weighting=self.weighting, batch_size=128)
        staged = reranker.rerank(asked.pictures, asked.captions)
        posterior, raced = self.pair.clf.decide(list(asked.pictures))
        answers = {
            "CLIP": self.pair.clip.predict(list(asked.pictures)) == right,
            "diffusion": np.array([r.posterior[0] > r.posterior[1:].max() for r in staged]),  # a tie is no answer
            "hybrid": self.pair.clf.classes_[posterior.argmax(axis=1)] == right,
        }
        results = {"CLIP": [], "diffusion": staged, "hybrid": raced}
        return answers, {tier: sum(r.evaluations for r in some) / len(right) for tier, some in results.items()}


# --- all of it --------------------------------------------------------------------------------------------------------


def measure(pair: Pair, n: int) -> dict:
    """All questions; each half with familiar combinations of colour and shape, half with held-out ones."""
    model, rows = calibrate(pair, n // 2), []
    for held_out in (False, True):
        seed, scenes = TEST_SEED + 1000 * held_out, "held-out" if held_out else "familiar"
        right, cost = model.single(single_questions(n // 2, seed, held_out))
        rows.append(row("single thing, 80 classes", scenes, right, cost))
        asked = tqdm(attribute_questions(n, seed, held_out).items(), desc=f"attributes, {scenes}")
        chosen = {name: model.choices(questions) for name, questions in asked}
        rows += [row(name, scenes, right) for name, right in chosen.items()]
        rows.append(mean_row("mean of attribute tasks", scenes, list(chosen.values())))
        asked = tqdm(swap_questions(n, seed, held_out).items(), desc=f"swaps, {scenes}")
        scored = {name: model.winoground(questions) for name, questions in asked}
        for kind in KINDS:
            rows += [row(f"{name} swapped, {kind}", scenes, kinds[kind]) for name, kinds in scored.items()]
            rows.append(mean_row(f"mean of swaps, {kind}", scenes, [kinds[kind] for kinds in scored.values()]))
    precision = str(pair.denoiser.dtype).removeprefix("torch.")
    return {
        "trials": TRIALS,
        "questions": n,
        "precision": precision,
        "fusion": asdict(model.fusion),
        "rows": rows,
    }


def row(task: str, scenes: str, right: dict[str, np.ndarray], evaluations: dict[str, float] | None = None) -> dict:
    """One line of the table: shares with Wilson intervals, and hybrid minus CLIP, paired."""
    shares = {tier: asdict(accuracy(answers)) for tier, answers in right.items()}
    gain = asdict(accuracy_difference(right["hybrid"], right["CLIP"]))
    return {"task": task, "scenes": scenes, "n": len(right["CLIP"]), "gain": gain, **shares} | (
        {"evaluations": evaluations} if evaluations else {}
    )


def mean_row(task: str, scenes: str, tasks: list[dict[str, np.ndarray]]) -> dict:
    """The mean over tasks with n answers each; those at i, some about one picture, count as one for the intervals."""
    share = {tier: np.mean([right[tier] for right in tasks], axis=0) for tier in TIERS}  # [n] each
    values = {"gain": share["hybrid"] - share["CLIP"]} | share
    return {"task": task, "scenes": scenes, "n": len(values["gain"])} | {k: mean_interval(v) for k, v in values.items()}


def show(report: dict) -> None:
    """The table."""
    print(f"{'task':28} {'scenes':9} {'n':>4} " + " ".join(f"{tier:>18}" for tier in TIERS) + f"{'hybrid - CLIP':>22}")
    for r in report["rows"]:
        cells = " ".join(f"{in_percent(r[tier]):>18}" for tier in TIERS)
        print(f"{r['task']:28} {r['scenes']:9} {r['n']:4} {cells}{in_percent(r['gain']):>22}")


@styled
def picture(report: dict) -> Figure:
    """A line per task, a point with its interval per tier; panels for familiar and held-out combinations."""
    figure = Figure(figsize=(11, 8.5))
    panels = figure.subplots(1, 2, sharey=True)
    for panel, scenes in zip(panels, ("familiar", "held-out"), strict=True):
        rows = [r for r in report["rows"] if r["scenes"] == scenes]
        for tier, shift in zip(TIERS, (-0.22, 0, 0.22), strict=True):
            value, low, high = (np.array([100 * r[tier][k] for r in rows]) for k in ("value", "low", "high"))
            reach = np.abs([value - low, high - value])
            at, colour = np.arange(len(rows)) + shift, colour_of(tier)
            panel.errorbar(value, at, xerr=reach, fmt="o", markersize=4, elinewidth=1, color=colour, label=tier)
        panel.set(xlim=(0, 102), xlabel="right, % (95 % interval)", title=f"{scenes} combinations of colour and shape")
        panel.set_yticks(np.arange(len(rows)), [f"{r['task']}  (n = {r['n']})" for r in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(TIERS))
    figure.suptitle(_finding(report), x=0.01, ha="left")
    return figure


def _finding(report: dict) -> str:
    """The largest difference of the tiers, in a sentence."""
    (row,) = (r for r in report["rows"] if r["task"] == "mean of swaps, text" and r["scenes"] == "familiar")
    shares = ", ".join(f"{tier} {100 * row[tier]['value']:.0f} %" for tier in TIERS)
    return f"Of two captions with words exchanged, the right one for both pictures: {shares}"


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("models/hybridclf_models/shapes"))
    parser.add_argument("--questions", type=int, default=200, help="of each kind")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    report = measure(Pair(args.folder), args.questions)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "compositional.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    picture(report).savefig(args.out / "compositional.png")
    show(report)


if __name__ == "__main__":
    main()

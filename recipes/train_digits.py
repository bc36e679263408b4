"""Make the embedded digits pair: `python recipes/train_digits.py` (about two minutes on two cores), then
`python recipes/round_weights.py hybridclf/pretrained/digits`.

Trains on three quarters of scikit-learn's handwritten digits, reports on the rest, and writes the model with its card
into the package.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import hybridclf
from hybridclf import HybridClassifier, metrics
from hybridclf.data.holding_out import pack
from hybridclf.evaluating.sample import TrainedOn, read_sample
from hybridclf.pair_training.checkpoint import save_json

FOLDER = Path(hybridclf.__file__).parent / "pretrained" / "digits"

CARD = """\
# digits

A two-tier classifier of handwritten digits (8x8 grey pixels, 0-16), for `HybridClassifier.from_pretrained("digits")`.

- **Data**: the {n} handwritten digits bundled with scikit-learn (the test part of the UCI set "Optical Recognition of
  Handwritten Digits", Alpaydin and Kaynak, 1998, CC BY 4.0). Trained on {n_train}, chosen by
  `train_test_split(…, test_size=0.25, stratify=target, random_state=0)`; the other {n_test} were used for the figures
  below alone.
- **Recipe**: `HybridClassifier(random_state=0)` with its defaults: logistic regression proposes, a late-conditioned
  MLP ({parameters:,} parameters) re-ranks, the fusion is fitted on three out-of-fold parts. Made by
  `python recipes/train_digits.py`.
- **Figures** on the {n_test} images, with 95 % Wilson intervals: tier 1 {tier_1}; hybrid {hybrid}, {evaluations:.1f}
  evaluations per image, expected calibration error {ece:.4f}.
- **Limits**: digits centred in 8x8 pixels, bright on dark, as in that set; nothing else is a digit to it, and it has
  no answer for "none of these".
- **Licence**: Apache-2.0, as the package.
"""


def write_log(clf: HybridClassifier, train: np.ndarray) -> None:
    """Write down which digits the pair was trained on, so that no figure of `hybridclf evaluate` is of these."""
    shape = clf.image_shape_
    digits = read_sample("digits", clf.classes_.tolist(), shape, seen=TrainedOn(frozenset(), shape))
    (FOLDER / "training").mkdir(exist_ok=True)
    digests = np.array(digits.digests, dtype=np.uint32)[train]
    save_json(FOLDER / "training" / "log.json", {"trained_on": pack(digests), "hashed_shape": list(shape)})


def main() -> None:
    """Train, measure, save."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
    clf = HybridClassifier(random_state=0, verbose=True).fit(images[train], labels[train])
    clf.set_params(verbose=False)
    posterior, results = clf.decide(images[test])
    right = clf.classes_[posterior.argmax(axis=1)] == labels[test]
    tier_1 = clf.proposer_.predict(images[test].reshape(len(test), -1)) == labels[test]
    clf.save(FOLDER)
    write_log(clf, train)
    card = CARD.format(
        n=len(labels),
        n_train=len(train),
        n_test=len(test),
        parameters=sum(p.numel() for p in clf.denoiser_.network.parameters()),
        tier_1=_percent(tier_1),
        hybrid=_percent(right),
        evaluations=np.mean([r.evaluations for r in results]),
        ece=metrics.expected_calibration_error(posterior.max(axis=1), right),
    )
    (FOLDER / "README.md").write_text(card, encoding="utf-8")
    print(card)


def _percent(right: np.ndarray) -> str:
    interval = metrics.accuracy(right)
    return f"{100 * interval.value:.1f} % ({100 * interval.low:.1f}-{100 * interval.high:.1f})"


if __name__ == "__main__":
    main()

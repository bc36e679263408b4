"""The measured result of a tuning allows for images that belong together."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridclf import FixedTrials, HybridClassifier
from hybridclf.tuning.questions import Questions
from hybridclf.tuning.result import measure
from hybridclf.tuning.split import Split
from tests.adapters.tiny_pair import specs_of

LABELS = ["ant", "bee"]


def test_intervals_allow_for_groups(text_pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridclf.tuning.result.TRIALS", 2)
    clf = HybridClassifier(*specs_of(text_pair), allocation=FixedTrials(2), random_state=0).fit(None, LABELS)
    pictures = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    asked = Questions.of_classes(clf, [Image.fromarray(picture) for picture in pictures], np.repeat(LABELS, 6))
    none, every = np.arange(0), np.arange(12)
    alone, in_threes = (
        measure(clf, clf, asked, Split(none, none, every, groups), False) for groups in (every, every // 3)
    )
    assert alone["n"] == in_threes["n"] == 12
    for what in ("accuracy", "gain"):
        assert alone[what].keys() == in_threes[what].keys()
        for name, one in alone[what].items():
            other = in_threes[what][name]
            assert other["value"] == one["value"] and other["high"] - other["low"] > one["high"] - one["low"]

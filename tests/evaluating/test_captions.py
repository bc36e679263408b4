"""Matching of images and captions: a world whose tier 2 is exact, and lines that cost only themselves."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hybridclf import HybridClassifier
from hybridclf.errors import InvalidInputError
from hybridclf.evaluating.captions import evaluate_captions, fit_caption_fusion
from hybridclf.reranking.fusion import Fusion

WORDS = ("ant", "bee", "cow", "dog", "elk", "fly")
RNG = np.random.default_rng(0)
MEANS = {word: RNG.uniform(0.2, 0.8, (4, 5, 3)) for word in WORDS}
MEANS[""] = np.mean(list(MEANS.values()), axis=0)
TWINS = "ant", "ANT"  # read the same


class WordProposer:
    """Tier 1 that looks at the first row of pixels alone; a model of text."""

    takes_images = True

    def fit(self, X: Any, y: Sequence[str]) -> "WordProposer":
        self.classes_ = np.asarray(y)
        return self

    def with_prompts(self, prompts: str) -> "WordProposer":
        return type(self)()

    def __sklearn_clone__(self) -> "WordProposer":
        return type(self)()

    def logits(self, images: Any) -> np.ndarray:
        pixels = np.stack([np.asarray(image) / 255 for image in images])[:, None, :1]
        means = np.stack([MEANS[word.lower()] for word in self.classes_.tolist()])[:, :1]
        return -np.square(pixels - means).sum(axis=(2, 3, 4))

    def predict_log_proba(self, images: Any) -> np.ndarray:
        return torch.from_numpy(self.logits(images)).log_softmax(1).numpy()


@pytest.fixture(scope="module")
def clf(gaussian_denoiser: type) -> HybridClassifier:
    """Six words, each the mean of its pictures, and the mean of all for no word."""

    class WordDenoiser(gaussian_denoiser):  # type: ignore[misc]
        def with_prompts(self, prompts: str) -> "WordDenoiser":
            return self

        def encode(self, images: Any) -> torch.Tensor:
            return super().encode([np.asarray(image) / 255 for image in images])

        def condition(self, labels: Sequence[str]) -> dict[str, torch.Tensor]:
            if set(TWINS) <= set(labels):
                raise InvalidInputError("labels 'ant' and 'ANT' read the same to the model")
            return super().condition([label.lower() for label in labels])

    return HybridClassifier(WordProposer(), WordDenoiser(MEANS, 0.1), random_state=0).fit(None, list(WORDS))


class Writer:
    """Pictures of words, and lines about them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rng, self.lines = folder, np.random.default_rng(1), []  # type: ignore[var-annotated]

    def picture(self, word: str) -> str:
        name = f"{len(list(self.folder.glob('*.png')))}.png"
        pixels = np.clip(MEANS[word] + 0.1 * self.rng.standard_normal((4, 5, 3)), 0, 1)
        Image.fromarray((255 * pixels).astype(np.uint8)).save(self.folder / name)
        return name

    def pair(self, a: str, b: str, **more: Any) -> None:
        self.lines.append({"images": [self.picture(a), self.picture(b)], "captions": [a, b], **more})

    def choice(self, word: str, right: str, *wrong: str, **more: Any) -> None:
        self.lines.append({"image": self.picture(word), "caption": right, "wrong": list(wrong), **more})

    def write(self, *more: str) -> Path:
        path = self.folder / "captions.jsonl"
        path.write_text("\n".join([*map(json.dumps, self.lines), *more]), encoding="utf-8")
        return path


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


def test_an_exact_tier_2_is_right(clf: HybridClassifier, writer: Writer) -> None:
    for a, b in pairwise(WORDS):
        writer.pair(a, b, kind="swap")
    writer.choice("ant", "ant", "bee", "fly", kind="choice")
    report = evaluate_captions(clf, writer.write(), trials=16)
    rows = {(row.kind, row.score): row for row in report.rows}
    for key in (("swap", "text"), ("swap", "image"), ("swap", "group"), ("choice", "text")):
        assert rows[key].methods["tier 2"].value == 1, key
    assert rows["all", "text"].methods.keys() == {"tier 1", "tier 2"}, "nothing was fitted"
    assert report.about["images"] == 11 and report.about["evaluations"] == 16 * (10 * 3 + 4)


def test_wrong_lines_are_wrong(clf: HybridClassifier, writer: Writer) -> None:
    writer.choice("ant", "bee", "ant")
    writer.lines.append({"images": [writer.picture("ant"), writer.picture("bee")], "captions": ["bee", "ant"]})
    writer.lines.append({"images": [writer.picture("ant"), writer.picture("bee")], "caption": "bee"})
    report = evaluate_captions(clf, writer.write(), trials=16)
    assert {row.score: row.n for row in report.rows} == {"text": 2, "image": 2, "group": 1}
    assert all(row.methods["tier 2"].value == 0 for row in report.rows)


def test_a_fusion_is_fitted_to_other_lines(clf: HybridClassifier, tmp_path: Path) -> None:
    folders = [tmp_path / "asked", tmp_path / "others"]
    sources = []
    for folder, n in zip(folders, (4, 12), strict=True):
        folder.mkdir()
        writer = Writer(folder)
        for i in range(n):
            writer.pair(WORDS[i % 6], WORDS[(i + 1) % 6])
        sources.append(writer.write())
    report = evaluate_captions(clf, sources[0], calibrate=sources[1], trials=4)
    assert report.rows[0].methods.keys() == {"tier 1", "tier 2", "both"}
    assert report.about["fusion"] == f"fitted to lines of {sources[1]}"
    fusion = fit_caption_fusion(clf, sources[1], trials=4)
    assert evaluate_captions(clf, sources[0], calibrate=fusion, trials=4).rows == report.rows
    with pytest.raises(InvalidInputError, match=r"makes 16 comparisons .* a fusion needs at least 20"):
        evaluate_captions(clf, sources[0], calibrate=sources[0], trials=2)


def test_the_classifiers_own_fusion(clf: HybridClassifier, writer: Writer) -> None:
    """A prior that weighs next to nothing leaves tier 2's answers."""
    for a, b in pairwise(WORDS):
        writer.pair(a, b)
    own, clf.fusion_ = clf.fusion_, Fusion(prior_weight=0, calibrated=True)
    try:
        report = evaluate_captions(clf, writer.write(), trials=4)
    finally:
        clf.fusion_ = own
    assert all(row.methods["both"] == row.methods["tier 2"] for row in report.rows)
    assert report.about["fusion"] == "the classifier's"


def test_lines_that_cannot_be_used_cost_only_themselves(clf: HybridClassifier, writer: Writer) -> None:
    writer.choice("ant", "ant", "bee")
    writer.choice("ant", *TWINS)
    writer.choice("ant", "ANT", "bee")  # on its own this is as good as the first
    writer.lines.append({"image": "none.png", "caption": "ant", "wrong": ["bee"]})
    writer.choice("cow", "cow", "bee")
    (writer.folder / "text.png").write_text("no image")
    writer.lines.append({"image": "text.png", "caption": "ant", "wrong": ["bee"]})
    report = evaluate_captions(clf, writer.write("nonsense"), trials=16)
    assert report.rows[0].n == 3 and report.rows[0].methods["tier 2"].value == 1
    assert [one.line for one in report.unreadable] == [2, 4, 6, 7]
    said = ["read the same", "none.png: ", "text.png: not an image", "not a JSON object"]
    assert all(word in one.reason for word, one in zip(said, report.unreadable, strict=True))


def test_errors_that_are_not_finite(clf: HybridClassifier, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in WORDS:
        writer.choice(word, word, "bee" if word != "bee" else "ant")
    monkeypatch.setitem(MEANS, "fly", MEANS["fly"] * np.nan)
    monkeypatch.setitem(clf.denoiser_.means, "fly", MEANS["fly"])
    writer.lines = writer.lines[::-1]
    report = evaluate_captions(clf, writer.write(), trials=4)
    assert [str(one) for one in report.unreadable] == ["line 1: tier 2's errors are not finite"]
    assert report.rows[0].n == 5


def test_a_file_of_which_nothing_can_be_used(clf: HybridClassifier, writer: Writer) -> None:
    writer.lines.append({"image": "none.png", "caption": "ant", "wrong": ["bee"]})
    with pytest.raises(InvalidInputError, match=r"no line that can be used: line 1: .*none.png"):
        evaluate_captions(clf, writer.write())


def test_a_sample_has_every_kind_in_its_proportion(clf: HybridClassifier, writer: Writer) -> None:
    for i in range(12):
        writer.choice("ant", "ant", "bee", kind="a" if i < 8 else "b")
    report = evaluate_captions(clf, writer.write(), images=6, trials=1)
    assert {row.kind: row.n for row in report.rows} == {"a": 4, "b": 2, "all": 6}
    assert "A sample of 6 of 12 lines" in str(report)


def test_a_recording_goes_on_where_it_was_cut(
    clf: HybridClassifier, writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(20):
        writer.choice(WORDS[i % 5], WORDS[i % 5], "fly")
    writer.lines.append({"image": "none.png", "caption": "ant", "wrong": ["bee"]})
    source, folder = writer.write(), tmp_path / "recording"
    whole = evaluate_captions(clf, source, trials=4)
    asked, ask = [], HybridClassifier.score_captions

    def score_captions(self: HybridClassifier, images: Any, captions: Any, **options: Any) -> Any:
        asked.append(len(images))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ask(self, images, captions, **options)

    monkeypatch.setattr(HybridClassifier, "score_captions", score_captions)
    with pytest.raises(KeyboardInterrupt):
        evaluate_captions(clf, source, trials=4, folder=folder)
    again = evaluate_captions(clf, source, trials=4, folder=folder)
    assert asked[:3] == [16, 1, 1] and sum(asked[3:]) == 4, "the first line once more, then what was left"
    assert again == whole and [one.line for one in again.unreadable] == [21]
    asked[:] = [0, 0]
    assert evaluate_captions(clf, source, trials=4, folder=folder) == whole and asked[2:] == [1]


def test_a_recording_of_something_else_is_refused(clf: HybridClassifier, writer: Writer, tmp_path: Path) -> None:
    writer.choice("ant", "ant", "bee")
    source, folder = writer.write(), tmp_path / "recording"
    evaluate_captions(clf, source, trials=4, folder=folder)
    with pytest.raises(InvalidInputError, match="settings/trials was 4, is 5"):
        evaluate_captions(clf, source, trials=5, folder=folder)
    other = HybridClassifier(clf.proposer_, type(clf.denoiser_)(MEANS, 0.3), random_state=0).fit(None, list(WORDS))
    with pytest.raises(InvalidInputError, match="another model: tier 2 answered the first item otherwise"):
        evaluate_captions(other, source, trials=4, folder=folder)
    Image.new("RGB", (5, 4)).save(writer.folder / "0.png")
    with pytest.raises(InvalidInputError, match=r"of other images \(data/images changed\)"):
        evaluate_captions(clf, source, trials=4, folder=folder)

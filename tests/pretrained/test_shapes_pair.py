"""The embedded pair of text models: there without a network, in ordinary folders, as good as its card says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open

import hybridclf_adapters.timm  # noqa: F401, registers the embedded models
from hybridclf import FixedTrials, HybridClassifier, Reranker, zero_shot
from hybridclf.data.shapes import COLOURS, HELD_OUT, SHAPES, Scene, Thing, caption, draw, phrase, scenes, swapped
from hybridclf.pretrained.catalog import pretrained_folder

SEED = 4 * 10**6
"""Of scenes that neither training nor benchmark has drawn."""


@pytest.fixture(scope="module")
def clf() -> HybridClassifier:
    return HybridClassifier.from_pretrained("shapes")


@pytest.fixture(scope="module")
def folder() -> Path:
    return pretrained_folder("shapes")


def two_things(n: int) -> list[Scene]:
    return scenes(n, random_state=SEED, things=(2,))


@pytest.mark.slow
def test_pictures_are_told_apart_without_a_network(tmp_path: Path) -> None:
    """In a process of its own, by the command as it is."""
    for name, words in (("a", ("red", "circle")), ("b", ("blue", "square"))):
        picture = draw([Scene((Thing("large", "plain", *words),))])[0]
        Image.fromarray(picture).resize((200, 200)).save(tmp_path / f"{name}.png")
    labels = "a red circle,a blue square,a green star"
    poisoned = os.environ | {v: "http://127.0.0.1:9" for v in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")}
    code = "from hybridclf.cli import app; app()"
    command = [sys.executable, "-c", code, "classify", "--json", "--model", "shapes", "--labels", labels, str(tmp_path)]
    done = subprocess.run(command, env=poisoned | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(answer["path"]).name for answer in answers] == ["a.png", "b.png"]
    assert [answer["error"] for answer in answers] == [None, None]
    assert [answer["label"] for answer in answers] == labels.split(",")[:2]


def test_its_labels_are_the_single_things(clf: HybridClassifier) -> None:
    assert set(clf.classes_) == {phrase(Thing("", "", c, s)) for c in COLOURS for s in SHAPES}
    assert clf.fusion_.calibrated


def test_both_tiers_are_ordinary_folders(folder: Path) -> None:
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder / 'clip'}")
    assert model.visual.image_size in (64, (64, 64))
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "sd", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(0)
    (made,) = pipeline("a red circle", num_inference_steps=2, output_type="np", generator=rng).images
    assert made.shape == (32, 32, 3) and np.isfinite(made).all()


def test_the_folder_holds_halves_and_little_else(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".md", ".safetensors", ".txt"}
    assert sum(path.stat().st_size for path in files) <= 15 * 2**20
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                kinds = {tensors.get_tensor(name).dtype for name in tensors.keys()}  # noqa: SIM118, no dict
            assert torch.float32 not in kinds, path


def test_an_answer_does_not_depend_on_its_companions(clf: HybridClassifier) -> None:
    pictures = [Image.fromarray(p) for p in draw(scenes(4, random_state=SEED, things=(1,)))]
    asked = clf.with_labels([phrase(Thing("", "", c, s)) for c in ("red", "pink") for s in ("circle", "star", "ring")])
    together = asked.predict_proba(pictures)
    alone = np.concatenate([asked.predict_proba([p]) for p in pictures])
    np.testing.assert_allclose(together, alone, atol=1e-4)  # tier 1 is not padded


def test_zero_shot_answers_with_it() -> None:
    picture = Image.fromarray(draw([Scene((Thing("large", "plain", "red", "circle"),))])[0])
    answer = zero_shot(picture, ["a red circle", "a blue square", "a green star"], model="shapes")
    assert answer[0]["label"] == "a red circle" and sum(a["score"] for a in answer) == pytest.approx(1)


def test_timm_has_it(clf: HybridClassifier) -> None:
    model = timm.create_model("hybridclf_shapes", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    pictures = [Image.fromarray(p) for p in draw(scenes(2, random_state=SEED, things=(1,)), config["input_size"][1])]
    x = torch.stack([timm.data.create_transform(**config)(p) for p in pictures])
    assert model.num_classes == 80 == model(x).shape[1]
    np.testing.assert_allclose(model(x).exp(), clf.predict_proba(pictures), atol=1e-4)


def test_tier_2_knows_what_words_mean_together(clf: HybridClassifier) -> None:
    """Swapped captions, with a few trials: far above chance, whatever tier 1 says."""
    drawn, rng = two_things(30), np.random.default_rng(0)
    asked = [[caption(s), caption(swapped(s, "relation", rng))] for s in drawn]
    stage = Reranker(clf.denoiser_, allocation=FixedTrials(8))
    results = stage.rerank(draw(drawn), asked)
    assert np.mean([r.posterior[0] > r.posterior[1] for r in results]) >= 0.8


@pytest.mark.slow
def test_its_figures_are_those_of_its_card(clf: HybridClassifier, folder: Path) -> None:
    """Single things that training may have seen, within 12 points: two standard errors of 60 pictures."""
    drawn = scenes(60, random_state=SEED, things=(1,))
    assert not any((s.things[0].colour, s.things[0].shape) in HELD_OUT for s in drawn)
    pictures, right = [Image.fromarray(p) for p in draw(drawn)], [caption(s) for s in drawn]
    card = (folder / "README.md").read_text(encoding="utf-8")
    found = re.search(r"single\s+things, as.*?CLIP (\d+\.\d) %.*?hybrid (\d+\.\d) %", card, re.DOTALL)
    assert found is not None
    tier_1, hybrid = map(float, found.groups())
    assert 100 * np.mean(clf.proposer_.predict(pictures) == right) == pytest.approx(tier_1, abs=12)
    assert 100 * np.mean(clf.predict(pictures) == right) == pytest.approx(hybrid, abs=12)

"""One naming of ImageNet's classes: what a timm model calls them is what a DiT is asked for."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from diffusers import DiTTransformer2DModel
from timm.data import ImageNetInfo

from hybridclf import HybridClassifier
from hybridclf.errors import InvalidInputError, UnknownLabelError
from hybridclf.utils.names import name_of
from hybridclf_adapters import diffusers
from hybridclf_adapters._imagenet import imagenet
from hybridclf_adapters.timm import TimmProposer
from tests.adapters.tiny_diffusers import dit, save

INFO = ImageNetInfo()
LEMMAS = dict(enumerate(INFO.label_descriptions()))
SHORT = {i: text.split(",")[0] for i, text in LEMMAS.items()}
SIX = {
    86: "partridge",
    134: "crane (n02012849)",
    517: "crane (n03126707)",
    594: "harp",
    638: "maillot",
    657: "missile",
}
"""Classes whose names others share."""


def proposer(label_names: Any = None) -> TimmProposer:
    model = timm.create_model("test_resnet", num_classes=1000)
    model.pretrained_cfg = {**model.pretrained_cfg, "label_names": label_names}
    return TimmProposer(model, lambda image: torch.zeros(3, 32, 32), torch.float32, 4)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[int, str] | None], Any]:
    """A DiT of a thousand classes with these names in its `model_index.json`."""
    folder = Path(save(dit, tmp_path_factory.mktemp("dit")))
    config = json.loads((folder / "transformer" / "config.json").read_text()) | {"num_embeds_ada_norm": 1000}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        DiTTransformer2DModel.from_config(config).save_pretrained(folder / "transformer")

    def of_names(names: dict[int, str] | None) -> Any:
        index = json.loads((folder / "model_index.json").read_text())
        index.pop("id2label", None)
        index |= {"id2label": {str(i): name for i, name in names.items()}} if names else {}
        (folder / "model_index.json").write_text(json.dumps(index))
        return diffusers.load(str(folder))

    return of_names


def classes_of(model: Any, labels: list[Any]) -> list[int]:
    return model.condition(labels)["class"].tolist()


@pytest.mark.parametrize("own", [None, LEMMAS, SHORT], ids=["unnamed", "lemmas", "first lemmas"])
def test_whatever_timm_calls_a_class_dit_knows(own: dict[int, str] | None, denoiser: Callable[[Any], Any]) -> None:
    model, everything = denoiser(own), list(range(1000))
    for first in (proposer(), proposer(list(LEMMAS.values())), proposer(list(SHORT.values()))):
        names = first.fit(None).classes_.tolist()
        assert len(set(names)) == 1000
        assert classes_of(model, names) == first.fit(None, names)._columns == everything
    assert classes_of(model, list(SIX.values())) == list(SIX)
    firsts = ["crayfish", "tub", "polecat", "maillot, tank suit"]  # not the first of others that have them too
    assert classes_of(model, firsts) == proposer().fit(None, firsts)._columns == [124, 876, 358, 639]
    ids = INFO.label_names()
    assert classes_of(model, ids) == proposer().fit(None, ids)._columns == everything
    assert classes_of(model, everything) == proposer().fit(None, everything)._columns == everything


def test_names_that_several_classes_share_are_refused_by_both(denoiser: Callable[[Any], Any]) -> None:
    first, model = proposer(), denoiser(LEMMAS)
    lemmas = Counter(lemma for text in LEMMAS.values() for lemma in {*map(str.strip, text.split(",")), text})
    shared = [lemma for lemma, n in lemmas.items() if n > 1 and lemma not in {*first.names, *SHORT.values()}] + [
        "crane"
    ]
    assert "panda" in shared
    for lemma in [*shared, "crane"]:
        with pytest.raises(UnknownLabelError, match="several classes"):
            first.fit(None, [lemma])
        with pytest.raises(UnknownLabelError, match="names the classes"):
            model.condition([lemma])
    with pytest.raises(InvalidInputError, match="are both class 134"):
        model.condition(["n02012849", "crane (n02012849)"])


def test_wordnet_ids_are_imagenets_alone(denoiser: Callable[[Any], Any]) -> None:
    other = {i: f"thing {i}" for i in range(1000)}
    assert classes_of(denoiser(other), ["thing 7"]) == [7]
    with pytest.raises(UnknownLabelError, match="does not know 'n01440764'"):
        denoiser(other).condition(["n01440764"])
    with pytest.raises(UnknownLabelError, match="has no class 'n01440764'"):
        proposer(list(other.values())).fit(None, ["n01440764"])
    ten = proposer(["cat, tom", "dog", "cat, tom", *(f"thing {i}" for i in range(997))])
    assert ten.names[:3] == ["cat, tom (0)", "dog", "cat, tom (2)"]


def test_other_subsets_have_names_that_differ() -> None:
    for subset, n in (("imagenet-12k", 11821), ("imagenet-22k", 21841)):
        names, numbers = imagenet(subset)
        assert len(set(names.values())) == n
        assert [numbers[i] for i in ImageNetInfo(subset).label_names()] == [[i] for i in range(n)]


def test_models_of_text_are_not_shown_the_ids() -> None:
    names, _ = imagenet()
    assert [name_of(names[i]) for i in (0, 134, 517)] == ["tench, Tinca tinca", "crane", "crane"]


def test_a_hybrid_of_both_over_all_of_imagenet(denoiser: Callable[[Any], Any]) -> None:
    clf = HybridClassifier(proposer(), denoiser(LEMMAS), top_k=2, random_state=0)
    assert clf.fit(None, list(imagenet()[0].values())).classes_[517] == "crane (n03126707)"
    asked = clf.with_labels(["n02012849", "crane (n03126707)", "harp"])
    assert asked.proposer_._columns == classes_of(asked.denoiser_, asked.classes_.tolist()) == [134, 517, 594]
    images = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(asked.predict_proba(images).sum(), 1)

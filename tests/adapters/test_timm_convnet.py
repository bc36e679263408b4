"""The small convolutional network: its whitening stem, its mirrored view, and timm's interface."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from hybridclf_adapters import timm as adapter
from hybridclf_adapters._timm_convnet import PATCH, SMALLEST_VARIANCE
from hybridclf_adapters.timm_training import TimmTrainable, load

CLASSES = ["a", "b", "c"]


def made(name: str = "convnet16", size: int = 32) -> TimmTrainable:
    torch.manual_seed(0)
    return load(name, classes=CLASSES, image_size=size, mean=[128.0] * 3, scale=[64.0] * 3)


def smooth_images(n: int = 50, size: int = 32) -> torch.Tensor:
    """Images whose pixels resemble their neighbours, standardised."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(n, 3, 4, 4, generator=rng)
    images = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    images += 0.3 * torch.randn(n, 3, size, size, generator=rng)
    return images / images.std()


def test_the_stem_whitens_patches() -> None:
    trainable, images = made(), smooth_images()
    trainable.prepare(images, mirrored=False)
    [network] = trainable.network
    answers = network.stem(images).detach().transpose(0, 1).flatten(1)[:12].double()  # the other 12 are opposites
    covariance = np.cov(answers.numpy())
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-4)
    # a pattern of variance v is left with v / (v + a), so that rare ones are not blown up
    patches = torch.nn.functional.unfold(images, PATCH).transpose(1, 2).flatten(0, 1).double().numpy()
    variance = np.linalg.eigvalsh(np.cov(patches.T))
    np.testing.assert_allclose(np.diag(covariance), variance / (variance + SMALLEST_VARIANCE), atol=1e-4)
    torch.testing.assert_close(network.stem.weight[:12], -network.stem.weight[12:])
    assert not network.stem.weight.requires_grad and network.stem.bias.requires_grad


def test_the_mirrored_view_counts_in_evaluation_alone() -> None:
    trainable, images = made(), smooth_images(4)
    trainable.prepare(images, mirrored=True)
    [network] = trainable.network
    network.eval()
    with torch.no_grad():
        both = network(images)
        network.mirrored = False
        expected = (network(images) + network(images.flip(-1))) / 2
        network.train()
        assert not torch.allclose(network(images), expected)
    torch.testing.assert_close(both, expected)


@pytest.mark.parametrize("name", ["convnet16", "convnet32", "convnet64"])
@pytest.mark.parametrize("size", [8, 16, 48, 64])
def test_it_is_made_for_images_of_any_size_and_wider_by_name(name: str, size: int) -> None:
    [network] = made(name, size).network
    assert network.eval()(torch.zeros(2, 3, size, size)).shape == (2, 3)
    assert network.groups[0][0].out_channels == int(name.removeprefix("convnet"))
    features = network.forward_features(torch.zeros(2, 3, size, size))
    assert features.shape[1] == network.num_features and min(features.shape[2:]) >= 3


def test_timm_knows_it() -> None:
    network = timm.create_model("whitened_convnet", num_classes=5, widths=[8, 16])
    x = torch.zeros(2, 3, 16, 16)
    assert network(x).shape == (2, 5)
    assert network.get_classifier() is network.head
    assert network.forward_head(network.forward_features(x), pre_logits=True).shape == (2, 16)
    network.reset_classifier(0)
    assert network(x).shape == (2, 16)


def test_what_is_saved_has_the_stem_and_the_mirrored_view(tmp_path: Path) -> None:
    trainable, images = made(), smooth_images()
    trainable.prepare(images, mirrored=True)
    network = trainable.network.eval().half().float()
    spec = trainable.save(network, tmp_path / "model")
    X = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    x = ((torch.from_numpy(X).float() - 128) / 64).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network(x).log_softmax(dim=1)
        one_view = network[0].forward_head(network[0].forward_features(x)).log_softmax(dim=1)
    answers = adapter.load(spec.removeprefix("timm:")).fit(None, CLASSES).predict_log_proba(X)
    np.testing.assert_allclose(answers, expected, atol=1e-4)
    assert np.abs(answers - one_view.numpy()).max() > 1e-3

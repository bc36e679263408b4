"""Pipelines whose folders hold quantised weights, as diffusers itself saves and reads them."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridclf.errors import MissingDependencyError
from hybridclf_adapters.diffusers import load
from tests.adapters.tiny_diffusers import PIPELINES, save

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
"""From torchao's own modules."""


def quantised(folder: Path) -> Any:
    """Quantise the U-Net of a saved pipeline to 8 bits, and save it in place."""
    import diffusers
    from torchao.quantization import Int8WeightOnlyConfig

    config = diffusers.TorchAoConfig(Int8WeightOnlyConfig())
    network = diffusers.UNet2DConditionModel.from_pretrained(
        folder / "unet", quantization_config=config, dtype=torch.bfloat16
    )
    for weights in (folder / "unet").glob("*.safetensors"):
        weights.unlink()
    network.save_pretrained(folder / "unet")
    return network


@pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao")
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_eight_bits_of_torchao(precision: str, tmp_path: Path) -> None:
    folder = save(PIPELINES["sd-epsilon"], tmp_path / "sd")
    plain, network = load(str(folder), precision=precision, device="cpu"), quantised(folder)
    it = load(str(folder), precision=precision, device="cpu")
    query = it.network.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    assert type(query).__name__ == "Int8Tensor"
    x, text = torch.randn(1, *it.shape).to(it.dtype), it.condition(["cat"])["text"]
    with torch.no_grad():
        ours = it.network(x, 400, text).sample
        exact = plain.network(x, 400, text).sample
        if precision == "bf16":
            assert torch.equal(ours, network(x, 400, text).sample)
    assert 0 < (ours - exact).abs().max() < 0.1
    noise = it.predict(x, torch.tensor([0.5]), torch.tensor([0]), it.condition(["cat"]))
    assert noise.isfinite().all()


@pytest.mark.skipif(find_spec("optimum") is not None, reason="needs optimum-quanto absent")
def test_the_package_that_a_folder_needs_is_named(tmp_path: Path) -> None:
    folder = save(PIPELINES["sd-epsilon"], tmp_path / "sd")
    path = folder / "unet" / "config.json"
    config = {"quantization_config": {"quant_method": "quanto", "weights_dtype": "int8"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(MissingDependencyError, match="optimum-quanto"):
        load(str(folder), device="cpu")

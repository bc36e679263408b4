"""Saved pipelines that are not whole, and what is none: refused, with what to type; what only looks so is loaded."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hybridclf import plugins
from hybridclf.errors import InvalidInputError, SavedModelError, UnknownSpecError
from hybridclf_adapters._diffusers_files import unreadable
from hybridclf_adapters.diffusers import load
from tests.adapters.tiny_diffusers import PIPELINES, save, stable_diffusion_3

Tensors = dict[str, Tensor]
Damage = Callable[[Tensors], Tensors]

NETWORKS = ("unet", "text_encoder", "vae")
"""Of Stable Diffusion: one of transformers, two of diffusers."""


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`original(family)`: a saved pipeline, not to be changed."""
    root = tmp_path_factory.mktemp("files")
    return lambda name: root / name if (root / name).exists() else save(PIPELINES[name], root / name)


@pytest.fixture
def copied(original: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """`copied(family)`: one to be changed."""
    return lambda name: Path(shutil.copytree(original(name), tmp_path / name))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, change: Damage) -> None:
    """Change the weights of a network."""
    [weights] = folder.glob("*.safetensors")
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})


def shard(folder: Path, **options: Any) -> list[Path]:
    """The weights of a network in several files, as `save_pretrained` writes them."""
    import diffusers
    import transformers

    kind = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}.get(folder.name)
    network = (kind or transformers.CLIPTextModel).from_pretrained(folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    network.save_pretrained(folder, max_shard_size="40KB", **options)
    return sorted(folder.glob("*.safetensors"))


def same(folder: Path, expected: Path, **options: Any) -> bool:
    """Whether two pipelines have the same weights."""
    one, other = load(str(folder), device="cpu", **options).networks, load(str(expected), device="cpu").networks
    return all(
        torch.equal(value, other[part].state_dict()[key])
        for part, network in one.items()
        for key, value in network.state_dict().items()
    )


# --- networks that are not whole --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_no_network_may_lack_a_weight(name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(name)
    parts = sorted(path.parent for path in folder.glob("*/*.safetensors"))
    assert len(parts) >= 2
    for part in parts:
        [weights] = part.glob("*.safetensors")
        whole, keys = weights.read_bytes(), sorted(load_file(weights))
        gone = keys[len(keys) // 2]
        rewrite(part, lambda tensors, gone=gone: {key: value for key, value in tensors.items() if key != gone})  # type: ignore[misc]
        with pytest.raises(SavedModelError, match=rf"cannot be loaded: its {part.name} lacks 1 weight \('") as refusal:
            load(str(folder))
        assert gone.removeprefix("text_model.") in str(refusal.value)
        assert "copy or download all of it" in str(refusal.value) and "fuse_lora" not in str(refusal.value)
        weights.write_bytes(whole)
    load(str(folder))


def unfused(tensors: Tensors) -> Tensors:
    """As peft names weights beside which it has put some of its own."""
    adapted: Tensors = {}
    for key, value in tensors.items():
        name = key.removesuffix(".weight")
        if not re.search(r"(to_q|q_proj)\.weight$", key):
            adapted[key] = value
            continue
        adapted |= {f"{name}.base_layer.weight": value, f"{name}.lora_B.default.weight": torch.zeros(len(value), 2)}
        adapted[f"{name}.lora_A.default.weight"] = torch.zeros(2, value.shape[1])
    return adapted


@pytest.mark.parametrize("part", NETWORKS)
def test_a_lora_that_was_not_fused(part: str, copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    rewrite(folder / part, unfused)
    with pytest.raises(SavedModelError) as refusal:
        load(str(folder))
    message = str(refusal.value)
    assert f"its {part} lacks" in message and ".base_layer.weight'" in message
    assert "pipe.fuse_lora(); pipe.unload_lora_weights(); pipe.save_pretrained" in message
    missing, unexpected = map(int, re.findall(r"(\d+) weights \(", message))
    assert unexpected == 3 * missing
    assert f"and {missing - 3} more)" in message or missing <= 3


def test_a_text_encoder_of_which_only_the_adapter_was_saved(copied: Callable[[str], Path]) -> None:
    """As transformers writes one with an adapter: nothing of the network itself."""
    folder = copied("sd-epsilon")
    shutil.rmtree(folder / "text_encoder")
    (folder / "text_encoder").mkdir()
    save_file({"lora_A.weight": torch.zeros(2, 2)}, folder / "text_encoder" / "adapter_model.safetensors")
    (folder / "text_encoder" / "adapter_config.json").write_text("{}")
    with pytest.raises(SavedModelError, match=r"its text_encoder was saved with a LoRA .* type: pipe\.fuse_lora\(\)"):
        load(str(folder))


@pytest.mark.parametrize("part", NETWORKS)
def test_weights_that_no_network_has_a_place_for(part: str, copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    rewrite(folder / part, lambda tensors: tensors | {f"encoder.more.{i}.weight": torch.zeros(2) for i in range(5)})
    with pytest.raises(
        SavedModelError,
        match=rf"its {part} has 5 weights \('encoder\.more\.0\.weight', .* and 2 more\) for which there",
    ):
        load(str(folder))


@pytest.mark.parametrize("part", NETWORKS)
def test_weights_of_another_shape(part: str, copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    rewrite(folder / part, lambda tensors: tensors | {sorted(tensors)[5]: torch.zeros(3, 3)})
    with pytest.raises(
        SavedModelError, match=rf"its {part} has 1 weight \('.*'\) in another shape than its config says"
    ):
        load(str(folder))


def test_a_config_of_a_bigger_network(copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    edit(folder / "text_encoder" / "config.json", num_hidden_layers=5)
    with pytest.raises(SavedModelError, match=r"its text_encoder lacks 32 weights \('encoder.layers.3"):
        load(str(folder))


@pytest.mark.parametrize("part", NETWORKS)
def test_shards(part: str, original: Callable[[str], Path], copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    shards = shard(folder / part)
    assert len(shards) > 2
    assert same(folder, original("sd-epsilon"))

    whole = shards[1].read_bytes()
    gone, *rest = load_file(shards[1])
    save_file({key: load_file(shards[1])[key] for key in rest} or {"x": torch.zeros(1)}, shards[1], {"format": "pt"})
    with pytest.raises(SavedModelError, match=rf"its {part} lacks 1 weight \('{gone}'\)"):
        load(str(folder))
    shards[1].unlink()
    with pytest.raises(SavedModelError, match=f"its {part} has no '{shards[1].name}'; copy or download all of it"):
        load(str(folder))
    shards[1].write_bytes(whole)
    index = next((folder / part).glob("*.index.json"))
    for text in ("{", "{}"):
        index.write_text(text)
        with pytest.raises(SavedModelError, match=f"its {part} cannot be read"):
            load(str(folder))
    index.unlink()
    with pytest.raises(SavedModelError, match="cannot be loaded"):
        load(str(folder))


@pytest.mark.parametrize("part", NETWORKS)
def test_a_part_without_weights_or_folder(part: str, copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    next((folder / part).glob("*.safetensors")).unlink()
    with pytest.raises(SavedModelError, match=f"cannot be loaded: its {part} has no weights; copy or download"):
        load(str(folder))
    shutil.rmtree(folder / part)
    with pytest.raises(SavedModelError, match=f"cannot be loaded: it has no folder {part}"):
        load(str(folder))


def test_a_pipeline_that_was_made_without_a_part(copied: Callable[[str], Path], tmp_path: Path) -> None:
    for name, part in (("sd-epsilon", "text_encoder"), ("sdxl", "vae"), ("pixart", "tokenizer"), ("dit", "vae")):
        folder = copied(name)
        edit(folder / "model_index.json", **{part: [None, None]})
        with pytest.raises(SavedModelError, match=f"it was made without {part}; make it of all of its parts"):
            load(str(folder))
    assert load(str(save(lambda: stable_diffusion_3(t5=False), tmp_path / "no-t5"))).pipe.text_encoder_3 is None


def test_t5_is_left_out_where_the_model_can_do_without(copied: Callable[[str], Path], tmp_path: Path) -> None:
    without, whole = save(lambda: stable_diffusion_3(t5=False), tmp_path / "no-t5"), tmp_path / "t5"
    save(stable_diffusion_3, whole)
    dropped = load(str(whole), t5=False)
    assert dropped.pipe.text_encoder_3 is None and dropped.pipe.tokenizer_3 is None
    expected, found = (denoiser.condition(["cat"]) for denoiser in (load(str(without)), dropped))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    with pytest.raises(InvalidInputError, match="needs all of its text encoders"):
        load(str(copied("sd-epsilon")), t5=False)


# --- what is whole, though it does not look so ------------------------------------------------------------------------


def test_lists_in_an_index_that_name_no_part(copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    edit(folder / "model_index.json", _ignore_files=["unet/a.bin", "unet/b.bin"])
    load(str(folder))


def test_positions_that_old_versions_saved(original: Callable[[str], Path], copied: Callable[[str], Path]) -> None:
    folder = copied("sdxl")
    for part in ("text_encoder", "text_encoder_2"):
        positions = {"text_model.embeddings.position_ids": torch.arange(24)[None]}
        rewrite(folder / part, lambda tensors, positions=positions: tensors | positions)  # type: ignore[misc]
    assert same(folder, original("sdxl"))


def test_attention_as_old_vaes_name_it(original: Callable[[str], Path], copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(key: str) -> str:
        for new, old in names.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        return key

    rewrite(folder / "vae", lambda tensors: {rename(key): value for key, value in tensors.items()})
    [weights] = (folder / "vae").glob("*.safetensors")
    assert sum(".query." in key for key in load_file(weights)) == 4
    assert same(folder, original("sd-epsilon"))


def test_a_t5_with_its_decoder_and_with_its_embedding_twice(
    original: Callable[[str], Path], copied: Callable[[str], Path]
) -> None:
    folder = copied("pixart")
    more = {"decoder.block.0.layer.0.layer_norm.weight": torch.ones(32)}
    rewrite(
        folder / "text_encoder",
        lambda tensors: tensors | more | {"encoder.embed_tokens.weight": tensors["shared.weight"].clone()},
    )
    assert same(folder, original("pixart"))


def test_a_transformer_under_the_name_it_had(original: Callable[[str], Path], copied: Callable[[str], Path]) -> None:
    """As in facebook/DiT-XL-2-256."""
    folder = copied("dit")
    edit(folder / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    edit(folder / "transformer" / "config.json", _class_name="Transformer2DModel")
    assert same(folder, original("dit"))


# --- variants ---------------------------------------------------------------------------------------------------------


def rename_variant(folder: Path, variant: str) -> None:
    for weights in folder.glob("*.safetensors"):
        weights.rename(weights.with_suffix(f".{variant}.safetensors"))


def test_a_folder_of_fp16_alone(original: Callable[[str], Path], copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    for part in NETWORKS:  # one part is enough
        rename_variant(folder / part, "fp16")
        with pytest.raises(SavedModelError) as refusal:
            load(str(folder))
        assert "weights of another variant alone" in str(refusal.value)
        spec = re.search(r'type "(diffusers:[^"]*)"', str(refusal.value))[1]  # type: ignore[index]
        assert spec == f"diffusers:{folder}?variant=fp16"
        assert same(folder, original("sd-epsilon"), variant="fp16")
    denoiser = plugins.load("denoiser", f"{spec}&resolution=24&precision=bf16&prompts=a {{}}", device="cpu")
    assert (denoiser.resolution, denoiser.dtype, denoiser.templates) == (24, torch.bfloat16, ("a {}",))


def test_fp16_in_shards(original: Callable[[str], Path], copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    for part in NETWORKS:
        assert len(shard(folder / part, variant="fp16")) > 2
    with pytest.raises(SavedModelError, match=r"another variant alone.*\?variant=fp16"):
        load(str(folder))
    assert same(folder, original("sd-epsilon"), variant="fp16")
    next((folder / "unet").glob("*-00002-*")).unlink()
    with pytest.raises(SavedModelError, match=r"its unet has no '.*\.fp16-00002-"):
        load(str(folder), variant="fp16")


def test_a_variant_that_is_not_there(copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    with pytest.raises(SavedModelError, match="no files of the variant 'fp16'; leave the variant out"):
        load(str(folder), variant="fp16")
    shutil.copy(
        next((folder / "unet").glob("*.safetensors")), folder / "unet" / "diffusion_pytorch_model.ema.safetensors"
    )
    with pytest.raises(SavedModelError, match=r"no files of the variant 'fp16'; type .*\?variant=ema"):
        load(str(folder), variant="fp16")
    load(str(folder), variant="ema")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["unet/diffusion_pytorch_model.fp16.safetensors", "vae/model.fp16.safetensors"], r"\?variant=fp16"),
        (["unet/diffusion_pytorch_model-00001-of-00002.fp16.safetensors"], r"\?variant=fp16"),
        (["unet/diffusion_pytorch_model.bin", "sd_xl_base_1.0.safetensors"], "convert them once"),
    ],
)
def test_a_repository_in_which_diffusers_finds_no_safetensors(names: list[str], says: str) -> None:
    assert re.search(says, str(unreadable("owner/repo", names)))


# --- options in a spec string -----------------------------------------------------------------------------------------


def test_options_are_checked(original: Callable[[str], Path]) -> None:
    spec = f"diffusers:{original('sd-epsilon')}"
    accepted = "prompts, resolution, guidance, precision, device, revision, variant, cache_dir, "
    accepted += "lora, lora_scale, words, embedding, config, t5, offload"
    with pytest.raises(InvalidInputError, match=f"'dtype' that its adapter does not take; it takes {accepted}"):
        plugins.load("denoiser", f"{spec}?dtype=fp16")
    with pytest.raises(InvalidInputError, match="'resolution' must be int, got 'big'"):
        plugins.load("denoiser", f"{spec}?resolution=big")
    with pytest.raises(InvalidInputError, match="resolution must be a multiple of 2, got 15"):
        plugins.load("denoiser", f"{spec}?resolution=15")
    with pytest.raises(InvalidInputError, match="precision must be one of fp32, fp16, bf16, got 'int8'"):
        plugins.load("denoiser", f"{spec}?precision=int8")
    with pytest.raises(InvalidInputError, match=r"offload moves parts between a GPU and .* on a CPU leave it out"):
        plugins.load("denoiser", f"{spec}?offload=true&device=cpu")


# --- what is no pipeline ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt", "pt"])
def test_a_checkpoint_in_a_single_file(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"v1-5-pruned.{suffix}"
    if suffix == "safetensors":
        save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2)}, file)
    else:
        file.write_bytes(b"pickled")
    for spec in (file, tmp_path):  # or the folder that it is in
        with pytest.raises(UnknownSpecError, match="single file") as refusal:
            load(str(spec))
        if suffix == "safetensors":
            assert f'"diffusers:{file}?config=FOLDER"' in str(refusal.value)
        else:
            command = f"StableDiffusionPipeline.from_single_file({str(file)!r}).save_pretrained('FOLDER')"
            assert "Only if you trust it" in str(refusal.value) and command in str(refusal.value)


def test_a_lora(tmp_path: Path) -> None:
    file = tmp_path / "mine" / "pytorch_lora_weights.safetensors"
    file.parent.mkdir()
    save_file({"unet.down_blocks.0.to_q.lora_A.weight": torch.zeros(2)}, file)
    other = Path(shutil.copy(file, tmp_path / "style.safetensors"))  # its weights say what it is
    for spec in (file, file.parent, other):
        with pytest.raises(UnknownSpecError, match="is a LoRA") as refusal:
            load(str(spec))
        assert f'"diffusers:BASE?lora={spec}"' in str(refusal.value)
    file.rename(file.with_suffix(".bin")).write_bytes(b"pickled")
    with pytest.raises(UnknownSpecError, match="is a LoRA"):
        load(str(file.parent))


def test_an_adapter_as_peft_saves_it(tmp_path: Path) -> None:
    save_file({"base_model.model.to_q.lora_A.weight": torch.zeros(2)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    with pytest.raises(UnknownSpecError, match="is a LoRA") as refusal:
        load(str(tmp_path))
    assert f'"diffusers:owner/base?lora={tmp_path}"' in str(refusal.value)


def test_a_part_of_a_pipeline(original: Callable[[str], Path]) -> None:
    folder = original("sd-epsilon")
    for spec in (folder / "unet", folder / "unet" / "diffusion_pytorch_model.safetensors"):
        with pytest.raises(UnknownSpecError, match=f"is a part of a pipeline; name the whole: {str(folder)!r}"):
            load(str(spec))

"""Checkpoints in a single file, and tokens of textual inversion."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hybridclf import plugins
from hybridclf.errors import InvalidInputError, SavedModelError, UnknownSpecError
from hybridclf_adapters.diffusers import load
from tests.adapters.tiny_checkpoint import checkpoint, tensors_of
from tests.adapters.tiny_classes import ddpm
from tests.adapters.tiny_diffusers import PIPELINES, save, stable_diffusion_3

pytest.importorskip("accelerate")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(PIPELINES["sd-epsilon"], tmp_path_factory.mktemp("single") / "sd")


@pytest.fixture(scope="session")
def configs(folder: Path) -> Path:
    """The same without weights."""
    return Path(shutil.copytree(folder, folder.parent / "configs", ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.fixture(scope="session")
def file(folder: Path) -> Path:
    """The same in a single file."""
    return checkpoint(folder, folder.parent / "model.safetensors")


def same(one: Any, other: Any) -> bool:
    theirs = {part: network.state_dict() for part, network in other.networks.items()}
    return all(
        torch.equal(value, theirs[part][key])
        for part, network in one.networks.items()
        for key, value in network.state_dict().items()
    )


def test_it_is_the_pipeline_that_it_was_made_of(folder: Path, configs: Path, file: Path) -> None:
    it = plugins.load("denoiser", f"diffusers:{file}?config={configs}", device="cpu")
    whole = load(str(folder), device="cpu")
    assert same(it, whole)
    x_t, t, row = torch.randn(1, *it.shape), torch.tensor([0.5]), torch.tensor([0])
    with torch.inference_mode():
        answers = [d.predict(x_t, t, row, d.condition(["cat"])) for d in (it, whole)]
    assert torch.equal(*answers)


def test_weights_that_the_checkpoint_has_not(tmp_path: Path) -> None:
    """A transformer alone, under diffusers' own names; the rest comes from the folder."""
    folder = save(lambda: stable_diffusion_3(t5=False), tmp_path / "sd3")
    tensors = {key: value + 1 for key, value in tensors_of(folder / "transformer").items()}
    save_file(tensors, tmp_path / "tuned.safetensors")
    it, base = load(str(tmp_path / "tuned.safetensors"), config=folder, device="cpu"), load(str(folder), device="cpu")
    for key, value in base.network.state_dict().items():
        if key in tensors:
            torch.testing.assert_close(it.network.state_dict()[key], value + 1)
    assert torch.equal(it.condition(["cat"])["text"], base.condition(["cat"])["text"])
    assert all(torch.equal(a, b) for a, b in zip(it.vae.parameters(), base.vae.parameters(), strict=True))


def test_weights_that_the_checkpoint_has_not_may_be_of_a_variant(tmp_path: Path) -> None:
    whole = save(lambda: stable_diffusion_3(t5=False), tmp_path / "sd3")
    save_file(tensors_of(whole / "transformer"), tmp_path / "tuned.safetensors")
    folder = Path(shutil.copytree(whole, tmp_path / "halves"))
    for file in folder.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    with pytest.raises(SavedModelError, match=r"weights of another variant alone; type .*variant='fp16'"):
        load(str(tmp_path / "tuned.safetensors"), config=folder, device="cpu")
    it = load(str(tmp_path / "tuned.safetensors"), config=folder, variant="fp16", device="cpu")
    assert same(it, load(str(whole), device="cpu"))


def test_a_variant_is_of_no_account_where_the_checkpoint_has_all(folder: Path, configs: Path, file: Path) -> None:
    assert same(load(str(file), config=configs, variant="fp16", device="cpu"), load(str(folder), device="cpu"))


@pytest.mark.parametrize("gone", ["model.diffusion_model.middle_block.0", "cond_stage_model", "first_stage_model.enc"])
def test_a_checkpoint_that_is_not_whole(gone: str, configs: Path, file: Path, tmp_path: Path) -> None:
    tensors = {key: value for key, value in load_file(file).items() if not key.startswith(gone)}
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(SavedModelError, match="cannot be loaded"):
        load(str(tmp_path / "part.safetensors"), config=configs, device="cpu")


def test_what_goes_with_no_config(folder: Path, configs: Path, file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is a folder, which has configurations of its own; leave config out"):
        load(str(folder), config=configs)
    pickled = tmp_path / "model.ckpt"
    pickled.write_bytes(b"pickled")
    for spec in (pickled, tmp_path / "absent.safetensors"):
        with pytest.raises(UnknownSpecError, match="not a checkpoint in safetensors"):
            load(str(spec), config=configs)
    with pytest.raises(UnknownSpecError, match="is not the folder of a saved pipeline"):
        load(str(file), config=tmp_path)
    mixed = Path(shutil.copytree(configs, tmp_path / "mixed"))
    (mixed / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(SavedModelError, match="is pickled and can run any code"):
        load(str(file), config=mixed)
    with pytest.raises(InvalidInputError, match="diffusers reads no DDPMPipeline from a single file"):
        load(str(file), config=save(ddpm, tmp_path / "ddpm"))


# --- textual inversion ------------------------------------------------------------------------------------------------


def embedding(file: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, file)
    return file


def test_a_token_is_a_word(folder: Path, tmp_path: Path) -> None:
    import diffusers

    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    path = embedding(tmp_path / "cat.safetensors", **{"<my-cat>": vector})
    it = plugins.load("denoiser", f"diffusers:{folder}?embedding={path}&prompts=a {{}}.", device="cpu")
    source = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    source.load_textual_inversion(path)
    expected = source.encode_prompt("a <my-cat>.", "cpu", 1, False)[0]
    found = it.condition(["<my-cat>", "cat"])["text"]
    torch.testing.assert_close(found[:1], expected)
    torch.testing.assert_close(found[1:], load(str(folder), prompts="a {}.", device="cpu").condition(["cat"])["text"])
    assert (found[0] - found[1]).abs().max() > 1e-2


def test_a_token_of_several_vectors(folder: Path, tmp_path: Path) -> None:
    """Counted as several: the tokenizer of the tests reads 24."""
    import diffusers

    vectors = torch.randn(12, 32, generator=torch.Generator().manual_seed(0))
    path = embedding(tmp_path / "mine.safetensors", emb_params=vectors)
    it = load(str(folder), embedding=path, prompts="{}", device="cpu")
    source = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    source.load_textual_inversion({"mine": vectors}, token="mine")
    torch.testing.assert_close(it.condition(["mine"])["text"], source.encode_prompt("mine", "cpu", 1, False)[0])
    with pytest.warns(UserWarning, match="cut off after 24 tokens"):
        it.condition(["mine mine"])


def test_xl_has_a_vector_for_each_encoder(tmp_path: Path) -> None:
    folder = save(PIPELINES["sdxl"], tmp_path / "sdxl")
    path = embedding(tmp_path / "odd.safetensors", clip_l=torch.randn(1, 32), clip_g=torch.randn(1, 32))
    it = load(str(folder), embedding=path, device="cpu")
    for tokenizer, encoder, name in (
        ("tokenizer", "text_encoder", "clip_l"),
        ("tokenizer_2", "text_encoder_2", "clip_g"),
    ):
        number = getattr(it.pipe, tokenizer).convert_tokens_to_ids("odd")
        assert torch.equal(getattr(it.pipe, encoder).get_input_embeddings().weight[number], load_file(path)[name][0])


def test_what_is_no_embedding_of_this_pipeline(folder: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "learned_embeds.bin"
    pickled.write_bytes(b"pickled")
    with pytest.raises(SavedModelError, match="is no embedding in safetensors"):
        load(str(folder), embedding=pickled)
    wide = embedding(tmp_path / "wide.safetensors", **{"<w>": torch.zeros(48)})
    with pytest.raises(SavedModelError, match=r"'<w>' has the shape \(48,\), and the text encoder's width is 32"):
        load(str(folder), embedding=wide)
    with pytest.raises(SavedModelError, match="cannot be used with this pipeline"):
        load(str(folder), embedding=tmp_path / "absent.safetensors")
    with pytest.raises(InvalidInputError, match="a PixArtAlphaPipeline takes no textual inversion"):
        load(str(save(PIPELINES["pixart"], tmp_path / "pixart")), embedding=wide)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("scaled_fp8", "its weights are scaled.*fp16 or bf16"),
        ("model.diffusion_model.out.2.scale_weight", "its weights are scaled"),
        ("model.diffusion_model.out.2.lora_down.weight", r"it holds a LoRA \(model.*lora=FILE"),
        ("v_pred", 'it predicts v, .* is for epsilon; .*"prediction_type": "v_prediction"'),
    ],
)
def test_what_diffusers_would_leave_out(file: Path, configs: Path, tmp_path: Path, key: str, said: str) -> None:
    save_file(load_file(file) | {key: torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SavedModelError, match=said):
        load(str(tmp_path / "other.safetensors"), config=configs, device="cpu")

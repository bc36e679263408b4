"""What the diffusers adapter makes of folders, prompts, labels and images, good and bad."""

import io
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from hybridclf.errors import (
    InvalidInputError,
    MissingDependencyError,
    SavedModelError,
    UnknownLabelError,
    UnknownSpecError,
)
from hybridclf_adapters import diffusers as adapter
from hybridclf_adapters._diffusers_images import pixels
from hybridclf_adapters.diffusers import load
from tests.adapters.tiny_diffusers import PIPELINES, clip_tokenizer, save, stable_diffusion


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`original(family)`: a saved pipeline, not to be changed."""
    root = tmp_path_factory.mktemp("diffusers")
    return lambda name: root / name if (root / name).exists() else save(PIPELINES[name], root / name)


@pytest.fixture
def copied(original: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """`copied(family)`: one to be changed."""
    return lambda name: Path(shutil.copytree(original(name), tmp_path / name))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- folders and repositories -----------------------------------------------------------------------------------------


def test_a_pipeline_of_another_kind_is_refused_with_those_supported(copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    for name in ("KandinskyPipeline", ["pipeline", "MyPipeline"], None):
        edit(folder / "model_index.json", _class_name=name)
        with pytest.raises(UnknownSpecError, match=r"is not supported; supported are .*DiT.*the four methods of"):
            load(str(folder))


def test_a_folder_that_is_no_pipeline_and_a_name_that_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnknownSpecError, match="neither the folder of a saved diffusers pipeline nor"):
        load(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(UnknownSpecError, match="neither the folder"):
        load(str(tmp_path))
    with pytest.raises(UnknownSpecError, match="neither the folder"):
        load("nobody/nothing")


@pytest.mark.parametrize("name", ["nofolder", "./folder", "~/nofolder", "/no/folder", "no/such/folder"])
def test_a_missing_folder_is_not_sought_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(UnknownSpecError, match="which is OWNER/NAME: there is no such folder"):
        load(name)


def unsafe(folder: Path, part: str) -> None:
    """Pickle the weights of a part, as `save_pretrained` did years ago."""
    from safetensors.torch import load_file

    [weights] = (folder / part).glob("*.safetensors")
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    if weights.name == "model.safetensors":
        weights.with_suffix(".bin").rename(folder / part / "pytorch_model.bin")
    weights.unlink()


def test_pickled_weights_are_refused_and_the_conversion_works(
    copied: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import DiffusionPipeline

    folder = copied("sd-epsilon")
    expected = load(str(folder), device="cpu")
    for part in ("unet", "text_encoder"):
        unsafe(folder, part)
    with pytest.raises(SavedModelError, match="convert them once") as refusal:
        load(str(folder))
    monkeypatch.chdir(tmp_path)
    statements = str(refusal.value).splitlines()[-1].removeprefix('python -c "').removesuffix('"')
    exec(statements.split("; ")[1], {"P": DiffusionPipeline})  # the command that the message gives
    converted = load("converted", device="cpu")
    assert torch.equal(converted.condition(["cat"])["text"], expected.condition(["cat"])["text"])
    weights = converted.network.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in expected.network.state_dict().items())


def test_pickled_text_encoder(copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    unsafe(folder, "text_encoder")
    with pytest.raises(SavedModelError, match="pickled"):
        load(str(folder))


def test_code_in_a_folder_is_not_run(copied: Callable[[str], Path], tmp_path: Path) -> None:
    folder, mark = copied("sd-epsilon"), tmp_path / "was-here"
    (folder / "unet" / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Net: pass\n")
    edit(folder / "model_index.json", unet=["evil", "Net"])
    with pytest.raises(SavedModelError, match="cannot be loaded"):
        load(str(folder))
    assert not mark.exists()


def test_damaged_and_missing_weights(copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    for part in ("unet", "text_encoder"):
        [weights] = (folder / part).glob("*.safetensors")
        whole = weights.read_bytes()
        weights.write_bytes(whole[:1000])
        with pytest.raises(SavedModelError, match="cannot be loaded"):
            load(str(folder))
        weights.unlink()
        with pytest.raises(SavedModelError, match="cannot be loaded"):
            load(str(folder))
        weights.write_bytes(whole)
    load(str(folder))


def test_a_t5_tokenizer_without_sentencepiece(copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied("pixart")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "spiece.model").write_bytes(b"")
    absent = {"sentencepiece", "google.protobuf"}

    def find_spec(name: str) -> Any:
        if name == "google.protobuf":
            raise ModuleNotFoundError("no google")
        return None if name in absent else object()

    monkeypatch.setattr(adapter, "find_spec", find_spec)
    for _ in range(2):
        with pytest.raises(MissingDependencyError, match=r"and protobuf; type: pip install .*protobuf.*sentencepiece"):
            load(str(folder))
        absent.discard("sentencepiece")


@pytest.mark.parametrize("package", ["diffusers", "transformers"])
def test_without_the_libraries(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match="type: pip install diffusers transformers"):
        load("anything")


def test_a_scheduler_of_another_kind(copied: Callable[[str], Path]) -> None:
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    folder = copied("sdxl")
    FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    edit(folder / "model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])
    with pytest.raises(UnknownSpecError, match=r"FlowMatchEulerDiscreteScheduler.*is not supported"):
        load(str(folder))
    folder = copied("sd3")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    edit(folder / "model_index.json", scheduler=["diffusers", "DDIMScheduler"])
    with pytest.raises(UnknownSpecError, match="DDIMScheduler is not supported"):
        load(str(folder))


def test_a_repository_in_the_hubs_cache(original: Callable[[str], Path], tmp_path: Path) -> None:
    """The layout that huggingface_hub downloads into."""
    commit = "0" * 40
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(original("sd-epsilon"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    denoiser = load("someone/tiny", cache_dir=tmp_path, device="cpu")
    expected = load(str(original("sd-epsilon")), device="cpu")
    assert torch.equal(denoiser.condition(["cat"])["text"], expected.condition(["cat"])["text"])


def test_files_as_old_repositories_have_them(copied: Callable[[str], Path]) -> None:
    """vocab.json and merges.txt instead of tokenizer.json; fp16 files beside or instead of full ones."""
    folder = copied("sd-epsilon")
    expected = load(str(folder), device="cpu").condition(["cat"])["text"]
    tokenizer = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(tokenizer["vocab"]))
    merges = [" ".join(pair) for pair in tokenizer["merges"]]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "tokenizer" / "tokenizer.json").unlink()
    for weights in list(folder.glob("*/*.safetensors")):
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert torch.equal(load(str(folder), device="cpu", variant="fp16").condition(["cat"])["text"], expected)


def test_options_out_of_range(original: Callable[[str], Path]) -> None:
    folder = str(original("sd-epsilon"))
    with pytest.raises(InvalidInputError, match="precision must be one of fp32, fp16, bf16, got 'int8'"):
        load(folder, precision="int8")
    for resolution in (0, 15, -16):
        with pytest.raises(InvalidInputError, match=f"a multiple of 2, got {resolution}; the model was trained at 16"):
            load(folder, resolution=resolution)
    with pytest.raises(InvalidInputError, match="a multiple of 4"):
        load(str(original("dit")), resolution=18)


def test_a_network_that_names_no_size_needs_a_resolution(copied: Callable[[str], Path]) -> None:
    folder = copied("sd-epsilon")
    edit(folder / "unet" / "config.json", sample_size=None)
    with pytest.raises(InvalidInputError, match="got None"):
        load(str(folder))
    assert load(str(folder), resolution=32).shape == (4, 16, 16)
    edit(folder / "unet" / "config.json", sample_size=[8, 12])
    assert load(str(folder)).resolution == 16


# --- prompts and labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", ["a cat", "", [], ["a {}.", "the cat."], [3], "{0}", ["a {label}"]])
def test_prompts_must_be_templates(prompts: Any, original: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidInputError, match=r"prompts must be templates with \{\} where"):
        load(str(original("sd-epsilon")), prompts=prompts)


def test_a_template_is_filled_with_any_label(original: Callable[[str], Path]) -> None:
    folder = str(original("sd-epsilon"))
    by_list, by_text = load(folder, prompts=["{} {x} {}"]), load(folder, prompts="{}")
    row = by_list.condition([7])["text"]
    assert torch.equal(row, by_text.condition(["7 {x} 7"])["text"])
    assert torch.equal(row, by_list.condition([np.str_("7")])["text"])


def test_prompts_of_several_templates_come_label_by_label(original: Callable[[str], Path]) -> None:
    templates = ["a photo of a {}.", "a dog and a {}", "{}"]
    several = load(str(original("sd3")), prompts=templates).condition(["cat", "cow"])
    for j, template in enumerate(templates):
        single = load(str(original("sd3")), prompts=template).condition(["cat", "cow"])
        assert all(torch.equal(several[name][j::3], single[name]) for name in single)


def test_one_prompt_that_tells_labels_apart_is_enough(original: Callable[[str], Path]) -> None:
    denoiser = load(str(original("sd-epsilon")), prompts=["z" * 30 + "{}", "{}", "a {}"])
    with pytest.warns(UserWarning, match="cut off"):
        denoiser.condition(["cat", "dog"])
        with pytest.raises(InvalidInputError, match=r"'cat' and 'CAT' read the same.*as 'z{30}cat' and 'z{30}CAT'"):
            denoiser.condition(["dog", "cat", "CAT"])


def test_labels_that_read_the_same_are_refused(original: Callable[[str], Path]) -> None:
    sd, pixart, sd3 = (load(str(original(name))) for name in ("sd-epsilon", "pixart", "sd3"))
    for denoiser in (sd, pixart):  # CLIP's tokenizer lowers letters, and PixArt's pipeline does
        with pytest.raises(InvalidInputError, match=r"labels 'cat' and 'CAT' read the same.*'a photo of a CAT\.'"):
            denoiser.condition(["dog", "cat", "CAT"])
    with pytest.raises(InvalidInputError, match="labels 1 and '1' read the same"):
        sd.condition([1, "1"])
    sd3.condition(["cat", "CAT"])  # its T5 tells them apart


def test_labels_that_differ_only_where_prompts_are_cut_off_are_refused(original: Callable[[str], Path]) -> None:
    denoiser = load(str(original("sd-epsilon")), prompts="{}")
    tail = "z" * 30
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InvalidInputError, match="read the same"):
            denoiser.condition([tail + "cat", tail + "dog"])
    denoiser.condition(["z" * 21 + "a", "z" * 21 + "b"])  # 22 letters and two marks: these are read in full


def test_long_prompts_are_warned_of_once(original: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    denoiser = load(str(original("sd-epsilon")), prompts="{}")
    denoiser.condition(["a" * 22])
    with pytest.warns(UserWarning, match="cut off after 24 tokens, all the model reads: 'b{23}'$") as caught:
        denoiser.condition(["cat", "b" * 23])
    assert len(caught) == 1
    denoiser.condition(["b" * 23, "dog"])
    with pytest.warns(UserWarning, match=r"'c{23}' \(and so are 1 more\)"):
        denoiser.condition(["b" * 23, "c" * 23, "d" * 40])
    assert not caplog.records  # diffusers and transformers would have said so each time


def test_each_tokenizer_has_its_limit(original: Callable[[str], Path]) -> None:
    sd3 = load(str(original("sd3")), prompts="{}")
    with pytest.warns(UserWarning, match="after 24 tokens"):  # CLIP's; T5 goes on to 256
        sd3.condition(["z" * 30 + "cat", "z" * 30 + "dog"])
    for name, limit in {"pixart": 120, "pixart-sigma": 300, "if": 77}.items():
        denoiser = load(str(original(name)), prompts="{}")
        denoiser.condition(["zy" * (limit // 2 - 1)])
        with pytest.warns(UserWarning, match=f"after {limit} tokens"):
            denoiser.condition(["zy" * (limit // 2 + 1)])


def test_the_tokenizer_of_the_tests_reads_words() -> None:
    """One token per letter but for the merges, so that the limits above are what they seem."""
    assert len(clip_tokenizer()("cat of a").input_ids) == 2 + 3


def test_labels_that_dit_does_not_know(original: Callable[[str], Path]) -> None:
    denoiser = load(str(original("dit")))
    with pytest.raises(UnknownLabelError, match=r"know 'goldfisch'; it knows .* 0 to 9; did you mean 'goldfish'"):
        denoiser.condition(["hen", "goldfisch"])
    for label in (10, -1, 2.5, None, "7"):
        with pytest.raises(UnknownLabelError, match="does not know"):
            denoiser.condition([label])
    with pytest.raises(UnknownLabelError, match=r"'crane' names the classes \[2, 5\]; give one of these numbers"):
        denoiser.condition(["crane"])
    with pytest.raises(InvalidInputError, match="labels 'tench' and 'Tinca tinca' are both class 0"):
        denoiser.condition(["tench", "Tinca tinca"])


def test_dit_without_names_knows_numbers_and_if_of_a_thousand_classes_imagenet(copied: Callable[[str], Path]) -> None:
    folder = copied("dit")
    index = json.loads((folder / "model_index.json").read_text())
    del index["id2label"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnknownLabelError, match=r"does not know 'hen'; it knows the numbers 0 to 9$"):
        load(str(folder)).condition(["hen"])

    from diffusers import DiTTransformer2DModel

    config = json.loads((folder / "transformer" / "config.json").read_text()) | {"num_embeds_ada_norm": 1000}
    DiTTransformer2DModel.from_config(config).save_pretrained(folder / "transformer")
    denoiser = load(str(folder))
    assert denoiser.condition(["tench", "hen", 999, "goldfish, Carassius auratus"])["class"].tolist() == [0, 8, 999, 1]


# --- images: Appendix F.1 of arXiv 2303.16203 -------------------------------------------------------------------------


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("size", [(32, 32), (47, 31), (31, 47), (500, 333), (16, 90), (5, 3), (1, 1), (1, 40)])
def test_preprocessing_is_torchvisions(size: tuple[int, int]) -> None:
    image = Image.fromarray(noise(*size))
    reference = transforms.Compose(
        [
            transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    [ours] = pixels([image], 32)
    torch.testing.assert_close(ours, reference(image), rtol=0, atol=1e-6)


def test_an_array_of_images_and_a_list_are_the_same() -> None:
    stack = np.stack([noise(6, 5), noise(6, 5, seed=1)])
    assert all(torch.equal(a, b) for a, b in zip(pixels(stack, 8), pixels(list(stack), 8), strict=True))


def test_sixteen_bits_alpha_and_orientation_are_seen_to(original: Callable[[str], Path]) -> None:
    """As `arrays.as_pil` and `convert` have it: the model sees the picture that a viewer shows."""
    denoiser, picture = load(str(original("sd-epsilon")), device="cpu"), noise(20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to view
    file = io.BytesIO()
    Image.fromarray(np.rot90(picture).copy()).save(file, "PNG", exif=exif)
    opaque = np.dstack([picture, noise(20, 30, 1, seed=1)])
    deep = Image.fromarray(picture[..., 0].astype(np.uint16) * 257)
    for image, seen in ((Image.open(file), picture), (opaque, picture), (deep, picture[..., 0])):
        assert torch.equal(denoiser.encode([image]), denoiser.encode([seen]))


def test_images_of_different_sizes_are_encoded_together(original: Callable[[str], Path]) -> None:
    denoiser = load(str(original("sd-epsilon")), device="cpu")
    images = [noise(20, 30), Image.fromarray(noise(40, 17)), noise(3, 3)[..., 0]]
    x0 = denoiser.encode(images)
    assert x0.shape == (3, 4, 8, 8)
    assert denoiser.encode([]).shape == (0, 4, 8, 8)


def test_only_what_is_needed_is_loaded(original: Callable[[str], Path], tmp_path: Path) -> None:
    """A safety checker on disk is left there."""
    folder = Path(shutil.copytree(original("sd-epsilon"), tmp_path / "sd"))
    edit(folder / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    assert load(str(folder)).pipe.safety_checker is None


def test_it_says_what_it_is(original: Callable[[str], Path]) -> None:
    folder = str(original("sd-epsilon"))
    assert repr(load(folder, device="cpu")) == f"StableDiffusion({folder!r}, 16 px, torch.float32, cpu)"
    assert stable_diffusion().unet.config.sample_size == 8

"""LoRAs by an option, against generations of diffusers itself and peft's own layers."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from hybridclf import FixedTrials, HybridClassifier, plugins
from hybridclf.errors import InvalidInputError, SavedModelError, UnknownSpecError
from hybridclf_adapters._diffusers_lora import LORA_FILE, describe_base
from hybridclf_adapters.diffusers import load
from tests.adapters import tiny_classes
from tests.adapters.tiny_diffusers import PIPELINES, save, stable_diffusion

pytestmark = pytest.mark.skipif(find_spec("peft") is None, reason="no peft here")

PROMPT = "a photo of a {}."
LAYERS = ["to_q", "to_out.0"]
BUILDERS = PIPELINES | {"ddpm": tiny_classes.ddpm, "latent": tiny_classes.latent}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder(family)`: a pipeline of that family, saved."""
    root = tmp_path_factory.mktemp("lora")
    return lambda name: root / name if (root / name).exists() else save(BUILDERS[name], root / name)


def network_of(pipe: Any) -> Any:
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def adapted(folder: Path, out: Path, **options: Any) -> Any:
    """A random LoRA of a pipeline's network as peft saves it; the network with it."""
    import diffusers
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**{"r": 2, "lora_alpha": 2, "target_modules": LAYERS, "init_lora_weights": False} | options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(network_of(diffusers.DiffusionPipeline.from_pretrained(folder)), config)
    model.save_pretrained(out)
    return model.base_model.model.eval()


def renamed(peft_folder: Path, file: Path, prefix: str) -> Path:
    """The same LoRA under diffusers' names."""
    tensors = load_file(peft_folder / "adapter_model.safetensors")
    save_file({key.replace("base_model.model.", prefix): value for key, value in tensors.items()}, file)
    return file


def predicted(network: Any, denoiser: Any) -> Tensor:
    """Answer of a network to the denoiser's own call of it."""
    labels = [0, 1] if hasattr(denoiser, "n_classes") else ["cat", "dog"]
    own, denoiser.network = denoiser.network, network
    x = torch.randn(2, *denoiser.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = denoiser.forward(x, torch.tensor([400, 400]), denoiser.condition(labels))
    denoiser.network = own
    return output


@pytest.mark.parametrize("name", ["sd-epsilon", "sdxl", "sd3", "pixart", "if", "dit", "ddpm", "latent"])
def test_a_lora_is_as_peft_and_diffusers_have_it(name: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    expected = adapted(folder(name), tmp_path / "peft")
    prefix = "unet." if hasattr(load(str(folder(name)), device="cpu").pipe, "unet") else "transformer."
    file, plain = (
        renamed(tmp_path / "peft", tmp_path / "own.safetensors", prefix),
        load(str(folder(name)), device="cpu"),
    )
    for lora in (tmp_path / "peft", file):
        it = load(str(folder(name)), lora=lora, device="cpu")
        torch.testing.assert_close(predicted(it.network, it), predicted(expected, it), rtol=1e-4, atol=1e-5)
        assert (predicted(it.network, it) - predicted(plain.network, it)).abs().max() > 1e-3
        assert it.network.state_dict().keys() == plain.network.state_dict().keys()  # fused: no layer more


def test_scale_and_alpha_of_every_layer(folder: Callable[[str], Path], tmp_path: Path) -> None:
    options = {"lora_alpha": 3, "rank_pattern": {"to_q": 1}, "alpha_pattern": {"to_q": 5}, "use_rslora": True}
    expected = adapted(folder("sd-epsilon"), tmp_path, **options)
    whole, half = (load(str(folder("sd-epsilon")), lora=tmp_path, lora_scale=s, device="cpu") for s in (1.0, 0.5))
    torch.testing.assert_close(predicted(whole.network, whole), predicted(expected, whole), rtol=1e-4, atol=1e-5)
    plain = load(str(folder("sd-epsilon")), device="cpu").network.state_dict()
    for key, value in half.network.state_dict().items():
        torch.testing.assert_close(value - plain[key], (whole.network.state_dict()[key] - plain[key]) / 2)


@pytest.mark.parametrize("alpha", [2.0, 0.5])
def test_a_lora_as_kohyas_scripts_save_it(alpha: float, folder: Callable[[str], Path], tmp_path: Path) -> None:
    """Its names, and an alpha beside each pair of matrices, which is divided by the rank."""
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 32, generator=generator), torch.randn(32, 2, generator=generator)
    name = f"lora_unet_{layer.replace('.', '_')}"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(alpha)}
    save_file(tensors, tmp_path / "style.safetensors")
    plain, it = (
        load(str(folder("sd-epsilon")), device="cpu", **o) for o in ({}, {"lora": tmp_path / "style.safetensors"})
    )
    expected = plain.network.get_submodule(layer).weight + alpha / 2 * up @ down
    torch.testing.assert_close(it.network.get_submodule(layer).weight, expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_predicted_noise_is_what_the_pipeline_computes_when_it_generates(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """With a LoRA of the U-Net and the text encoder, active in diffusers and fused here."""
    import diffusers
    from peft import LoraConfig, get_peft_model_state_dict

    source = diffusers.StableDiffusionPipeline.from_pretrained(folder("sd-epsilon"))
    layers = {}
    for part, network, names in (("unet", source.unet, LAYERS), ("text_encoder", source.text_encoder, ["q_proj"])):
        network.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=names, init_lora_weights=False))
        layers[f"{part}_lora_layers"] = get_peft_model_state_dict(network)
    source.save_lora_weights(tmp_path, **layers)

    source = diffusers.StableDiffusionPipeline.from_pretrained(folder("sd-epsilon"))
    source.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors", adapter_name="mine")
    source.set_adapters("mine", 0.7)
    source.set_progress_bar_config(disable=True)
    heard: list[Any] = []
    hook = source.unet.register_forward_hook(lambda _, args, output: heard.append((*args, output[0])))
    options = {"guidance_scale": 1.0, "num_inference_steps": 2, "generator": torch.Generator().manual_seed(1)}
    source(PROMPT.format("hen"), height=16, width=16, output_type="latent", **options)
    hook.remove()

    it = load(str(folder("sd-epsilon")), prompts=PROMPT, lora=tmp_path, lora_scale=0.7, device="cpu")
    assert heard
    for x_t, timestep, output in heard:
        t = torch.tensor([(int(timestep) + 0.5) / 1000])
        ours = it.predict(x_t, t, torch.tensor([0]), it.condition(["hen"]))
        torch.testing.assert_close(ours, output, rtol=1e-3, atol=1e-4)


def test_a_saved_classifier_keeps_its_lora(folder: Callable[[str], Path], tmp_path: Path) -> None:
    model = tmp_path / "model"
    adapted(folder("ddpm"), tmp_path / "peft")
    spec = f"diffusers:{folder('ddpm')}?lora={tmp_path / 'peft'}&lora_scale=0.8&device=cpu"
    X = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)

    def answers(clf: HybridClassifier) -> np.ndarray:
        return clf.predict_proba([Image.fromarray(x) for x in X])

    made = HybridClassifier(tiny_prior(), spec, allocation=FixedTrials(2), random_state=0).fit(X, [0, 1, 0])
    made.save(model)
    loaded = HybridClassifier.load(model)
    np.testing.assert_allclose(answers(loaded), answers(made), rtol=1e-6)
    assert "lora_scale=0.8" in loaded.denoiser
    plain = plugins.load("denoiser", f"diffusers:{folder('ddpm')}", device="cpu")
    it = plugins.load("denoiser", spec)
    assert (predicted(it.network, it) - predicted(plain.network, it)).abs().max() > 1e-3


def test_a_lora_of_the_hub_is_in_the_given_cache(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """No test has a network: it is found there or nowhere."""
    adapted(folder("ddpm"), tmp_path / "peft")
    repository, commit = tmp_path / "cache" / "models--owner--lora", "0" * 40
    for part in (repository / "refs", repository / "snapshots" / commit):
        part.mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    file = renamed(tmp_path / "peft", repository / "snapshots" / commit / LORA_FILE, "unet.")
    local = load(str(folder("ddpm")), lora=file, device="cpu")
    it = load(str(folder("ddpm")), lora="owner/lora", cache_dir=tmp_path / "cache", device="cpu")
    for ours, theirs in zip(it.network.parameters(), local.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_words_of_the_home_folder(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_file(
        {"text_encoder.ids": torch.tensor([5]), "text_encoder.rows": torch.full((1, 32), 0.5)},
        tmp_path / "words.safetensors",
    )
    it = load(str(folder("sd-epsilon")), words="~/words.safetensors", device="cpu")
    assert it.pipe.text_encoder.get_input_embeddings().weight[5].tolist() == [0.5] * 32


def tiny_prior() -> Any:
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="prior")


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_lora_of_another_pipeline(folder: Callable[[str], Path], tmp_path: Path) -> None:
    adapted(folder("ddpm"), tmp_path)
    with pytest.raises(SavedModelError, match=r"cannot be used with this pipeline: .*give the one that it was trained"):
        load(str(folder("sd-epsilon")), lora=tmp_path, device="cpu")
    file = renamed(tmp_path, tmp_path / "other.safetensors", "text_encoder.")
    with pytest.raises(SavedModelError, match="cannot be used"):
        load(str(folder("ddpm")), lora=file, device="cpu")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    save_file({f"unet.{key}": value for key, value in tensors.items()} | {"x.dora_scale": torch.ones(1)}, file)
    with pytest.raises(SavedModelError, match="it is a DoRA"):
        load(str(folder("sd-epsilon")), lora=file, device="cpu")


def test_what_is_no_lora(folder: Callable[[str], Path], tmp_path: Path) -> None:
    pickled = tmp_path / "pytorch_lora_weights.bin"
    pickled.write_bytes(b"pickled")
    for lora in (pickled, tmp_path):
        with pytest.raises(SavedModelError, match="is no LoRA in safetensors"):
            load(str(folder("ddpm")), lora=lora, device="cpu")
    with pytest.raises(UnknownSpecError, match="neither the file or folder of a LoRA nor a repository"):
        load(str(folder("ddpm")), lora=tmp_path / "absent", device="cpu")
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(SavedModelError, match="cannot be used"):
        load(str(folder("ddpm")), lora=tmp_path / "a.safetensors", device="cpu")
    with pytest.raises(InvalidInputError, match="lora_scale must be a finite number, got nan"):
        load(str(folder("ddpm")), lora=tmp_path / "a.safetensors", lora_scale=float("nan"), device="cpu")


def test_a_base_model_is_told_by_what_was_chosen_not_by_defaults() -> None:
    """Another diffusers may know more settings, and sampling in other steps changes nothing."""
    pipe = stable_diffusion()
    before = describe_base(pipe)
    pipe.scheduler.register_to_config(timestep_spacing="trailing")
    pipe.unet.register_to_config(class_embed_type=None, dropout=0.0)
    assert describe_base(pipe) == before
    for part, changed in ((pipe.scheduler, {"prediction_type": "v_prediction"}), (pipe.unet, {"layers_per_block": 3})):
        part.register_to_config(**changed)
        assert describe_base(pipe) != before
        before = describe_base(pipe)

"""New embeddings of words: those of the tokens that prompts have, in families whose prompts can be trained."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hybridclf import InvalidInputError
from hybridclf_adapters.diffusers import load
from tests.adapters.tiny_diffusers import PIPELINES, save

LABELS = ["Cat", "hen"]


@pytest.fixture(scope="session")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """`denoiser(family)`: a small one."""
    root = tmp_path_factory.mktemp("words")

    def loaded(name: str) -> Any:
        return load(str(save(PIPELINES[name], root / name)), prompts=["a {} here", "{}"], device="cpu")

    return loaded


@pytest.mark.parametrize(
    "name", ["sd-epsilon", "pixart", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sdxl", "sd3"))]
)
def test_the_words_are_tokens_of_the_prompts(name: str, denoiser: Callable[[str], Any]) -> None:
    """PixArt reads small letters alone."""
    it = denoiser(name)
    tokens = it.pipe.tokenizer(it.as_read(["a Cat here", "hen"]), add_special_tokens=False)["input_ids"]
    rows = it.rows_of("text_encoder", LABELS)
    assert set(rows) <= {token for own in tokens for token in own} and rows == sorted(set(rows))
    only_cat, only_hen = (set(it.rows_of("text_encoder", [label])) for label in LABELS)
    assert only_cat and only_hen and only_cat | only_hen == set(rows)
    before = it.condition(["Cat"])
    with it.adapted(0, LABELS, 0) as adaptation, torch.no_grad():
        for change in adaptation.parameters["words"].parameters():
            change += 1
        changed = adaptation.condition(["Cat"])
    assert any(not torch.allclose(before[key], changed[key]) for key in before)
    torch.testing.assert_close(it.condition(["Cat"]), before)


def test_a_word_behind_a_space_is_another_token(denoiser: Callable[[str], Any]) -> None:
    """As for byte-level tokenizers, such as those of Qwen and Gemma."""
    it = denoiser("pixart")

    class Spaced:
        all_special_ids: tuple[int, ...] = ()

        def __call__(self, prompts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
            words = [prompt.replace(" ", "~ ").split("~") for prompt in prompts]
            return {"input_ids": [[hash(word) for word in own] for own in words]}

    it.pipe.tokenizer = Spaced()
    assert set(it.rows_of("text_encoder", ["Cat"])) == {hash(" cat"), hash("cat")}  # in either template


def test_prompts_without_gradients_are_refused(denoiser: Callable[[str], Any]) -> None:
    it = denoiser("if")
    before = it.condition(LABELS)
    with pytest.raises(InvalidInputError, match="cannot be trained in a IFPipeline; tune a LoRA alone"):
        it.adapted(0, LABELS, 0).__enter__()
    torch.testing.assert_close(it.condition(LABELS), before)

"""open_clip models as zero-shot proposers: "open_clip:RN50-quickgelu/openai", "open_clip:local-dir:FOLDER".

>>> from hybridclf_adapters.open_clip import load
>>> proposer = load("ViT-B-32/laion2b_s34b_b79k", prompts="a photo of a {}, a type of pet.")  # doctest: +SKIP
>>> proposer.fit(None, ["beagle", "pug"]).predict_proba(images)  # doctest: +SKIP
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import normalize

from hybridclf.devices import as_device
from hybridclf.errors import HybridClfError, InvalidInputError, SavedModelError, UnknownSpecError, choices
from hybridclf.ports import Label

from ._checks import check_distinct, check_templates, fill, warn_of_cut
from ._image_proposer import (
    ImageProposer,
    check_options,
    labels_of,
    refusing_pickles,
)

__all__ = ["OpenClipProposer", "load"]

KEPT_LABEL_SETS = 16
"""Label sets whose text features are kept."""

_SCHEMAS = ("hf-hub:", "local-dir:")


def load(
    spec: str,
    *,
    prompts: str | Sequence[str] = "a photo of a {}.",
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 64,
) -> "OpenClipProposer":
    """A zero-shot proposer from an open_clip model; its weights are loaded now.

    Parameters
    ----------
    spec : str
        "MODEL/PRETRAINED" as `open_clip.list_pretrained()` has them, "MODEL/CHECKPOINT" with the path of a file
        ("RN50//home/me/rn50.safetensors"), "hf-hub:OWNER/REPO", or "local-dir:FOLDER" with an open_clip_config.json.
    prompts : str or sequence of str
        Templates with {} where the label goes; embeddings of several are averaged and renormalised.
    device : str
        "auto" (a GPU if there is one) or what torch calls the device.
    precision : "fp32", "fp16" or "bf16"
        As open_clip has it; embeddings are compared in float32.
    batch_size : int
        Images or prompts in one pass.

    Raises
    ------
    UnknownSpecError
        For a model, pretrained tag or checkpoint that is not there.
    InvalidInputError
        For weights that were trained with QuickGELU in a model without it, or options out of range.
    SavedModelError
        For pickled objects instead of weights, and weights that cannot be downloaded or do not fit the model.
    """
    import open_clip

    dtype = check_options(precision, batch_size)
    templates = check_templates(prompts)
    name, pretrained = _resolve(spec)
    try:
        with refusing_pickles(spec):
            model, transform = open_clip.create_model_from_pretrained(
                name, pretrained=pretrained, device=as_device(device), precision=precision, pretrained_text=False
            )
    except HybridClfError:
        raise
    except (KeyError, OSError, RuntimeError, ValueError, SafetensorError) as error:  # damaged, or a failed download
        raise SavedModelError(f"{spec!r} cannot be loaded: {error}") from error
    return OpenClipProposer(model, transform, open_clip.get_tokenizer(name), templates, dtype, batch_size)


class OpenClipProposer(ImageProposer):
    """Zero-shot log-probabilities of label names: the softmax over classes of scaled cosine similarities.

    Parameters
    ----------
    model : nn.Module
        With open_clip's `encode_image`, `encode_text` and `logit_scale`. A `logit_bias`, the same for all classes,
        cancels in the softmax.
    transform : function
        The model's own preprocessing.
    tokenizer : function
        From n texts to tokens `[n, context_length]`.
    prompts : tuple of str
        Templates.
    dtype, batch_size
        As for `ImageProposer`.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: Callable[[Image.Image], Tensor],
        tokenizer: Callable[..., Tensor],
        prompts: tuple[str, ...],
        dtype: torch.dtype,
        batch_size: int,
    ) -> None:
        super().__init__(model, transform, dtype, batch_size)
        self.tokenizer, self.prompts = tokenizer, prompts
        self._kept: OrderedDict[tuple[Label, ...], Tensor] = OrderedDict()

    def fit(self, X: Any, y: Any = None) -> Self:
        """Choose the classes, and encode their prompts unless that was done before; images are not looked at.

        Parameters
        ----------
        X : images or None
            None if y is the label names themselves.
        y : sequence of labels
            Label names; with images the label of each.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            Without any label, or for labels that read the same to the model.

        Warns
        -----
        UserWarning
            If a prompt is longer than what the model reads.
        """
        classes = labels_of(X, y)
        self._text = self._text_features(tuple(classes.tolist()))
        self.classes_ = classes
        return self

    def _logits(self, pixels: Tensor) -> Tensor:
        """Scaled cosine similarities `[b, C]` of images `[b, 3, H, W]` and classes."""
        features = normalize(self.model.encode_image(pixels).float(), dim=-1)
        return self.model.logit_scale.exp().float() * features @ self._text.to(features.device).T

    def _text_features(self, labels: tuple[Label, ...]) -> Tensor:
        """One embedding per label, `[C, width]`, kept for the label sets asked for last."""
        if labels not in self._kept:
            self._kept[labels] = self._encode(labels)
        self._kept.move_to_end(labels)
        while len(self._kept) > KEPT_LABEL_SETS:
            self._kept.popitem(last=False)
        return self._kept[labels]

    def _encode(self, labels: tuple[Label, ...]) -> Tensor:
        """Embeddings `[C, width]`: of each label's prompts the normalised mean of normalised embeddings."""
        texts = fill(self.prompts, labels)
        tokens = self.tokenizer(texts)
        self._warn_of_cut(texts, tokens)
        check_distinct(labels, texts, [tuple(row) for row in tokens.view(len(labels), -1).tolist()])
        features = torch.cat(
            self.batches(lambda start, size: self._encode_tokens(tokens[start : start + size]), len(tokens))
        )
        return normalize(features.view(len(labels), len(self.prompts), -1).mean(dim=1), dim=-1)

    @torch.inference_mode()
    def _encode_tokens(self, tokens: Tensor) -> Tensor:
        return normalize(self.model.encode_text(tokens.to(self.device)).float(), dim=-1)

    def _warn_of_cut(self, texts: list[str], tokens: Tensor) -> None:
        """Warn of prompts that have more tokens than the model reads."""
        length = tokens.shape[1]
        padding = self.tokenizer([""])[0].mode().values
        full = [text for text, last in zip(texts, tokens[:, -1].tolist(), strict=True) if last != padding]
        if not full:
            return
        n_tokens, n_kept = ((self.tokenizer(full, n) != padding).sum(dim=1) for n in (8 * length, length))
        cut = [text for text, more in zip(full, (n_tokens > n_kept).tolist(), strict=True) if more]
        warn_of_cut(cut, length, stacklevel=5)


def _resolve(spec: str) -> tuple[str, str | None]:
    """open_clip's model name and pretrained tag (or path of a checkpoint) that a spec stands for."""
    if spec.startswith(_SCHEMAS):
        _check_folder(spec)
        return spec, None
    import open_clip

    name, _, pretrained = spec.partition("/")
    if name not in open_clip.list_models():
        raise UnknownSpecError(_unknown_model(spec, name, open_clip.list_models()))
    if open_clip.is_pretrained_cfg(name, pretrained):
        _check_quick_gelu(name, pretrained)
    elif not Path(pretrained).is_file():
        tags = choices(open_clip.list_pretrained_tags_by_model(name), 20) or "none"
        raise UnknownSpecError(f"{pretrained!r} is neither a checkpoint file nor a pretrained tag of {name}: {tags}")
    return name, pretrained


def _unknown_model(spec: str, name: str, known: list[str]) -> str:
    if Path(spec).is_dir():
        return f"{spec!r} is a folder; type 'open_clip:local-dir:{spec}'"
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {choices(near)}?" if near else "open_clip.list_models() lists them all"
    return f"open_clip has no model {name!r} (type MODEL/PRETRAINED, such as 'RN50-quickgelu/openai'); {hint}"


def _check_folder(spec: str) -> None:
    """Check that a local folder has a configuration and weights; open_clip would go on without the weights."""
    schema, _, path = spec.partition(":")
    folder = Path(path)
    if schema != "local-dir":
        return
    if not (folder / "open_clip_config.json").is_file():
        raise UnknownSpecError(f"there is no open_clip_config.json in {folder}; give the folder of an open_clip model")
    if not any(path.suffix in (".safetensors", ".bin", ".pth") for path in folder.iterdir()):
        raise UnknownSpecError(f"there are no weights in {folder}; put open_clip_model.safetensors there")


def _check_quick_gelu(name: str, tag: str) -> None:
    """Refuse weights that need another activation than the model has; open_clip only warns."""
    import open_clip

    needs = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
    if needs and not open_clip.get_model_config(name).get("quick_gelu", False):
        raise InvalidInputError(
            f"the weights {tag!r} were trained with QuickGELU, which {name} does not have, and would be wrong; "
            f"type 'open_clip:{name}-quickgelu/{tag}'"
        )

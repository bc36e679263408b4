"""open_clip models as zero-shot proposers: "open_clip:RN50-quickgelu/openai", "open_clip:local-dir:FOLDER".

>>> from hybridclf_adapters.open_clip import load
>>> proposer = load("ViT-B-32/laion2b_s34b_b79k", prompts="a photo of a {}, a type of pet.")  # doctest: +SKIP
>>> proposer.fit(None, ["beagle", "pug"]).predict_proba(images)  # doctest: +SKIP
"""

import textwrap
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import normalize

from hybridclf.devices import as_device
from hybridclf.errors import HybridClfError, SavedModelError
from hybridclf.ports import Label
from hybridclf.utils.names import Prompts, Template

from ._checks import check_distinct, check_templates, fill, warn_of_cut
from ._hub import asking_hub
from ._image_proposer import (
    check_options,
    labels_of,
    refusing_pickles,
)
from ._open_clip_features import OpenClipFeatures
from ._open_clip_files import (
    LOCAL,
    cache_folder,
    check_revision,
    fetched,
    image_options,
    needs_hub,
    resolve,
    tokenizer_of,
)
from ._open_clip_head import OpenClipHeadProposer, has_head, load_head
from ._open_clip_images import check_image_options

__all__ = ["OpenClipProposer", "load"]

KEPT_LABEL_SETS = 16
"""Label sets whose text features are cached."""

_DAMAGE = (AssertionError, KeyError, OSError, RuntimeError, TypeError, ValueError, SafetensorError)
"""Exceptions of open_clip for a damaged configuration, damaged weights or a failed download."""

_ADVICE = (
    "type 'open_clip:MODEL/FILE' with a checkpoint file that is here, or 'open_clip:local-dir:FOLDER' with a model's "
    "folder, its tokenizer in it if it has its own, or load it with cache_dir=FOLDER, a cache that has it"
)


def load(
    spec: str,
    *,
    prompts: Prompts = "a photo of a {}.",
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
    image_mean: float | Sequence[float] | None = None,
    image_std: float | Sequence[float] | None = None,
    interpolation: str | None = None,
    resize_mode: str | None = None,
    cache_dir: str | Path | None = None,
    revision: str | None = None,
) -> "OpenClipProposer | OpenClipHeadProposer":
    """Load an open_clip model as a zero-shot proposer, or with the classifier in its folder.

    The model's configuration, or that of the pretrained tag, decides how images are prepared. For "MODEL/CHECKPOINT"
    the tag is taken from the file's name ("rn50_cc12m.safetensors"). Without one, the model's tags decide as far as
    they agree, and any further assumption is logged.

    Parameters
    ----------
    spec : str
        "MODEL/PRETRAINED" from `open_clip.list_pretrained()`, "MODEL/CHECKPOINT" with the path of a file
        ("RN50//home/me/rn50.safetensors"), "hf-hub:OWNER/REPO", or "local-dir:FOLDER" with an open_clip_config.json.
    prompts : str, function or sequence of them
        Templates with {} in place of the label, or functions from a label to its prompt, such as open_clip's
        `OPENAI_IMAGENET_TEMPLATES`. Embeddings of several are averaged and renormalised.
    device : str
        "auto" (a GPU if there is one), or torch's name of the device.
    precision : "fp32", "fp16" or "bf16"
        Precision of the model; embeddings are compared in float32.
    batch_size : int, optional
        Images or prompts per pass, at least 1. Default: 16 on a CPU, else 64.
    image_mean, image_std : float or three floats, optional
        Mean and standard deviation of red, green and blue, in [0, 1], to normalise images by.
    interpolation : "bicubic" or "bilinear", optional
        Interpolation in resizing images.
    resize_mode : "shortest", "longest" or "squash", optional
        Crop the middle of an image, pad all of it to a square, or distort it to one.
    cache_dir : str or path, optional
        Folder of downloads. Default: the hub's own cache.
    revision : str, optional
        Branch, tag or commit on the hub. Default: its main branch.

    Returns
    -------
    OpenClipProposer or OpenClipHeadProposer

    Raises
    ------
    UnknownSpecError
        For an unknown model, pretrained tag or checkpoint.
    InvalidInputError
        For weights trained with QuickGELU in a model without it or the other way round, or options out of range.
    SavedModelError
        For pickled objects instead of weights, or weights that cannot be downloaded or do not fit the model.

    Examples
    --------
    >>> proposer = load("RN50-quickgelu/openai").fit(None, ["cat", "dog"])  # doctest: +SKIP
    """
    import open_clip

    dtype = check_options(precision, batch_size)
    templates = check_templates(prompts)
    given = check_image_options(image_mean, image_std, interpolation, resize_mode)
    cache = cache_folder(cache_dir)
    name, pretrained = resolve(spec)
    check_revision(spec, name, pretrained, revision)
    images = given if pretrained is None else image_options(name, pretrained, given)
    try:
        with refusing_pickles(spec), asking_hub(spec, _ADVICE) if needs_hub(name, pretrained) else nullcontext():
            source, checkpoint = fetched(name, pretrained, cache, revision)
            model, transform = open_clip.create_model_from_pretrained(
                source,
                pretrained=checkpoint,
                device=as_device(device),
                precision=precision,
                pretrained_text=False,
                image_mean=images.get("image_mean"),
                image_std=images.get("image_std"),
                image_interpolation=images.get("interpolation"),
                image_resize_mode=images.get("resize_mode"),
                cache_dir=cache,
            )
            headed = source.startswith(LOCAL) and has_head(Path(source.removeprefix(LOCAL)))
            tokenizer = None if headed else tokenizer_of(name, source, cache, revision)
    except HybridClfError:
        raise
    except _DAMAGE as error:
        said = textwrap.shorten(f"{type(error).__name__}: {error}", 400, placeholder=" …")
        raise SavedModelError(
            f"{spec!r} cannot be loaded: {said}; copy or download it again if it is damaged, and name the model that "
            "the weights were trained with"
        ) from error
    config = open_clip.get_model_config(source)
    if tokenizer is None:
        return load_head(Path(source.removeprefix(LOCAL)), model, transform, dtype, batch_size, config)
    return OpenClipProposer(model, transform, tokenizer, templates, dtype, batch_size, config)


class OpenClipProposer(OpenClipFeatures):
    """Zero-shot proposer of label names: the softmax over classes of scaled cosine similarities.

    Parameters
    ----------
    model : nn.Module
        Model with open_clip's `encode_image`, `encode_text` and `logit_scale`. A `logit_bias` is equal for all classes
        and cancels in the softmax.
    transform : function
        Preprocessing of the model.
    tokenizer : function
        Function from n texts to tokens `[n, context_length]`.
    prompts : tuple of templates
        Texts with {}, or functions.
    dtype, batch_size, config
        As in `OpenClipFeatures`.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: Callable[[Image.Image], Tensor],
        tokenizer: Callable[..., Tensor],
        prompts: tuple[Template, ...],
        dtype: torch.dtype,
        batch_size: int | None,
        config: dict[str, Any],
    ) -> None:
        super().__init__(model, transform, dtype, batch_size, config)
        self.tokenizer, self.prompts = tokenizer, prompts
        self._kept: OrderedDict[tuple[Label, ...], Tensor] = OrderedDict()

    def fit(self, X: Any, y: Any = None) -> Self:
        """Choose the classes and encode their prompts, unless cached; nothing is trained.

        Parameters
        ----------
        X : images or None
            None if y is the label names themselves. Images are not read.
        y : sequence of labels
            Label names, or the label of each image. A name that repeats, as two of open_clip's `IMAGENET_CLASSNAMES`
            do, means as many classes, all equally likely. Their labels have the position in y appended, counted from 0:
            "missile (#657)" and "missile (#744)".

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            If y is empty, or two labels have the same tokens.

        Warns
        -----
        UserWarning
            If a prompt is longer than the model reads.
        """
        classes = labels_of(X, y, repeats=True)
        self._text = self._text_features(tuple(classes.tolist()))
        self.classes_ = classes
        return self

    def with_prompts(self, prompts: Prompts) -> Self:
        """A copy with other prompt templates and no classes yet; it shares the model.

        Raises
        ------
        InvalidInputError
            For a template without {}.
        """
        templates, size = check_templates(prompts), self.batches.size
        return type(self)(self.model, self.transform, self.tokenizer, templates, self.dtype, size, self.config)

    def _logits(self, pixels: Tensor) -> Tensor:
        """Compute scaled cosine similarities `[b, C]` of images `[b, 3, H, W]` and classes."""
        # the scale is trained as its logarithm
        features = self._embeddings(pixels)
        return self.model.logit_scale.exp().float() * features @ self._text.to(features.device).T

    def _text_features(self, labels: tuple[Label, ...]) -> Tensor:
        """Look up an embedding per label, `[C, width]`, or encode them; the last label sets are cached."""
        if labels not in self._kept:
            self._kept[labels] = self._encode(labels)
        self._kept.move_to_end(labels)
        while len(self._kept) > KEPT_LABEL_SETS:
            self._kept.popitem(last=False)
        return self._kept[labels]

    def _encode(self, labels: tuple[Label, ...]) -> Tensor:
        """Encode labels `[C, width]`: the normalised mean of the normalised embeddings of a label's prompts."""
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
        # Padding may be any token, so it is found as the most frequent one of an empty text. A prompt whose last token
        # is no padding fills the model's length; it is cut off if a longer tokenisation has more tokens.
        length = tokens.shape[1]
        padding = self.tokenizer([""])[0].mode().values
        full = [text for text, last in zip(texts, tokens[:, -1].tolist(), strict=True) if last != padding]
        # the usual case, without a second tokenisation
        if not full:
            return
        n_tokens, n_kept = ((self.tokenizer(full, n) != padding).sum(dim=1) for n in (8 * length, length))
        cut = [text for text, more in zip(full, (n_tokens > n_kept).tolist(), strict=True) if more]
        warn_of_cut(cut, length, stacklevel=5)

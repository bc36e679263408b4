"""The page: its parts, what they do, and its server."""

import json
import tempfile
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
from PIL import Image

from ..data.decoders import DECODE_SECONDS, MAX_PIXELS, Decoders
from ..data.image_files import check_image_shape
from ..errors import HybridClfError, InvalidInputError
from ..estimator import HybridClassifier
from ..explanation import Explanation
from ..ports import DecodingDenoiser
from .races import Finish, describe, watch
from .views import CSS, finish_html, message_html, moment_html, overlay

__all__ = ["MAX_BYTES", "build", "launch"]

MAX_BYTES = 10 * 2**20
"""Largest file."""

MOST_LABELS, LONGEST_LABEL = 100, 200
"""Most labels, and most characters of one."""

SHOWN_SIDE = 640
"""Longest side in pixels of the picture beside its map."""

PACE = 0.25
"""Least seconds between two moments of a race, so that eyes can follow."""

WAITING = 32
"""Visitors that may wait for their turn; races are run one at a time."""

KEPT_SECONDS = 3600
"""Time after which uploaded and written files are deleted."""

THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
"""Gradio's own look with fonts that are there: none is fetched."""

HELLO = "Drop a picture, and its candidates race: trial by trial tier 2 asks which class explains it best."


def _picture_input() -> gr.Image:
    """Image input that hands over an uploaded file as it is, unopened; a URL that a visitor names is not fetched.

    Its methods are replaced, as Gradio writes a stub file beside every module that has a component of its own.
    """
    picture = gr.Image(
        type="filepath", sources=["upload", "webcam", "clipboard"], label="Picture", height=300, buttons=[]
    )
    keep = picture.async_move_resource_to_block_cache

    async def keep_files(url_or_file_path: str | Path | None) -> str | None:
        if "://" in str(url_or_file_path):
            raise gr.Error("an address is not fetched; send the picture itself")
        return await keep(url_or_file_path)

    picture.async_move_resource_to_block_cache = keep_files
    picture.preprocess = lambda payload: payload and payload.path
    return picture


class Page:
    """Handlers of the page's parts: a race, its stop, and its results.

    Parameters
    ----------
    clf : HybridClassifier
        Fitted classifier of images.
    decoders : Decoders
        Processes that decode what is uploaded.
    """

    def __init__(self, clf: HybridClassifier, decoders: Decoders) -> None:
        check_image_shape(clf.image_shape_)
        self.clf, self.decoders = clf, decoders
        self._for = lru_cache(8)(clf.with_labels)
        self._stops: dict[str, Event] = {}  # of races under way, by visitor

    def lay_out(self) -> None:
        """Put the parts into the page that is being built, and tell them what to do."""
        known = ", ".join(map(str, self.clf.classes_[:MOST_LABELS].tolist()))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self.picture = _picture_input()
                labels = gr.Textbox(
                    known if self.clf.reads_text else "",
                    label="Labels, with commas between them",
                    lines=2,
                    max_length=MOST_LABELS * LONGEST_LABEL,
                    visible=self.clf.reads_text,
                )
                if not self.clf.reads_text:
                    gr.Markdown(f"It knows {known}, and takes whatever else a picture shows for one of these.")
                with gr.Row():
                    go = gr.Button("Race", variant="primary", min_width=100)
                    self.stop_button = gr.Button("Stop", interactive=False, min_width=100)
            with gr.Column(scale=3, min_width=300):
                self.view = gr.HTML(message_html(HELLO))
                self.slider = gr.ImageSlider(
                    visible=False, elem_id="hc-map", interactive=False, buttons=[], max_height=420
                )
                self.change = gr.ImageSlider(
                    visible=False, elem_id="hc-change", interactive=False, buttons=[], max_height=420
                )
                self.download = gr.DownloadButton("Download as JSON", visible=False)
        gr.on(
            [self.picture.input, go.click],
            self.race,
            inputs=[self.picture, labels],
            outputs=[self.view, self.slider, self.change, self.download, self.stop_button, self.picture],
            show_progress="hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )
        self.stop_button.click(self.stop, queue=False, api_visibility="private")

    def race(self, path: str | None, labels: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Race one picture: generates what the parts of the page show from then on, by part."""
        hidden = gr.update(value=None, visible=False)
        nothing = {self.slider: hidden, self.change: hidden, self.download: gr.update(visible=False)}
        yield {self.view: message_html("Reading the picture …" if path else HELLO), self.stop_button: _off(), **nothing}
        if path is None:
            return
        try:
            picture = self.decoders.decode(Path(path))
        except InvalidInputError as error:  # a browser would show a broken picture
            yield {self.view: _refusal(error), self.picture: None}
            return
        picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        visitor, stop = str(request.session_hash), Event()
        self._stops[visitor] = stop
        try:
            clf = self._classifier(labels)
            for seen in watch(clf, picture, stop.is_set):
                if isinstance(seen, Finish):
                    yield {self.view: finish_html(seen), self.stop_button: _off(), **self._results(picture, seen)}
                    if seen.explanation and isinstance(clf.denoiser_, DecodingDenoiser):
                        yield {self.change: _changed(clf, picture, seen.explanation)}
                else:
                    yield {self.view: moment_html(seen), self.stop_button: gr.update(interactive=True)}
                    time.sleep(PACE)
        except HybridClfError as error:
            yield {self.view: _refusal(error), self.stop_button: _off()}
        finally:
            self._stops.pop(visitor, None)

    def _results(self, picture: Image.Image, finish: Finish) -> dict[Any, Any]:
        """The picture and its map under one slider, and all of it as a file."""
        folder = Path(tempfile.mkdtemp(dir=self.download.GRADIO_CACHE))
        (folder / "race.json").write_text(json.dumps(describe(finish), indent=1), encoding="utf-8")
        results = {self.download: gr.update(value=str(folder / "race.json"), visible=True)}
        if why := finish.explanation:
            pair = (picture, overlay(picture, why.map))
            results[self.slider] = gr.update(
                value=pair, visible=True, label=f"orange: like {why.a}; purple: like {why.b}"
            )
        return results

    def stop(self, request: gr.Request) -> None:
        """End the visitor's race at its next trial."""
        if stop := self._stops.get(str(request.session_hash)):
            stop.set()

    def _classifier(self, typed: str) -> HybridClassifier:
        """The classifier for labels that were typed, if it reads text and there are others than its own."""
        labels = tuple(dict.fromkeys(filter(None, map(str.strip, typed.replace("\n", ",").split(",")))))
        if not self.clf.reads_text or labels in ((), tuple(map(str, self.clf.classes_))):
            return self.clf
        if len(labels) > MOST_LABELS or max(map(len, labels)) > LONGEST_LABEL:
            raise InvalidInputError(f"give at most {MOST_LABELS} labels of at most {LONGEST_LABEL} characters")
        return self._for(labels)


def _changed(clf: HybridClassifier, picture: Image.Image, why: Explanation) -> dict[str, Any]:
    """The picture as tier 2 has it under the first class, and changed to the second, under one slider."""
    found = clf.counterfactual(picture, why.a, why.b)
    as_a, as_b = (
        Image.fromarray(pixels).resize(picture.size, Image.Resampling.NEAREST)
        for pixels in (found.reconstruction_a, found.changed)
    )
    return gr.update(value=(as_a, as_b), visible=True, label=f"left: as {why.a}; right: what would be {why.b}")


def _off() -> dict[str, Any]:
    return gr.update(interactive=False)


def _refusal(error: HybridClfError) -> str:
    return message_html(f"This cannot be raced: {error}", error=True)


def build(clf: HybridClassifier, decoders: Decoders, name: str = "model") -> gr.Blocks:
    """Put the page of a fitted classifier together.

    Parameters
    ----------
    clf : HybridClassifier
        Fitted classifier of images.
    decoders : Decoders
        Processes that decode what is uploaded.
    name : str
        Name of the model.

    Raises
    ------
    InvalidInputError
        If the classifier takes no images.
    """
    page = Page(clf, decoders)
    with gr.Blocks(title="hybridclf", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)) as blocks:
        gr.Markdown(f"# hybridclf\nA fast classifier proposes, a diffusion model decides. Model: **{name}**.")
        page.lay_out()
    return blocks.queue(max_size=WAITING, default_concurrency_limit=1)


def launch(
    clf: HybridClassifier,
    name: str = "model",
    host: str | None = None,
    port: int | None = None,
    quiet: bool = False,
    block: bool = True,
) -> str:
    """Serve the page until Ctrl-C; no link to it from outside is made, and nothing is reported to anyone.

    Parameters
    ----------
    clf : HybridClassifier
        Fitted classifier of images.
    name : str
        Name of the model.
    host, port : str and int, optional
        Address to listen on. Default: Gradio's, this machine alone and the first free port from 7860 on.
    quiet : bool
        Do not print the address.
    block : bool
        Return at Ctrl-C alone; else at once, and the page is there as long as the process.

    Returns
    -------
    str
        Address of the page.
    """
    clf.set_params(verbose=False)
    blocks = build(clf, Decoders(1, DECODE_SECONDS, MAX_PIXELS), name)
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=quiet,
        max_file_size=MAX_BYTES,
        ssr_mode=False,
        footer_links=[],
        theme=THEME,
        css=CSS,
        prevent_thread_lock=not block,
    )
    return str(address)

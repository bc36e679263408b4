"""The list of figures: what may be asked for, and that each is plain JSON with a picture."""

import json
import re
from types import SimpleNamespace

import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.evaluating.figures import ALWAYS, FIGURES, OF_IMAGES, OF_TEXT, figure_names, make_figure
from hybridclf.evaluating.study import Study

ASKING = ("noise", *OF_TEXT, *OF_IMAGES)
"""Figures that ask the denoiser again; their tests are in modules of their own."""


def test_names() -> None:
    assert figure_names([]) == list(ALWAYS)
    assert figure_names(["stages", "frontier", "stages"]) == [*ALWAYS, "stages"]
    assert figure_names(["stages", "all"]) == list(FIGURES)
    of_vectors = SimpleNamespace(shape=(64,))
    assert set(figure_names(["all"], of_vectors)) == {*FIGURES} - {*OF_TEXT, *OF_IMAGES}
    assert figure_names(["crops"], SimpleNamespace(shape=(3, 8, 8))) == [*ALWAYS, "crops"]
    with pytest.raises(InvalidInputError, match="figure 'crops' needs a denoiser of images"):
        figure_names(["crops"], of_vectors)
    with pytest.raises(InvalidInputError, match="figure 'prompts' needs a denoiser of text"):
        figure_names(["prompts"], SimpleNamespace(shape=(3, 8, 8)))
    with pytest.raises(InvalidInputError, match=r"no figure 'stage'; there are timesteps, .*stages.* and all for all"):
        figure_names(["stages", "stage"])


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in (*ALWAYS, *ASKING)])
def test_each_is_json_and_a_picture(study: Study, name: str) -> None:
    figure = make_figure(name, study)
    assert figure.name == name and "2303." in figure.reference and re.search(r"\d", figure.title)
    assert figure.rows and json.loads(json.dumps(figure.rows, allow_nan=False)) == list(figure.rows)
    assert figure.svg.startswith("<svg") and "currentColor" in figure.svg

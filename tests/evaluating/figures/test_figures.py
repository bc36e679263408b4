"""The list of figures: what may be asked for, and that each is plain JSON with a picture."""

import json
import re

import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.evaluating.figures import ALWAYS, FIGURES, figure_names, make_figure
from hybridclf.evaluating.study import Study


def test_names() -> None:
    assert figure_names([]) == list(ALWAYS)
    assert figure_names(["stages", "frontier", "stages"]) == [*ALWAYS, "stages"]
    assert figure_names(["stages", "all"]) == list(FIGURES)
    with pytest.raises(InvalidInputError, match=r"no figure 'stage'; there are timesteps, .*stages.* and all for all"):
        figure_names(["stages", "stage"])


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in (*ALWAYS, "noise")])
def test_each_is_json_and_a_picture(study: Study, name: str) -> None:
    figure = make_figure(name, study)
    assert figure.name == name and "2303." in figure.reference and re.search(r"\d", figure.title)
    assert figure.rows and json.loads(json.dumps(figure.rows, allow_nan=False)) == list(figure.rows)
    assert figure.svg.startswith("<svg") and "currentColor" in figure.svg

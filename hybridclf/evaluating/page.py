"""The HTML page of a report: a template beside this file, filled in."""

from pathlib import Path
from typing import Any

from ..utils.installing import require
from .wording import count

__all__ = ["page_of", "require_jinja2"]


def require_jinja2() -> Any:
    """The jinja2 package.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    return require("jinja2", "the page needs", "plot")


def page_of(template: str, report: Any) -> str:
    """A report as one HTML page that needs nothing else, by the template of that name.

    Raises
    ------
    MissingDependencyError
        If jinja2 is not installed.
    """
    jinja2 = require_jinja2()
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "points": _points, "count": count}
    return environment.get_template(template).render(report=report)


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"

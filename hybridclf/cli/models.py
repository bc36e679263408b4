"""`hybridclf models`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .shared import AsJson, console, text


def models(as_json: AsJson = False) -> None:
    """List the embedded models, and the adapters with what their spec strings look like."""
    from ..pretrained import catalog

    embedded, adapters = catalog.models(), catalog.adapters()
    if as_json:
        listed = {"models": list(map(asdict, embedded)), "adapters": list(map(asdict, adapters))}
        typer.echo(json.dumps(listed))
        return
    _print_list(("model", "what it knows"), [(model.name, model.about) for model in embedded])
    _print_list(("tier", "adapter", "spec strings"), [(a.tier, a.name, a.about) for a in adapters])


def _print_list(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=heading is not headings[-1])
    for row in rows:
        table.add_row(*map(text, row))
    console().print(table)

"""Show an overview: print it, and write the files that are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from fedlit.data.base.overview import Overview
from fedlit.errors import FedlitError
from fedlit.reports.data.html import as_html
from fedlit.reports.data.plain import as_json
from fedlit.reports.data.text import print_overview

SAMPLES = 4
"""Samples of a client (and kind of signal) in the HTML file, unless said otherwise; of images twice as many."""


def show(overview: Callable[[int], Overview], html: str | None, json: str | None, samples: int | None) -> Overview:
    """Print what would be read, and write files of it.

    Args:
        overview: Makes it, with so many samples of each client.
        html: File for HTML with pictures; None: none.
        json: File for JSON, without samples; None: none.
        samples: Samples of each client in the HTML; None: :data:`SAMPLES`.

    Raises:
        FedlitError: A file cannot be written, or ``samples`` is given without one, or below 0.
    """
    if samples is not None and html is None:
        raise FedlitError("samples are drawn in HTML only: give --html FILE as well, or leave --samples out")
    if samples is not None and samples < 0:
        raise FedlitError(f"samples is {samples}: give a number, 0 for none")
    console = Console()
    with once() as told:
        made = overview(0 if html is None else SAMPLES if samples is None else samples)
        told += made.warnings
    print_overview(made, console)
    for path, text in ((html, as_html), (json, as_json)):
        if path is not None:
            _write(Path(path), text(made))
            console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
    return made


@contextmanager
def once() -> Iterator[list[str]]:
    """Hold warnings back to the end; those in the list that is given are not repeated, for they are printed."""
    told: list[str] = []
    held: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as held:
            yield told
    finally:
        for own in held:
            if str(own.message) not in told:
                warnings.warn_explicit(own.message, own.category, own.filename, own.lineno)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    except OSError as error:
        raise FedlitError(f"{path}: {error.strerror}: give a file in a folder that can be written to") from error

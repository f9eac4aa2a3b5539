"""What makes the command start sooner."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection while modules are imported; later ones pass over what is there at the end.

    Imports make about a million objects that stay as long as the process, and each full collection walks over all of
    them: a fifth of the time of a start. Where Lightning is imported already, as in a notebook, nothing is done: most
    of that time is spent, and garbage of earlier runs would be kept.
    """
    if "lightning" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        collect_again()


def collect_again() -> None:
    """Within :func:`without_collection`: what comes now is no import, and is collected."""
    gc.freeze()
    gc.enable()

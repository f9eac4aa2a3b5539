"""The models of a finished run, in the formats that PEFT and transformers load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedlit import tree
from fedlit.errors import writing

if TYPE_CHECKING:
    from fedlit.loop import FederatedLoop


def export_models(loop: FederatedLoop, folder: Path) -> None:
    """Write ``global`` and, where a client serves another model, ``clients/<client>``.

    A task without an ``export`` method writes nothing: its models are in the checkpoint.

    Raises:
        FedlitError: The disk is full or the folder cannot be written.
    """
    export = getattr(loop.engine.task, "export", None)
    if export is None:
        return
    with writing(folder):
        _export(loop, folder, export)


def _export(loop: FederatedLoop, folder: Path, export: Callable[[Path], None]) -> None:
    shared = loop.rule.global_model(loop.state)
    if shared is not None:
        loop.engine.load(shared)
        export(folder / "global")
    for client in loop.data.clients:
        model = loop.local.personal(client, loop.rule.down(loop.state, client))
        if shared is None or not tree.equal(model, shared):
            loop.engine.load(model)
            export(folder / "clients" / client)

"""The models of a finished run, in the formats that PEFT and transformers load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedlit import tree

if TYPE_CHECKING:
    from fedlit.loop import FederatedLoop


def export_models(loop: FederatedLoop, folder: Path) -> None:
    """Write ``global`` and, where a client serves another model, ``clients/<client>``.

    A task without an ``export`` method writes nothing: its models are in the checkpoint.
    """
    export = getattr(loop.engine.task, "export", None)
    if export is None:
        return
    shared = loop.rule.global_model(loop.state)
    if shared is not None:
        loop.engine.load(shared)
        export(folder / "global")
    for client in loop.data.clients:
        model = loop.local.personal(client, loop.rule.down(loop.state, client))
        if shared is None or not tree.equal(model, shared):
            loop.engine.load(model)
            export(folder / "clients" / client)

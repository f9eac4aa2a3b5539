"""The models of a finished run, in the formats that PEFT and transformers load."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit import tree
from fedlit.errors import FedlitError, writing

if TYPE_CHECKING:
    from fedlit.federation.loop import FederatedLoop


def export_models(loop: FederatedLoop, folder: Path) -> None:
    """Write ``global`` and, where a client serves another model, ``clients/<client>``.

    A task without an ``export`` method writes nothing: its models are in the checkpoint. Where the rule changed frozen
    weights, an adapter alone would lose that: such a model is written whole, the adapters merged into it.

    Raises:
        FedlitError: The disk is full or the folder cannot be written; or the task's ``export`` has no argument
            ``merge``, and the rule changed frozen weights.
    """
    export = getattr(loop.engine.task, "export", None)
    if export is None:
        return
    with writing(folder):
        _export(loop, folder, export)


def _export(loop: FederatedLoop, folder: Path, export: Callable[..., None]) -> None:
    initial: Any = loop.initial
    shared: Any = loop.rule.global_model(loop.state)
    if shared is not None:
        _write(loop, export, shared, folder / "global")
    for client in loop.data.clients:
        model: Any = loop.local.personal(client, loop.rule.down(loop.state, client))
        if shared is None or (model is not shared and not tree.equal({**initial, **model}, {**initial, **shared})):
            _write(loop, export, model, folder / "clients" / client)


def _write(loop: FederatedLoop, export: Callable[..., None], model: Any, folder: Path) -> None:
    loop.engine.load(model)
    if model.keys() <= loop.engine.parameters.keys():
        export(folder)
    elif "merge" in inspect.signature(export).parameters:
        export(folder, merge=True)
    else:
        task = type(loop.engine.task).__name__
        raise FedlitError(
            f"{type(loop.rule).__name__} changed frozen weights, which {task}.export would leave out: give it an "
            "argument `merge`, with which it writes the whole network, adapters merged"
        )

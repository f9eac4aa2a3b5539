"""The models of a finished run, in the formats that PEFT and transformers load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedlit.engine.outputs import export_model
from fedlit.errors import writing
from fedlit.federation.loop import FederatedLoop
from fedlit.tasks.task import member


def export_models(loop: FederatedLoop, folder: Path) -> None:
    """Write ``global`` here, and have each client write the model that it serves, where that is another, at its site.

    A task without an ``export`` method writes nothing: its models are in the checkpoint.

    Raises:
        FedlitError: The disk is full or the folder cannot be written; or the task's ``export`` has no argument
            ``merge``, and the rule changed frozen weights.
    """
    session = loop.session
    if member(session.task, "export") is None:
        return
    shared: Any = loop.rule.global_model(loop.state)
    if shared is not None and session.fabric.is_global_zero:
        with writing(folder):
            export_model(session.engine, loop.rule, shared, folder / "global")
    loop.ask("export")

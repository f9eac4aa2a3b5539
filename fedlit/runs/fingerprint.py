"""What a run was made of, as JSON: what must be equal for a resume, and what a report says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedlit.aggregators import Aggregator
from fedlit.errors import FedlitError
from fedlit.runs.settings import RunSettings

ADDED: dict[str, Any] = {"clients_at_once": 1, "compile": False, "stragglers": None}
"""Settings that came later, with what runs without them did."""
FROZEN = "frozen_sha256"
"""Key of the digest of the network's frozen values; runs made before it was kept go on without the comparison."""
ROUNDS = "max_rounds"
"""Setting that a run may be resumed with another value of, unless the learning rate is planned over it."""
PARTS = ("aggregator", "trainer", "model", "data")


def fingerprint(
    rule: Aggregator, settings: RunSettings, model: Any, frozen: str, data: Mapping[str, Any]
) -> dict[str, Any]:
    """What must be equal for a run of ``rule`` to be resumed.

    Args:
        rule: The rule.
        settings: The run's.
        model: The task.
        frozen: Digest of the network's frozen values.
        data: What the sites say of their data, see :class:`fedlit.transports.base.Description`.
    """
    planned = {ROUNDS: settings.max_rounds} if getattr(model, "spans_run", False) else {}
    model = describe(model)
    if isinstance(model, dict):
        model = {**model, FROZEN: frozen}
    return {
        "aggregator": describe(rule),
        "trainer": describe({**settings.resumable, **planned}),
        "model": model,
        "data": dict(data),
    }


def data_fingerprint(data: Any, partition: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of data for a resume: arguments, and who holds which records.

    The folder that they lie in is no part of it, since it may move; nor are arguments that came later than some runs
    (``added_arguments``) where they hold their default, or facts that did (``added_facts``).

    Args:
        data: A data module.
        partition: What its ``describe`` gives.
    """
    described = describe(data)
    for place in ("root", "folder", "cache_folder"):
        described.pop(place, None)
    for base in type(data).__mro__:
        for name, usual in vars(base).get("added_arguments", {}).items():
            if described.get(name) == describe(usual):
                described.pop(name, None)
    added = {name: old for base in type(data).__mro__ for name, old in vars(base).get("added_facts", {}).items()}
    clients = partition.get("clients")
    if clients is not None:
        clients = {client: _as_before(facts, added) for client, facts in clients.items()}
    held = json.dumps(clients, sort_keys=True, default=str)
    return {**described, "records_sha256": hashlib.sha256(held.encode()).hexdigest()}


def _as_before(facts: Mapping[str, Any], added: Mapping[str, str | None]) -> dict[str, Any]:
    """What a client holds, by the names that runs before ``added_facts`` have."""
    renamed = {old: facts[name] for name, old in added.items() if old is not None and name in facts}
    return {name: value for name, value in facts.items() if name not in added} | renamed


def check_same(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    run: Path,
    added: Mapping[str, Any] | None = None,
    rule: Aggregator | None = None,
) -> None:
    """Refuse to go on with a run under another configuration.

    Args:
        old: The fingerprint of the run, or parts of it.
        new: The same parts of the fingerprint of what is asked for.
        run: Its folder.
        added: Arguments of the model that came later than some runs, with what runs without them did.
        rule: Whose ``added_arguments`` are likewise, and those of the rules in its fields.

    Raises:
        FedlitError: They differ; the fields are named.
    """
    if "aggregator" in old:
        old = {**old, "aggregator": _with_later(old["aggregator"], _later_by_class(rule))}
    wrong = differences({part: _completed(part, old[part], new.get(part), added or {}) for part in old}, dict(new))
    if wrong:
        planned = any(field.startswith(f"trainer.{ROUNDS}:") for field in wrong)
        why = "; the learning rate is planned over all rounds" if planned else ""
        raise FedlitError(
            f"{run}: made with another configuration ({'; '.join(wrong)}{why}): resume with the config.yaml in that "
            "folder, or start a new run without --ckpt_path"
        )


def _completed(part: str, old: Any, new: Any, added: Mapping[str, Any]) -> Any:
    """A part of an old fingerprint, with what it was made too early to hold."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return old
    later = {
        "trainer": {**ADDED, ROUNDS: new.get(ROUNDS)},
        "model": {**added, FROZEN: new.get(FROZEN)},
    }.get(part, {})
    if part == "trainer" and ROUNDS not in new:  # the field of the model that is another says it
        old = {name: value for name, value in old.items() if name != ROUNDS}
    return {**{name: value for name, value in later.items() if name in new}, **old}


def _later_by_class(thing: Any) -> dict[str, dict[str, Any]]:
    """``added_arguments`` of a rule and of those in its fields, by the class's name."""
    if isinstance(thing, list | tuple):
        return {name: later for entry in thing for name, later in _later_by_class(entry).items()}
    if not dataclasses.is_dataclass(thing):
        return {}
    inner = {k: v for f in dataclasses.fields(thing) for k, v in _later_by_class(getattr(thing, f.name)).items()}
    return {**inner, type(thing).__name__: dict(getattr(thing, "added_arguments", {}))}


def _with_later(described: Any, later: Mapping[str, Mapping[str, Any]]) -> Any:
    """An old description of a rule with the arguments that it was made too early to hold."""
    if isinstance(described, list):
        return [_with_later(entry, later) for entry in described]
    if not isinstance(described, dict):
        return described
    return {**later.get(described.get("class", ""), {}), **{k: _with_later(v, later) for k, v in described.items()}}


def describe(thing: Any) -> Any:
    """Anything as JSON: dataclasses with their class, objects with a ``config()`` by that, the rest as text."""
    if isinstance(thing, str | int | float | bool) or thing is None:
        return thing
    if isinstance(thing, dict):
        return {str(k): describe(v) for k, v in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(v) for v in thing]
    if hasattr(thing, "config") and callable(thing.config):
        return {"class": type(thing).__name__, **describe(thing.config())}
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {f.name: describe(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
        return {"class": type(thing).__name__, **fields}
    if hasattr(thing, "hparams"):
        return {"class": type(thing).__name__, **describe(dict(thing.hparams))}
    return getattr(thing, "__qualname__", type(thing).__name__)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two descriptions differ, as ``field: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return [d for i, pair in enumerate(zip(old, new, strict=True)) for d in differences(*pair, f"{path}.{i}")]
    # Through JSON, because that is where the old one was: a tuple comes back as a list, names sorted.
    same = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    return [] if same else [f"{path}: {old!r} -> {new!r}"]

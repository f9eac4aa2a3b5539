"""What a rule sends and keeps, found by running its methods for a few rounds without training."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators import Aggregator, FedAvg, Sealed
from fedlit.errors import FedlitError
from fedlit.federation import dry_run
from fedlit.tree import Tree

CLIENTS = tuple(f"client-{i}" for i in range(8))
LAYERS = ("network.first", "network.second")
GROUPS = {"A": r"\.lora_A\.", "B": r"\.lora_B\.", "norm": r"norm", "head": r"head", "base": r"base_layer"}
WHOLE = "A, B, norm, head"
MODEL = "model"


def example(cls: type[Any]) -> tuple[Any, bool]:
    """An instance of a dataclass with its defaults, and whether a field without one was given a rule.

    Raises:
        FedlitError: A field without a default is of a type that no value is known for.
    """
    hints, values, made_up = get_type_hints(cls), {}, False
    for field in dataclasses.fields(cls):
        if field.init and field.default is field.default_factory is dataclasses.MISSING:
            values[field.name], guessed = _value(hints[field.name])
            made_up = made_up or guessed
    return cls(**values), made_up


def _value(kind: type[Any]) -> tuple[Any, bool]:
    """A value of a type, and whether it is or holds a rule."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _value(inner[0])
    if origin is not None and issubclass(origin, Sequence):
        value, made_up = _value(inner[0])
        return origin([value, value]) if origin in (list, tuple) else [value, value], made_up
    if isinstance(kind, type) and issubclass(kind, Aggregator):
        return FedAvg(), True
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return example(kind)
    plain = {int: 1, float: 0.5, str: "head", bool: False}
    if kind not in plain:
        raise FedlitError(f"fedlit aggregators cannot think of an example of {kind}: give the field a default")
    return plain[kind], False


@dataclasses.dataclass
class Seen:
    """What was observed of a rule: a description for each round, as :func:`describe` gives it.

    Args:
        up: What clients send.
        down: What they receive.
        kept: What they keep.
        sealed: Whether the rule works with sealed updates.
    """

    up: list[str]
    down: list[str]
    kept: list[str]
    sealed: bool = True


def network() -> dict[str, Tensor]:
    """Parameters of a small network that train, by the names that PEFT gives."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"network.head.bias": (3,), "network.head.weight": (3, 6)}
    shapes |= {"network.norm.bias": (6,), "network.norm.weight": (6,)}
    for layer in LAYERS:
        shapes[f"{layer}.lora_A.default.weight"] = (2, 6)
        shapes[f"{layer}.lora_B.default.weight"] = (6, 2)
    return {name: torch.randn(shape, generator=generator) for name, shape in sorted(shapes.items())}


def observe(rule: Aggregator) -> Seen:
    """Run a rule's methods for a few rounds, with a random step in the place of training."""
    params = network()
    state, memories = rule.init(params), {client: rule.init_memory(params) for client in CLIENTS}
    cohorts = rule.cohorts(CLIENTS)
    seen = Seen([], [], [])
    if not cohorts:
        return Seen(["nothing"], ["nothing"], ["nothing"])
    if any(members != (name,) for name, members in cohorts.items()):
        return Seen(["all data"], ["nothing"], ["nothing"])
    for index in range(max(len(CLIENTS), rule.min_rounds) + 2):  # a ring of clients closes, a plan comes to its end
        generator = torch.Generator().manual_seed(index + 1)
        chosen = rule.participants(CLIENTS, index) or CLIENTS
        downs = {client: rule.down(state, client) for client in sorted(chosen)}
        uploads = {}
        for client, down in downs.items():
            w = rule.start(down, memories[client])
            moved = dry_run.moved(w, generator)
            work = dry_run.work(end_loss=0.5 + float(torch.rand((), generator=generator)))
            upload, memories[client] = rule.finish(moved, down, memories[client], work)
            uploads[client] = (rule.weigh(4, work), upload)
        seen.down.append(describe(downs.values(), compare=True))
        seen.up.append(describe([upload for _, upload in uploads.values()]))
        seen.kept.append(describe(memories.values()))
        if seen.sealed:
            try:
                _aggregate(rule, state, uploads, index, sealed=True)
            except Sealed:
                seen.sealed = False
        state = _aggregate(rule, state, uploads, index, sealed=False)
    return seen


def _aggregate(
    rule: Aggregator, state: Tree, uploads: Mapping[str, tuple[float, Tree]], index: int, sealed: bool
) -> Tree:
    server = dry_run.server(index, len(CLIENTS), dict.fromkeys(LAYERS, 2.0), data=True)
    after: Tree = tree.ordered(rule.aggregate(state, dry_run.made_up(uploads, sealed), server))
    return after


def describe(trees: Iterable[Tree], compare: bool = False) -> str:
    """The kinds of tensors in trees, for instance ``A, head; control: model``.

    Args:
        trees: One for each client.
        compare: Whether to add ``(own)`` to a kind whose values differ between clients.
    """
    flats = [tree.flatten(t) for t in trees]
    groups: dict[str, set[str]] = {}
    own: set[str] = set()
    for path in sorted({path for flat in flats for path in flat}):
        label, group = place(path)
        groups.setdefault(label, set()).add(group)
        values = [flat.get(path) for flat in flats]
        first = values[0]
        if first is None or any(v is None or v.shape != first.shape or not torch.equal(v, first) for v in values):
            own.add(label)
    parts = []
    for label, found in sorted(groups.items()):
        text = ", ".join([g for g in GROUPS if g in found] + sorted(found - GROUPS.keys() - {""}))
        text = re.sub(f"^{WHOLE}", MODEL, text)
        said = f"{label}: {text}" if label and text else label or text
        parts.append(f"{said} (own)" if compare and label in own else said)
    return "; ".join(parts) or "nothing"


def place(path: str) -> tuple[str, str]:
    """The label of a tensor, and the group in :data:`GROUPS` if it belongs to a parameter, else an empty text."""
    steps = path.split(tree.SEPARATOR)
    last = steps[-1]
    group = next((g for g, pattern in reversed(GROUPS.items()) if re.search(pattern, last)), "")
    group = group if last.startswith("network.") else ""
    names = ["each client's" if step in CLIENTS else step for step in (steps[:-1] if group else steps)]
    # A stage says itself which it is, and `params` is what the base class calls the model.
    named = [n for n in names if n not in LAYERS and n != "params" and not re.fullmatch(r"stage\d+", n)]
    return " ".join(dict.fromkeys(named)) or (
        "" if group else "a value a layer" if names[-1] in LAYERS else "a tensor"
    ), group


def turns(rounds: Sequence[str]) -> str:
    """Descriptions of all rounds as one: ``a`` if they are the same, ``a / b`` in turn, ``a, then b`` once."""
    changes = [text for text, before in zip(rounds, [None, *rounds], strict=False) if text != before]
    kinds = list(dict.fromkeys(changes))
    return kinds[0] if len(kinds) == 1 else (", then " if len(kinds) == len(changes) else " / ").join(kinds)

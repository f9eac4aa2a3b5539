"""A network that takes the examples of several clients in one batch, each with its client's parameters.

Folding puts the clients' dimension into the batch's: the frozen backbone sees one ordinary batch, and only modules that
own a parameter that trains treat the rows of each client apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from fedlit.engine.vectorized.modules import RowLayout, Unfoldable, folded_forward, is_adapted


class Folding:
    """Gives a network's modules other parameters for each client's rows.

    Args:
        task: The module that holds the network.
        names: Parameters that may differ from client to client.
    """

    def __init__(self, task: nn.Module, names: Sequence[str]) -> None:
        self.task = task
        known = {id(p): name for name, p in task.named_parameters() if name in set(names)}
        self._owners: list[tuple[nn.Module, dict[str, str]]] = []
        inside: set[int] = set()
        for module in task.modules():  # outer ones first
            own = {key: known[id(p)] for key, p in module.named_parameters(remove_duplicate=False) if id(p) in known}
            if is_adapted(module):
                own = {key: name for key, name in own.items() if key.startswith(("lora_A.", "lora_B."))}
                layer: Any = module
                inside.update(id(part) for part in (*layer.lora_A.modules(), *layer.lora_B.modules()))
            elif id(module) in inside or not any(id(p) in known for p in module._parameters.values()):
                continue
            else:
                inside.update(id(part) for part in module.modules())
            if own:
                self._owners.append((module, own))

    @contextmanager
    def using(
        self, params: dict[str, Tensor], layout: RowLayout, draws: Sequence[torch.Generator] = ()
    ) -> Iterator[None]:
        """A context in which each client's rows are treated with its own parameters.

        Args:
            params: (clients, ...) by name.
            layout: The rows of each client.
            draws: For dropout, one generator for each client; none where nothing is dropped.

        Raises:
            Unfoldable: A module's forward is replaced already.
        """
        changed = []
        try:
            for module, own in self._owners:
                if "forward" in module.__dict__:
                    raise Unfoldable(f"{type(module).__name__} has a forward of its own")
                given = {key: params[name] for key, name in own.items() if name in params}
                if given:
                    module.__dict__["forward"] = folded_forward(module, given, layout)
                    changed.append(module)
            with _Dropout(layout, draws) if draws else nullcontext():
                yield
        finally:
            for module in changed:
                del module.__dict__["forward"]


class _Dropout(TorchFunctionMode):
    """Dropout of each client's rows by its own draws, which are those it would make alone."""

    def __init__(self, layout: RowLayout, draws: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.layout, self.draws = layout, draws

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is dropout:
            return self._dropped(*args, **kwargs)
        if func is scaled_dot_product_attention and (kwargs.get("dropout_p") or (len(args) > 4 and args[4])):
            raise Unfoldable("attention drops in a fused kernel")
        return func(*args, **kwargs)

    def _dropped(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p in (0, 1):  # nothing is drawn
            return x * 0 if training and p else x
        parts = torch.split(x, list(self.layout.of(x)))
        kept = [
            torch.empty_like(part).bernoulli_(1 - p, generator=g).div_(1 - p)
            for part, g in zip(parts, self.draws, strict=True)
        ]
        return x * torch.cat(kept)

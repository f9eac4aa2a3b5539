"""Modules of a network on rows of several clients, and the layout of those rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedlit.tasks.row_owners import MIXED, ROWS


def folded_forward(module: nn.Module, given: dict[str, Tensor], layout: RowLayout) -> Callable[..., Tensor]:
    """A module's forward on rows of several clients, each by its own parameters.

    Args:
        module: The module.
        given: Parameters of it and of its parts, (clients, ...), by their name in it. All clients share the others.
        layout: The rows of each client.
    """
    if type(module) is nn.Linear and "weight" in given:
        return _linear(module, given, layout)
    if is_adapted(module):
        return _adapted(module, given, layout)

    def each(*args: Any, **named: Any) -> Tensor:
        inputs = [value for value in (*args, *named.values()) if isinstance(value, Tensor)]
        if not inputs:
            raise Unfoldable(f"{type(module).__name__} takes no tensor")

        def client(own: dict[str, Tensor], rows: list[Tensor]) -> Tensor:
            left = iter(rows)
            place = [next(left) if isinstance(value, Tensor) else value for value in args]
            rest = {key: next(left) if isinstance(value, Tensor) else value for key, value in named.items()}
            values = {f"module.{key}": value for key, value in own.items()}
            out: Tensor = functional_call(_Plain(module), values, tuple(place), rest)
            return out

        rows = [layout.apart(x) for x in inputs]
        y: Tensor = vmap(client)(given, rows)
        if not isinstance(y, Tensor):
            raise Unfoldable(f"{type(module).__name__} gives more than one output")
        return layout.together(y, inputs[0])

    return each


class _Plain(nn.Module):
    """A module whose forward is its class's, also while another one stands in for it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **named: Any) -> Tensor:
        return type(self.module).forward(self.module, *args, **named)  # type: ignore[no-any-return]


def _linear(module: nn.Module, given: dict[str, Tensor], layout: RowLayout) -> Callable[[Tensor], Tensor]:
    weight: Any = given["weight"]
    bias: Any = given.get("bias", module.bias)

    def forward(x: Tensor) -> Tensor:
        rows = layout.apart(x)
        y = torch.bmm(rows.flatten(1, -2), weight.mT)
        if bias is not None:
            y = y + (bias[:, None] if "bias" in given else bias).to(y.dtype)
        return layout.together(y.reshape(*rows.shape[:-1], y.shape[-1]), x)

    return forward


def is_adapted(module: nn.Module) -> bool:
    """Whether it is a linear layer of PEFT with one plain LoRA adapter at work."""
    lora = sys.modules.get("peft.tuners.lora.layer")
    if lora is None or type(module) is not lora.Linear:
        return False
    layer: Any = module
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    plain = not (layer.merged or layer.disable_adapters or layer.lora_variant) and len(active) == 1
    return plain and layer.lora_A[active[0]].bias is None and layer.lora_B[active[0]].bias is None


def _adapted(layer: Any, given: dict[str, Tensor], layout: RowLayout) -> Callable[..., Tensor]:
    """PEFT's forward, with one pass over the result in the place of three."""
    (name,) = [name for name in layer.active_adapters if name in layer.lora_A]
    a, b = (
        given.get(f"{part}.{name}.weight", getattr(layer, part)[name].weight.expand(layout.clients, -1, -1))
        for part in ("lora_A", "lora_B")
    )
    scaling: float = layer.scaling[name]

    def forward(x: Tensor, *args: Any, **named: Any) -> Tensor:
        y: Tensor = layer.base_layer(x, *args, **named)
        rows = layout.apart(layer.lora_dropout[name](x.to(a.dtype) if layer.cast_input_dtype_enabled else x))
        h = torch.bmm(rows.flatten(1, -2), a.mT)
        result = layout.apart(y).flatten(1, -2)
        if torch.is_autocast_enabled(x.device.type) or result.dtype == h.dtype:
            z = torch.baddbmm(result, h, b.mT, alpha=scaling)
        else:
            z = result + torch.bmm(h, b.mT) * scaling
        return layout.together(z.to(y.dtype).reshape(*rows.shape[:-1], z.shape[-1]), y)

    return forward


class Unfoldable(Exception):
    """The network cannot take several clients in one pass; the message says why."""


class RowLayout:
    """Which rows of a batch belong to which client: rows of one client are side by side.

    Args:
        sizes: Examples of each client, in the order of the batch.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes, self.total, self.clients = tuple(sizes), sum(sizes), len(sizes)
        self._rows: tuple[tuple[int, ...] | None, tuple[int, ...]] = (None, self.sizes)
        self._index: dict[tuple[tuple[int, ...], torch.device], tuple[Tensor, Tensor]] = {}

    def rows(self) -> tuple[int, ...]:
        """Number of rows of each client, by what the task says of them."""
        if torch.compiler.is_compiling():  # a context variable cannot be; a task that sets it is not compiled
            return self.sizes
        told = ROWS.get()
        if told is not self._rows[0]:
            self._rows = (told, self.sizes if told is None else self._count(told))
        return self._rows[1]

    def _count(self, told: tuple[int, ...]) -> tuple[int, ...]:
        if told is MIXED:
            raise Unfoldable("a row of the network holds several examples")
        if list(told) != sorted(told):
            raise Unfoldable("the network's rows are not in the order of the examples")
        owner = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        return tuple(torch.bincount(owner[list(told)], minlength=len(self.sizes)).tolist())

    def apart(self, x: Tensor) -> Tensor:
        """Rows by client: (clients, rows, ...), shorter ones filled up by repeating a row.

        An input of one row, where the batch has more, is meant for all of them.
        """
        x = self._spread(x)
        rows = self.of(x)
        if len({*rows}) == 1:
            return x.reshape(len(rows), rows[0], *x.shape[1:])
        return x[self._places(rows, x.device)[0]]

    def together(self, y: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`apart`, for what was made of the rows of ``like``."""
        like = self._spread(like)
        rows = self.of(like)
        if len({*rows}) == 1:
            return y.reshape(like.shape[0], *y.shape[2:])
        return y.flatten(0, 1)[self._places(rows, y.device)[1]]

    def _spread(self, x: Tensor) -> Tensor:
        alone = x.ndim > 1 and x.shape[0] == 1
        return x.expand(sum(self.rows()), *x.shape[1:]) if alone else x

    def of(self, x: Tensor) -> tuple[int, ...]:
        """Number of rows of each client in ``x``."""
        rows = self.rows()
        total = sum(rows)
        if not x.ndim or not total or x.shape[0] % total:
            raise Unfoldable(f"an input has {list(x.shape)[:1]} rows, and the batch {total}")
        each = x.shape[0] // total
        return rows if each == 1 else tuple(each * n for n in rows)

    def _places(self, rows: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Places of each client's rows in the batch, (clients, longest); places of the batch's rows in those, flat."""
        key = (rows, device)
        if key not in self._index:
            longest, starts = max(rows), [sum(rows[:i]) for i in range(len(rows))]
            take = [
                [min(start + j, start + n - 1) for j in range(longest)] for start, n in zip(starts, rows, strict=True)
            ]
            back = [i * longest + j for i, n in enumerate(rows) for j in range(n)]
            self._index[key] = torch.tensor(take, device=device).clamp(min=0), torch.tensor(back, device=device)
        return self._index[key]

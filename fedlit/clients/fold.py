"""One pass of the task over the examples of several clients, each by its own parameters.

The clients' dimension is folded into the batch: the frozen backbone sees one ordinary batch, and only modules that own
a parameter that trains look at whose rows are whose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import dropout
from torch.overrides import TorchFunctionMode

from fedlit.rows import MIXED, ROWS


class Unfoldable(Exception):
    """The network cannot take several clients in one pass; the message says why."""


class Layout:
    """Whose each row is: rows of one client are side by side.

    Args:
        sizes: Examples of each client, in the order of the batch.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes, self.total = tuple(sizes), sum(sizes)
        self._rows: tuple[tuple[int, ...] | None, tuple[int, ...]] = (None, self.sizes)
        self._index: dict[tuple[tuple[int, ...], torch.device], tuple[Tensor, Tensor]] = {}

    def rows(self) -> tuple[int, ...]:
        """Rows of each client, by what the task says of them."""
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

        An input of one row, where the batch has more, is one that is meant for all of them.
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
        """Rows of each client in ``x``."""
        rows = self.rows()
        total = sum(rows)
        if not x.ndim or not total or x.shape[0] % total:
            raise Unfoldable(f"an input has {list(x.shape)[:1]} rows, and the batch {total}")
        each = x.shape[0] // total
        return rows if each == 1 else tuple(each * n for n in rows)

    def _places(self, rows: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Where each client's rows are in the batch (clients, longest), and the batch's rows in that, flat."""
        key = (rows, device)
        if key not in self._index:
            longest, starts = max(rows), [sum(rows[:i]) for i in range(len(rows))]
            take = [
                [min(start + j, start + n - 1) for j in range(longest)] for start, n in zip(starts, rows, strict=True)
            ]
            back = [i * longest + j for i, n in enumerate(rows) for j in range(n)]
            self._index[key] = torch.tensor(take, device=device).clamp(min=0), torch.tensor(back, device=device)
        return self._index[key]


class Fold:
    """Lets a network's modules use other parameters for each client's rows.

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
            if id(module) in inside or not any(id(p) in known for p in module._parameters.values()):
                continue
            inside.update(id(part) for part in module.modules())
            held = module.named_parameters(remove_duplicate=False)
            self._owners.append((module, {key: known[id(p)] for key, p in held if id(p) in known}))

    @contextmanager
    def using(self, params: dict[str, Tensor], layout: Layout, draws: Sequence[torch.Generator] = ()) -> Iterator[None]:
        """Within, rows of a client meet its own parameters.

        Args:
            params: (clients, ...) by name.
            layout: Whose rows are whose.
            draws: For dropout, one for each client; none where nothing is dropped.
        """
        changed = []
        try:
            for module, own in self._owners:
                if "forward" in module.__dict__:
                    raise Unfoldable(f"{type(module).__name__} has a forward of its own")
                given = {key: params[name] for key, name in own.items() if name in params}
                if given:
                    module.__dict__["forward"] = _forward(module, given, layout)
                    changed.append(module)
            with _Dropout(layout, draws) if draws else _nothing():
                yield
        finally:
            for module in changed:
                del module.__dict__["forward"]


def _forward(module: nn.Module, given: dict[str, Tensor], layout: Layout) -> Callable[..., Tensor]:
    if type(module) is nn.Linear and "weight" in given:
        return _linear(module, given, layout)

    def each(*args: Any, **named: Any) -> Tensor:
        inputs = [value for value in (*args, *named.values()) if isinstance(value, Tensor)]
        if not inputs:
            raise Unfoldable(f"{type(module).__name__} takes no tensor")

        def one(own: dict[str, Tensor], rows: list[Tensor]) -> Tensor:
            left = iter(rows)
            place = [next(left) if isinstance(value, Tensor) else value for value in args]
            rest = {key: next(left) if isinstance(value, Tensor) else value for key, value in named.items()}
            values = {f"module.{key}": value for key, value in own.items()}
            out: Tensor = functional_call(_Plain(module), values, tuple(place), rest)
            return out

        rows = [layout.apart(x) for x in inputs]
        y: Tensor = vmap(one)(given, rows)
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


def _linear(module: nn.Module, given: dict[str, Tensor], layout: Layout) -> Callable[[Tensor], Tensor]:
    weight: Any = given["weight"]
    bias: Any = given.get("bias", module.bias)

    def forward(x: Tensor) -> Tensor:
        rows = layout.apart(x)
        y = torch.bmm(rows.flatten(1, -2), weight.mT)
        if bias is not None:
            y = y + (bias[:, None] if "bias" in given else bias).to(y.dtype)
        return layout.together(y.reshape(*rows.shape[:-1], y.shape[-1]), x)

    return forward


class _Dropout(TorchFunctionMode):
    """Each client's rows are dropped by its own draws, which are those it would make alone."""

    def __init__(self, layout: Layout, draws: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.layout, self.draws = layout, draws

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is dropout:
            return self._dropped(*args, **kwargs)
        if func is torch.nn.functional.scaled_dot_product_attention and kwargs.get("dropout_p"):
            raise Unfoldable("attention drops in a fused kernel")
        return func(*args, **kwargs)

    def _dropped(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        parts = torch.split(x, list(self.layout.of(x)))
        kept = [
            torch.empty_like(part).bernoulli_(1 - p, generator=g).div_(1 - p)
            for part, g in zip(parts, self.draws, strict=True)
        ]
        return x * torch.cat(kept)


@contextmanager
def _nothing() -> Iterator[None]:
    yield

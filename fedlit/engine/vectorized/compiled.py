"""The pass of several clients, compiled by ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fedlit.engine.vectorized.check import TOLERANCE
from fedlit.engine.vectorized.modules import RowLayout
from fedlit.engine.vectorized.passes import Pass, SharedPasses, means

MIXED = "a mixed precision is not compiled"
DROPS = "networks that drop are not compiled"


class CompiledPass:
    """Losses and gradients of several clients in one compiled graph, for passes of one shape.

    That shape is the first one with a whole batch of each client, for each set of parameters (baselines may have their
    own); compiling takes about a minute, so passes of any other shape run uncompiled. Linear layers, with LoRA or
    without, are what may train. The first pass is run both ways, and the compiled result counts, so that a process that
    goes on with a run gives what the first one would have given. If the compiler fails or refuses the network, that is
    told once, and passes run uncompiled from then on.

    Args:
        passes: Of the network; its check is done by the first pass.
        sizes: Examples of each client.
        tell: Takes the reason why nothing is compiled.
    """

    def __init__(self, passes: SharedPasses, sizes: Sequence[int], tell: Callable[[str], None]) -> None:
        self.passes, self.layout, self.tell = passes, RowLayout(sizes), tell
        self.why_not: str | None = None
        self.used = 0
        self._forms: dict[Any, tuple[Any, list[bool]]] = {}
        self._names: list[str] = []
        self._run: Callable[..., tuple[list[Tensor], Tensor]] = torch.compile(self._both, dynamic=False, fullgraph=True)

    def __call__(
        self, plain: Pass, batch: Any, layout: RowLayout, names: Sequence[str], values: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Losses (clients,), and gradients of their sum by the values, None where it does not depend on one.

        Args:
            plain: The same without compiling, a function of the values.
            batch: Of all clients.
            layout: The rows of each client.
            names: Of the values.
            values: (clients, ...), which require a gradient.
        """
        if self.why_not is None:
            self._look()
        if self.why_not or layout.sizes != self.layout.sizes or not all(value.requires_grad for value in values):
            return plain(values)
        own, form = (tuple(names), _shapes(list(values))), _shapes(batch)
        self._names = list(names)
        if own not in self._forms:
            return self._first(plain, own, form, batch, values)
        known, reached = self._forms[own]
        if form != known:
            return plain(values)
        try:
            with torch.no_grad(), torch.compiler.set_stance("fail_on_recompile"):
                found, out = self._run([value.detach() for value in values], batch)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - what a compiler may raise is not known
            self._give_up(error)
            return plain(values)
        self.used += 1
        return out, [g if there else None for g, there in zip(found, reached, strict=True)]

    def _first(
        self, plain: Pass, own: Any, form: Any, batch: Any, values: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor | None]]:
        out, grads = plain(values)
        self._forms[own] = form, [g is not None for g in grads]
        try:
            with torch.no_grad():
                found, again = self._run([value.detach() for value in values], batch)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up(error)
            return out, grads
        pairs = [(again, out), *((x, y) for x, y in zip(found, grads, strict=True) if y is not None)]
        size = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for _, g in pairs[1:]]))
        for x, y in pairs:
            # Some gradients are nothing but rounding, as those of a key's bias.
            bound = TOLERANCE[y.dtype] * max(torch.linalg.vector_norm(y), size / 1e3)
            if not torch.linalg.vector_norm(x - y) <= bound:
                self._give_up(ValueError("compiled, the network gives other gradients"))
                return out, grads
        self.used += 1
        return again, [None if plainly is None else g for g, plainly in zip(found, grads, strict=True)]

    def _both(self, values: list[Tensor], batch: Any) -> tuple[list[Tensor], Tensor]:
        def total(values: list[Tensor]) -> tuple[Tensor, Tensor]:
            with self.passes.folding.using(dict(zip(self._names, values, strict=True)), self.layout):
                losses = means(self.passes.network.task.losses(batch), self.layout)
            return losses.sum(), losses

        # In one graph: the two that autograd would make save more, and are hardly faster than uncompiled ones.
        return torch.func.grad(total, has_aux=True)(values)  # type: ignore[no-any-return]

    def _look(self) -> None:
        if "mixed" in str(self.passes.network.fabric._precision.precision):
            self._give_up(ValueError(MIXED))
        elif self.passes.draws_needed:
            self._give_up(ValueError(DROPS))

    def _give_up(self, error: Exception) -> None:
        self.why_not = (str(error).splitlines() or [type(error).__name__])[0]
        self.tell(self.why_not)


def _shapes(value: Any) -> Any:
    """Shapes, types and numbers in a batch, for which a graph was made; texts do not count."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.stride()
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return tuple((key, _shapes(entry)) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return tuple(_shapes(entry) for entry in value if not isinstance(entry, str))
    return type(value)

"""The task's loss on one batch as rules see it: a function of the network's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.func import functional_call

from fedlit.engine.batches import Batch, split_batch
from fedlit.engine.network import Network
from fedlit.engine.task_check import check_modules
from fedlit.tree import Tree


class BatchLoss:
    """A :class:`~fedlit.aggregators.Loss` of one client, computed at once.

    Args:
        network: The network that computes it.
        live: The network's parameters that are themselves leaves of what the client trains.
        steps: Local steps in this round.
        step: Index of the current one.
        batch: The current batch, on the device.
    """

    def __init__(
        self, network: Network, live: Mapping[str, nn.Parameter], steps: int, step: int = 0, batch: Batch = None
    ) -> None:
        self.network, self.live, self.steps, self.step, self.batch = network, live, steps, step, batch

    def __call__(self, params: Tree) -> Tensor:
        return self._call("training_step", params)

    def features(self, params: Tree) -> Tensor:
        return self._call("features", params)

    def logits(self, params: Tree) -> Tensor:
        return self._call("logits", params)

    def outputs(self, params: Tree, pattern: str) -> tuple[Tensor, dict[str, Tensor]]:
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            return lambda module, inputs, output: seen.update({name: output})

        modules = [(name, m) for name, m in self.network.task.named_modules() if re.search(pattern, name)]
        check_modules(modules, pattern)
        hooks = [module.register_forward_hook(keep(name)) for name, module in modules]
        try:
            return self(params), seen
        finally:
            for hook in hooks:
                hook.remove()

    def split(self, parts: int) -> list[BatchLoss]:
        pieces = split_batch(self.batch, parts)
        return [BatchLoss(self.network, self.live, self.steps, self.step, piece) for piece in pieces]

    def _call(self, method: str, params: Tree) -> Tensor:
        network, arguments = self.network, (method, self.batch, self.step)
        with network.fabric.autocast():
            if (
                isinstance(params, dict)
                and params.keys() == self.live.keys()
                and all(params[name] is parameter for name, parameter in self.live.items())
            ):
                return network.call(*arguments)  # type: ignore[no-any-return]
            named = {f"task.{name}": value for name, value in network.complete(params).items()}
            return functional_call(network.call, named, arguments)  # type: ignore[no-any-return]

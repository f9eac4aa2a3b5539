"""Memory to train a network: counted on tensors without data, so that the largest needs none itself.

What a kernel takes and gives back within one operation is not seen, but for the layouts of convolutions on a CPU. Those
in bfloat16 on a CPU can take much more: a small DINOv2's patches took four times all the rest.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fedlit.backbones.checkpointing import checkpoint_activations
from fedlit.errors import FedlitError

Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True)
class Memory:
    """Bytes of one training step with AdamW.

    Args:
        weights: The network's, adapters and buffers included, as they are stored.
        optimizer: Two moments of what is trained.
        work: The most that activations, gradients and what they are computed with take at one time.
    """

    weights: int
    optimizer: int
    work: int

    @property
    def total(self) -> int:
        """All of it. What a run keeps besides (data, other clients' adapters, the framework itself) is not in it."""
        return self.weights + self.optimizer + self.work


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that come to be and have not gone yet.

    Attributes:
        now: Bytes.
        peak: The most that ``now`` has been.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def leave_out(self, tensor: Tensor) -> None:
        """Do not count what was there before."""
        self._known.add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default and args[0].device.type == "cpu":
            # oneDNN lays the input and the weights out anew, within the operation
            self.peak = max(self.peak, self.now + sum(tensor.untyped_storage().nbytes() for tensor in (out, *args[:2])))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._known:
                storage = tensor.untyped_storage()
                self._known.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage.nbytes()).atexit = False
        return out

    def _gone(self, size: int) -> None:
        self.now -= size


def training_memory(network: nn.Module, loss: Callable[[], Tensor], precision: Precision = "32-true") -> Memory:
    """Memory of a step on ``loss``, by watching its forward and backward pass; gradients are discarded.

    Args:
        network: What ``loss`` calls; only its parameters that ask for gradients are trained.
        loss: A scalar, on inputs that are made before: they are not counted.

    Raises:
        FedlitError: The precision is not known here.
    """
    if precision not in ("32-true", "bf16-mixed"):
        raise FedlitError(f"precision {precision!r} is not estimated: give '32-true' or 'bf16-mixed'")
    parameters = list(network.parameters())
    stored = {id(t.untyped_storage()): t.untyped_storage().nbytes() for t in (*parameters, *network.buffers())}
    trained = sum(parameter.numel() * parameter.element_size() for parameter in parameters if parameter.requires_grad)
    device = parameters[0].device.type
    live = Live()
    for tensor in (*parameters, *network.buffers()):
        live.leave_out(tensor)
    network.zero_grad(set_to_none=True)
    with live:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        del value
    network.zero_grad(set_to_none=True)
    # the optimizer's own step holds the gradients and about as much again
    return Memory(sum(stored.values()), 2 * trained, max(live.peak, 2 * trained))


def estimate(
    network: nn.Module,
    loss: Callable[[nn.Module], Callable[[], Tensor]],
    precision: Precision = "32-true",
    checkpointing: bool = False,
    device: str | None = None,
) -> Memory:
    """Memory to train a network that stands on the meta device, which it still does afterwards.

    Args:
        loss: Of the network, gives what computes a scalar loss of it; it makes the inputs.
        checkpointing: See :func:`fedlit.backbones.checkpointing.checkpoint_activations`.
        device: Whose kernels are assumed: ``"cuda"`` where there is one, else ``"cpu"``. They differ in what they keep.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with FakeTensorMode(allow_non_fake_inputs=True), _on(network, device), torch.device(device):
        checkpoint_activations(network, checkpointing, preserve_rng_state=False)
        try:
            return training_memory(network, loss(network), precision)
        finally:
            checkpoint_activations(network, False)


@contextmanager
def _on(network: nn.Module, device: str) -> Iterator[None]:
    """Tensors of the meta device replaced by empty ones of another; those that are shared stay so."""
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    made: dict[int, Tensor] = {}
    try:
        for module in network.modules():
            stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for store in stores:
                for name, tensor in store.items():
                    if tensor is None or not tensor.is_meta:
                        continue
                    if id(tensor) not in made:
                        empty = torch.empty_like(tensor, device=device)
                        is_parameter = isinstance(tensor, nn.Parameter)
                        made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                    replaced.append((store, name, tensor))
                    store[name] = made[id(tensor)]
        yield
    finally:
        for store, name, tensor in replaced:
            store[name] = tensor

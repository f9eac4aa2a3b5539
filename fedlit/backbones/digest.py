"""Digest of the weights that do not train, which tells whether two runs stand on the same network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from fedlit.errors import FedlitError

CHUNK = 1 << 26
"""Bytes that are copied to the host at a time."""
THREADS = 4


def frozen_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters that need no gradient, and the buffers that a checkpoint would hold, by name.

    Buffers that are computed when the network is made, such as rotary frequencies, are not persistent and left out; the
    constants of weights in 4 bits are included.
    """
    trained = {name for name, parameter in network.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    return {name: tensor for name, tensor in network.state_dict().items() if name not in trained}


def frozen_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the name, dtype, shape and bytes of tensors, in the order of their names.

    The same on every device, and whether or not a tensor is contiguous. Tensors are hashed side by side in threads,
    each by itself, and the digest is that of the list: about 1 s per GB and core, 3 s on CPUs without SHA instructions.

    Args:
        tensors: By name, such as :func:`frozen_tensors` gives.

    Returns:
        64 hexadecimal digits.

    Raises:
        FedlitError: A tensor has no values, because it is on the meta device.
    """
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise FedlitError(f"{name} is on the meta device and has no values: load the network first")
    names = sorted(tensors)
    with ThreadPoolExecutor(THREADS) as pool:
        digests = list(pool.map(_bytes_digest, (tensors[name] for name in names)))
    whole = hashlib.sha256()
    for name, own in zip(names, digests, strict=True):
        tensor = tensors[name]
        whole.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0{own}\n".encode())
    return whole.hexdigest()


def _bytes_digest(tensor: Tensor) -> str:
    out = hashlib.sha256()
    flat, length = tensor.detach().reshape(-1), max(1, CHUNK // tensor.element_size())
    for start in range(0, len(flat), length):
        out.update(flat[start : start + length].cpu().contiguous().view(torch.uint8).numpy().data)
    return out.hexdigest()

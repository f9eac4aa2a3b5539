"""Trees as bytes, for everything that crosses a boundary or is kept on disk: safetensors, never pickle."""

from __future__ import annotations

import json
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from fedlit import tree
from fedlit.errors import FedlitError
from fedlit.tree import Tree

MAX_HEADER_BYTES = 64 << 20


def encode(t: Tree, metadata: Any = None) -> bytes:
    """The tree as safetensors bytes; equal trees give equal bytes.

    Args:
        t: Any tree; tensors are copied to the CPU.
        metadata: Anything JSON can hold.
    """
    seen: set[int] = set()

    def own(leaf: Tensor) -> Tensor:
        """A CPU tensor that shares its storage with no other; safetensors refuses those that do."""
        leaf = leaf.detach().cpu().contiguous()
        storage = leaf.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != leaf.nbytes:
            leaf = leaf.clone()
        seen.add(leaf.untyped_storage().data_ptr())
        return leaf

    flat = {path: own(leaf) for path, leaf in tree.flatten(t).items()}
    # One key only: safetensors keeps several in no fixed order, and the bytes would differ from run to run.
    head = {"empty": sorted(tree.empty_paths(t)), "metadata": metadata}
    return save(flat, metadata={"fedlit": json.dumps(head, sort_keys=True)})


def header(blob: bytes, name: str = "payload") -> dict[str, Any]:
    """The parsed safetensors header, checked before anything else is read.

    Raises:
        FedlitError: The bytes are cut short, the header is not JSON, a name appears twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({k for k, _ in pairs}) != len(pairs):
            raise FedlitError(f"{name}: a name appears twice in the header")
        return dict(pairs)

    length = int.from_bytes(blob[:8], "little")
    if len(blob) < 8 or length > min(len(blob) - 8, MAX_HEADER_BYTES):
        raise FedlitError(f"{name}: cut short or not safetensors ({len(blob)} bytes)")
    try:
        head = json.loads(blob[8 : 8 + length], object_pairs_hook=once)
    except FedlitError:
        raise
    except (ValueError, RecursionError) as error:
        raise FedlitError(f"{name}: the header is not JSON") from error
    if not isinstance(head, dict):
        raise FedlitError(f"{name}: the header is not a table")
    return head


def decode(blob: bytes, name: str = "payload") -> tuple[Tree, Any]:
    """The tree, its names sorted, and the metadata that :func:`encode` was given.

    Raises:
        FedlitError: The bytes are not what :func:`encode` writes; ``name`` says what was being read.
    """
    head = header(blob, name)
    try:
        own = json.loads(head.get("__metadata__", {})["fedlit"])
        # safetensors gives its tensors in an order that changes from call to call.
        return tree.ordered(tree.unflatten(load(blob), own["empty"])), own["metadata"]
    except Exception as error:
        raise FedlitError(f"{name}: not a fedlit tree ({error})") from error

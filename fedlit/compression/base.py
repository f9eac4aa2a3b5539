"""What a compression of uploads is made of: two pure functions, and the form of what they put on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.tree import Tree


class Transform:
    """A compression of uploads: subclass it as a frozen dataclass, whose fields are its settings.

    The length of what is sent may depend on shapes and dtypes alone, never on values: so the server knows it, and
    refuses anything else before it reads a tensor. Whole numbers, flags and tensors without a dimension must pass
    unchanged; rules count on them.
    """

    error_feedback = False  # no annotations here: jsonargparse takes subclasses of a dataclass for none
    """Whether a client keeps what was lost and adds it to what it sends next, see :class:`.Channel`; may be a field."""

    final = False
    """Whether nothing may follow it: what it sends is no longer made of values to compress."""

    @property
    def label(self) -> str:
        """What it is called in titles."""
        return type(self).__name__

    def wire(self, upload: Any) -> Any:
        """A tree like what :meth:`encode` gives, from one like the upload; shapes and dtypes are all that counts."""
        raise NotImplementedError

    def encode(self, upload: Any, generator: torch.Generator) -> Any:
        """What is sent, from a finite upload on the CPU."""
        raise NotImplementedError

    def decode(self, wire: Any, like: Any) -> Any:
        """The upload as the server sees it, in the shapes and dtypes of ``like``.

        Raises:
            FedlitError: ``wire`` has the form of :meth:`wire`, but values that :meth:`encode` never gives.
        """
        raise NotImplementedError


def lossy(leaf: Tensor) -> bool:
    """Whether a tensor may be compressed at all."""
    return leaf.is_floating_point() and leaf.dim() > 0


def walk(f: Callable[..., Any], t: Tree, *rest: Any, path: str = "") -> Any:
    """``f(path, leaf, ...)`` leaf by leaf, at each level in the order of the names, which both ends know."""
    if isinstance(t, Tensor):
        return f(path, t, *rest)
    below = f"{path}{tree.SEPARATOR}" if path else ""
    return {k: walk(f, t[k], *(r[k] for r in rest), path=f"{below}{k}") for k in sorted(t)}


def empty(shape: Any, dtype: torch.dtype) -> Tensor:
    """A tensor without values, for a form."""
    return torch.empty(shape, dtype=dtype, device="meta")

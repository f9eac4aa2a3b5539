"""Algebra on trees of tensors, the vectors of federated learning.

A :data:`Tree` is a tensor, or a dict of trees keyed by name. The parameters that a client trains are a flat dict
``{parameter name: tensor}``; a rule may nest such dicts, for instance ``{"w": ..., "v": ...}``. All functions are
pure, except where their name ends in an underscore.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Tree: TypeAlias = "Tensor | dict[str, Tree]"

SEPARATOR = "/"


def map(f: Callable[..., Any], t: Tree, *rest: Tree) -> Any:  # noqa: A001
    """``f`` applied leaf by leaf to trees of one structure.

    Raises:
        KeyError: The trees do not have the same names; the message lists those that differ.
    """
    if isinstance(t, Tensor):
        return f(t, *rest)
    for r in rest:
        if not isinstance(r, dict) or r.keys() != t.keys():
            names = sorted(r.keys() ^ t.keys()) if isinstance(r, dict) else "a tensor where a dict was expected"
            raise KeyError(f"trees differ in {names}")
    return {k: map(f, t[k], *(r[k] for r in rest)) for k in t}  # type: ignore[index]


def flatten(t: Tree) -> dict[str, Tensor]:
    """Leaves by path, ``{"outer/inner": tensor}``; a bare tensor has the path ``""``.

    Raises:
        ValueError: A name is empty or holds the separator ``/``, so its path would be another's.
    """
    if isinstance(t, Tensor):
        return {"": t}
    out: dict[str, Tensor] = {}
    for name, sub in t.items():
        if SEPARATOR in name or not name:
            raise ValueError(f"{SEPARATOR!r} in tensor name {name!r}" if name else "a tensor with an empty name")
        for path, leaf in flatten(sub).items():
            out[f"{name}{SEPARATOR}{path}" if path else name] = leaf
    return out


def unflatten(flat: Mapping[str, Tensor], empty: Iterable[str] = ()) -> Tree:
    """The inverse of :func:`flatten`; ``empty`` are the paths of dicts without a leaf."""
    if set(flat) == {""}:
        return flat[""]
    out: dict[str, Tree] = {}

    def parent(path: list[str]) -> dict[str, Tree]:
        node = out
        for name in path:
            child = node.setdefault(name, {})
            assert isinstance(child, dict)
            node = child
        return node

    for path, leaf in flat.items():
        *head, last = path.split(SEPARATOR)
        parent(head)[last] = leaf
    for path in empty:
        parent(path.split(SEPARATOR) if path else [])
    return out


def ordered(t: Tree) -> Any:
    """The same tree with the names at each level sorted, so that a walk over them sums in one order always."""
    return t if isinstance(t, Tensor) else {k: ordered(t[k]) for k in sorted(t)}


def empty_paths(t: Tree, path: str = "") -> list[str]:
    """Paths of the dicts that hold nothing; they carry structure that :func:`flatten` alone would lose."""
    if isinstance(t, Tensor):
        return []
    if not t:
        return [path]
    return [p for k, v in t.items() for p in empty_paths(v, f"{path}{SEPARATOR}{k}" if path else k)]


def leaves(t: Tree) -> list[Tensor]:
    """All tensors, in the order of their sorted paths' names at each level."""
    return [t] if isinstance(t, Tensor) else [x for k in sorted(t) for x in leaves(t[k])]


def size(t: Tree) -> int:
    """Number of scalars."""
    return sum(x.numel() for x in leaves(t))


def add(a: Tree, b: Tree, alpha: float = 1.0) -> Any:
    """``a + alpha * b``."""
    return map(lambda x, y: x + alpha * y, a, b)


def sub(a: Tree, b: Tree) -> Any:
    """``a - b``."""
    return map(lambda x, y: x - y, a, b)


def scale(a: Tree, s: float | Tensor) -> Any:
    """``s * a``, in the dtypes of ``a``: a float64 scalar would turn scalars among them into float64."""
    return map(lambda x: (s * x).to(x.dtype), a)


def lerp(a: Tree, b: Tree, t: float | Tensor) -> Any:
    """``t * a + (1 - t) * b``, in the dtypes of ``a``."""
    return map(lambda x, y: (t * x + (1 - t) * y).to(x.dtype), a, b)


def zeros(a: Tree) -> Any:
    """Zeros of the same structure."""
    return map(torch.zeros_like, a)


def detach(a: Tree) -> Any:
    """The same values, outside any autograd graph; storage is shared."""
    return map(lambda x: x.detach(), a)


def clone(a: Tree) -> Any:
    """Detached contiguous copies: nothing is shared with ``a``."""
    return map(lambda x: x.detach().clone(memory_format=torch.contiguous_format), a)


def to(a: Tree, device: torch.device | str) -> Any:
    """The tree on a device."""
    return map(lambda x: x.to(device), a)


def dot(a: Tree, b: Tree) -> Tensor:
    """The inner product over all leaves."""
    terms = leaves(map(lambda x, y: (x * y).sum(), a, b))
    return torch.stack(terms).sum() if terms else torch.zeros(())


def sq(a: Tree) -> Tensor:
    """The squared Euclidean norm over all leaves."""
    return dot(a, a)


def equal(a: Tree, b: Tree) -> bool:
    """Whether two trees have the same names, dtypes and values."""
    x, y = flatten(a), flatten(b)
    return x.keys() == y.keys() and all(x[p].dtype == y[p].dtype and torch.equal(x[p], y[p]) for p in x)


def not_finite(t: Tree) -> str | None:
    """The path of the first tensor with a value that is NaN or infinite, or None."""
    return next((p for p, x in flatten(t).items() if x.is_floating_point() and not torch.isfinite(x).all()), None)


def pick(a: Mapping[str, Tree], *parts: str) -> dict[str, Tree]:
    """The entries whose name contains any of ``parts``."""
    return {k: v for k, v in a.items() if any(p in k for p in parts)}


def where(pattern: str, a: Tree, b: Tree, name: str = "") -> Any:
    """Leaves of ``a`` whose own name matches the regular expression, of ``b`` elsewhere."""
    if isinstance(a, Tensor):
        return a if re.search(pattern, name) else b
    assert isinstance(b, dict)
    return {k: where(pattern, a[k], b[k], k) for k in a}


def stack(ts: Iterable[Tree]) -> Any:
    """Trees of one structure stacked along a new first dimension."""
    return map(lambda *x: torch.stack(x), *ts)


def row(t: Tree, i: int) -> Any:
    """The ``i``-th tree of a stack."""
    return map(lambda x: x[i], t)


def combine(ts: Sequence[Tree], weights: Sequence[float]) -> Any:
    """``sum_i weights[i] * ts[i]``, summed in float64 in the given order and cast back to the dtypes of ``ts[0]``."""

    def total(*leaves: Tensor) -> Tensor:
        out = torch.zeros(leaves[0].shape, dtype=torch.float64, device=leaves[0].device)
        for leaf, weight in zip(leaves, weights, strict=True):
            out = out + weight * leaf.double()
        return out.to(leaves[0].dtype)

    return map(total, *ts)

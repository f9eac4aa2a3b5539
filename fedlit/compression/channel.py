"""What lies between the upload that a rule gives and the bytes that are sent, at the client and at the server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.compression.base import Transform, empty, lossy
from fedlit.errors import FedlitError
from fedlit.tree import Tree

ERROR = "compression_error"


@dataclass(frozen=True)
class Sent:
    """What a client does with one upload."""

    wire: Any
    """What goes to the server."""
    residual: dict[str, Tensor] | None = None
    """What the client keeps, by path; None without error feedback."""
    figures: dict[str, float] = field(default_factory=dict)
    """What compression did to it."""


class Channel:
    """Transforms one after the other; none of them: uploads are sent as they are.

    With error feedback a client keeps the residual ``e``, from 0, of the whole chain (Karimireddy et al. 2019,
    arXiv:1901.09847, Algorithm 1, EF-SGD): ``p = u + e``, ``encode(p)`` is sent, ``e <- p - decode(encode(p))``. The
    residual of a tensor that an upload lacks waits for one that has it; one of another shape is dropped.

    The figure ``compression_error`` is ``|p - decode(encode(p))| / |p|`` over all values that may be compressed;
    without error feedback ``p`` is ``u``.

    Args:
        transforms: In the order in which a client applies them. There is error feedback if any of them asks for it.

    Raises:
        FedlitError: One follows another that nothing can follow, or lacks a method.
    """

    def __init__(self, transforms: Sequence[Transform] = ()) -> None:
        self.transforms = tuple(transforms)
        for transform in self.transforms:
            if not isinstance(transform, Transform):
                raise FedlitError(
                    f"trainer.compression: {transform!r} is no Transform, as TopK(), Int8(), BFloat16() are"
                )
            for method in ("wire", "encode", "decode"):
                if getattr(type(transform), method) is getattr(Transform, method):
                    raise FedlitError(f"{type(transform).__name__} is no whole Transform: it has no method `{method}`")
        for before, after in zip(self.transforms, self.transforms[1:], strict=False):
            if before.final:
                raise FedlitError(
                    f"trainer.compression: {type(after).__name__} follows {type(before).__name__}, which sends no "
                    f"values that could be compressed further: put {type(before).__name__} last"
                )
        self.feedback = any(t.error_feedback for t in self.transforms)
        self.figures = (ERROR,) if self.transforms else ()

    @property
    def label(self) -> str:
        """For titles; empty without transforms."""
        chain = ", then ".join(t.label for t in self.transforms)
        return chain + ", with error feedback" if self.feedback else chain

    def outline(self, upload: Any) -> Any:
        """The names, shapes and dtypes of an upload, without its values."""
        return tree.map(lambda x: empty(x.shape, x.dtype), upload)

    def wire(self, upload: Any) -> Any:
        """A tree like what is sent for an upload like this."""
        return self._forms(upload)[-1]

    def encode(self, upload: Any, residual: dict[str, Tensor] | None, generator: torch.Generator) -> Sent:
        """What is sent, and what is kept.

        Args:
            upload: Of the rule, finite, on the CPU.
            residual: What was kept the last time.
            generator: Of this client in this round.
        """
        if not self.transforms:
            return Sent(upload)
        kept = residual or {}
        exact = _exact(upload, kept if self.feedback else {})
        meant = _with_values(upload, exact)
        wire = meant
        for transform in self.transforms:
            wire = transform.encode(wire, generator)
        seen = tree.flatten(self.decode(wire, upload))
        lost = {path: p - seen[path].to(p.dtype) for path, p in exact.items()}
        error = _norm(lost) / (_norm(exact) or 1.0)
        if not self.feedback:
            return Sent(wire, None, {ERROR: error})
        here = tree.flatten(upload)
        waiting = {path: e for path, e in kept.items() if path not in here}
        return Sent(wire, {**waiting, **{path: e for path, e in lost.items() if e.any()}}, {ERROR: error})

    def decode(self, wire: Any, like: Any) -> Any:
        """The upload as the server sees it.

        Args:
            wire: What was sent, of the form of :meth:`wire`.
            like: A tree like the upload.

        Raises:
            FedlitError: Its values are none that a client could have sent.
        """
        for transform, form in zip(reversed(self.transforms), reversed(self._forms(like)[:-1]), strict=True):
            wire = transform.decode(wire, form)
        return wire

    def _forms(self, upload: Any) -> list[Any]:
        forms = [upload]
        for transform in self.transforms:
            forms.append(transform.wire(forms[-1]))
        return forms


def _with_values(upload: Tree, exact: dict[str, Tensor]) -> Any:
    """The upload with the values of ``exact`` where it has them, in the upload's dtypes."""
    flat = {path: exact[path].to(x.dtype) if path in exact else x for path, x in tree.flatten(upload).items()}
    return tree.unflatten(flat, tree.empty_paths(upload))


def _exact(upload: Tree, kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values that may be compressed, with what was kept of the same shape added; at least float32."""
    out: dict[str, Tensor] = {}
    for path, x in tree.flatten(upload).items():
        if lossy(x):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            e = kept.get(path)
            out[path] = wide if e is None or e.shape != x.shape else wide + e.to(wide.dtype)
    return out


def _norm(values: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(x.double().square().sum()) for x in values.values()))

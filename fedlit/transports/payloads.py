"""What the server sends, and what it expects back; made once where clients are sent the same object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fedlit import codec
from fedlit.aggregators import Aggregator, Work
from fedlit.tree import Tree


class Payloads:
    """Payloads of one rule.

    Args:
        rule: The rule.
        initial: The initial parameters.
    """

    def __init__(self, rule: Aggregator, initial: Tree) -> None:
        self.rule, self.initial = rule, initial
        self._payload: tuple[Any, bytes] | None = None
        self._template: tuple[Any, Tree] | None = None

    def encoded(self, down: Tree) -> bytes:
        """The payload of a training job."""
        if self._payload is None or self._payload[0] is not down:
            self._payload = (down, codec.encode(down))
        return self._payload[1]

    def like(self, down: Tree) -> Callable[[], Tree]:
        """Gives a tree like the upload that ``down`` asks for."""

        def template() -> Tree:
            if self._template is None or self._template[0] is not down:
                self._template = (down, untrained(self.rule, down, self.initial))
            return self._template[1]

        return template


def untrained(rule: Aggregator, down: Any, initial: Any) -> Any:
    """What a new client would upload without a step of training."""
    memory = rule.init_memory(initial)
    work = Work._make(torch.ones((), dtype=torch.float64) for _ in Work._fields)
    with torch.no_grad():
        upload, _ = rule.finish(rule.start(down, memory), down, memory, work)
    return upload

"""Steps of what a rule moves at a learning rate of its own, apart from the task's optimizer."""

from __future__ import annotations

import torch

from fedlit import tree
from fedlit.aggregators import Aggregator
from fedlit.errors import FedlitError
from fedlit.tree import Tree


@torch.no_grad()
def descend(rule: Aggregator, w: Tree) -> None:
    """Move those parts of ``w`` along their gradients, and take the gradients away, which optimizers then pass over.

    Args:
        rule: Says which parts, see :meth:`fedlit.aggregators.Aggregator.own_rates`.
        w: What one client trains, or several, stacked; changed in place.
    """
    for part, rate in rule.own_rates(w):
        for leaf in tree.leaves(part):
            if leaf.grad is not None:
                leaf.sub_(leaf.grad, alpha=rate)
                leaf.grad = None


def check_unscaled(rule: Aggregator, w: Tree) -> None:
    """Refuse rates of a rule's own where gradients are scaled.

    Raises:
        FedlitError: The rule has some; called under 16-mixed precision only.
    """
    if rule.own_rates(w):
        raise FedlitError(
            f"{type(rule).__name__} moves some of what it learns at a learning rate of its own, and 16-mixed scales "
            "the gradients: set trainer.precision to bf16-mixed or 32-true"
        )

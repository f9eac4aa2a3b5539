"""Rules that a few faulty or hostile clients cannot carry away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Tensors, Work, require
from fedlit.aggregators.server import Server, Update
from fedlit.errors import FedlitError
from fedlit.tree import Tree

FAMILY = "robust"


@dataclass(frozen=True)
class _Robust(FedAvg):
    """The server moves to a robust centre of the updates, in which all clients count alike.

    A weight is a client's own claim, so a hostile one would claim a large one. Reads single updates, in the clear.

    Args:
        weighting: Only ``uniform``.
    """

    weighting: Literal["uniform"] = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.weighting == "uniform", "weighting", "'uniform': a weight is a client's own claim")

    def centre(self, uploads: Sequence[Tree], server: Server) -> Any:
        """The centre of the uploads, which come in client-name order."""
        raise NotImplementedError

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        return self.step(state, self.centre(list(server.gather(updates).values()), server))


@dataclass(frozen=True)
class CoordinateMedian(_Robust):
    """The median of the updates in each coordinate; of an even number, the mean of the two in the middle.

    Yin et al. 2018, arXiv:1803.01498, Definition 1, on updates of several local steps in the place of gradients. It
    withstands fewer than half of the clients; where honest clients differ, it leaves the minority of them out too.
    """

    def centre(self, uploads: Sequence[Tree], server: Server) -> Any:
        return _between(uploads, (len(uploads) - 1) // 2)


@dataclass(frozen=True)
class TrimmedMean(_Robust):
    """In each coordinate drops the highest and the lowest updates, then averages the rest.

    Yin et al. 2018, arXiv:1803.01498, Definition 2, on updates of several local steps in the place of gradients.
    How many are dropped at each end is ``trim`` times the number of clients, rounded down, and is logged as
    ``trimmed``: where it is 0, this is the plain mean and withstands nobody.

    Args:
        trim: Share of the clients to drop at each end, at least the share of hostile ones.
    """

    trim: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.trim < 0.5, "trim", "a share in [0, 0.5)")

    def centre(self, uploads: Sequence[Tree], server: Server) -> Any:
        cut = int(Decimal(str(self.trim)) * len(uploads))  # 0.29 of 100 is 29, in floating point 28.99...
        server.log("trimmed", cut)
        return _between(uploads, cut)


@dataclass(frozen=True)
class MultiKrum(_Robust):
    """The mean of the ``select`` updates that lie nearest to their neighbours.

    Blanchard et al. 2017, arXiv:1703.02757, Section 4 and Multi-Krum: an update's score is the sum of its squared
    distances to the ``n - f - 2`` nearest others, and the lowest scores are averaged; of equal scores the first by
    client name. The guarantee needs ``n >= 2 f + 3`` of ``n`` clients, and fewer are refused; with ``f = 0`` none is
    given and any number goes. More than ``n - f`` would let a hostile update in for certain, and is refused too.

    Args:
        byzantine: How many clients of a round may be hostile, ``f``.
        select: How many updates are averaged; None takes ``n - f``.
    """

    byzantine: int = 1
    select: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.byzantine >= 0, "byzantine", "a number of clients, at least 0")
        require(self, self.select is None or self.select >= 1, "select", "at least 1, or none for n - byzantine")

    @property
    def min_clients(self) -> int:
        return max(2 * self.byzantine + 3 if self.byzantine else 1, (self.select or 1) + self.byzantine)

    def centre(self, uploads: Sequence[Tree], server: Server) -> Any:
        n, f, name = len(uploads), self.byzantine, type(self).__name__
        if f and n < 2 * f + 3:
            raise FedlitError(
                f"{name}.byzantine is {f}, which takes {2 * f + 3} clients in a round: there are {n}: let more take "
                "part (trainer.clients_per_round), or lower it"
            )
        chosen = n - f if self.select is None else self.select
        if chosen > n - f:
            raise FedlitError(f"{name}.select is {chosen}: of {n} clients in a round, {f} hostile, take up to {n - f}")
        nearest = distances(uploads).fill_diagonal_(float("inf")).sort(dim=1).values[:, : max(n - f - 2, 1)]
        best = sorted(nearest.sum(dim=1).argsort(stable=True)[:chosen].tolist())
        return tree.combine([uploads[i] for i in best], [1 / chosen] * chosen)


@dataclass(frozen=True)
class Krum(MultiKrum):
    """The one update that lies nearest to its neighbours.

    Blanchard et al. 2017, arXiv:1703.02757, Section 4: :class:`MultiKrum` with ``select = 1``. What the other honest
    clients learned in the round is lost.

    Args:
        select: Only 1.
    """

    select: Literal[1] = 1

    def __post_init__(self) -> None:
        require(self, self.select == 1, "select", "1; MultiKrum takes more")
        super().__post_init__()


@dataclass(frozen=True)
class GeometricMedian(FedAvg):
    """The point whose summed distance to the updates is least.

    Pillutla et al. 2019, arXiv:1912.13445, Algorithm 2, the smoothed Weiszfeld iteration:
    ``v <- sum_k b_k d_k / sum_k b_k`` with ``b_k = p_k / max(eps, |v - d_k|)``. The paper spreads few iterations over
    secure averages; here the server reads the updates, so it refuses sealed ones and can afford more. It starts from
    the median of each coordinate, not from the mean, which one client can put anywhere. It withstands clients with
    less than half of the total weight.

    Args:
        weighting: ``uniform``; with ``examples``, the paper's, a hostile client may claim any number of them.
        iterations: How often ``v`` is improved.
        eps: Distance below which a client's pull grows no more, the paper's ``nu``.
    """

    weighting: Literal["examples", "uniform"] = "uniform"
    iterations: int = 10
    eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.iterations >= 1, "iterations", "at least 1")
        require(self, 0 < self.eps < float("inf"), "eps", "a finite number above 0")

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        ordered = sorted(updates, key=lambda update: update.client)
        points = list(server.gather(ordered).values())
        v = _between(points, (len(points) - 1) // 2)
        for _ in range(self.iterations):
            far = [max(self.eps, float(_square(v, point).sqrt())) for point in points]
            v = server.mean(ordered, [update.weight / x for update, x in zip(ordered, far, strict=True)])
        return self.step(state, v)


@dataclass(frozen=True)
class NormBounding(FedAvg):
    """FedAvg of updates no longer than ``bound``: ``d <- d * min(1, bound / |d|)``.

    Sun et al. 2019, arXiv:1911.07963, Section 4, without the noise. There the server clips; here the client does, in
    ``finish``, so that it works on sealed updates. It holds back a client whose data or training went wrong, and
    boosted poison in the data; against a client that runs other code than this, nothing but a proof of the norm or a
    server that reads the updates would help.

    Args:
        bound: Largest Euclidean norm of an update over all its tensors.
    """

    bound: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 < self.bound < float("inf"), "bound", "a finite number above 0")

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        update, memory = super().finish(w, down, memory, work)
        norm = tree.sq(tree.map(lambda x: x.double(), update)).sqrt()
        return tree.scale(update, (self.bound / norm).clamp(max=1)), memory


def distances(uploads: Sequence[Tree]) -> Tensor:
    """Squared Euclidean distances between the uploads, ``(n, n)``, in float64 and exactly symmetric."""
    out = torch.zeros(len(uploads), len(uploads), dtype=torch.float64)
    for i, j in combinations(range(len(uploads)), 2):
        out[i, j] = out[j, i] = _square(uploads[i], uploads[j])
    return out


def _square(a: Tree, b: Tree) -> Tensor:
    """The squared distance of two trees, in float64."""
    return tree.sq(tree.map(lambda x, y: x.double() - y.double(), a, b))


def _between(uploads: Sequence[Tree], cut: int) -> Any:
    """In each coordinate the mean, in float64, of all but the ``cut`` highest and lowest."""

    def middle(*leaves: Tensor) -> Tensor:
        ordered = torch.stack(leaves).sort(dim=0).values[cut : len(leaves) - cut]
        return ordered.double().mean(dim=0).to(leaves[0].dtype)

    return tree.map(middle, *uploads)

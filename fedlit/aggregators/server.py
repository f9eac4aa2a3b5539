"""What a rule's server half is handed: each client's :class:`Update`, and a :class:`Server` to combine them with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from fedlit import tree
from fedlit.errors import FedlitError
from fedlit.tree import Tree

NO_DATA = (
    "this rule validates on the server, which has no data: set data.server_records, or write `server_dataset` in a "
    "data module of your own"
)


class Sealed(FedlitError):
    """One client's tensors were read where only sums may be (secure aggregation, central differential privacy)."""


class Update:
    """What one client sent.

    Args:
        client: Its name.
        weight: Its weight in the mean.
        read: Gives the tensors; called at each access, so that many updates need not be in memory at once.
        metrics: Scalars that came along, for instance ``train_loss``.
        sealed: Only :meth:`Server.mean` may read the tensors.
    """

    def __init__(
        self,
        client: str,
        weight: float,
        read: Callable[[], Tree],
        metrics: Mapping[str, float] | None = None,
        sealed: bool = False,
    ) -> None:
        self.client, self.weight, self.metrics, self.sealed = client, weight, dict(metrics or {}), sealed
        self._read = read

    @property
    def tensors(self) -> Any:
        """The upload, a Tree.

        Raises:
            Sealed: The update is sealed.
        """
        if self.sealed:
            raise Sealed(
                f"the update of {self.client!r} is sealed, and this rule reads single updates: choose a rule that "
                "needs their mean only, or turn sealing off (the rule then trusts the server)"
            )
        return self._read()


class Server:
    """What the runtime offers to :meth:`Aggregator.aggregate`.

    Args:
        round: Index of the round, from 0.
        generator: Seeded for this round.
        losses: Of each of some models, the loss of each example of the server's own validation data, float64; None
            where it has none.
        num_clients: How many clients there are, in this round or not; None where that is unknown.
        scaling: What each LoRA layer multiplies BA by, ``alpha / r`` or ``alpha / sqrt(r)``, by the layer's name.
    """

    def __init__(
        self,
        round: int,  # noqa: A002
        generator: torch.Generator,
        losses: Callable[[Iterable[Tree]], Sequence[torch.Tensor]] | None = None,
        num_clients: int | None = None,
        scaling: Mapping[str, float] | None = None,
    ) -> None:
        self.round, self.generator, self.num_clients, self._losses = round, generator, num_clients, losses
        self.scaling, self.logged = dict(scaling or {}), dict[str, float]()

    def log(self, name: str, value: float) -> None:
        """Report a figure of this round: a row of ``metrics.csv`` with the client ``server``, and ``train/<name>``."""
        self.logged[name] = float(value)

    def mean(self, updates: Sequence[Update], weights: Sequence[float] | None = None) -> Any:
        """The weighted mean of the uploads, summed in float64 in client-name order and cast back once.

        Args:
            updates: Any order; the result does not depend on it.
            weights: One for each update, in their order; by default each update's own.

        Raises:
            FedlitError: No updates, the same client twice, a negative or non-finite weight, no weight at all, or an
                update with other names, shapes or dtypes than the rest, or that is not finite.
            Sealed: Own weights were given for sealed updates.
        """
        if weights is not None and any(u.sealed for u in updates):
            raise Sealed("weights chosen at the server need to look at single updates, and these are sealed")
        own = [u.weight for u in updates] if weights is None else [float(x) for x in weights]
        pairs = sorted(zip(updates, own, strict=True), key=lambda pair: pair[0].client)
        _each_once([u for u, _ in pairs])
        total = sum(w for _, w in pairs)
        if any(not 0 <= w < float("inf") for _, w in pairs) or not total > 0:
            raise FedlitError(f"the weights {own} of this round's updates must be finite, not negative, with a sum > 0")
        accumulated: Any = None
        first: Any = None
        for update, weight in pairs:
            got = update._read()
            first = got if first is None else _alike(update.client, got, first)
            term = tree.map(lambda x, share=weight / total: share * x.double(), got)
            accumulated = term if accumulated is None else tree.add(accumulated, term)
        if not all(torch.isfinite(leaf).all() for leaf in tree.leaves(accumulated)):
            for update, _ in pairs:
                _finite(update.client, update._read())
        # The mean of whole numbers that agree is that number, which summing shares may miss by an ulp.
        return tree.map(lambda a, x: (a if x.is_floating_point() else a.round()).to(x.dtype), accumulated, first)

    def gather(self, updates: Sequence[Update]) -> dict[str, Any]:
        """Every upload by client name, in that order, for rules that compare single updates.

        Raises:
            FedlitError: As :meth:`mean`.
            Sealed: The updates are sealed.
        """
        ordered = sorted(updates, key=lambda u: u.client)
        _each_once(ordered)
        out: dict[str, Any] = {}
        for update in ordered:
            got = _finite(update.client, update.tensors)
            out[update.client] = _alike(update.client, got, next(iter(out.values()), got))
        return out

    def validate(self, params: Tree) -> float:
        """Mean loss of ``params`` on the server's validation data.

        Raises:
            FedlitError: The data module has no server data.
        """
        return float(self.losses(params).mean())

    def losses(self, params: Tree) -> torch.Tensor:
        """Loss of ``params`` on each example of the server's validation data, float64, in the data's order.

        Raises:
            FedlitError: The data module has no server data.
        """
        return self.losses_of([params])[0]

    def losses_of(self, models: Iterable[Tree]) -> list[torch.Tensor]:
        """As :meth:`losses`, of several models, which may share a pass over the backbone.

        Args:
            models: Read as they are needed, so that not all have to be in memory at once.

        Raises:
            FedlitError: The data module has no server data.
        """
        if self._losses is None:
            raise FedlitError(NO_DATA)
        tables = list(self._losses(models))
        if any(not len(table) for table in tables):
            raise FedlitError(
                "no example of the server's validation data has anything to learn from, so there is no loss on them: "
                "give it others (of documents whose answers are cut off: raise model.max_length)"
            )
        return tables


def _each_once(updates: Sequence[Update]) -> None:
    if not updates:
        raise FedlitError("no client sent an update in this round: there is nothing to average")
    names = [u.client for u in updates]
    if len(set(names)) != len(names):
        raise FedlitError(f"client {next(n for n in names if names.count(n) > 1)!r} counts twice in this round")


def _alike(client: str, got: Tree, first: Tree) -> Any:
    a, b = tree.flatten(got), tree.flatten(first)
    for path in sorted(a.keys() | b.keys()):
        if path not in a or path not in b:
            raise FedlitError(f"the update of {client!r} differs from others in {path!r}, which not all have")
        if a[path].shape != b[path].shape or a[path].dtype != b[path].dtype:
            seen, wanted = (f"{t.dtype}{list(t.shape)}" for t in (a[path], b[path]))
            raise FedlitError(f"the update of {client!r} has {path} as {seen}, others as {wanted}")
    return got


def _finite(client: str, got: Tree) -> Any:
    for path, leaf in tree.flatten(got).items():
        if not torch.isfinite(leaf).all():
            raise FedlitError(f"the update of {client!r} is not finite in {path}")
    return got

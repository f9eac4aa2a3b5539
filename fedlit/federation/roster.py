"""Who takes part in a run: what all sites said of themselves, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedlit.backbones.digest import frozen_digest, frozen_tensors
from fedlit.engine.engine import Engine
from fedlit.errors import FedlitError
from fedlit.transports.base import Description

EQUAL = ("batch_size", "frozen", "initial", "trains", "versions")
"""What sites must have in common, or a mean over them would mean nothing."""
BY_CLIENT = "class_counts"
"""The one fact that each client has of its own."""


@dataclass(frozen=True)
class Roster:
    """The clients of a run, by what their sites said of them.

    Attributes:
        sites: What each site said.
    """

    sites: Sequence[Description]

    @classmethod
    def of(cls, sites: Sequence[Description]) -> Roster:
        """The roster of some sites.

        Raises:
            FedlitError: There are none, two hold a client of one name, or they differ in what must be equal; the
                clients and the field are named.
        """
        if not sites:
            raise FedlitError("no site answered: start the sites, then the server")
        seen: set[str] = set()
        first = sites[0]
        for site in sites:
            names = site.examples.keys() | site.external.keys()
            if twice := seen & names:
                raise FedlitError(f"client {min(twice)!r} is at two sites: give each client a name of its own")
            seen |= names
            for field in EQUAL:
                mine, theirs = getattr(first, field), getattr(site, field)
                if mine != theirs:
                    raise FedlitError(
                        f"sites differ in {field}: {_names(first)} has {mine}, {_names(site)} has {theirs}: bring all "
                        "to the same"
                    )
            if _shared(first.facts) != _shared(site.facts):
                raise FedlitError(
                    f"sites differ in what their data are: {_names(first)} has {_shared(first.facts)}, {_names(site)} "
                    f"has {_shared(site.facts)}: give all the same classes or schema"
                )
        return cls(tuple(sites))

    def check(self, engine: Engine) -> None:
        """Refuse sites whose network is not the server's.

        Raises:
            FedlitError: The frozen values, the initial values or what trains differ; both digests are named.
        """
        site, initial = self.sites[0], dict(engine.initial())
        for what, theirs, mine in (
            ("frozen weights", site.frozen, frozen_digest(frozen_tensors(engine.task))),
            ("initial values", site.initial, frozen_digest(initial)),
        ):
            if theirs != mine:
                raise FedlitError(
                    f"the {what} of the server's network are other than the sites': {mine} here, {theirs} at "
                    f"{_names(site)}: give both the same backbone, adapter and seed"
                )

    @cached_property
    def clients(self) -> tuple[str, ...]:
        """Names of all clients, in order."""
        names = [client for site in self.sites for client in site.examples]
        return tuple(names if len(self.sites) == 1 else sorted(names))

    @cached_property
    def examples(self) -> Mapping[str, Mapping[str, int]]:
        """Examples of each client, by split."""
        return {client: counts for site in self.sites for client, counts in site.examples.items()}

    def able(self, kind: str) -> set[str]:
        """Clients whose site does jobs of a kind."""
        return {client for site in self.sites if kind in site.jobs for client in site.examples}

    @property
    def external(self) -> Mapping[str, int]:
        """Test examples of each external site."""
        return {name: count for site in self.sites for name, count in site.external.items()}

    @property
    def batch_size(self) -> int:
        """Examples in a training batch."""
        return self.sites[0].batch_size

    @property
    def frozen(self) -> str:
        """Digest of the network's frozen values."""
        return self.sites[0].frozen

    @property
    def facts(self) -> dict[str, Any]:
        """What a task takes from data besides examples."""
        own = {name: n for site in self.sites for name, n in site.facts.get(BY_CLIENT, {}).items()}
        return {**self.sites[0].facts, **({BY_CLIENT: own} if own else {})}

    @property
    def data(self) -> dict[str, Any]:
        """What a resume must find again of the data."""
        if len(self.sites) == 1:
            return dict(self.sites[0].data)
        return {_names(site): dict(site.data) for site in self.sites}

    @property
    def simulated(self) -> bool:
        """Whether any site's data are simulated or a stand-in."""
        return any(site.simulated for site in self.sites)

    @property
    def notes(self) -> list[str]:
        """What a reader of scores must know of the data."""
        return list(dict.fromkeys(note for site in self.sites for note in site.notes))

    def partition(self) -> dict[str, Any]:
        """Contents of ``partition.json`` where records lie elsewhere: counts alone."""
        return {
            "simulated": self.simulated,
            "clients": {client: {"examples": dict(self.examples[client])} for client in self.clients},
        }


def _names(site: Description) -> str:
    return ", ".join(site.examples)


def _shared(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != BY_CLIENT}

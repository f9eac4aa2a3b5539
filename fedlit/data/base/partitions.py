"""Who holds which records: partitions by what the data say (subject, site, kind, a file) and their combinations.

A partition is a frozen dataclass; ``assign`` is a pure function of the records and a seed. Client names are safe as
file names, and sort in their natural order. Random skews are in ``fedlit.data.base.skews``.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fedlit import seeds
from fedlit.data.base.records import Item, natural, safe_name
from fedlit.data.base.table_faults import no_column
from fedlit.data.base.tables import read_rows
from fedlit.errors import FedlitError

Assignment = dict[str, list[int]]
"""Client name to indices into the records."""


class Partition(ABC):
    """Assigns records to clients."""

    @abstractmethod
    def assign(self, records: Sequence[Item], seed: int) -> Assignment:
        """Client name to indices into ``records``, ascending; every client has at least one.

        Raises:
            FedlitError: Where these records cannot be partitioned so.
        """

    def config(self) -> dict[str, Any]:
        """Class name and fields, as JSON can hold them."""
        out: dict[str, Any] = {"class": type(self).__name__}
        for name, value in vars(self).items():
            value = value.config() if isinstance(value, Partition) else value
            out[name] = str(value) if isinstance(value, Path) else value
        return out


@dataclass(frozen=True)
class BySubject(Partition):
    """One client per subject, or the subjects in order over so many clients.

    Args:
        clients: None for one a subject. 20 clients for 30 subjects gives 10 with two and 10 with one (the first
            strategy of arXiv 2502.09744).
    """

    clients: int | None = None

    def assign(self, records: Sequence[Item], seed: int) -> Assignment:
        groups = group(records, lambda record: record.subject)
        if self.clients is None:
            return named("subject", groups)
        demand(self.clients, len(groups), "subjects")
        return numbered([sum(part, []) for part in deal(list(groups.values()), self.clients)])


@dataclass(frozen=True)
class BySite(Partition):
    """One client per site.

    Args:
        clients: Keep only so many sites, the ones with most records; None for all.
        min_records: Leave out sites with fewer records.
    """

    clients: int | None = None
    min_records: int = 1

    def assign(self, records: Sequence[Item], seed: int) -> Assignment:
        groups = {
            site: indices
            for site, indices in group(records, lambda record: record.site).items()
            if len(indices) >= self.min_records
        }
        if not groups:
            raise FedlitError(f"no site has min_records = {self.min_records} records: lower it")
        if self.clients is not None:
            demand(self.clients, len(groups), f"sites with at least {self.min_records} record(s)")
            kept = sorted(groups, key=lambda site: -len(groups[site]))[: self.clients]
            groups = {site: groups[site] for site in kept}
        return named("site", groups)


@dataclass(frozen=True)
class IID(Partition):
    """Subjects (or records) dealt out at random, as evenly as their number allows.

    Args:
        clients: How many.
        unit: ``"subject"`` keeps all records of a subject at one client, ``"record"`` does not.
    """

    clients: int
    unit: Literal["subject", "record"] = "subject"

    def assign(self, records: Sequence[Item], seed: int) -> Assignment:
        units = list(group(records, lambda r: r.subject if self.unit == "subject" else r.id).values())
        demand(self.clients, len(units), f"{self.unit}s")
        order = seeds.numpy_generator(seed, "IID", self.unit).permutation(len(units))
        return numbered([sum(part, []) for part in deal([units[i] for i in order], self.clients)])


@dataclass(frozen=True)
class Modality(Partition):
    """Clients that hold different kinds of signal.

    Of the inner partition's clients the last ones keep only ``kind``, the others only ``other``; what a client does not
    keep is left out (19 ECG clients and one ICG client: the third strategy of arXiv 2502.09744).

    Args:
        partition: Inner partition.
        kind: What the last clients keep.
        clients: How many keep ``kind``.
        other: What the other clients keep; None for every kind but ``kind``.
    """

    partition: Partition
    kind: str
    clients: int = 1
    other: str | None = None

    def assign(self, records: Sequence[Item], seed: int) -> Assignment:
        inner = self.partition.assign(records, seed)
        names = sorted(inner)
        if not 0 < self.clients < len(names):
            raise FedlitError(f"Modality.clients is {self.clients}: give 1 to {len(names) - 1} of {len(names)} clients")
        out = {}
        for position, name in enumerate(names):
            last = position >= len(names) - self.clients
            wanted = self.kind if last else self.other or f"any kind but {self.kind}"
            keep = [i for i in inner[name] if self._keeps(records[i].kind, last)]
            if not keep:
                kinds = sorted({records[i].kind for i in inner[name]})
                raise FedlitError(f"client {name!r} has no record of {wanted!r} (only {kinds}): read that kind too")
            out[name] = keep
        return out

    def _keeps(self, kind: str, last: bool) -> bool:
        if last:
            return kind == self.kind
        return kind != self.kind if self.other is None else kind == self.other


@dataclass(frozen=True)
class FileList(Partition):
    """Records to clients as a file says.

    Args:
        path: A csv file with the columns ``record`` and ``client``, or a JSON object ``{record id: client}``. Ids of
            records that were not read are passed over.
    """

    path: str

    def assign(self, records: Sequence[Item], seed: int) -> Assignment:
        table = self._table()
        absent = [record.id for record in records if record.id not in table]
        if absent:
            raise FedlitError(
                f"{self.path}: no client for {len(absent)} of {len(records)} records, first {absent[0]!r}: "
                f"add them, or leave them out by data.exclude"
            )
        nobody = [record.id for record in records if not table[record.id]]
        if nobody:
            raise FedlitError(f"{self.path}: the client of record {nobody[0]!r} is empty: name one")
        return named("client", group(records, lambda record: table[record.id]))

    def _table(self) -> dict[str, str]:
        path = Path(self.path)
        if path.suffix.lower() != ".json":
            rows = read_rows(path, "record")
            there = list(next(iter(rows.values())))
            if "client" not in there:
                raise FedlitError(no_column(path, "client", there, "name the column so"))
            return {record: row["client"] for record, row in rows.items()}
        try:
            pairs = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=tuple)
        except OSError as error:
            raise FedlitError(f"{path}: {error.strerror}: give the file that assigns records to clients") from error
        except ValueError as error:
            raise FedlitError(f"{path}: not JSON ({error}): write an object of record id to client") from error
        if not isinstance(pairs, tuple) or any(isinstance(client, list | tuple) for _, client in pairs):
            raise FedlitError(f"{path}: is not a flat object: write an object of record id to client")
        twice = [name for name, count in Counter(record for record, _ in pairs).items() if count > 1]
        if twice:
            raise FedlitError(f"{path}: record {twice[0]!r} is listed more than once: keep one")
        return {record: "" if client is None else str(client) for record, client in pairs}


@dataclass(frozen=True)
class Nested(Partition):
    """A partition inside each client of another; names are ``outer-inner``.

    Args:
        outer: Applied first.
        inner: Applied to the records of each outer client.
    """

    outer: Partition
    inner: Partition

    def assign(self, records: Sequence[Item], seed: int) -> Assignment:
        out = {}
        for outer, indices in self.outer.assign(records, seed).items():
            mine = [records[i] for i in indices]
            for inner, chosen in self.inner.assign(mine, seeds.key(seed, "Nested", outer)).items():
                out[f"{outer}-{inner}"] = [indices[i] for i in chosen]
        return out


def statistics(records: Sequence[Item], assignment: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Sizes and mixes of the clients.

    Returns:
        ``sizes`` (records per client: min, median, max and coefficient of variation), and per attribute (``label``,
        ``kind``, ``site``) that takes more than one value the counts per client and ``total_variation``: the mean over
        clients of the total variation distance between the client's mix and that of all.
    """
    sizes = np.array([len(indices) for indices in assignment.values()])
    out: dict[str, Any] = {
        "sizes": {
            "min": int(sizes.min()),
            "median": float(np.median(sizes)),
            "max": int(sizes.max()),
            "variation": round(float(sizes.std() / sizes.mean()), 4),
        }
    }
    for name in ("label", "kind", "site"):
        counts = {c: Counter(str(getattr(records[i], name)) for i in indices) for c, indices in assignment.items()}
        total = Counter(str(getattr(records[i], name)) for indices in assignment.values() for i in indices)
        if len(total) < 2:
            continue
        share = {value: count / total.total() for value, count in total.items()}
        distance = [  # over a client's own values: there may be as many values as clients
            (1 + sum(abs(n / own.total() - share[value]) - share[value] for value, n in own.items())) / 2
            for own in counts.values()
        ]
        out[name] = {
            "total_variation": round(float(np.mean(distance)), 4),
            "counts": {client: dict(sorted(own.items())) for client, own in counts.items()},
        }
    return out


def group(records: Sequence[Item], by: Callable[[Item], str]) -> dict[str, list[int]]:
    """Indices of the records by an attribute, in natural order of its values."""
    found: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        found[by(record)].append(i)
    return {name: found[name] for name in sorted(found, key=natural)}


def deal(items: Sequence[list[int]], clients: int) -> list[list[list[int]]]:
    """Items in order over clients; the first ones get one more where they do not divide."""
    whole, more = divmod(len(items), clients)
    edges = [client * whole + min(client, more) for client in range(clients + 1)]
    return [list(items[start:stop]) for start, stop in zip(edges, edges[1:], strict=False)]


def demand(clients: int, available: int, what: str) -> None:
    """Refuse a number of clients that cannot each get something."""
    if clients < 1:
        raise FedlitError(f"a partition over {clients} clients: give at least 1")
    if clients > available:
        raise FedlitError(f"{clients} clients wanted, but there are only {available} {what}: ask for fewer clients")


def numbered(groups: Iterable[Sequence[int]]) -> Assignment:
    """Groups under the names client-01, client-02, ..."""
    members = [sorted(indices) for indices in groups]
    width = len(str(len(members)))
    return {f"client-{i:0{width}d}": indices for i, indices in enumerate(members, 1)}


def named(prefix: str, groups: Mapping[str, Sequence[int]]) -> Assignment:
    """Groups under their own names, made safe and zero-padded where they are whole numbers."""
    whole = [name for name in groups if name.isdecimal()]
    width = max((len(name) for name in whole), default=0)
    out: Assignment = {}
    for name, indices in groups.items():
        safe = safe_name(name.zfill(width) if name.isdecimal() else name)
        safe = safe if safe.startswith(f"{prefix}-") else f"{prefix}-{safe}"
        if safe in out:
            raise FedlitError(f"{prefix} {name!r} and another one are both named {safe!r} as files: rename one")
        out[safe] = sorted(indices)
    return dict(sorted(out.items()))


def clients_named(partition: Partition) -> int | None:
    """How many clients a partition, or one inside it, asks for."""
    if isinstance(partition, Nested):
        counts = clients_named(partition.outer), clients_named(partition.inner)
        return prod(count or 1 for count in counts) if any(counts) else None
    inner = getattr(partition, "partition", None)
    found: int | None = clients_named(inner) if inner is not None else getattr(partition, "clients", None)
    return found

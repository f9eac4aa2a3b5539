"""Which stretch of which record is for training, validation and test, per client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedlit import seeds
from fedlit.data.base.records import SPLITS, Record, natural
from fedlit.errors import FedlitError

SplitRule = Literal["subject", "record", "time", "fold"]
LONG_SECONDS = 60.0
"""From this length on, parity mode cuts a recording in time (30-subject set: 600 s); below, it deals out whole records
(PTB-XL: 10 s)."""


@dataclass(frozen=True)
class Part:
    """Samples ``[start, stop)`` of a record, by its index."""

    record: int
    start: int
    stop: int


Parts = dict[str, list[Part]]
"""Split name to parts."""


def split_clients(
    records: Sequence[Record],
    assignment: Mapping[str, Sequence[int]],
    rule: SplitRule,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> dict[str, Parts]:
    """Split every client's records.

    ``subject`` and ``record`` deal out whole subjects or records at random; a subject that several clients hold is on
    the same side everywhere. ``time`` cuts each record, stretches of one as a whole, into train, val, test, in this
    order, by shares of what was recorded, pauses aside. ``fold`` is the source's.

    Raises:
        FedlitError: Where a client's split cannot be made; it names the client and the mend.
    """
    if rule == "time":
        cuts = (1 - val_fraction - test_fraction, 1 - test_fraction)
        return {client: _by_time(records, indices, cuts) for client, indices in assignment.items()}
    if rule == "fold":
        return {c: _by_fold(records, indices, c, val_fraction, test_fraction) for c, indices in assignment.items()}
    sides: dict[str, str] = {}
    unit = [record.subject if rule == "subject" else record.id for record in records]
    names = {client: sorted({unit[i] for i in indices}, key=natural) for client, indices in assignment.items()}
    # Small clients choose first: in a large one there is room for subjects that are bound already.
    for client in sorted(assignment, key=lambda c: (len(names[c]), c)):
        sides |= _deal(names[client], sides, client, rule, val_fraction, test_fraction, seed)
    return {client: _whole(records, indices, lambda i: sides[unit[i]]) for client, indices in assignment.items()}


def held_back(records: Sequence[Record], count: int, seed: int) -> tuple[list[int], set[int]]:
    """Which records the server holds, and which no client may have: all of the same subjects.

    Subjects are drawn at random, each from a site with the most of them left.

    Raises:
        FedlitError: Nothing would be left for clients.
    """
    if not count:
        return [], set()
    by_site: dict[str, list[str]] = {}
    for record in sorted(records, key=lambda record: (natural(record.site), natural(record.subject))):
        if record.subject not in by_site.setdefault(record.site, []):
            by_site[record.site].append(record.subject)
    generator = seeds.numpy_generator(seed, "server records")
    sites = [by_site[site] for site in sorted(by_site, key=natural)]
    drawn: set[str] = set()
    held: set[int] = set()
    while len(held) < count and any(sites):
        most = max(len(subjects) for subjects in sites)
        largest = [subjects for subjects in sites if len(subjects) == most]
        subjects = largest[int(generator.integers(len(largest)))]
        drawn.add(subjects.pop(int(generator.integers(most))))
        held = {i for i, record in enumerate(records) if record.subject in drawn}
    if len(held) == len(records):
        raise FedlitError(f"data.server_records is {count} of {len(records)}, which leaves none for clients: lower it")
    return sorted(held)[:count], held


def split_as_published(
    records: Sequence[Record], indices: Sequence[int], client: str, rule: SplitRule, seed: int
) -> tuple[Parts, str]:
    """60 % train and 40 % test, as the code of arXiv 2502.09744 splits, and which way was taken.

    Long recordings are cut in time; clients with several short ones get 60 % of the records, at random.
    ``rule`` ``"time"`` or ``"record"`` forces one way.
    """
    seconds = min(records[i].seconds for i in indices)
    by_record = rule == "record" or (rule != "time" and len(indices) > 1 and seconds < LONG_SECONDS)
    if not by_record:
        return _by_time(records, indices, (0.6, 0.6)), "time 60/40"
    if len(indices) < 2:
        raise FedlitError(f"client {client!r} has 1 record: a 60/40 split by record needs 2; set data.split to time")
    order = [indices[i] for i in seeds.numpy_generator(seed, "parity split", client).permutation(len(indices))]
    train = set(order[: min(max(round(0.6 * len(order)), 1), len(order) - 1)])
    return _whole(records, indices, lambda i: "train" if i in train else "test"), "records 60/40"


def _whole(records: Sequence[Record], indices: Sequence[int], side: Callable[[int], str | None]) -> Parts:
    parts: Parts = {split: [] for split in SPLITS}
    for i in indices:
        parts[side(i) or "train"].append(Part(i, 0, len(records[i].values)))
    return parts


def _by_time(records: Sequence[Record], indices: Sequence[int], cuts: tuple[float, float]) -> Parts:
    parts: Parts = {split: [] for split in SPLITS}
    wholes: dict[str, list[int]] = {}
    for i in indices:
        wholes.setdefault(records[i].part_of or records[i].id, []).append(i)
    for stretches in wholes.values():
        lengths = [_recorded(records[i]) for i in stretches]
        total, before = sum(lengths), 0
        # The small shift keeps 0.6 * 100 = 60.00000000000001 and 0.15 + 0.25 from moving a cut by a sample.
        edges = [0, *(int(total * cut + 1e-6) for cut in cuts), total]
        for i, length in zip(stretches, lengths, strict=True):
            own = [_sample(records[i], min(max(edge - before, 0), length)) for edge in edges]
            before += length
            for split, start, stop in zip(SPLITS, own, own[1:], strict=False):
                if stop > start:
                    parts[split].append(Part(i, start, stop))
    return parts


def _recorded(record: Record) -> int:
    """Samples without those of pauses."""
    return len(record.values) - int(np.diff(record.pauses, axis=1).sum())


def _sample(record: Record, recorded: int) -> int:
    """The sample before which so many were recorded; the end of the record where all were."""
    if recorded == _recorded(record):
        return len(record.values)
    lengths = np.diff(record.pauses, axis=1)[:, 0]
    before = record.pauses[:, 0] - np.cumsum(lengths) + lengths
    return recorded + int(lengths[before < recorded].sum())


def _by_fold(
    records: Sequence[Record], indices: Sequence[int], client: str, val_fraction: float, test_fraction: float
) -> Parts:
    for i in indices:
        if records[i].fold is None:
            raise FedlitError(f"record {records[i].id!r} has no fold: set data.split to subject, record or time")
    # Without a validation part the source's validation fold is training data, not lost.
    away = {"val"} if val_fraction == 0 else set()
    parts = _whole(records, indices, lambda i: "train" if records[i].fold in away else records[i].fold)
    wanted = [split for split, share in zip(SPLITS, (1, val_fraction, test_fraction), strict=True) if share]
    for split in wanted:
        if not parts[split]:
            raise FedlitError(
                f"client {client!r} has no record in the source's {split} fold ({len(indices)} records): "
                f"set data.split to subject or record, or use a partition with fewer, larger clients"
            )
    return parts


def _deal(
    names: Sequence[str],
    bound: Mapping[str, str],
    client: str,
    rule: str,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> dict[str, str]:
    """Side of each of a client's subjects (or records); those in ``bound`` keep theirs."""
    shares = {"val": val_fraction, "test": test_fraction}
    need = 1 + sum(share > 0 for share in shares.values())
    mend = "set data.split to time, or use a partition with fewer, larger clients"
    if len(names) < need:
        raise FedlitError(f"client {client!r} has {len(names)} {rule}(s), a split by {rule} needs {need}: {mend}")
    quota = {side: max(1, round(share * len(names))) if share > 0 else 0 for side, share in shares.items()}
    while sum(quota.values()) > len(names) - 1:
        quota[max(quota, key=lambda side: quota[side])] -= 1
    quota["train"] = len(names) - sum(quota.values())
    sides = {name: bound[name] for name in names if name in bound}
    free = [name for name in names if name not in bound]
    order = [free[i] for i in seeds.numpy_generator(seed, "split", client).permutation(len(free))]
    for name in order:
        left = {
            side: quota[side] - list(sides.values()).count(side) for side in ("test", "val", "train") if quota[side]
        }
        empty = [side for side in left if side not in sides.values()]
        sides[name] = empty[0] if empty else max(left, key=lambda side: left[side])
    for side, share in (("train", 1.0), *shares.items()):
        if share > 0 and side not in sides.values():
            raise FedlitError(
                f"client {client!r} shares its {rule}s with other clients so that none is left for {side}: {mend}"
            )
    return sides

"""External sites: they take no part in a run, and the global model is scored on them at its end."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from fedlit.data.base.names import few
from fedlit.data.base.partitions import group, named
from fedlit.data.base.records import Item
from fedlit.errors import FedlitError

ItemT = TypeVar("ItemT", bound=Item)


def set_apart(records: Sequence[ItemT], patterns: Sequence[str]) -> tuple[list[ItemT], dict[str, list[ItemT]]]:
    """Records of the sites that take part, and those of external sites by the name of the site's client.

    Args:
        records: All that can be used.
        patterns: Of external sites: names as the data have them, or as clients have them (``site-b*``).

    Raises:
        FedlitError: A pattern names no site, which would then take part; or nothing is left to train on.
    """
    by_site = group(records, lambda record: record.site)
    clients = {site: next(iter(named("site", {site: []}))) for site in by_site}
    matched = {p: {s for s in by_site if _is(s, p) or _is(clients[s], p)} for p in patterns}
    idle = [pattern for pattern, sites in matched.items() if not sites]
    if idle:
        raise FedlitError(
            f"data.external_sites: no site is named like {idle[0]!r}; there are {few(list(by_site))}: mend it, or "
            "leave it out"
        )
    outside = set().union(*matched.values())
    if len(outside) == len(by_site):
        raise FedlitError(
            f"data.external_sites names all sites ({few(list(by_site))}), so that none is left to train on: leave one "
            "out of it"
        )
    held = named("site", {site: indices for site, indices in by_site.items() if site in outside})
    kept = [record for record in records if record.site not in outside]
    return kept, {name: [records[i] for i in indices] for name, indices in held.items()}


def without_overlap(
    inside: Sequence[ItemT], outside: dict[str, list[ItemT]], likeness: Callable[[ItemT], set[Hashable]]
) -> tuple[dict[str, list[ItemT]], list[ItemT]]:
    """External records without those that are like one that takes part, and those.

    Args:
        inside: Records that take part, or that the server holds.
        outside: Records by external site.
        likeness: What no external record may have in common with one that takes part: its subject, its content.

    Raises:
        FedlitError: Nothing is left of a site.
    """
    known = set[Hashable]().union(*(likeness(record) for record in inside))
    alike = [record for own in outside.values() for record in own if likeness(record) & known]
    ids = {record.id for record in alike}
    kept = {name: [record for record in own if record.id not in ids] for name, own in outside.items()}
    for name, own in outside.items():
        if not kept[name]:
            raise FedlitError(
                f"data.external_sites: all {len(own)} record(s) of {name!r} are of subjects, or copies of records, "
                "that sites in training hold: rename subjects that are others (data.rename), or leave the site out"
            )
    return kept, alike


def _is(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)

"""Which clients are worked on together."""

from __future__ import annotations

from collections.abc import Mapping


def grouped(work: Mapping[str, int], at_once: int) -> list[tuple[int, str]]:
    """Clients in the order in which they are worked on, each with the index of its group.

    Groups hold ``at_once`` clients of like work, so that few wait for others; those of most work come first. They hang
    on the clients and their work alone.

    Args:
        work: Of each client, for instance optimizer steps.
        at_once: Clients in a group.
    """
    ordered = sorted(work, key=lambda client: (-work[client], client))
    return [(place // at_once, client) for place, client in enumerate(ordered)]


def cohort_size(wanted: int | float | None, available: int) -> int:
    """How many of ``available`` clients take part in a round.

    Args:
        wanted: A number or a share; None: all.
        available: How many there are.
    """
    if wanted is None:
        return available
    return min(available, max(1, round(wanted * available)) if isinstance(wanted, float) else wanted)

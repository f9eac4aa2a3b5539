"""Clients dealt over the ranks of one Fabric job; every rank ends with all replies, so all do the same next."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import lightning as L  # noqa: N812
import torch

from fedlit.errors import FedlitError
from fedlit.transports.base import Job, Reply, Transport, Wrapper
from fedlit.transports.wire import framed, pack, unpack


class RankTransport(Wrapper):
    """Each rank runs the jobs of its own groups, then all replies are gathered.

    Groups are the same for any number of ranks, and so is what comes of them. The replies travel as JSON and raw bytes.

    Args:
        inner: Runs this rank's share.
        fabric: Launched.
    """

    def __init__(self, inner: Transport, fabric: L.Fabric) -> None:
        super().__init__(inner)
        self.fabric = fabric

    def run(self, jobs: Iterable[Job], deadline_s: float | None = None) -> Iterator[Reply]:
        """All replies, on every rank.

        Raises:
            FedlitError: On every rank, what one rank met.
        """
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        mine = (job for job in jobs if rank_of(job.group, ranks) == rank)
        if ranks == 1:
            yield from self.inner.run(mine, deadline_s)
            return
        try:
            blob = pack(self.inner.run(mine, deadline_s))
        except FedlitError as error:
            blob = framed({"error": str(error)})
        for each in gathered(blob, self.fabric):
            yield from unpack(each)


def gathered(blob: bytes, fabric: L.Fabric) -> list[bytes]:
    """Bytes of every rank, in the order of the ranks, on every rank."""
    # Not Fabric's all_gather: it takes part in autograd, and by a function that PyTorch has deprecated.
    data = torch.frombuffer(bytearray(blob), dtype=torch.uint8).to(fabric.device)
    ranks = range(fabric.world_size)
    sizes = [torch.zeros(1, dtype=torch.int64, device=data.device) for _ in ranks]
    torch.distributed.all_gather(sizes, torch.tensor([len(data)], device=data.device))
    longest = max(int(size) for size in sizes)
    rows = [torch.zeros(longest, dtype=torch.uint8, device=data.device) for _ in ranks]
    torch.distributed.all_gather(rows, torch.nn.functional.pad(data, (0, longest - len(data))))
    return [bytes(row[: int(size)].cpu().numpy()) for row, size in zip(rows, sizes, strict=True)]


def share_rows(rows: dict[tuple[Any, ...], tuple[Any, ...]], fabric: L.Fabric) -> None:
    """Add to what this rank has noted what the others have, by key; keys and values are JSON's."""
    if fabric.world_size > 1:
        for blob in gathered(json.dumps([*rows.items()]).encode(), fabric):
            rows.update((tuple(key), tuple(value)) for key, value in json.loads(blob))


def rank_of(group: int, ranks: int) -> int:
    """Who works on a group: there and back over the ranks, so that those end together that began with more."""
    turn, place = divmod(group, ranks)
    return ranks - 1 - place if turn % 2 else place

"""What ranks tell each other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fedlit.errors import FedlitError
from fedlit.transports import ranks
from fedlit.transports.base import Job, Reply


class Clients:
    """Answers jobs, and refuses one client."""

    def __init__(self, refused=None):
        self.refused = refused

    def run(self, jobs, deadline_s=None):
        for job in jobs:
            if job.client == self.refused:
                raise FedlitError(f"client {job.client!r} has no training examples")
            yield Reply(job.ticket, job.client, job.client.encode())


@pytest.fixture
def two_ranks(monkeypatch):
    """Runs something on each of two ranks, of which each gets what both have sent."""

    def run(each):
        sent: dict[int, bytes] = {}

        class Waits(Exception):  # noqa: N818 - the other rank has not sent yet
            pass

        def gathered(blob, fabric):
            sent[fabric.global_rank] = blob
            if len(sent) < 2:
                raise Waits
            return [sent[0], sent[1]]

        monkeypatch.setattr(ranks, "gathered", gathered)
        fabrics = [SimpleNamespace(global_rank=rank, world_size=2) for rank in (0, 1)]
        out = []
        for fabric in (fabrics[0], fabrics[1], fabrics[0]):
            try:
                out.append(each(fabric))
            except Waits:
                continue
            except FedlitError as error:
                out.append(error)
        return out[::-1]  # of rank 0, of rank 1

    return run


JOBS = [Job(f"ticket-{i}", f"client-{i}", 0, "train", b"", group=i) for i in range(4)]


def test_each_rank_gets_the_replies_of_both(two_ranks):
    first, second = two_ranks(lambda fabric: list(ranks.RankTransport(Clients(), fabric).run(iter(JOBS))))
    assert first == second
    assert sorted(reply.client for reply in first) == [job.client for job in JOBS]


@pytest.mark.parametrize("refused", ["client-0", "client-1"])
def test_an_error_of_one_rank_is_that_of_both(two_ranks, refused):
    ended = two_ranks(lambda fabric: list(ranks.RankTransport(Clients(refused), fabric).run(iter(JOBS))))
    assert [str(error) for error in ended] == [f"client {refused!r} has no training examples"] * 2


def test_what_each_rank_has_noted_is_known_to_both(two_ranks):
    def share(fabric):
        rows = {("both", None): (1, 2), (f"rank {fabric.global_rank}", 7): (3, True)}
        ranks.share_rows(rows, fabric)
        return rows

    first, second = two_ranks(share)
    assert first == second == {("both", None): (1, 2), ("rank 0", 7): (3, True), ("rank 1", 7): (3, True)}


def test_one_rank_asks_no_other():
    rows = {("a", 1): (2,)}
    ranks.share_rows(rows, SimpleNamespace(global_rank=0, world_size=1))
    assert rows == {("a", 1): (2,)}

"""Who trains, when, how long and with whom: from the rule, the clients and the settings alone."""

from __future__ import annotations

import pytest

from fedlit.aggregators import Centralized, FedAvg, MetaFed, Stage, Stages, ZeroShot
from fedlit.cli.ranks import groups
from fedlit.federation.plan import RoundPlan
from fedlit.runs.settings import RunSettings, share_of

NAMES = [f"c{i}" for i in range(8)]
EXAMPLES = {name: {"train": 10 * (i + 1), "val": 5, "test": 6} for i, name in enumerate(NAMES)}


def plan(rule, **settings) -> RoundPlan:
    return RoundPlan(rule, NAMES, RunSettings(**settings), EXAMPLES, 4)


def test_a_draw_depends_on_the_seed_and_the_round_alone():
    drawn = [plan(FedAvg(), clients_per_round=3).sample(index) for index in range(5)]
    assert drawn == [plan(FedAvg(), clients_per_round=3).sample(index) for index in range(5)]
    assert drawn == [plan(FedAvg(), clients_per_round=3, local_steps=9, max_rounds=99).sample(i) for i in range(5)]
    assert all(sample == sorted({*sample}) and len(sample) == 3 for sample in drawn)
    assert len({tuple(sample) for sample in drawn}) > 1
    assert drawn != [plan(FedAvg(), clients_per_round=3, seed=1).sample(index) for index in range(5)]


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"local_steps": 7}, [7] * 8),
        ({"local_epochs": 1.0}, [3, 5, 8, 10, 13, 15, 18, 20]),
        ({"local_epochs": 0.5}, [2, 2, 4, 5, 6, 8, 9, 10]),
        ({"local_epochs": 1.0, "accumulate_grad_batches": 2}, [2, 3, 4, 5, 7, 8, 9, 10]),
    ],
)
def test_steps(settings, steps):
    assert [plan(FedAvg(), **settings).steps(name) for name in NAMES] == steps


def test_a_job_on_pooled_data_takes_the_steps_of_a_whole_round():
    assert plan(Centralized(), local_steps=7).steps("pooled") == 56
    assert plan(Centralized(), local_steps=7, clients_per_round=0.5).steps("pooled") == 28
    assert plan(Centralized()).pools
    assert not plan(FedAvg()).pools
    assert plan(ZeroShot()).rounds == 0


def test_groups_hold_like_work_and_the_most_comes_first():
    found = plan(FedAvg(), clients_at_once=3).groups(0)
    assert [name for _, name, _ in found] == NAMES[::-1]
    assert [group for group, _, _ in found] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert plan(FedAvg(), clients_at_once="auto").groups(0)[-1][0] == 7


@pytest.mark.parametrize(
    ("rule", "settings", "most"),
    [
        (FedAvg(), {}, 8),
        (FedAvg(), {"clients_at_once": 3}, 3),
        (FedAvg(), {"clients_per_round": 0.25}, 2),
        (MetaFed(), {}, 1),
        (MetaFed(), {"clients_at_once": 4}, 1),
        (Centralized(), {}, 1),
        (ZeroShot(), {}, 1),
        (Stages([Stage(MetaFed(), 3), Stage(FedAvg(), 1)]), {"max_rounds": 3}, 1),
        (Stages([Stage(MetaFed(), 3), Stage(FedAvg(), 1)]), {"max_rounds": 4}, 8),
    ],
)
def test_as_many_ranks_as_ever_have_work(rule, settings, most):
    """A rule that trains one client at a time needs one rank, whatever the number of clients."""
    made = plan(rule, **settings)
    assert made.most_groups == most
    assert made.idle(8) == 8 - most
    assert made.idle(most) == 0
    usual = {"clients_per_round": None, "clients_at_once": 1, "max_rounds": 10}
    assert groups({**usual, **settings}, [rule], NAMES) == most


def test_ranks_of_a_run_are_those_of_its_rule_with_most_groups():
    assert groups({"clients_per_round": None, "clients_at_once": 1}, [MetaFed(), FedAvg()], NAMES) == 8


@pytest.mark.parametrize(
    ("wanted", "available", "meant"), [(None, 5, 5), (3, 5, 3), (9, 5, 5), (0.5, 5, 2), (0.01, 5, 1), (1.0, 5, 5)]
)
def test_a_number_or_a_share(wanted, available, meant):
    assert share_of(wanted, available) == meant


def test_who_is_scored():
    assert plan(FedAvg(), limit_eval_clients=2).scored("val") == [(0, "c0"), (1, "c1")]
    assert [name for _, name in plan(FedAvg()).scored("train")] == NAMES[::-1]

"""A job says how many rounds there are; sites and servers of other versions are refused where that matters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import pytest
from courses import Downhill
from toys import ToyData

from fedlit import codec
from fedlit.aggregators import FedAvg
from fedlit.engine.serial import SerialEngine
from fedlit.errors import FedlitError
from fedlit.federation.jobs import Jobs
from fedlit.federation.plan import RoundPlan
from fedlit.runs.folder import RunFolder
from fedlit.runs.settings import RunSettings
from fedlit.transports import Job, LocalSites
from fedlit.transports.wire import framed, opened, pack, unpack_jobs


def sites(folder: Path, **arguments: Any) -> LocalSites:
    data = ToyData(num_clients=2)
    data.setup()
    engine = SerialEngine(Downhill(schedule="cosine", **arguments), L.Fabric(accelerator="cpu", devices=1))
    return LocalSites(data, engine, {"": FedAvg()}, RunSettings(), folder)


def job(here: LocalSites, **changes: Any) -> Job:
    down = codec.encode(dict(here.engine.initial()))
    return replace(Job("t", "client-00", 2, "train", down, members=("client-00",), steps=1), **changes)


def test_jobs_of_training_say_how_many_rounds_there_are(tmp_path):
    here = sites(tmp_path, schedule_over="run")
    settings = RunSettings(max_rounds=7)
    plan = RoundPlan(FedAvg(), here.data.clients, settings, here.describe()[0].examples, 4)
    jobs = Jobs(FedAvg(), "", plan, RunFolder(tmp_path).states, here.initial)
    made = [one for one, _ in jobs.training(FedAvg().init(here.initial), 5, plan.groups(5), None, "token")]
    assert [(one.round, one.rounds) for one in made] == [(5, 7)] * 2
    assert list(unpack_jobs(pack(made))) == made
    assert [(work.round, work.rounds) for work in map(here.assignment, made)] == [(5, 7)] * 2


def test_a_job_without_the_number_of_rounds_is_refused_where_the_rate_needs_it(tmp_path):
    """As a server of an earlier version sends it."""
    blob = pack([job(sites(tmp_path))])
    heads, end = opened(blob)
    del heads[0]["rounds"]
    (old,) = unpack_jobs(framed(heads) + blob[end:])
    (reply,) = sites(tmp_path).run([old])
    assert reply.error is None
    said = "client 'client-00' plans its learning rate over the run, and is in round 3 of 0: give the server this"
    with pytest.raises(FedlitError, match=said):
        list(sites(tmp_path, schedule_over="run").run([old]))
    (reply,) = sites(tmp_path, schedule_over="run").run([replace(old, rounds=3)])
    assert reply.error is None


def test_a_job_that_holds_something_new_is_refused_by_its_name():
    heads = [{"ticket": "t", "client": "c", "round": 0, "kind": "train", "moon": 1, "payload": 0}]
    with pytest.raises(FedlitError, match="a job holds moon, which is new: give this site the server's fedlit"):
        list(unpack_jobs(framed(heads)))

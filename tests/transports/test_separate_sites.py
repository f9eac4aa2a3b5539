"""A server that holds no data: sites in processes of their own end with the bytes of a run in one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from site_process import ServersData, compression_of, rule_of, task_of
from subprocess_sites import SubprocessSites
from toys import Regression, ToyData

from fedlit import codec, tree
from fedlit.aggregators import Centralized, FedAvg, FedProx
from fedlit.errors import FedlitError, Interrupted
from fedlit.runs.folder import RunFolder
from fedlit.trainer import FederatedTrainer

CLIENTS = ["client-00", "client-01", "client-02"]
REGRESSION = {
    "task": "Regression", "task_arguments": {"hidden": 4, "optimizer": "adamw", "dropout": 0.1},
    "data": {"num_clients": 3},
}  # fmt: skip
ADAPTED = {"task": "Classifier", "task_arguments": {"rank": 2}, "data": {"num_clients": 3, "features": 4, "classes": 3}}
SERVED = {**ADAPTED, "data": {**ADAPTED["data"], "server": True}}
TOPK = [{"name": "TopK", "arguments": {"share": 0.2}}]
CASES: dict[str, dict[str, Any]] = {
    "FedProx": {**REGRESSION, "rule": {"name": "FedProx", "arguments": {"mu": 0.1}}},
    "SCAFFOLD": {**REGRESSION, "rule": {"name": "SCAFFOLD"}, "baselines": [{"name": "LocalOnly"}]},
    "Ditto": {**REGRESSION, "rule": {"name": "Ditto"}},
    "EPFL": {**ADAPTED, "rule": {"name": "EPFL"}},
    "FedMedLoRAPlus": {**SERVED, "rule": {"name": "FedMedLoRAPlus"}},
    "FedLA": {**REGRESSION, "rule": {"name": "FedLA", "arguments": {"fedavg_rounds": 2, "adapt_rounds": 2}}},
    "Course": {
        **REGRESSION,
        "rule": {"name": "SCAFFOLD"},
        "task": "Downhill",
        "task_arguments": {"schedule": "cosine", "schedule_over": "run", "warmup": 0.2, "min_learning_rate": 1e-4},
    },
    "TopK": {**REGRESSION, "rule": {"name": "SCAFFOLD"}, "compression": TOPK},
}
SETTINGS = {
    "max_rounds": 4, "local_steps": 3, "clients_per_round": 2, "monitor": "val/personal/mse",
    "evaluate_at": ["start", "after_local", "after_aggregation"],
}  # fmt: skip


def spec_of(case: dict[str, Any], **settings: Any) -> dict[str, Any]:
    monitor = "val/personal/accuracy" if case["task"] == "Classifier" else SETTINGS["monitor"]
    return {"baselines": [], "compression": [], **case, "settings": {**SETTINGS, "monitor": monitor, **settings}}


def trainer_of(spec: dict[str, Any], root: Path) -> FederatedTrainer:
    return FederatedTrainer(
        rule_of(spec["rule"]), baselines=[rule_of(rule) for rule in spec["baselines"]],
        compression=compression_of(spec["compression"]), default_root_dir=str(root), accelerator="cpu",
        enable_progress_bar=False, **spec["settings"],
    )  # fmt: skip


def together(spec: dict[str, Any], root: Path) -> RunFolder:
    """The run in one process, as a simulation."""
    return trainer_of(spec, root).fit(task_of(spec), ToyData(**spec["data"]))


def apart(
    spec: dict[str, Any], root: Path, ckpt_path: str | None = None, sites: SubprocessSites | None = None
) -> RunFolder:
    """The run with a process for each site."""
    carrier = sites or SubprocessSites(CLIENTS, spec, root / "sites")
    try:
        data = ServersData(**spec["data"]) if spec["data"].get("server") else None
        return trainer_of(spec, root).fit(task_of(spec), data, ckpt_path, transport=carrier)
    finally:
        if sites is None:
            carrier.close()


def outcome(folder: RunFolder, sites: Path | None = None) -> dict[str, Any]:
    """All that a run ends with: state, figures, what crossed, and what each client keeps."""
    out: dict[str, Any] = {}
    for run in ["", *(f"baselines/{p.name}" for p in (folder.path / "baselines").glob("*"))]:
        own = RunFolder(folder.path / run)
        for name in ("last", "best"):
            round_ = own.path / "checkpoints" / name
            out[run, name] = (round_ / "state.safetensors").read_bytes()
            own.states.restore(json.loads((round_ / "meta.json").read_text()))
            for client, state in own.states.names.items():
                place = own.client_states if sites is None else RunFolder(sites / client / run).client_states
                out[run, name, client] = (place / client / f"{state}.safetensors").read_bytes()
        out |= {(run, name): (own.path / name).read_bytes() for name in ("metrics.csv", "ledger.csv")}
    return out


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "TopK" else pytest.mark.slow) for n in CASES])
def test_separate_sites_end_with_the_bytes_of_one_process(tmp_path, name):
    spec = spec_of(CASES[name])
    whole = outcome(together(spec, tmp_path / "together"))
    folder = apart(spec, tmp_path / "apart")
    assert outcome(folder, tmp_path / "apart" / "sites") == whole
    assert not folder.client_states.exists(), "the server keeps no client's state"
    partition = json.loads((folder.path / "partition.json").read_text())
    assert partition["clients"]["client-01"] == {"examples": {"train": 11, "val": 5, "test": 6}}


@pytest.mark.slow
def test_a_site_that_dies_after_its_work_is_missing_once_and_loses_nothing(tmp_path):
    """It has written a new state, and its reply never came: the next round starts from the state before."""
    case = {**REGRESSION, "rule": {"name": "Ditto"}, "faults": {"dies": "client-01"}}
    spec = spec_of(case, clients_per_round=None, min_replies=2)
    folder = apart(spec, tmp_path)
    missing = [(r["round"], r["client"]) for r in folder.metrics.read() if r["metric"] == "missing"]
    assert missing == [("2", "client-01")]
    names = [(r["round"], r["name"][:4]) for r in folder.states.table.read() if r["client"] == "client-01"]
    assert names == [("1", "0000"), ("3", "0002"), ("4", "0003")]
    assert json.loads((folder.path / "summary.json").read_text())["missing_replies"] == 1


@pytest.mark.slow
def test_a_site_that_is_late_is_missing_and_its_reply_does_not_count_later(tmp_path):
    case = {**REGRESSION, "rule": {"name": "Ditto"}, "faults": {"sleeps": "client-01"}}
    spec = spec_of(case, clients_per_round=None, min_replies=0.5, deadline_s=6.0, evaluate_at=["after_local"])
    folder = apart(spec, tmp_path)
    rows = folder.metrics.read()
    absent = [(r["round"], r["client"]) for r in rows if r["metric"] == "missing"]
    assert ("2", "client-01") in absent
    assert {client for _, client in absent} == {"client-01"}
    assert not [r for r in rows if r["metric"] == "refused"], "a late reply is no answer to the next job"
    names = [(r["round"], r["name"][:4]) for r in folder.states.table.read() if r["client"] == "client-01"]
    assert names[0] == ("1", "0000")
    assert ("2", "0001") not in names, "the state that goes with a late reply is not named"
    assert folder.checkpoints.read().round == 4


@pytest.mark.slow
def test_a_site_that_dies_ends_a_run_that_needs_all_and_a_resume_ends_with_its_bytes(tmp_path):
    spec = spec_of(CASES["Ditto"], clients_per_round=None)
    whole = outcome(together(spec, tmp_path / "together"))
    dying = {**spec, "faults": {"dies": "client-01"}}
    with pytest.raises(Interrupted, match=r"round 2: client-01 did not answer: 2 of 3 clients count, 3 are needed"):
        apart(dying, tmp_path / "apart")
    folder = apart(spec, tmp_path / "apart", "last")
    assert outcome(folder, tmp_path / "apart" / "sites") == whole


SERVER = """
import sys, json
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[3])
from test_separate_sites import apart
apart(json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[4] or None)
"""


@pytest.mark.slow
def test_a_server_that_is_killed_goes_on_to_the_same_bytes(tmp_path):
    spec = spec_of({**CASES["TopK"], "rule": {"name": "Ditto"}}, max_rounds=30, clients_per_round=None, local_steps=20)
    whole = outcome(together(spec, tmp_path / "together"))
    root = tmp_path / "apart"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]
    checkpoints = RunFolder(root / "fedlit" / "version_0").checkpoints
    for kill in range(2):
        arguments = [json.dumps(spec), str(root), json.dumps(paths), "last" if kill else ""]
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *arguments], stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        reached = 4 * (kill + 1)
        until = time.monotonic() + 90
        while process.poll() is None and (not checkpoints.exists() or checkpoints.read().round < reached):
            assert time.monotonic() < until, "the server does not get anywhere"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert reached <= checkpoints.read().round < 30, "it was killed in the middle"
    assert outcome(apart(spec, root, "last"), root / "sites") == whole


@pytest.mark.slow
def test_what_pools_data_is_refused_by_name(tmp_path):
    spec = spec_of({**CASES["FedProx"], "baselines": [{"name": "Centralized"}]})
    assert isinstance(rule_of(spec["baselines"][0]), Centralized)
    with pytest.raises(FedlitError, match="Centralized trains on pooled data, which sites do not give away"):
        apart(spec, tmp_path)
    assert not list((tmp_path / "fedlit").rglob("*.csv"))


@pytest.mark.slow
def test_a_site_with_another_network_is_refused_with_both_digests(tmp_path):
    spec = spec_of(CASES["EPFL"])
    sites = SubprocessSites(CLIENTS, {**spec, "task_arguments": {"rank": 2, "seed": 8}}, tmp_path / "sites")
    try:
        with pytest.raises(FedlitError, match=r"the frozen weights of the server's network .*: [0-9a-f]{64} here"):
            apart(spec, tmp_path, sites=sites)
    finally:
        sites.close()


@pytest.mark.slow
def test_a_job_on_another_clients_data_is_an_error_at_the_site(tmp_path):
    """A site has its own records alone, whatever a server asks for."""
    spec = spec_of(CASES["FedProx"])
    sites = SubprocessSites(CLIENTS[:1], spec, tmp_path / "sites")
    try:
        (described,) = sites.describe()
        assert described.examples == {"client-00": {"train": 10, "val": 5, "test": 6}}
        assert b"record" not in json.dumps(described.facts).encode()
        from fedlit.transports import Job

        down: Any = {name: p.detach() for name, p in Regression(hidden=4).named_parameters()}
        job = Job("t", "client-00", 0, "train", codec.encode(down), members=("client-01",), steps=1)
        with pytest.raises(FedlitError, match="client-01"):
            list(sites.run([job]))
    finally:
        sites.close()


@pytest.mark.slow
def test_the_process_of_the_server_makes_no_clients_data(tmp_path, monkeypatch):
    def refuse(self: Any, *_: Any) -> None:
        raise AssertionError("the server looked at a client's data")

    spec = spec_of(CASES["FedProx"])
    sites = SubprocessSites(CLIENTS, spec, tmp_path / "sites")
    monkeypatch.setattr(ToyData, "dataset", refuse)
    monkeypatch.setattr(ToyData, "setup", refuse)
    try:
        folder = apart(spec, tmp_path, sites=sites)
    finally:
        sites.close()
    assert folder.checkpoints.read().round == 4
    assert tree.leaves(folder.checkpoints.read().state)
    assert isinstance(rule_of(spec["rule"]), FedProx | FedAvg)

"""Whole runs with compressed uploads: what is measured, what lasts, what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch
from toys import Classifier, Regression, ToyData, contents, memories

from fedlit import codec, tree
from fedlit.aggregators import (
    EPFL,
    SCAFFOLD,
    AlternatingLoRA,
    Centralized,
    FedAvg,
    FedLA,
    FedSALoRA,
    LocalOnly,
    Stage,
    Stages,
)
from fedlit.compression import BFloat16, Int8, TopK
from fedlit.engine.client_state import ClientStates, Kept
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read
from fedlit.transports import LocalSites

TASK = {"hidden": 12}
CHAINS = {
    "int8 at random": Int8(stochastic=True),
    "top-k": TopK(0.2),
    "both": [TopK(0.2), Int8(stochastic=True)],
    "bfloat16": BFloat16(),
}


def table(folder, name: str, **wanted: str) -> list[dict[str, str]]:
    with open(folder.path / name) as file:
        return [row for row in csv.DictReader(file) if all(row[k] == v for k, v in wanted.items())]


def outcome(folder) -> dict[str, bytes]:
    kept = contents(folder.path / "checkpoints" / "last")
    return {**kept, **{name: (folder.path / name).read_bytes() for name in ("metrics.csv", "ledger.csv")}}


def residual(folder, client: str) -> dict[str, torch.Tensor] | None:
    return state(folder, client).residual


def state(folder, client: str) -> Kept:
    folder.states.restore(folder.checkpoints.read().meta)
    return ClientStates(folder.client_states).read(client, folder.states.names[client])


@pytest.fixture(params=CHAINS)
def compression(request):
    return CHAINS[request.param]


@pytest.mark.parametrize("rule", [FedAvg(), SCAFFOLD()], ids=lambda r: type(r).__name__)
def test_kill_and_resume_gives_the_same_bytes(fit, rule, compression):
    settings = {"compression": compression, "clients_per_round": 2, "data": ToyData(num_clients=4)}
    whole = fit(rule, Regression(**TASK), max_rounds=4, **settings)
    cut = fit(rule, Regression(**TASK), max_rounds=2, **settings)
    resumed = fit(rule, Regression(**TASK), max_rounds=4, ckpt_path=str(cut.path), **settings)
    assert outcome(resumed) == outcome(whole)


def test_replies_in_any_order_give_the_same_bytes(fit, compression, monkeypatch):
    whole = fit(SCAFFOLD(), Regression(**TASK), compression=compression)
    inner = LocalSites.run
    monkeypatch.setattr(LocalSites, "run", lambda self, jobs, _=None: iter(list(inner(self, list(jobs)[::-1]))))
    assert outcome(fit(SCAFFOLD(), Regression(**TASK), compression=compression)) == outcome(whole)


def test_random_rounding_depends_on_the_seed(fit):
    one, two = (fit(FedAvg(), Regression(**TASK), compression=Int8(stochastic=s)) for s in (False, True))
    assert outcome(one)["state.safetensors"] != outcome(two)["state.safetensors"]


def test_each_client_draws_anew_in_each_round(fit, monkeypatch):
    seen = []

    class Steady(FedAvg):
        def finish(self, w, down, memory, work):
            return {"w": torch.linspace(-1, 1, 50)}, memory

        def aggregate(self, state, updates, server):
            seen.extend(u.tensors["w"] for u in updates)
            return state

    monkeypatch.setattr("fedlit.federation.loop.rehearse", lambda *_: False)
    fit(Steady(), compression=Int8(stochastic=True))
    assert len(seen) == 6
    assert len({tuple(w.tolist()) for w in seen}) == 6


def test_a_rule_never_sees_the_residual_and_its_own_memory_stays(fit):
    folder = fit(SCAFFOLD(), Regression(**TASK), compression=TopK(0.2))
    plain = fit(SCAFFOLD(), Regression(**TASK), max_rounds=1)
    for client in ("client-00", "client-01", "client-02"):
        memories = [state(f, client).memory for f in (folder, plain)]
        assert tree.flatten(memories[0]).keys() == tree.flatten(memories[1]).keys()
        assert residual(folder, client)
        assert residual(plain, client) is None


def test_what_was_sent_and_what_is_kept_are_the_uploads(fit, monkeypatch):
    """Under a rule whose server stays where it is, so that uploads are those of a run without compression."""

    class Still(FedAvg):
        def step(self, state, mean):
            return state

    seen: dict[str, list] = {}
    inner = Still.aggregate

    def note(self, state, updates, server):
        for u in updates:
            seen.setdefault(u.client, []).append(u.tensors)
        return inner(self, state, updates, server)

    monkeypatch.setattr(Still, "aggregate", note)
    monkeypatch.setattr("fedlit.federation.loop.rehearse", lambda *_: False)
    fit(Still(), Regression(**TASK), max_rounds=5)
    plain = {client: uploads[:] for client, uploads in seen.items()}
    seen.clear()
    folder = fit(Still(), Regression(**TASK), max_rounds=5, compression=[TopK(0.2), Int8()])
    for client, uploads in plain.items():
        truth, sent = (tree.combine(u, [1.0] * 5) for u in (uploads, seen[client]))
        assert not torch.allclose(truth["net.0.weight"], sent["net.0.weight"], atol=1e-3)
        total = tree.add(tree.flatten(sent), {**tree.zeros(truth), **residual(folder, client)})
        for path, leaf in truth.items():
            torch.testing.assert_close(total[path], leaf, rtol=0, atol=1e-5)


def test_the_ledger_measures_what_is_sent(fit):
    sizes = {}
    for name, chain in {"none": None, **CHAINS}.items():
        rows = table(fit(FedAvg(), Regression(hidden=200), compression=chain), "ledger.csv")
        up, down = ({(r["bytes"], r["dtype"]) for r in rows if r["direction"] == d} for d in ("up", "down"))
        ((bytes_, dtype),) = up
        sizes[name] = int(bytes_), dtype
        assert len(down) == 1
    assert {name: dtype for name, (_, dtype) in sizes.items()} == {
        "none": "F32", "int8 at random": "F32+I8", "top-k": "F32+I32", "both": "F32+I32+I8", "bfloat16": "BF16"
    }  # fmt: skip
    assert sizes["bfloat16"][0] < 0.65 * sizes["none"][0]
    assert sizes["top-k"][0] < 0.5 * sizes["none"][0]
    assert sizes["both"][0] < sizes["top-k"][0]


def test_the_error_is_in_the_metrics(fit):
    folder = fit(FedAvg(), Regression(**TASK), compression=Int8(), baselines=[LocalOnly(), Centralized()])
    rows = table(folder, "metrics.csv", metric="compression_error")
    assert [(r["round"], r["stage"], r["client"], r["split"], r["num_examples"]) for r in rows] == [
        (n, "after_local", f"client-0{i}", "train", str(10 + i)) for n in "12" for i in range(3)
    ]
    assert all(0 < float(r["value"]) < 0.01 for r in rows)
    empty, pooled = (
        table(replace_path(folder, name), "metrics.csv", metric="compression_error")
        for name in ("LocalOnly", "Centralized")
    )
    assert {float(r["value"]) for r in empty} == {0.0}
    assert 0 < float(pooled[0]["value"]) < 0.01


def replace_path(folder, name: str):
    from fedlit.runs.folder import RunFolder

    return RunFolder(folder.path / "baselines" / name)


def test_a_run_says_how_uploads_were_compressed(fit, capsys):
    folder = fit(FedAvg(), Regression(**TASK), compression=[TopK(0.05), Int8(stochastic=True)])
    summary = json.loads((folder.path / "summary.json").read_text())
    label = "uploads: top 5 %, then int8, rounded at random, with error feedback"
    assert label in summary["labels"]
    assert [part["class"] for part in summary["compression"]] == ["TopK", "Int8"]
    assert label in capsys.readouterr().out


def test_the_mean_error_is_a_figure_for_callbacks(fit):
    from fedlit.callbacks import Callback

    seen = []

    class Note(Callback):
        def on_round_end(self, trainer, round, metrics):  # noqa: A002
            seen.append(float(metrics["train/compression_error"]))

    folder = fit(FedAvg(), Regression(**TASK), compression=TopK(0.2), callbacks=Note())
    for number, value in enumerate(seen, 1):
        rows = table(folder, "metrics.csv", metric="compression_error", round=str(number))
        assert value == pytest.approx(sum(float(r["value"]) for r in rows) / 3)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (TopK(0.3), r"trainer.compression.0.share: 0.2 -> 0.3"),
        (TopK(0.2, error_feedback=False), r"trainer.compression.0.error_feedback: True -> False"),
        ([TopK(0.2), Int8()], r"trainer.compression: "),
        (None, r"trainer.compression: .*None"),
    ],
    ids=["share", "feedback", "longer", "none"],
)
def test_a_resume_with_another_compression_is_refused(fit, other, field):
    folder = fit(FedAvg(), Regression(**TASK), compression=TopK(0.2))
    with pytest.raises(FedlitError, match=field):
        fit(FedAvg(), Regression(**TASK), compression=other, max_rounds=3, ckpt_path=str(folder.path))


def test_one_transform_and_a_list_of_one_are_the_same_run(fit):
    whole = fit(FedAvg(), Regression(**TASK), compression=TopK(0.2), max_rounds=3)
    folder = fit(FedAvg(), Regression(**TASK), compression=TopK(0.2))
    later = fit(FedAvg(), Regression(**TASK), compression=[TopK(0.2)], max_rounds=3, ckpt_path=str(folder.path))
    assert read(later.path / "checkpoints" / "last").round == 3
    assert outcome(later) == outcome(whole)


def test_a_run_of_before_goes_on(fit):
    """Its fingerprint does not know the setting."""
    whole = fit(FedAvg(), max_rounds=3)
    folder = fit(FedAvg())
    path = folder.path / "checkpoints" / "last" / "meta.json"
    meta = json.loads(path.read_text())
    del meta["fingerprint"]["trainer"]["compression"]
    path.write_text(json.dumps(meta))
    later = fit(FedAvg(), max_rounds=3, ckpt_path=str(folder.path))
    assert read(later.path / "checkpoints" / "last").round == 3
    assert outcome(later) == outcome(whole)


def test_a_refused_client_keeps_neither_memory_nor_residual(fit, monkeypatch):
    inner = LocalSites.run

    def run(self, jobs, deadline_s=None):
        for r in inner(self, jobs, deadline_s):
            yield replace(r, weight=-1.0) if r.client == "client-01" and r.payload else r

    settings = {"compression": TopK(0.2), "max_rounds": 1}
    admitted = fit(SCAFFOLD(), Regression(**TASK), **settings)
    kept = memories(admitted)
    monkeypatch.setattr(LocalSites, "run", run)
    fresh = fit(SCAFFOLD(), Regression(**TASK), **settings)
    assert residual(fresh, "client-00") is not None
    assert "client-01.safetensors" not in memories(fresh)
    later = fit(SCAFFOLD(), Regression(**TASK), ckpt_path=str(admitted.path), **{**settings, "max_rounds": 2})
    after = memories(later)
    assert [name for name in kept if after[name] == kept[name]] == ["client-01.safetensors"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_upload_that_is_not_finite_is_refused_by_name(fit, compression, value, monkeypatch):
    class Broken(FedAvg):
        def finish(self, w, down, memory, work):
            upload, memory = super().finish(w, down, memory, work)
            if work.examples == 8 and w["net.0.bias"].sum() > self.above:
                upload["net.0.weight"][0, 0] = value
            return upload, memory

        above = -1e9

    monkeypatch.setattr("fedlit.federation.loop.rehearse", lambda *_: False)
    with pytest.raises(
        FedlitError, match=r"every client was refused .*reply of 'client-00': net.0.weight is not finite"
    ):
        fit(Broken(), Regression(**TASK), compression=compression)


def test_rules_that_send_different_parts_in_turn(fit):
    data = ToyData(num_clients=3, features=4, classes=3)
    folder = fit(AlternatingLoRA(), Classifier(rank=2), data, max_rounds=4, compression=TopK(0.2))
    assert {"A", "B"} <= {"A" if "lora_A" in p else "B" for p in residual(folder, "client-00")}
    stages = Stages([Stage(FedAvg(), 2), Stage(FedLA(fedavg_rounds=2), 2)])
    fit(stages, Regression(**TASK), max_rounds=4, compression=[TopK(0.2), Int8()])


def test_error_feedback_is_refused_for_a_rule_that_uploads_whole_tensors(fit):
    data = ToyData(num_clients=3, features=4, classes=3)
    wanted = "trainer.compression: error feedback needs uploads that are differences, and EPFL uploads .*lora_B"
    for chain in (TopK(0.2), Int8(error_feedback=True)):
        with pytest.raises(FedlitError, match=wanted):
            fit(EPFL(), Classifier(rank=2), data, compression=chain)
    fit(EPFL(), Classifier(rank=2), data, compression=Int8())
    fit(FedSALoRA(), Classifier(rank=2), data, compression=TopK(0.2))


def test_an_old_memory_file_is_read_as_it_is(tmp_path):
    states = ClientStates(tmp_path)
    name = states.keep("a", 0, Kept({"residual": torch.ones(2), "memory": torch.zeros(1)}))
    assert states.read("a", name).residual is None
    assert states.read("a", name).memory.keys() == {"residual", "memory"}
    name = states.keep("a", 1, Kept({}, {"": torch.ones(1), "x/y": torch.zeros(2)}))
    assert states.read("a", name).memory == {}
    assert states.read("a", name).residual.keys() == {"", "x/y"}
    assert codec.decode((tmp_path / "a" / f"{name}.safetensors").read_bytes())[1] == ["", "x/y"]

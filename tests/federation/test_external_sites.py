"""External sites in a run: the global model is scored on them at the end, and nothing else of the run changes."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from torch.utils.data import TensorDataset
from toys import Regression, ToyData

from fedlit import codec
from fedlit.aggregators import FedAvg, FedProx, LocalOnly
from fedlit.errors import FedlitError
from fedlit.federation.roster import Roster
from fedlit.trainer import FederatedTrainer
from fedlit.transports import Description


class WithExternal(ToyData):
    """Three clients, and two sites that hold test data alone."""

    def setup(self, stage=None):
        super().setup(stage)
        self.external = ["site-far", "site-near"]
        for number, site in enumerate(self.external):
            generator = torch.Generator().manual_seed(number)
            x = torch.randn(8 + number, 3, generator=generator)
            self.parts[site, "test"] = TensorDataset(x, x.sum(1))
            for split in ("train", "val"):
                self.parts[site, split] = TensorDataset(x[:0], x[:0, 0])


def rows(folder, split=None):
    with open(folder.path / "metrics.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if split in (None, row["split"])]


def global_error(folder, site):
    """Mean squared error of the committed global model, by hand."""
    data, params = WithExternal(), codec.decode(
        (folder.path / "checkpoints" / "last" / "state.safetensors").read_bytes()
    )[0]["params"]  # fmt: skip
    data.setup()
    x, y = data.parts[site, "test"].tensors
    guess = x @ params["net.0.weight"][0] + params["net.0.bias"]
    return float((guess - y).double().square().mean())


def test_the_global_model_is_scored_on_external_sites_after_the_last_round_and_nowhere_else(fit, tmp_path):
    with_them = fit(FedAvg(), data=WithExternal(), name="with")
    without = fit(FedAvg(), name="without")
    external = rows(with_them, "external")
    assert [row for row in rows(with_them) if row["split"] != "external"] == rows(without)
    for name in ("ledger.csv", "comparison.csv", "checkpoints/last/state.safetensors"):
        assert (with_them.path / name).read_bytes() == (without.path / name).read_bytes(), name
    assert {(r["round"], r["stage"], r["model"]) for r in external} == {("2", "after_aggregation", "global")}
    each = {r["client"]: (float(r["value"]), r["num_examples"]) for r in external if r["metric"] == "mse"}
    assert each["site-far"] == (pytest.approx(global_error(with_them, "site-far")), "8")
    assert each["site-near"] == (pytest.approx(global_error(with_them, "site-near")), "9")
    told = json.loads((with_them.path / "summary.json").read_text())
    assert told["clients"] == 3
    assert told["external"]["global"]["mse"]["worst"] == max(each["site-far"][0], each["site-near"][0])
    assert "external" not in json.loads((without.path / "summary.json").read_text())


def test_rules_are_compared_on_external_sites_and_one_without_a_global_model_is_named(fit, capsys):
    folder = fit(FedAvg(), data=WithExternal(), baselines=[FedProx(mu=0.5), LocalOnly()])
    said = " ".join(capsys.readouterr().out.split())
    assert "external sites: LocalOnly has no global model to score there" in said
    with open(folder.path / "external.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["site", "metric", "FedAvg", "FedProx"]
    assert [row["site"] for row in table if row["metric"] == "mse"][:2] == ["site-far", "site-near"]
    assert float(table[0]["FedAvg"]) == pytest.approx(global_error(folder, "site-far"))
    assert table[0]["FedAvg"] != table[0]["FedProx"]
    local = json.loads((folder.path / "baselines" / "LocalOnly" / "summary.json").read_text())
    assert "external" not in local


def test_a_run_that_goes_on_has_the_rows_of_external_sites_once(fit):
    folder = fit(FedAvg(), data=WithExternal(), max_rounds=1)
    again = fit(FedAvg(), data=WithExternal(), max_rounds=2, ckpt_path="last")
    assert again.path == folder.path
    whole = fit(FedAvg(), data=WithExternal(), max_rounds=2, name="whole")
    assert rows(again, "external") == rows(whole, "external")


def test_a_finished_run_is_scored_on_external_sites_of_other_data(fit, tmp_path):
    folder = fit(FedAvg())
    trainer = FederatedTrainer(FedAvg(), default_root_dir=str(tmp_path), accelerator="cpu", local_steps=2, max_rounds=2)
    found = trainer.test(Regression(), WithExternal(), ckpt_path="last")
    value = next(row[6] for row in found if row[3:6] == ("site-far", "external", "mse"))
    assert value == pytest.approx(global_error(folder, "site-far"))
    told = json.loads((folder.path / "test.json").read_text())
    assert told["external"]["global"]["mse"]["mean"] == pytest.approx(
        (value + global_error(folder, "site-near")) / 2
    )  # fmt: skip


def test_scores_on_external_sites_do_not_hang_on_the_number_of_sites_at_once(fit):
    one = fit(FedAvg(), data=WithExternal(), name="one")
    both = fit(FedAvg(), data=WithExternal(), name="both", clients_at_once=2)
    for a, b in zip(rows(one, "external"), rows(both, "external"), strict=True):
        assert a["client"] == b["client"]
        assert float(a["value"]) == pytest.approx(float(b["value"]), rel=1e-5)


def test_an_external_site_of_a_clients_name_is_refused():
    said = Description(
        examples={"a": {"train": 1, "val": 0, "test": 0}}, batch_size=1, facts={}, data={}, simulated=True, notes=(),
        frozen="", initial="", trains={}, versions={}, jobs=(), external={"b": 2},
    )  # fmt: skip
    assert Roster.of([said]).external == {"b": 2}
    with pytest.raises(FedlitError, match="client 'b' is at two sites"):
        Roster.of([said, Description(**{**vars(said), "examples": {"b": {"train": 1}}, "external": {}})])

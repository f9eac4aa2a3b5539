import json
import warnings

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from records_in_memory import SMALL, many

from fedlit.data import BySite, BySubject, SimulatedVitals
from fedlit.data.signals.resampling import resample
from fedlit.errors import FedlitError


def test_clients_splits_and_batches(in_memory, record):
    data = in_memory(many(record), **SMALL)
    data.setup()
    assert data.clients == ["site-s0", "site-s1"]
    assert [len(data.dataset("site-s0", split)) for split in ("train", "val", "test")] == [112, 56, 56]
    assert len(data.dataset(data.clients, "train")) == 224
    batch = data.collate(data.dataset(data.clients, "test").__getitems__([0, 60]))
    assert batch["client"] == ["site-s0", "site-s1"]
    before = data.records
    data.setup("fit")
    assert data.records is before


def test_so_many_data_sets_are_kept_and_no_more(in_memory, record, monkeypatch):
    monkeypatch.setattr("fedlit.data.base.template.KEPT", 3)
    data = in_memory(many(record), **SMALL)
    data.setup()
    before = data.describe()
    assert len(data._made) == 3
    assert data.dataset("site-s1", "test") is data.dataset("site-s1", "test")
    assert data.describe() == before


def test_subjects_never_in_two_splits_and_windows_never_share_samples(in_memory, record):
    for split in ("subject", "time", "record"):
        data = in_memory(many(record), split=split, partition=BySite(), stride=3, **SMALL)
        data.setup()
        seen, owner = {}, {}
        for client in data.clients:
            for part in ("train", "val", "test"):
                batch = data.dataset(client, part).__getitems__(range(len(data.dataset(client, part))))
                for name, start in zip(batch["record"], batch["start"].tolist(), strict=True):
                    for sample in range(start, start + 50):
                        assert seen.setdefault((name, sample), part) == part
                    if split != "time":
                        assert owner.setdefault(name, part) == part


def test_windows_are_what_the_record_says(in_memory, record):
    data = in_memory(many(record), split="time", **SMALL)
    data.setup()
    by_id = {r.id: r.values for r in data.records}
    batch = data.dataset(data.clients, "val").__getitems__(range(20))
    context = batch["context"] * batch["scale"][:, None] + batch["offset"][:, None]
    for name, start, values in zip(batch["record"], batch["start"].tolist(), context, strict=True):
        assert np.allclose(values, by_id[name][start : start + 40], atol=1e-6)


def test_records_lie_in_memory_once(in_memory, record):
    data = in_memory(many(record), **SMALL)
    data.setup()
    assert all(r.values.base is data._flat for r in data.records)
    assert data.dataset("site-s0", "train")._flat is data._flat
    assert data.dataset("site-s0", "train") is data.dataset("site-s0", "train")


def test_eval_windows_cap_each_client(in_memory, record):
    data = in_memory(many(record), eval_windows=7, **SMALL)
    data.setup()
    assert len(data.dataset("site-s0", "test")) == 7
    assert len(data.dataset("site-s0", "train")) == 112
    pooled = data.dataset(data.clients, "test")
    assert len(pooled) == 14
    assert pooled.__getitems__(range(14))["client"] == ["site-s0"] * 7 + ["site-s1"] * 7
    alone = data.dataset("site-s1", "test").__getitems__(range(7))
    assert torch.equal(alone["start"], pooled.__getitems__(range(7, 14))["start"])


def test_strides(in_memory, record):
    data = in_memory(many(record, samples=100), stride=2, eval_stride=25, **SMALL)
    data.setup()
    assert data.dataset("site-s0", "train").__getitems__(range(3))["start"].tolist() == [0, 2, 4]
    assert data.dataset("site-s0", "test").__getitems__(range(3))["start"].tolist() == [0, 25, 50]


def test_same_seed_same_data_other_seed_other_split(in_memory, record):
    made = []
    for seed in (0, 0, 1):
        data = in_memory(many(record, subjects=12), seed=seed, **SMALL)
        made.append(data.describe()["clients"])
    assert made[0] == made[1] != made[2]


def test_parity_as_the_published_code(in_memory, record):
    long = [record(f"p{n}", samples=7000) for n in range(2)]
    data = in_memory(long, parity=True, partition=BySubject(), **SMALL)
    data.setup()
    train, test = data.dataset("subject-p0", "train"), data.dataset("subject-p0", "test")
    assert (len(train), len(data.dataset("subject-p0", "val")), len(test)) == (4200 - 49, 0, 2800 - 49)
    for windows, part in ((train, long[0].values[:4200]), (test, long[0].values[4200:])):
        batch = windows.__getitems__(range(len(windows)))
        assert set(batch["offset"].tolist()) == {float(part.min())}
        assert np.allclose(batch["scale"], np.ptp(part))
        both = torch.cat([batch["context"], batch["target"]], 1)
        assert both.min() == 0
        assert both.max() == pytest.approx(1)
    assert data.describe()["clients"]["subject-p0"]["split"] == "time 60/40"
    assert data.describe()["parity"] is True


def test_parity_of_short_records(in_memory, record):
    data = in_memory(many(record, subjects=5), parity=True, stride=9, **SMALL)
    held = data.describe()["clients"]["site-s0"]
    assert {split: len(ids) for split, ids in held["records"].items()} == {"train": 3, "val": 0, "test": 2}
    assert held["windows"]["train"] == 3 * 62
    batch = data.dataset("site-s0", "test").__getitems__([0])
    values = next(r.values for r in data.records if r.id == batch["record"][0])
    assert batch["offset"].item() == values.min()
    assert list(data.val_dataloader()) == []


def test_gap_of_41_samples_is_counted_and_never_a_target(in_memory, record):
    holed = record("p0", samples=2000)
    holed.values[700:741] = np.nan
    data = in_memory([holed], partition=BySubject(), split="time", **SMALL)
    described = data.describe()
    assert described["gaps"] == {"p0": {"gaps": 1, "samples": 41}}
    assert described["clients"]["subject-p0"]["windows_missing"] > 0
    batch = data.dataset("subject-p0", "train").__getitems__(range(len(data.dataset("subject-p0", "train"))))
    assert torch.isfinite(batch["target"]).all()
    assert torch.isfinite(batch["scale"]).all()
    assert batch["context"].isnan().float().mean(1).max() <= 0.5
    assert batch["context"].isnan().any()


def test_gaps_survive_resampling():
    values = np.sin(np.arange(4000) / 50).astype(np.float32) + 5
    holed = values.copy()
    holed[1000:1041] = np.nan
    new = resample(holed, 2000, 100)
    assert len(new) == 200
    assert np.flatnonzero(np.isnan(new)).tolist() == [50, 51, 52]
    plain = resample(values, 2000, 100)
    assert np.nanmax(np.abs(new - plain)) < 0.01
    assert np.abs(plain - values[::20])[1:-1].max() < 0.01
    up = resample(holed[:2000], 100, 250)
    assert len(up) == 5000
    assert np.isnan(up[2500:2600]).all()
    assert np.isnan(up).sum() < 110
    assert resample(values, 100, 100) is values


def test_describe_and_config_are_json(in_memory, record):
    data = in_memory(many(record), partition=BySite(clients=1), **SMALL)
    described = json.loads(json.dumps(data.describe()))
    assert {entry["reason"] for entry in described["excluded"]} == {"left out by the partition"}
    assert described["statistics"]["sizes"] == {"min": 4, "median": 4.0, "max": 4, "variation": 0.0}
    client = described["clients"]["site-s0"]
    assert sum(client["windows"].values()) == 224
    assert client["seconds"] == 24
    config = SimulatedVitals(partition=BySite(), rate=50).config()
    assert json.loads(json.dumps(config)) == config
    assert config["partition"] == {"class": "BySite", "clients": None, "min_records": 1}
    assert (config["subjects"], config["context_length"], config["rate"]) == (24, 256, 50)
    assert "kwargs" not in config


class Last(LightningModule):
    """A plain Lightning task: the last value plus a constant."""

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return (batch["context"][:, -1:] + self.shift - batch["target"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_plain_trainer_takes_the_clients_pooled(in_memory, record, tmp_path):
    data = in_memory(many(record), batch_size=16, **SMALL)
    order = [[batch["start"].tolist() for batch in data.train_dataloader()] for _ in range(2)]
    assert order[0] == order[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(Last(), datamodule=data)
    assert trainer.global_step == 3


@pytest.mark.parametrize("count", [0, 1, 3])
def test_records_of_the_server_are_no_client_s(in_memory, record, count):
    data = in_memory(many(record, subjects=6, sites=3), server_records=count, **SMALL)
    held = data.server_dataset()
    facts = data.describe()
    assert len(facts["server"]) == count
    theirs = {name for client in facts["clients"].values() for part in client["records"].values() for name in part}
    assert len(theirs) == 18 - count
    assert not theirs & {*facts["server"]}
    assert data.clients == ["site-s0", "site-s1", "site-s2"]
    assert facts["excluded"] == []
    if not count:
        assert held is None
        return
    batch = data.collate(held.__getitems__(range(len(held))))
    assert {*batch["record"]} == {*facts["server"]}
    assert len({name[:2] for name in facts["server"]}) == count  # as far from emptying a site as can be


def test_other_records_of_the_servers_subjects_go_to_nobody(in_memory, record):
    records = [record(f"p{n}-{i}", subject=f"p{n}") for n in range(6) for i in range(3)]
    data = in_memory(records, server_records=1, **SMALL)
    data.setup()
    (served,) = data.describe()["server"]
    left = {entry["record"]: entry["reason"] for entry in data.describe()["excluded"]}
    assert {name.split("-")[0] for name in left} == {served.split("-")[0]}
    assert {*left.values()} == {"of a subject whose records the server holds"}
    assert len(left) == 2


def test_the_servers_records_are_drawn_by_the_seed(in_memory, record):
    def drawn(seed: int) -> list[str]:
        data = in_memory(many(record, subjects=6, sites=3), server_records=3, seed=seed, **SMALL)
        data.setup()
        return data.describe()["server"]

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("count", "message"),
    [(-1, "data.server_records is -1: give a number"), (8, "data.server_records is 8 of 8, which leaves none")],
)
def test_as_many_records_as_the_server_cannot_have(in_memory, record, count, message):
    with pytest.raises(FedlitError, match=message):
        in_memory(many(record), server_records=count, **SMALL).setup()

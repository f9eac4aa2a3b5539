"""Instruction tuning by both trainers."""

from __future__ import annotations

import json

import lightning
import pyarrow.parquet as pq
import pytest
import torch
from asked import STAND_IN, ready

from fedlit.aggregators import FedMedLoRA, FedMedLoRAPlus
from fedlit.backbones import LoRA
from fedlit.data import SimulatedNotes
from fedlit.errors import FedlitError
from fedlit.tasks import InstructionTask
from fedlit.trainer import FederatedTrainer

ADAPTER = LoRA(r=4, dropout=0.1)


def notes(**changes):
    given = {"notes": 24, "sites": 2, "sentences": 2, "batch_size": 4, "eval_batch_size": 16, "server_examples": 2,
             "annotated": {"site-2": ["entities"]}, "mask_test": False}  # fmt: skip
    return SimulatedNotes(**(given | changes))


def task(**changes):
    given = {"format": "json", "wording": "brief", "max_new_tokens": 24, "learning_rate": 5e-3, "warmup": 0.2}
    return InstructionTask(STAND_IN, ADAPTER, **(given | changes))


def settings(folder):
    return {"max_rounds": 2, "local_steps": 2, "default_root_dir": str(folder), "accelerator": "cpu",
            "enable_progress_bar": False, "seed": 3}  # fmt: skip


def run(folder, rule, data=None, model=None, ckpt_path=None, **changes):
    trainer = FederatedTrainer(rule, **(settings(folder) | changes))
    return trainer.fit(model or task(), data or notes(), ckpt_path=ckpt_path), trainer


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run, and what each site learnt: pairs of a site and an answer."""
    learnt = []

    def told(self, documents):
        found, owner = made(self, documents)
        if self.training:
            decode = self._model.family.tokenizer.decode
            answers = [decode(one.tokens[one.prompt_length :]) for one in found]
            learnt.extend((documents[i].site, answer) for i, answer in zip(owner, answers, strict=True))
        return found, owner

    made = InstructionTask.sequences
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InstructionTask, "sequences", told)
        folder, trainer = run(tmp_path_factory.mktemp("run"), FedMedLoRAPlus())
    return folder, trainer, learnt


def weights(folder):
    return (folder.path / "adapters" / "global" / "adapter_model.safetensors").read_bytes()


def test_mentions_and_relations_are_scored(done):
    folder, _, _ = done
    rows = folder.metrics.read()
    test = {(row["client"], row["metric"]) for row in rows if row["split"] == "test"}
    for client in ("site-1", "site-2", "mean"):
        for kind in ("entity", "relation"):
            assert {(client, f"{kind}_strict_f1"), (client, f"{kind}_lenient_f1")} <= test
        assert (client, "answers_unparsable") in test
    val = {row["metric"] for row in rows if row["split"] == "val" and row["client"] == "site-1"}
    assert {"loss", "entity_strict_f1", "relation_strict_f1"} <= val
    masked = {row["metric"] for row in rows if row["split"] == "val" and row["client"] == "site-2"}
    assert "entity_strict_f1" in masked
    assert "relation_strict_f1" not in masked
    summary = json.loads((folder.path / "summary.json").read_text())
    assert summary["simulated_data"] is True
    assert summary["model"]["questions"]["cut"] == 0
    assert summary["model"]["questions"]["seen"] > 20
    assert "SIMULATED" in " ".join(summary["labels"])


def test_a_site_without_relations_learns_mentions_alone(done):
    _, _, told = done
    by_site = {site: [answer for one, answer in told if one == site] for site in ("site-1", "site-2")}
    assert len(by_site["site-1"]) == 2 * len(by_site["site-2"]) > 0
    assert not [one for one in by_site["site-2"] if "relations" in one]
    assert len([one for one in by_site["site-1"] if "relations" in one]) == len(by_site["site-2"])


def test_the_server_weighs_by_its_own_notes(done):
    folder, trainer, _ = done
    assert len(trainer.datamodule.server_dataset()) == 2
    partition = json.loads((folder.path / "partition.json").read_text())
    assert len(partition["server"]) == 2


def test_a_resumed_run_gives_the_same_bytes(done, tmp_path):
    folder, _, _ = done
    cut, _ = run(tmp_path, FedMedLoRAPlus(), max_rounds=1)
    assert weights(cut) != weights(folder)
    resumed, _ = run(tmp_path, FedMedLoRAPlus(), ckpt_path=str(cut.path))
    assert weights(resumed) == weights(folder)
    rows = [[row for row in one.metrics.read() if row["split"] == "test"] for one in (resumed, folder)]
    assert rows[0] == rows[1] != []


def test_predictions_are_written_and_pooled_with_intervals(done):
    folder, _, _ = done
    trainer = FederatedTrainer(FedMedLoRAPlus(), **settings(folder.path.parent))
    path = trainer.predict(task(), notes(), ckpt_path=str(folder.path))
    assert path.name == "spans.parquet"
    table = pq.read_table(path).to_pylist()
    data = trainer.datamodule
    held = {one.id: one for client in data.clients for one in data.dataset(client, "test").documents}
    assert {row["id"] for row in table} == held.keys()
    assert {row["client"] for row in table} == {"site-1", "site-2"}
    for row in table:
        for type, parts in json.loads(row["entities"]):
            assert type in ("Chemical", "Disease")
            assert all(0 <= a < b <= len(held[row["id"]].text) for a, b in parts)
        assert isinstance(json.loads(row["relations"]), list)
    pooled = json.loads((folder.path / "pooled.json").read_text())
    assert pooled["clients"] == 2
    assert "data: SIMULATED" in pooled["labels"]
    scores = pooled["test"]
    for name in ("entity_strict_f1", "entity_lenient_f1", "relation_strict_f1", "relation_lenient_f1"):
        assert scores[f"{name}/low"] <= scores[name] <= scores[f"{name}/high"]
    assert "loss" not in scores


def test_an_exported_adapter_of_a_run_is_started_from(done, tmp_path):
    folder, trainer, _ = done
    exported = str(folder.path / "adapters" / "global")
    data = trainer.datamodule
    batch = {"document": data.server_dataset().documents, "client": ["server"] * 2}
    held = data.dataset(data.clients, "train").documents  # of which the stand-in's tokenizer is made
    started = ready(documents=held, adapter=ADAPTER, stirred=False, start_from=exported)
    fresh = ready(documents=held, adapter=ADAPTER, stirred=False)
    with torch.no_grad():
        assert started.losses(batch).mean() < fresh.losses(batch).mean()
    with pytest.raises(FedlitError, match="does not fit backbone 'stand-in:gpt2' .it was made on 'stand-in:llama'"):
        run(tmp_path, FedMedLoRA(), model=InstructionTask("stand-in:gpt2", ADAPTER, start_from=exported))


def test_validation_by_loss_alone(tmp_path):
    folder, _ = run(tmp_path, FedMedLoRA(), model=task(validation="loss"), max_rounds=1, local_steps=1)
    rows = folder.metrics.read()
    val = {row["metric"] for row in rows if row["split"] == "val" and row["client"] in ("site-1", "site-2")}
    assert val == {"loss"}
    assert "entity_strict_f1" in {row["metric"] for row in rows if row["split"] == "test"}


def test_a_plain_lightning_trainer_fits_it(tmp_path):
    model, data = task(packing=True), notes()
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, data)
    assert {"train/loss", "val/loss", "val/entity_strict_f1", "val/relation_strict_f1"} <= set(trainer.callback_metrics)
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == pytest.approx([0.0])
    assert trainer.global_step == 3 * 3  # of 12 notes
    assert float(trainer.callback_metrics["train/loss"]) < 6
    outs = trainer.predict(model, data)
    assert sum(len(one["document"]) for one in outs) == len(data.dataset(data.clients, "test"))


def test_a_trial_of_a_real_models_settings(tmp_path, capsys):
    model = InstructionTask("meta-llama/Llama-3.1-8B-Instruct", packing=True, chat_template=True, quantization="nf4")
    folder, _ = run(tmp_path, FedMedLoRAPlus(), model=model, fast_dev_run=True)
    assert "stand-in" in " ".join(capsys.readouterr().out.split())
    assert json.loads((folder.path / "summary.json").read_text())["model"]["stand_in"] is True


def test_data_without_documents_are_refused(tmp_path):
    from toys import ToyData

    with pytest.raises(FedlitError, match="ToyData holds no annotated documents"):
        run(tmp_path, FedMedLoRA(), data=ToyData())
    (tmp_path / "only.yaml").write_text("name: only\nentities: {Chemical: x}\n")
    with pytest.raises(FedlitError, match="mentions of Disease, which schema 'only' lacks"):
        run(tmp_path, FedMedLoRA(), model=task(schema=str(tmp_path / "only.yaml")))

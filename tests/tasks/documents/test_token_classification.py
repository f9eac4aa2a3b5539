"""Tagging of word pieces: what is learnt, scored, written and refused."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace

import lightning
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from span_answers import HEADLINE, assert_learnt, assert_predicts, batch, scores
from tagged import NOTES, Notes, learn, ready, word_encoder

from fedlit.aggregators import FedAvg, PerFedAvg
from fedlit.backbones import LoRA
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.generated import NOTES as TREATMENTS
from fedlit.data.documents.generated import stand_in_documents
from fedlit.errors import FedlitError
from fedlit.tasks import load_tagger
from fedlit.tasks.documents.token_classification import TokenClassificationTask

STAND_IN = "stand-in:bert"
FEW = NOTES[:6]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return word_encoder(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def learned(words):
    return learn(ready(words, frozen=[]), FEW, steps=130, rate=5e-3)


def without(documents, *kinds):
    return [replace(one, annotated=frozenset({"entities", "relations"}) - {*kinds}) for one in documents]


def test_it_learns_what_is_in_the_notes(learned):
    assert_learnt(learned, FEW)
    entities, relations = learned.answers(FEW)
    for own, one, two in zip(FEW, entities, relations, strict=True):
        assert [(e.type, e.start, e.stop) for e in one.entities] == [(e.type, e.start, e.stop) for e in own.entities]
        assert set(two.relations) == set(own.relations)


def test_the_loss_of_a_head_that_knows_nothing():
    """All tags that an input asks for are as likely: 5 of entities, 3 of the relation."""
    task = ready(STAND_IN)
    torch.nn.init.zeros_(task.head.weight)
    both, entities, relations = (task.losses(batch(own)) for own in (
        NOTES[:3], without(NOTES[:3], "relations"), without(NOTES[:3], "entities")))  # fmt: skip
    torch.testing.assert_close(entities, torch.full((3,), math.log(5)))
    torch.testing.assert_close(relations, torch.full((3,), math.log(3)))
    for own, loss in zip(NOTES[:3], both.tolist(), strict=True):
        heads = sum(one.type == "Chemical" for one in own.entities)
        assert loss == pytest.approx((math.log(5) + heads * math.log(3)) / (1 + heads), rel=1e-5)


def test_targets_are_word_pieces_without_markers():
    task = ready(STAND_IN)
    pieces = [len("".join(one.text.split())) for one in NOTES[:3]]  # the stand-in's are letters
    assert task.num_targets(batch(without(NOTES[:3], "relations"))) == sum(pieces)
    assert task.num_targets(batch(without(NOTES[:3], "entities"))) == 3 * sum(pieces)


@pytest.mark.parametrize("window", [None, 24])
def test_a_loss_does_not_depend_on_the_batch_or_on_padding(words, window):
    task = ready(words, max_length=window)
    assert len({len(one.tags) for one in task._questions(NOTES[:4])}) > 4
    whole = task.losses(batch(NOTES[:4]))
    alone = torch.cat([task.losses(batch([one])) for one in NOTES[:4]])
    torch.testing.assert_close(whole, alone)
    counts = task.describe()["tagged"]["entities"]
    assert counts["inputs"] == 4
    assert counts["windows"] == 4 if window is None else counts["windows"] > 6
    with torch.no_grad():  # in parts of fixed size
        torch.testing.assert_close(task.losses(batch(NOTES[:4])), whole)


def test_what_nobody_looked_for_is_neither_learnt_nor_scored():
    task = ready(STAND_IN)
    for kind, rows, name in (("relations", slice(0, 5), "relation"), ("entities", [0, 5, 6], "entity")):
        task.zero_grad()
        own = without(NOTES[:2], kind)
        task.losses(batch(own)).mean().backward()
        moved = task.head.weight.grad.abs().sum(dim=1) > 0
        wanted = torch.zeros(7, dtype=torch.bool)
        wanted[rows] = True
        assert torch.equal(moved, wanted)
        assert not any(one.startswith(f"{name}_strict") for one in scores(task, own))


def test_two_relations_whose_heads_differ_in_texts_of_several_windows(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(
        "name: two\nentities: {Chemical: x, Disease: y}\nrelations:\n"
        "  CID: {heads: [Chemical], tails: [Disease], description: z}\n"
        "  late: {heads: [Disease], tails: [Disease, Chemical], description: z}\n"
    )
    given = []
    for own in NOTES[:4]:
        back = [Relation("late", one.tail, one.head) for one in own.relations]
        given.append(replace(own, relations=(*own.relations, *back)))
    task = ready(word_encoder(tmp_path / "words"), schema=str(path), max_length=36, frozen=[])
    assert task.tags[5:] == ("B-CID", "I-CID", "B-late", "I-late")
    found = scores(learn(task, given, steps=160, rate=5e-3), given)
    assert min(found[name] for name in (*HEADLINE, "relation_strict_f1/CID", "relation_strict_f1/late")) > 0.9
    tails = task.describe()["tagged"]["tails"]
    assert tails["windows"] > 1.5 * tails["inputs"]


@pytest.mark.parametrize("adapter", [None, LoRA(r=4)])
@pytest.mark.parametrize("merge", [False, True])
def test_an_export_loads_with_the_same_answers(words, adapter, merge, tmp_path):
    task = learn(ready(words, adapter=adapter, frozen=["word_emb"], max_length=48), FEW, steps=3)
    task.export(tmp_path, merge)
    assert not list(tmp_path.rglob("*.bin"))
    again = load_tagger(tmp_path)
    assert again.answers(FEW) == task.answers(FEW)
    torch.testing.assert_close(again.losses(batch(FEW)), task.losses(batch(FEW)), rtol=0, atol=1e-5)
    assert (again.tags, again.describe()["window"], again.frozen) == (task.tags, 48, ["word_emb"])
    assert (ready(words).losses(batch(FEW)) - task.losses(batch(FEW))).abs().max() > 1e-3


def test_exports_that_cannot_be_loaded(tmp_path):
    with pytest.raises(FedlitError, match=r"holds no tagger\.json"):
        load_tagger(tmp_path)
    ready(STAND_IN).export(tmp_path)
    settings = json.loads((tmp_path / "tagger.json").read_text())
    (tmp_path / "tagger.json").write_text(json.dumps({**settings, "tags": settings["tags"][:-2]}))
    with pytest.raises(FedlitError, match=r"schema\.yaml gives other tags"):
        load_tagger(tmp_path)
    (tmp_path / "tagger.json").write_text(json.dumps(settings))
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(FedlitError, match=r"head\.safetensors cannot be read"):
        load_tagger(tmp_path)


def test_frozen_parameters_stay(words):
    task = ready(words)
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    learn(task, FEW[:4], steps=2)
    still = {name for name, p in task.named_parameters() if torch.equal(p, before[name])}
    assert still == {name for name in before if "embeddings" in name}
    assert {name for name, p in task.named_parameters() if not p.requires_grad} == still
    assert not [name for name, p in ready(words, frozen=[]).named_parameters() if not p.requires_grad]
    for pattern, message in (("pooler", r"'pooler' is in no parameter .* embeddings, encoder"), ("(", "no regular")):
        with pytest.raises(FedlitError, match=message):
            ready(words, frozen=["embeddings", pattern])


def test_a_plain_lightning_trainer_fits_it(words, tmp_path):
    task, data = TokenClassificationTask(words, learning_rate=5e-3, frozen=[]), Notes()
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task, data)
    assert {"train/loss", "val/loss", "val/entity_strict_f1", "val/relation_strict_f1"} <= set(trainer.callback_metrics)
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == pytest.approx([0.0])
    assert float(trainer.callback_metrics["train/loss"]) < 0.8


@pytest.mark.parametrize("rule", [FedAvg(), PerFedAvg()], ids=lambda rule: type(rule).__name__)
def test_a_federated_run(fit, words, rule, tmp_path):
    data = Notes(annotated={"site-1": ["entities"]}, mask_test=False)
    folder = fit(rule, TokenClassificationTask(words, learning_rate=1e-3), data, local_steps=2, max_rounds=2)
    rows = [row for row in folder.metrics.read() if row["split"] == "test"]
    assert {"entity_strict_f1", "relation_strict_f1", "loss"} <= {row["metric"] for row in rows}
    about = json.loads((folder.path / "summary.json").read_text())["model"]
    assert about["tagged"]["entities"]["left_out"] == 0
    assert about["frozen"] == ["embeddings"]
    if isinstance(rule, FedAvg):
        again = load_tagger(folder.path / "adapters" / "global")
        first, last = load_file(f"{words}/model.safetensors"), again.loaded_network().state_dict()
        assert not torch.equal(
            first["encoder.layer.0.output.dense.weight"], last["encoder.layer.0.output.dense.weight"]
        )
        assert torch.equal(first["embeddings.word_embeddings.weight"], last["embeddings.word_embeddings.weight"])


def test_predictions_are_columns_without_text_and_can_be_scored(learned, tmp_path):
    columns = assert_predicts(learned, FEW[:3])
    pq.write_table(pa.table(columns), tmp_path / "spans.parquet")


def test_a_stand_in_takes_the_types_of_its_data():
    given = stand_in_documents(2, 8, TREATMENTS, "TrAP")
    task = TokenClassificationTask("emilyalsentzer/Bio_ClinicalBERT", schema="bc5cdr")
    task.use_stand_in()
    data = Notes(given)
    data.setup()
    task.take_data(data)
    task.configure_model()
    assert task.tags == ("O", "B-treatment", "I-treatment", "B-problem", "I-problem", "B-TrAP", "I-TrAP") or (
        task.tags == ("O", "B-problem", "I-problem", "B-treatment", "I-treatment", "B-TrAP", "I-TrAP")
    )
    assert task.losses(batch(given)).isfinite().all()
    task.take_data(data)
    others = Notes()
    others.setup()
    with pytest.raises(FedlitError, match="has tags for other types"):
        task.take_data(others)


def test_checkpointed_layers_give_the_same_gradients(words):
    both = []
    for on in (False, True):
        task = ready(words, gradient_checkpointing=on).train()
        task.losses(batch(FEW[:2])).mean().backward()
        both.append({name: p.grad for name, p in task.named_parameters() if p.requires_grad})
    torch.testing.assert_close(*both)


def test_documents_without_a_word_piece():
    task = ready(STAND_IN)
    blank = Document("blank", " \n ", (), ())
    losses = task.losses(batch([blank, NOTES[0]]))
    assert losses[0].isnan()
    assert losses[1] > 0
    assert task.supervised(batch([blank, NOTES[0]])).tolist() == [False, True]
    assert task.losses(batch([blank])).isnan().all()
    only = task.training_step(batch([blank]), 0)
    only.backward()
    assert only.item() == 0
    entities, relations = task.answers([blank])
    assert (entities[0].entities, relations[0].relations) == ((), ())
    assert task.num_targets(batch([blank])) == 0


def test_mentions_that_tags_cannot_hold_are_told_once():
    nested = Document("nested", "left knee pain", (Entity("T1", "Disease", 0, 14), Entity("T2", "Disease", 5, 14)), ())
    task = ready(STAND_IN)
    with pytest.warns(UserWarning, match=r"document 'nested' has mentions that tags cannot hold"):
        task.losses(batch([nested]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task.losses(batch([nested, replace(nested, id="second")]))
    assert task.describe()["tagged"]["entities"]["left_out"] == 2
    assert scores(task, [nested])["entity_strict_recall"] < 1


@pytest.mark.parametrize(
    ("backbone", "settings", "message"),
    [
        ("stand-in:vit", {}, "takes image, and documents are text"),
        ("builtin", {}, "takes signal, and documents are text"),
        (STAND_IN, {"max_length": 8}, "model.max_length is 8: give at least 16"),
        (STAND_IN, {"relation_ends": "both"}, "model.relation_ends is 'both'"),
        (STAND_IN, {"schema": "nothing"}, "schema nothing cannot be read"),
        (STAND_IN, {"warmup": 1.0}, "model.warmup is 1.0"),
    ],
)
def test_settings_that_cannot_be(backbone, settings, message):
    with pytest.raises(FedlitError, match=message):
        ready(backbone, **settings)


def test_data_that_cannot_be():
    task = ready(STAND_IN)
    odd = Document("odd", "a scan", (Entity("T1", "test", 2, 6),), ())
    with pytest.raises(FedlitError, match=r"document 'odd' has a mention of the type 'test', which schema 'bc5cdr'"):
        task.losses(batch([odd]))
    with pytest.raises(FedlitError, match=r"needs batches of documents, and the data's hold x"):
        task.losses({"x": torch.zeros(2)})
    data = Notes(
        [replace(odd, id=f"odd-{i}", site=f"s{i % 2}", fold=("train", "val", "test")[i % 3]) for i in range(12)]
    )
    data.setup()
    with pytest.raises(
        FedlitError, match=r"mentions of test, which schema 'bc5cdr' lacks .*model\.schema.*data\.types"
    ):
        TokenClassificationTask(STAND_IN).take_data(data)
    with pytest.raises(FedlitError, match="holds no annotated documents"):
        TokenClassificationTask(STAND_IN).take_data(object())

"""Documents whose answer is cut off: in no mean and no weight, counted by client, and refused above a share."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import pytest
import torch
from asked import NOTES, STAND_IN, ready
from documents_in_memory import Given
from lightning.fabric import Fabric
from span_answers import batch

from fedlit.aggregators import Centralized, FedAvg, FedDGGA, FedMedLoRA, FedMedLoRAPlus
from fedlit.backbones import LoRA
from fedlit.data import BySite
from fedlit.data.documents.documents import Document
from fedlit.engine.serial import SerialEngine
from fedlit.engine.vectorized.engine import VectorizedEngine
from fedlit.errors import FedlitError
from fedlit.federation.plan import RoundPlan
from fedlit.federation.scores import Monitor, score_rows
from fedlit.instructions.sequences import TokenSequence
from fedlit.metrics.spans.scores import SpanScores
from fedlit.runs.settings import RunSettings
from fedlit.tasks import InstructionTask, TokenClassificationTask
from fedlit.tasks.documents.room import Room, check_room
from fedlit.transports import Reply
from fedlit.transports.base import UNSUPERVISED

LIMIT = 300
RULES = [FedAvg(), FedMedLoRA(weighting="tokens"), FedMedLoRAPlus(), FedDGGA(), Centralized()]


def long(name: str, site: str) -> Document:
    return Document(name, f"{name}: " + " ".join(f"aspirin {i}" for i in range(400)), site=site)


def held(**sites: tuple[int, int]) -> list[Document]:
    """Documents of each site: so many that fit, so many that do not."""
    fits = iter(NOTES * 2)
    out = []
    for site, (short, cut) in sites.items():
        out += [replace(next(fits), id=f"{site}{i}", site=site) for i in range(short)]
        out += [long(f"{site}-long{i}", site) for i in range(cut)]
    return out


def data(documents, **kwargs):
    return Given(documents, **({"partition": BySite(), "batch_size": 2, "eval_batch_size": 4, "seed": 0} | kwargs))


def task(**kwargs):
    given = {"format": "json", "wording": "brief", "max_length": LIMIT, "validation": "loss", "max_new_tokens": 2}
    return InstructionTask(STAND_IN, LoRA(r=2), **(given | kwargs))


def rows(folder, **wanted):
    with open(folder.path / "metrics.csv") as file:
        found = list(csv.DictReader(file))
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


# -- a run -----------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_client_without_an_answer_is_in_no_mean_and_stops_nothing(rule, fit):
    given = data(held(a=(12, 4), b=(12, 0), c=(0, 10)), server_examples=4)
    folder = fit(rule, task(max_without_answer=1.0), given, clients_at_once=2, monitor="val/global/loss")
    trained = {row["client"] for row in rows(folder, split="train", metric="loss")}
    assert "site-c" not in trained
    assert trained
    for split in ("val", "test"):
        each = {row["client"]: row for row in rows(folder, split=split, metric="loss", model="global", round="2")}
        assert math.isnan(float(each["site-c"]["value"]))
        assert each["site-c"]["num_examples"] == "0"
        known = [float(each[f"site-{name}"]["value"]) for name in "ab"]
        assert float(each["mean"]["value"]) == pytest.approx(sum(known) / 2)
        assert 0 < min(known) <= float(each["worst"]["value"])
    assert not rows(folder, metric="refused")
    assert all(math.isfinite(float(row["value"])) for row in rows(folder, client="server"))
    counted = json.loads((folder.path / "summary.json").read_text())["model"]["training_documents"]
    assert counted["site-c"]["without_answer"] == counted["site-c"]["documents"] > 0
    assert counted["site-b"]["without_answer"] == 0


@pytest.mark.filterwarnings("ignore")
def test_what_is_left_out_is_no_part_of_a_clients_weight(fit):
    seen = {}

    class Counts(FedAvg):
        def weigh(self, num_examples, work):
            seen[num_examples] = float(work.examples)
            return super().weigh(num_examples, work)

    fit(Counts(), task(), data(held(a=(10, 4))), max_rounds=1, local_steps=None, local_epochs=2.0)
    given = data(held(a=(10, 4)))
    given.setup()
    kept = [one for one in given.dataset(("site-a",), "train").documents if "long" not in one.id]
    assert seen == {len(kept): 2.0 * len(kept)}


def test_above_the_share_it_is_an_error_before_training_that_names_setting_and_counts(fit):
    with pytest.raises(FedlitError, match=r"max_length is 300.*\(site-c \d of \d\).*model\.max_without_answer 0\.5"):
        fit(FedAvg(), task(), data(held(a=(10, 0), c=(0, 10))))
    with pytest.raises(FedlitError, match=r"max_length is 300, and every training document's question is longer"):
        fit(FedAvg(), task(max_without_answer=1.0), data(held(a=(0, 10), c=(0, 10))))
    with pytest.raises(FedlitError, match=r"max_without_answer is 1\.5: give a share"):
        task(max_without_answer=1.5)


def test_below_the_share_it_is_told_by_client():
    ready_task = task()
    given = data(held(a=(12, 3), b=(12, 0)))
    given.setup()
    ready_task.take_data(given)
    with pytest.warns(UserWarning, match=r"lose their end, of training documents: site-a (\d) of \d+ \(\1 all of it\)"):
        ready_task.configure_model()


# -- parts -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("vectorized", [False, True])
def test_a_server_validates_on_what_has_an_answer(vectorized):
    made = ready(max_length=LIMIT)
    engine = SerialEngine(made, Fabric(accelerator="cpu", devices=1))
    engine = VectorizedEngine(engine) if vectorized else engine
    start = engine.initial()
    models = [start, {name: value + 0.05 for name, value in start.items()}]
    batches = [batch([NOTES[0], long("l1", "a"), NOTES[1]]), batch([long("l2", "a")]), batch([NOTES[2]])]
    found = engine.losses(models, batches, 2)
    wanted = engine.losses(models, [batch(NOTES[:3])], 2)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == (3,)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert [len(one) for one in engine.losses(models, [batch([long("l2", "a")])], 2)] == [0, 0]


def test_the_rule_is_told_where_no_record_of_the_server_has_an_answer():
    from fedlit.aggregators import Server

    server = Server(0, torch.Generator(), lambda models: [torch.zeros(0, dtype=torch.float64) for _ in models])
    with pytest.raises(FedlitError, match="server's validation data has anything to learn from"):
        server.validate({})


def test_a_tagged_document_without_a_word_piece_is_left_out_too():
    made = TokenClassificationTask("stand-in:bert", LoRA(r=2))
    from asked import Held

    made.take_data(Held())
    made.configure_model()
    blank = Document("blank", " \n ")
    assert made.supervised(batch([NOTES[0], blank])).tolist() == [True, False]
    metrics = SpanScores()
    made.eval().evaluate(batch([NOTES[0], blank]), metrics)
    both = metrics.compute()
    metrics.reset()
    made.evaluate(batch([NOTES[0]]), metrics)
    assert both["loss"] == metrics.compute()["loss"]
    assert both["loss_left_out"] == 1


def test_losses_of_nothing_alone_are_undefined_and_a_broken_model_stays_broken():
    metrics, schema = SpanScores(), ready().sought
    nothing = [None, None]
    for losses, loss, left_out in (
        ([None, None], math.nan, 2.0),
        ([None, 3.0], 3.0, 1.0),
        ([1.0, 3.0], 2.0, None),
        ([math.nan, 3.0], math.nan, None),
    ):
        metrics.update(NOTES[:2], ["a", "a"], nothing, nothing, schema, losses)
        found = metrics.compute()
        metrics.reset()
        assert float(found["loss"]) == pytest.approx(loss, nan_ok=True)
        assert found.get("loss_left_out") == left_out


def test_rows_count_what_a_metric_was_made_of():
    replies = [
        Reply("1", "a", scores={"global": {"loss": 2.0, "f1": 0.5, "loss_left_out": 6.0}}, num_examples=8),
        Reply("2", "b", scores={"global": {"loss": 5.0, "f1": 0.7}}, num_examples=4),
        Reply("3", "c", scores={"global": {"loss": math.nan, "f1": 0.9, "loss_left_out": 4.0}}, num_examples=4),
    ]
    found = {(row[3], row[5]): row[6:] for row in score_rows(1, "start", "val", replies, SpanScores())}
    assert found["a", "loss"] == (2.0, 2)
    assert found["a", "f1"] == (0.5, 8)
    assert found["weighted_mean", "loss"] == (pytest.approx((2 * 2 + 5 * 4) / 6), 6)
    assert found["mean", "loss"] == (3.5, 6)
    assert found["weighted_mean", "f1"][1] == 16
    monitor = Monitor("val/global/loss", SpanScores())
    assert monitor.improved({"val/global/loss": math.nan}, None) is None
    assert monitor.improved({"val/global/loss": math.nan}, 1.0) is None


def test_a_client_without_anything_to_learn_from_is_not_asked():
    examples = {"a": {"train": 3, "val": 1}, "c": {"train": 0, "val": 1, UNSUPERVISED: 4}}
    plan = RoundPlan(FedAvg(), ["a", "c"], RunSettings(local_epochs=1.0), examples, 2)
    assert plan.sample(0) == ["a"]
    assert [name for _, name in plan.scored("val")] == ["a", "c"]
    pooled = RoundPlan(Centralized(), ["a", "c"], RunSettings(local_epochs=1.0), examples, 2)
    assert [*pooled.cohorts.values()] == [("a",)]
    assert pooled.steps(next(iter(pooled.cohorts))) == 2


def test_room_is_counted_by_document():
    whole, bare, short = TokenSequence((1, 2, 3), 2), TokenSequence((1, 2), 2, 3), TokenSequence((1, 2), 1, 1)
    own = {"fits": [whole], "two": [whole, bare], "none": [bare, bare], "some": [short], "unasked": []}
    documents = [Document(name, "x") for name in own]
    room = Room.of(documents, lambda document: own[document.id])
    assert room.to_dict() == {
        "documents": 4, "cut": 3, "without_answer": 1, "tokens": 24, "cut_tokens": 10, "longest": 5,
    }  # fmt: skip
    assert "a 3 of 4 (1 all of it)" in check_room({"a": room}, 2, 0.25)
    with pytest.raises(FedlitError, match="a 1 of 4"):
        check_room({"a": room}, 2, 0.24)
    assert check_room({"a": Room(), "b": Room(documents=2, tokens=4, longest=2)}, 2, 0.0) is None

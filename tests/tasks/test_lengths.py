"""What an encoder's window cuts off examples is counted by client, whatever they are."""

from __future__ import annotations

import json

import pytest
import torch

from fedlit.aggregators import ZeroShot
from fedlit.backbones.encoders.family import Extent
from fedlit.backbones.encoders.loading import encoder_stand_in
from fedlit.backbones.lora import LoRA
from fedlit.data import SimulatedTexts
from fedlit.tasks import ClassificationTask
from fedlit.tasks.lengths import Lengths


def task(name: str, **kwargs) -> ClassificationTask:
    made = ClassificationTask(f"stand-in:{name}", LoRA(r=2), classes=["a", "b"], **kwargs)
    made.configure_model()
    return made.eval()


def batch(x, client="one") -> dict:
    count = len(x)
    return {"x": x, "id": [f"e{i}" for i in range(count)], "client": [client] * count,
            "label": torch.zeros(count, dtype=torch.int64)}  # fmt: skip


def test_texts_are_counted_in_tokens_with_the_special_ones():
    made = task("bert", max_length=16)
    texts = ["ab", "a " * 40, "b " * 14]  # 2 + 2, 40 + 2 and 14 + 2 tokens
    with pytest.warns(UserWarning, match=r"client 'one': 1 of the first 3 examples .* the 16 tokens .*raise model.max"):
        made.losses(batch(texts))
    lengths = made.describe()["lengths"]
    assert (lengths["one"]["examples"], lengths["one"]["cut"]) == (3, 1)
    assert lengths["one"]["cut_share"] == pytest.approx(
        26 / sum(encoder_stand_in("stand-in:bert").family.extent(texts).lengths)
    )
    made.outputs(batch(texts))  # each is counted once
    assert made.describe()["lengths"] == lengths
    json.dumps(lengths)


def test_sounds_are_counted_up_to_where_they_are_silent():
    made = task("ast")
    sounds = torch.zeros(3, 16000 * 4)
    sounds[0, : 16000 * 3], sounds[1, :16000], sounds[2] = 1.0, 1.0, 1.0
    with pytest.warns(UserWarning, match=r"2 of the first 3 examples are longer than the 128 frames of 10 ms"):
        made.outputs(batch(sounds))
    lengths = made.describe()["lengths"]["one"]
    assert lengths["cut"] == 2
    assert lengths["cut_share"] == pytest.approx((170 + 270) / (298 + 98 + 398))


def test_signals_are_counted_in_samples():
    made = task("chronos-bolt")
    limit = made._family.context_length
    with pytest.warns(UserWarning, match=rf"longer than the {limit} samples that are looked at, and lose 50% of all"):
        made.outputs(batch(torch.randn(2, 1, 2 * limit)))
    made.outputs(batch(torch.randn(2, 1, limit), "two"))
    assert made.describe()["lengths"]["two"] == {"examples": 2, "cut": 0, "cut_share": 0.0}


def test_what_is_never_cut_is_not_counted():
    made = task("vit")
    made.outputs(batch(torch.zeros(2, 16, 16, 3, dtype=torch.uint8)))
    assert made.describe()["lengths"] == {}


def test_little_is_counted_and_not_told(recwarn):
    tally = Lengths()
    tally.note(["a"] * 20, [str(i) for i in range(20)], Extent("tokens", 10, [*[10] * 19, 20]), "mend")
    assert tally.counts() == {"a": {"examples": 20, "cut": 1, "cut_share": 10 / 210}}
    assert not recwarn.list
    tally.note(["a", "b"], ["x", "0"], Extent("tokens", 10, [40, 5]), "mend it")
    assert len(recwarn.list) == 1
    assert "client 'a': 2 of the first 21 examples" in str(recwarn.list[0].message)
    tally.note(["a"], ["y"], Extent("tokens", 10, [400]), "mend it")
    assert len(recwarn.list) == 1
    assert tally.unseen(["a", "b", "c"], ["y", "1", "0"]) == [1, 2]


@pytest.mark.filterwarnings("ignore")
def test_a_run_tells_it_in_its_summary(fit):
    made = ClassificationTask("stand-in:bert", LoRA(r=2), max_length=8)
    folder = fit(ZeroShot(), made, SimulatedTexts(subjects=12, sites=2, per_subject=2), clients_at_once=2)
    lengths = json.loads((folder.path / "summary.json").read_text())["model"]["lengths"]
    assert len(lengths) == 2
    assert all(own["cut_share"] > 0.05 for own in lengths.values())

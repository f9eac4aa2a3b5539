"""Compression of uploads by hand: what is sent, what is lost, what is kept, what is refused."""

from __future__ import annotations

import math
import re

import pytest
import torch
from quadratics import quadratic, train
from uploads import CHAINS, draws, upload

from fedlit import codec, tree
from fedlit.aggregators import FedAvg, Server, Update
from fedlit.compression import BFloat16, Channel, Int8, TopK, Transform
from fedlit.compression.sparse import largest
from fedlit.errors import FedlitError
from fedlit.transports import admit


@pytest.fixture(params=CHAINS)
def channel(request) -> Channel:
    return Channel(CHAINS[request.param])


UNTOUCHED = ("tau", "one", "none", "steps", "chosen")


def values(up: dict) -> dict:
    """Of each tensor that may be compressed."""
    return {p: x.double() for p, x in tree.flatten(up).items() if x.is_floating_point() and x.dim()}


def test_what_comes_out_has_the_form_of_what_went_in(channel):
    up = upload()
    sent = channel.encode(up, None, draws())
    seen = channel.decode(sent.wire, channel.outline(up))
    assert {p: (x.shape, x.dtype) for p, x in tree.flatten(seen).items()} == {
        p: (x.shape, x.dtype) for p, x in tree.flatten(up).items()
    }
    assert seen["nothing"] == {}
    for name in UNTOUCHED:
        assert torch.equal(seen[name], up[name]), name
    assert 0 < sent.figures["compression_error"] < 1


def test_the_server_knows_what_is_sent_before_it_comes(channel):
    up = upload()
    form = channel.wire(channel.outline(up))
    assert all(x.is_meta for x in tree.leaves(form))
    blobs = [codec.encode(channel.encode(upload(i, 10.0**i), None, draws(i)).wire) for i in range(3)]
    assert len({len(blob) for blob in blobs}) == 1
    wire = tree.flatten(admit(blobs[0], form, "reply"))
    assert {p: (x.shape, x.dtype) for p, x in wire.items()} == {
        p: (x.shape, x.dtype) for p, x in tree.flatten(form).items()
    }


def test_the_order_of_names_makes_no_difference(channel):
    up = upload()
    turned = {k: up[k] for k in reversed(up)}
    one, two = (channel.encode(u, None, draws()) for u in (up, turned))
    assert codec.encode(one.wire) == codec.encode(two.wire)
    assert tree.equal(channel.decode(tree.ordered(two.wire), turned), channel.decode(one.wire, up))


@pytest.mark.parametrize("nothing", [{}, {"stage": {}}, torch.tensor(3.0), {"count": torch.arange(3)}], ids=str)
def test_an_upload_without_anything_to_compress_is_sent_as_it_is(channel, nothing):
    sent = channel.encode(nothing, None, draws())
    assert codec.encode(sent.wire) == codec.encode(nothing)
    assert tree.equal(channel.decode(sent.wire, nothing), nothing)
    assert sent.figures == {"compression_error": 0.0}


def test_a_bare_tensor(channel):
    up = torch.randn(6, 50, generator=draws())
    sent = channel.encode(up, None, draws())
    seen = channel.decode(sent.wire, up)
    assert sent.figures["compression_error"] == pytest.approx(float((seen - up).norm() / up.norm()), rel=1e-5)


def test_without_transforms_nothing_happens():
    up = upload()
    sent = Channel().encode(up, None, draws())
    assert sent.wire is up
    assert (sent.residual, sent.figures, Channel().label) == (None, {}, "")


def test_bfloat16_is_the_cast_of_torch():
    up = upload()
    seen = Channel([BFloat16()]).decode(BFloat16().encode(up, draws()), up)
    for path in ("w", "a/kernel", "a/bias", "double", "half", "column"):
        x, y = tree.flatten(up)[path], tree.flatten(seen)[path]
        assert torch.equal(y, x.bfloat16().to(x.dtype)), path
        assert ((x - y).abs() <= 2.0**-8 * x.abs()).all()


def test_int8_by_hand():
    w = torch.tensor([[127.0, -63.6, 0.4], [0.0, 0.0, 0.0], [-2.54, 1.0, 2.0]])
    wire = Int8().encode({"w": w, "b": torch.tensor([1.0, -0.5, 0.25, 0.0, 1.0])}, draws())
    assert wire["tensors"]["w"].tolist() == [[127, -64, 0], [0, 0, 0], [-127, 50, 100]]
    assert wire["tensors"]["b"].tolist() == [127, -64, 32, 0, 127]
    torch.testing.assert_close(wire["scales"], torch.tensor([1 / 127, 1.0, 0.0, 0.02]))
    seen = Int8().decode(wire, {"w": w, "b": torch.zeros(5)})
    torch.testing.assert_close(seen["w"][0], torch.tensor([127.0, -64.0, 0.0]))
    assert not seen["w"][1].any()


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("shape", [(16, 33), (5, 3, 7), (400,)], ids=str)
def test_int8_is_off_by_at_most_half_a_scale(shape, size):
    x = size * torch.randn(shape, generator=draws(1), dtype=torch.float64)
    wire = Int8().encode(x, draws())
    assert len(wire["scales"]) == (shape[0] if len(shape) > 1 else 1)
    half = wire["scales"].double().reshape(-1, *[1] * (x.dim() - 1)) / 2
    assert ((Int8().decode(wire, x) - x).abs() <= half * (1 + 1e-6)).all()


def test_int8_at_random_is_right_on_average_and_keyed_by_its_generator():
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)
    rule = Int8(stochastic=True)
    seen = torch.stack([rule.decode(rule.encode(x, draws(i)), x) for i in range(2000)])
    step = 1 / 127
    assert (seen - x).abs().max() < step * (1 + 1e-6)
    assert (seen.mean(0) - x).abs().max() < 5 * step / 2 / math.sqrt(2000)
    nearest = Int8().decode(Int8().encode(x, draws()), x)
    assert (nearest - x).abs().max() > 0.2 * step  # so that the bound above says something
    assert torch.equal(seen[3], rule.decode(rule.encode(x, draws(3)), x))


def test_top_k_by_hand():
    up = {"w": torch.tensor([[0.1, -5.0, 0.2, 3.0], [0.0, 4.0, -0.3, -3.0]]), "b": torch.arange(10.0) - 7}
    wire = TopK(0.25).encode(up, draws())
    assert wire["places"].dtype == torch.int32
    assert wire["places"].tolist() == [0, 1, 1, 5]  # b first, by name; each in its own count
    assert wire["tensors"]["w"].tolist() == [-5.0, 4.0]
    assert wire["tensors"]["b"].tolist() == [-7.0, -6.0]
    seen = TopK(0.25).decode(wire, up)
    assert seen["w"].tolist() == [[0.0, -5.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]]
    sent = Channel([TopK(0.25)]).encode({"w": up["w"]}, None, draws())
    lost = up["w"].square().sum() - 25 - 16
    assert sent.figures["compression_error"] == pytest.approx(float((lost / up["w"].square().sum()).sqrt()))
    assert torch.equal(sent.residual["w"], up["w"] - seen["w"])


def test_of_equal_magnitudes_the_first_are_taken():
    x = torch.tensor([1.0, -2.0, 2.0, 1.0, -1.0, 2.0, 0.0])
    assert largest(x, 2).tolist() == [1, 2]
    assert largest(x, 4).tolist() == [0, 1, 2, 5]
    assert largest(torch.zeros(5), 3).tolist() == [0, 1, 2]


def test_top_k_sends_whole_what_would_not_get_shorter():
    up = {"two": torch.ones(2), "three": torch.ones(3), "whole": torch.arange(3)}
    assert TopK(0.01).wire(up)["tensors"]["two"].shape == (2,)
    assert TopK(0.01).wire(up)["tensors"]["three"].shape == (1,)
    assert TopK(0.5).wire(up) == up


@pytest.mark.parametrize("name", [name for name, chain in CHAINS.items() if Channel(chain).feedback])
def test_what_was_sent_and_what_is_kept_add_up_to_all_there_was(name):
    channel, kept = Channel(CHAINS[name]), None
    truth = {p: torch.zeros_like(x) for p, x in values(upload()).items()}
    seen = {p: torch.zeros_like(x) for p, x in values(upload()).items()}
    for i in range(30):
        up = upload(i)
        sent = channel.encode(up, kept, draws(i))
        kept = sent.residual
        truth = tree.add(truth, values(up))
        seen = tree.add(seen, values(channel.decode(sent.wire, up)))
    for path, total in truth.items():
        torch.testing.assert_close(seen[path] + kept.get(path, torch.zeros(())).double(), total, rtol=0, atol=1e-4)
    assert {"w", "a/kernel"} <= kept.keys()
    assert not kept.keys() & set(UNTOUCHED)
    assert all(e.dtype in (torch.float32, torch.float64) for e in kept.values())


def test_a_residual_waits_for_its_tensor_and_is_dropped_with_another_shape():
    channel = Channel([TopK(0.1)])
    kept = channel.encode({"A": torch.arange(20.0), "B": torch.arange(30.0)}, None, draws()).residual
    other = channel.encode({"B": torch.zeros(30)}, kept, draws())
    assert torch.equal(other.residual["A"], kept["A"])
    assert channel.decode(other.wire, {"B": torch.zeros(30)})["B"].max() == 26
    fresh = channel.encode({"A": torch.zeros(4, 5)}, kept, draws())
    assert fresh.residual.keys() == {"B"}


def descend(transforms: list, rounds: int = 400) -> torch.Tensor:
    """FedAvg over two clients whose first coordinates pull apart, and whose second want 1."""
    channel, rule = Channel(transforms), FedAvg()
    losses = {"a": quadratic(1.0, [10.0, 1.0]), "b": quadratic(1.0, [-10.0, 1.0])}
    state, kept = rule.init({"w": torch.zeros(2, dtype=torch.float64)}), dict.fromkeys(losses)
    for index in range(rounds):
        updates = []
        for client, loss in losses.items():
            up, _, _ = train(rule, loss, state["params"], {}, [0.01])
            sent = channel.encode(up, kept[client], draws())
            kept[client] = sent.residual
            seen = channel.decode(sent.wire, up)
            updates.append(Update(client, 1.0, lambda seen=seen: seen))
        state = rule.aggregate(state, updates, Server(index, draws(index)))
    return state["params"]["w"]


def test_with_error_feedback_fedavg_arrives_where_it_stalls_without():
    assert descend([TopK(0.5, error_feedback=False)]).tolist() == [0.0, 0.0]
    torch.testing.assert_close(descend([]), torch.tensor([0.0, 1.0], dtype=torch.float64), atol=0.02, rtol=0)
    for chain in ([TopK(0.5)], [TopK(0.5), BFloat16()]):
        torch.testing.assert_close(descend(chain), torch.tensor([0.0, 1.0], dtype=torch.float64), atol=0.2, rtol=0)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 2.0, float("nan"), float("inf")])
def test_an_absurd_share_is_refused_by_name(value):
    with pytest.raises(FedlitError, match=re.escape("TopK.share")):
        TopK(value)


def test_chains_that_make_no_sense_are_refused():
    for after in (TopK(), BFloat16(), Int8()):
        with pytest.raises(FedlitError, match="follows Int8.*put Int8 last"):
            Channel([Int8(), after])

    with pytest.raises(FedlitError, match="trainer.compression: 'Int8' is no Transform"):
        Channel(["Int8"])

    class Half(Transform):
        def wire(self, upload):
            return upload

    with pytest.raises(FedlitError, match="Half is no whole Transform: it has no method `encode`"):
        Channel([Half()])

"""EPFL against a matrix worked out by hand and a whole round written as a plain loop; its two variants; its gauge."""

from __future__ import annotations

import pytest
import torch
from test_similarity import last, server
from toys import Classifier, GivenData, ToyData

from fedlit import tree
from fedlit.aggregators import FedAvg
from fedlit.aggregators.epfl import EPFL, SelectiveEPFL, ShrunkEPFL, natural, signal
from fedlit.aggregators.parts.signatures import layer_distances
from fedlit.aggregators.server import Update
from fedlit.errors import FedlitError

DOUBLE = {"dtype": "float64"}
B1, B2 = "block.0.lora_B.default.weight", "block.1.lora_B.default.weight"


def of(*pairs):
    """Signatures of two 2x1 matrices B each."""
    return [{B1: torch.tensor([[x], [0.0]]).double(), B2: torch.tensor([[0.0], [y]]).double()} for x, y in pairs]


def test_the_matrix_of_three_clients_by_hand():
    """Distances: 1 and 2 are (3 + 1) / 2 = 2 apart, 1 and 3 (4 + 4) / 2 = 4, 2 and 3 (1 + 5) / 2 = 3."""
    three = of((0.0, 0.0), (3.0, 1.0), (4.0, -4.0))
    rows = EPFL().mix(three, [1.0] * 3)
    expected = [[1 / 2, 1 / 3, 1 / 6], [3 / 10, 1 / 2, 1 / 5], [3 / 14, 2 / 7, 1 / 2]]
    torch.testing.assert_close(rows, torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=1e-15)
    rows = EPFL(lam=0.2).mix(three, [1.0] * 3)
    torch.testing.assert_close(rows[0], torch.tensor([0.2, 8 / 15, 4 / 15], dtype=torch.float64), rtol=1e-15, atol=0)


def test_psi_takes_a_half_of_the_layers_in_order():
    params = {f"block.{i}.lora_{m}.default.weight": torch.ones(1, 1) for i in range(12) for m in "AB"}
    chosen = {psi: list(EPFL(psi=psi).signed(params, params)) for psi in ("first_half", "second_half", "all")}
    assert chosen["first_half"] == [f"block.{i}.lora_B.default.weight" for i in range(6)]
    assert chosen["all"] == chosen["first_half"] + chosen["second_half"]
    assert len(chosen["all"]) == 12
    assert sorted(["b.10.q", "b.2.v", "b.2.q"], key=natural) == ["b.2.q", "b.2.v", "b.10.q"]
    with pytest.raises(FedlitError, match="finds nothing to compare"):
        EPFL(psi="first_half").init({name: params[name] for name in params if "block.3." in name})


def test_all_zero_b_gives_others_equal_shares():
    assert EPFL().mix(of((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)), [1.0] * 3).tolist() == [
        [0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5],
    ]  # fmt: skip


@pytest.mark.parametrize("psi", ["all", "second_half"])
def test_two_rounds_are_the_textbook_loop(fit, psi):
    """An independent loop in float64: every client trains with plain autograd, all A are mixed from one snapshot."""
    data, lr, steps, lam = ToyData(classes=3, features=4, batch_size=0, **DOUBLE), 0.3, 2, 0.4
    data.setup()
    make = lambda: Classifier(rank=2, **DOUBLE)  # noqa: E731
    clients = {c: make() for c in data.clients}
    for _ in range(3):
        for c, network in clients.items():
            trained = [p for p in network.parameters() if p.requires_grad]
            for _ in range(steps):
                grads = torch.autograd.grad(network.losses(data.dataset(c, "train").tensors).mean(), trained)
                with torch.no_grad():
                    for p, g in zip(trained, grads, strict=True):
                        p -= lr * g
        got = {
            c: {n: p.detach().clone() for n, p in m.named_parameters() if p.requires_grad} for c, m in clients.items()
        }
        layers = ["first", "second"] if psi == "all" else ["second"]
        for i, network in clients.items():
            d = {}
            for j in clients:
                names = [f"network.{layer}.lora_B.default.weight" for layer in layers]
                d[j] = sum(((got[i][n] - got[j][n]) ** 2).sum().sqrt() for n in names) / len(names)
            total = sum(1 / d[k] for k in clients if k != i)
            with torch.no_grad():
                for n, p in network.named_parameters():
                    if "lora_A" in n:
                        p.copy_(lam * got[i][n] + (1 - lam) * sum(got[j][n] / d[j] for j in clients if j != i) / total)
    rule = EPFL(lam=lam, psi=psi)
    state, kept = last(fit(rule, Classifier(rank=2, lr=lr, **DOUBLE), data, max_rounds=3, local_steps=steps))
    for c, network in clients.items():
        served = rule.personal(rule.down(state, c), kept[c])
        for n, p in network.named_parameters():
            if p.requires_grad:
                torch.testing.assert_close(served[n], p.detach(), rtol=1e-11, atol=1e-12)


def test_up_go_a_and_the_compared_b_down_goes_a(fit):
    ledger = fit(EPFL(psi="second_half"), Classifier(rank=2), ToyData(classes=3, features=4)).ledger.read()
    a, b = 2 * 4 + 2 * 6, 6 * 2
    assert {(row["direction"], row["parameters"]) for row in ledger} == {("down", str(a)), ("up", str(a + b))}


def test_distances_of_sketches_are_within_the_stated_bound():
    """Squared distances of 12 layers of 96 x 8: right on average, off by sqrt(2 / 64) of themselves at most, as rms."""
    g = torch.Generator().manual_seed(3)
    names = [f"block.{i}.lora_B.default.weight" for i in range(12)]
    clients = [{n: (1 + i) * torch.randn(96, 8, generator=g) for n in names} for i in range(12)]
    sent = [EPFL(sketch=64).signed(w, w) for w in clients]
    assert {tuple(v.shape) for s in sent for v in s.values()} == {(64,)}
    exact, found = layer_distances(clients), layer_distances(sent)
    above = torch.triu(torch.ones(12, 12, dtype=torch.bool), 1)
    error = ((found / exact) ** 2 - 1)[:, above]
    bound = (2 / 64) ** 0.5
    assert 0.5 * bound < error.square().mean().sqrt() < 1.1 * bound
    assert abs(error.mean()) < 0.2 * bound
    # Layers are projected apart, so their mean is nearer than each of them.
    rows, wanted = EPFL(sketch=64).mix(sent, [1.0] * 12), EPFL().mix(clients, [1.0] * 12)
    assert 0 < (rows - wanted).abs().max() < 0.15 * wanted[0, 1:].max()


def test_layers_are_projected_apart_and_all_clients_alike():
    b = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    one, two = (EPFL(sketch=16).signed({B1: x, B2: x}, {}) for x in (b, 2 * b))
    assert (one[B1] - one[B2]).norm() > 0.5 * b.norm()
    for name in (B1, B2):
        torch.testing.assert_close(two[name], 2 * one[name])


def test_a_sketch_as_large_as_b_is_b_and_none_is_less_than_nothing():
    w = {B1: torch.randn(4, 2), B2: torch.randn(4, 2)}
    assert EPFL(sketch=8).signed(w, w) == w
    assert EPFL(sketch=7).signed(w, w)[B1].shape == (7,)
    with pytest.raises(FedlitError, match="EPFL.sketch is -1"):
        EPFL(sketch=-1)


def test_the_ledger_shows_what_a_sketch_saves(fit):
    """64 hidden values at rank 2: two B of 128 values, 16 go up in the place of each; A goes as before."""
    data, parameters = ToyData(classes=3, features=4), {}
    for sketch in (0, 16):
        folder = fit(EPFL(sketch=sketch), Classifier(width=64, rank=2), data)
        rows = [row for row in folder.ledger.read() if row["direction"] == "up"]
        parameters[sketch] = {int(row["parameters"]) for row in rows}
    (whole,), (short,) = parameters[0], parameters[16]
    assert whole - short == 2 * (128 - 16)


def test_the_distance_depends_on_the_gauge():
    """(B G, G^-1 A) is the same update as (B, A), and another distance: why all must start from one A."""
    b, g = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()
    a = torch.tensor([[1.0], [3.0]]).double()
    assert torch.equal(b @ g @ (g.inverse() @ a), b @ a)
    same, turned = layer_distances([{B1: b}, {B1: b}]), layer_distances([{B1: b}, {B1: b @ g}])
    assert same[0, 0, 1] == 0
    assert turned[0, 0, 1] == 1


def test_with_equal_rows_it_averages_a_alone(fit):
    """Identical clients: A as FedAvg's on the same data, and everyone's the same."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 4, generator=g).double(), torch.randint(3, (8,), generator=g)
    data = GivenData({f"c{i}": (x, y) for i in range(4)})
    plain, _ = last(fit(FedAvg(), Classifier(rank=2, **DOUBLE), data, max_rounds=3))
    for rule in (EPFL(), ShrunkEPFL(prior=3.0), SelectiveEPFL()):
        state, kept = last(fit(rule, Classifier(rank=2, **DOUBLE), data, max_rounds=3))
        served = rule.personal(rule.down(state, "c1"), kept["c1"])
        torch.testing.assert_close(tree.ordered(served), plain["params"], rtol=1e-10, atol=1e-12)


def test_shrinkage_by_hand():
    """Client 1 has 10 examples and a prior of 10: half its row is EPFL's, half the plain mean of 10, 30 and 60."""
    three = of((0.0, 0.0), (3.0, 1.0), (4.0, -4.0))
    rows = ShrunkEPFL(prior=10.0).mix(three, [10.0, 30.0, 60.0])
    expected = torch.tensor([0.5 * 1 / 2 + 0.05, 0.5 * 1 / 3 + 0.15, 0.5 * 1 / 6 + 0.3]).double()
    torch.testing.assert_close(rows[0], expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(rows.sum(1), torch.ones(3).double())
    assert torch.equal(ShrunkEPFL(prior=0.0).mix(three, [1.0, 2.0, 3.0]), EPFL().mix(three, [1.0] * 3))
    assert ShrunkEPFL().weigh(17, None) == 17.0
    assert EPFL().weigh(17, None) == 1.0


def test_the_signal_of_distances_that_only_differ_in_size_is_zero():
    a = torch.tensor([1.0, 2.0, 3.0, 7.0, 4.0]).double()
    additive = (a[:, None] + a[None, :]).fill_diagonal_(0.0)
    pairs = torch.tensor([[0, 1, 9, 9], [1, 0, 9, 9], [9, 9, 0, 1], [9, 9, 1, 0]]).double()
    assert float(signal(additive[None])) < 1e-28
    # By hand: all a_i are 19 / 6, so the rest is 1 - 19 / 3 or 9 - 19 / 3, its mean square 128 / 9, the mean 19 / 3.
    assert float(signal(pairs[None])) == pytest.approx((128 / 9) / (19 / 3) ** 2, rel=1e-12)


def test_selection_finds_the_layer_that_tells_two_groups_apart():
    """In the second layer clients 0 to 2 and 3 to 5 are two groups; the first is large noise."""
    g = torch.Generator().manual_seed(0)
    group = torch.tensor([0.0, 0, 0, 1, 1, 1])
    signatures = [
        {B1: 5 * torch.randn(200, generator=g), B2: side + 0.02 * torch.randn(200, generator=g)} for side in group
    ]
    chosen, everything = SelectiveEPFL(keep=0.5), EPFL()
    inside = [float(rule.mix(signatures, [1.0] * 6)[0, 1:3].sum()) for rule in (chosen, everything)]
    assert inside[0] > 0.45
    assert inside[1] < 0.25
    first = EPFL().mix([{B2: s[B2]} for s in signatures], [1.0] * 6)
    assert torch.equal(chosen.mix(signatures, [1.0] * 6), first)


def test_with_three_clients_all_layers_are_compared():
    three = of((0.0, 0.0), (3.0, 1.0), (4.0, -4.0))
    assert torch.equal(SelectiveEPFL(keep=0.1).mix(three, [1.0] * 3), EPFL().mix(three, [1.0] * 3))


def test_a_client_without_a_mix_starts_from_the_common_a():
    params = {B1: torch.zeros(2, 1), B1.replace("B", "A"): torch.ones(1, 2)}
    rule = EPFL()
    state = rule.init(params)
    upload = {"moved": {B1.replace("B", "A"): torch.ones(1, 2)}, "signature": {B1: torch.ones(2, 1)}}
    state = rule.aggregate(state, [Update("a", 1.0, lambda: upload)], server())
    assert torch.equal(rule.down(state, "a")[B1.replace("B", "A")], 2 * torch.ones(1, 2))
    assert torch.equal(rule.down(state, "b")[B1.replace("B", "A")], torch.ones(1, 2))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: EPFL(psi="last"), "psi"), (lambda: EPFL(signature="update"), "signature"),
        (lambda: ShrunkEPFL(prior=-1.0), "prior"), (lambda: SelectiveEPFL(keep=0.0), "keep"),
        (lambda: SelectiveEPFL(distance="cosine"), "distance"),
    ],
)  # fmt: skip
def test_hyperparameters_out_of_range_are_refused_by_name(make, field):
    with pytest.raises(FedlitError, match=rf"\.{field} is"):
        make()

"""SimilarityAggregator, FedAP, FedACS and FedAMP, held against hands and plain loops."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from toys import Classifier, GivenData, Regression, ToyData, last

from fedlit import tree
from fedlit.aggregators import FedAvg, LocalOnly, Server
from fedlit.aggregators.epfl import EPFL
from fedlit.aggregators.server import Sealed, Update
from fedlit.aggregators.similarity import FedACS, FedAMP, FedAP, SimilarityAggregator
from fedlit.errors import FedlitError

DOUBLE = {"dtype": "float64"}


def vectors(*values):
    return [{"w": torch.tensor(v, dtype=torch.float64)} for v in values]


def server(round=0):  # noqa: A002
    return Server(round, torch.Generator())


ALL = [
    SimilarityAggregator(), SimilarityAggregator(signature="sketch", distance="cosine"), FedACS(),
    FedACS(select="top_k"), FedACS(select="softmax"), FedAMP(),
]  # fmt: skip


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_rows_are_finite_and_sum_to_one_whatever_comes(rule):
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        n, scale = 1 + seed % 5, [0.0, 1e-30, 1.0, 1e30][seed % 4]
        signatures = [{"w": scale * torch.randn(4, generator=g)} for _ in range(n)]
        rows = rule.mix([signatures[0] if seed % 3 == 0 else s for s in signatures], [1.0] * n)
        assert torch.isfinite(rows).all()
        assert (rows >= -1e-15).all()
        torch.testing.assert_close(rows.sum(1), torch.ones(n, dtype=torch.float64), rtol=0, atol=1e-12)


def test_fedamps_weights_by_hand():
    """Two parameters. |w1 - w2|^2 / 2 = 4, |w1 - w3|^2 / 2 = 8 and |w2 - w3|^2 / 2 = 4; sigma 4, alpha 0.6, n 3."""
    rows = FedAMP(sigma=4.0, alpha=0.6).mix(vectors([0.0, 0.0], [2.0, 2.0], [4.0, 0.0]), [1.0] * 3)
    near, far = 0.2 * math.exp(-1), 0.2 * math.exp(-2)
    expected = [[1 - near - far, near, far], [near, 1 - 2 * near, near], [far, near, 1 - near - far]]
    torch.testing.assert_close(rows, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_fedamp_gives_identical_clients_equal_rows():
    rows = FedAMP().mix(vectors([1.0, 2.0], [1.0, 2.0], [1.0, 2.0]), [1.0] * 3)
    torch.testing.assert_close(rows, torch.full((3, 3), 1 / 3, dtype=torch.float64))


def test_fedamp_without_pull_is_local_training(fit):
    data, task = ToyData(**DOUBLE), {"hidden": 4, **DOUBLE}
    _, kept = last(fit(FedAMP(mu=0.0), Regression(**task), data, max_rounds=3))
    _, alone = last(fit(LocalOnly(), Regression(**task), data, max_rounds=3))
    assert all(tree.equal(tree.ordered(kept[c]), tree.ordered(alone[c])) for c in alone)


def test_fedamp_is_the_textbook_loop(fit):
    """Algorithm 1 on linear regressions with one full batch, written out without this library's tree."""
    data, steps, lr, mu, sigma = ToyData(batch_size=0, **DOUBLE), 2, 0.1, 0.7, 0.5
    data.setup()
    start = torch.cat([p.detach().flatten() for p in Regression(**DOUBLE).parameters()])
    own = {c: start.clone() for c in data.clients}
    cloud = {c: start.clone() for c in data.clients}
    for _ in range(3):
        for c in data.clients:
            x, y = data.dataset(c, "train").tensors
            x = torch.cat([x, torch.ones(len(x), 1).double()], 1)
            for _ in range(steps):
                own[c] = own[c] - lr * (x.T @ (x @ own[c] - y) / len(x) + mu * (own[c] - cloud[c]))
        for i in data.clients:
            xi = {j: 0.9 / 3 * math.exp(-float(((own[i] - own[j]) ** 2).mean()) / sigma) for j in own if j != i}
            cloud[i] = (1 - sum(xi.values())) * own[i] + sum(weight * own[j] for j, weight in xi.items())
    rule = FedAMP(sigma=sigma, alpha=0.9, mu=mu)
    state, kept = last(fit(rule, Regression(**DOUBLE), data, max_rounds=3, local_steps=steps))
    for c in data.clients:
        for found, expected in ((kept[c], own[c]), (state["models"][c], cloud[c])):
            flat = torch.cat([found["net.0.weight"].flatten(), found["net.0.bias"]])
            torch.testing.assert_close(flat, expected, rtol=1e-12, atol=1e-12)


def test_fedacs_selects_by_hand():
    """Cosines with the first: 1, 0.8, 0.6, -1."""
    four = vectors([1.0, 0.0], [0.8, 0.6], [0.6, -0.8], [-3.0, 0.0])
    rows = FedACS(select="threshold", threshold=0.7, lam=0.25).mix(four, [1.0] * 4)
    torch.testing.assert_close(rows[0], vectors([0.25, 0.75, 0, 0])[0]["w"], rtol=1e-12, atol=1e-12)
    assert rows[3].tolist() == [0.0, 0.0, 0.0, 1.0]
    rows = FedACS(select="threshold", threshold=0.5, lam=0.3).mix(four, [1.0] * 4)
    torch.testing.assert_close(rows[0], vectors([0.3, 0.4, 0.3, 0])[0]["w"], rtol=1e-12, atol=1e-12)
    rows = FedACS(select="top_k", k=1, lam=0.5).mix(four, [1.0] * 4)
    torch.testing.assert_close(rows[0], torch.tensor([0.5, 0.5, 0, 0]).double(), rtol=1e-12, atol=1e-12)
    rows = FedACS(select="softmax", temperature=0.2, lam=0.0).mix(four, [1.0] * 4)
    raw = torch.tensor([0.0, math.exp(4), math.exp(3), math.exp(-5)], dtype=torch.float64)
    torch.testing.assert_close(rows[0], raw / raw.sum(), rtol=1e-9, atol=0)


def test_the_k_most_similar_do_not_depend_on_the_order_of_clients():
    """Of two that are equally similar both count."""
    rows = FedACS(select="top_k", k=1).mix(vectors([1.0, 0.0], [2.0, 0.0], [4.0, 0.0]), [1.0] * 3)
    assert rows[0].tolist() == [0.5, 0.25, 0.25]


def test_fedap_mixes_all_but_norm_layers(fit):
    data, start = ToyData(classes=3, features=4, batch_size=0, **DOUBLE), dict(Classifier(**DOUBLE).named_parameters())
    state, kept = last(fit(FedAP(), Classifier(**DOUBLE), data, max_rounds=1))
    assert set(kept["client-00"]) == {"network.norm.weight", "network.norm.bias"}
    assert set(state["models"]["client-00"]) == start.keys() - set(kept["client-00"])
    # The 2-Wasserstein distance of Gaussians with these scales and shifts, once more in plain torch.
    apart = {
        c: ((kept["client-00"]["network.norm.weight"] - kept[c]["network.norm.weight"]) ** 2).sum()
        + ((kept["client-00"]["network.norm.bias"] - kept[c]["network.norm.bias"]) ** 2).sum()
        for c in ("client-01", "client-02")
    }
    near = {c: 1 / d.sqrt() for c, d in apart.items()}
    _, alone = last(fit(LocalOnly(), Classifier(**DOUBLE), data, max_rounds=1))
    expected = 0.5 * alone["client-00"]["network.head.weight"]
    for c, weight in near.items():
        expected = expected + 0.5 * weight / sum(near.values()) * alone[c]["network.head.weight"]
    torch.testing.assert_close(state["models"]["client-00"]["network.head.weight"], expected, rtol=1e-12, atol=1e-12)


def test_with_all_of_itself_it_is_local_training(fit):
    _, alone = last(fit(LocalOnly(), Regression(**DOUBLE), ToyData(**DOUBLE), max_rounds=3))
    for rule in (SimilarityAggregator(lam=1.0), FedACS(lam=1.0), FedACS(threshold=1.0)):
        state, _ = last(fit(rule, Regression(**DOUBLE), ToyData(**DOUBLE), max_rounds=3))
        for client, model in alone.items():
            torch.testing.assert_close(state["models"][client], tree.ordered(model), rtol=1e-9, atol=1e-12)


def test_identical_clients_are_fedavg(fit):
    x, y = torch.randn(6, 3).double(), torch.randn(6).double()
    data = GivenData({f"c{i}": (x, y) for i in range(4)})
    plain, _ = last(fit(FedAvg(), Regression(**DOUBLE), data, max_rounds=3))
    for rule in (SimilarityAggregator(lam=0.25), FedACS(lam=0.25)):
        torch.testing.assert_close(rule.mix(vectors(*[[1.0, 2.0]] * 4), [1.0] * 4), torch.full((4, 4), 0.25).double())
        state, _ = last(fit(rule, Regression(**DOUBLE), data, max_rounds=3))
        torch.testing.assert_close(state["models"]["c2"], plain["params"], rtol=1e-12, atol=1e-12)


def test_who_is_absent_keeps_its_mix_and_who_is_new_starts_as_all_did(fit):
    rule, params = SimilarityAggregator(), {"w": torch.zeros(2)}
    state = rule.init(params)
    assert rule.down(state, "a") is rule.down(state, "b") is state["params"]
    up = {c: {"moved": {"w": torch.tensor([1.0, i])}, "signature": {}} for i, c in enumerate("ab")}
    state = rule.aggregate(state, [Update(c, 1.0, lambda c=c: up[c]) for c in "ab"], server())
    held = state["models"]["a"]
    state = rule.aggregate(state, [Update(c, 1.0, lambda: up["b"]) for c in "bc"], server(1))
    assert state["models"]["a"] is held
    assert set(state["models"]) == {"a", "b", "c"}
    assert torch.equal(rule.down(state, "d")["w"], torch.zeros(2))


def test_what_stays_at_home_is_compared_by_a_sketch_of_it(fit):
    rule = SimilarityAggregator(signature="sketch", share=r"net\.3")
    state, kept = last(fit(rule, Regression(hidden=4), ToyData(num_clients=3)))
    assert set(state["models"]["client-00"]) == {"net.3.weight", "net.3.bias"}
    assert set(kept["client-00"]) == {"net.0.weight", "net.0.bias"}
    params = {"net.0.weight": torch.ones(3), "net.3.weight": torch.ones(2)}
    upload, _ = rule.finish(tree.scale(params, 2.0), rule.shared(params), rule.kept(params), None)
    assert set(upload["signature"]) == {"sketch"}
    assert set(upload["moved"]) == {"net.3.weight"}


@dataclass(frozen=True)
class ByFeatures(SimilarityAggregator):
    """Compared are mean features of 4 classes, here a stand-in for what a rule would have collected."""

    def signed(self, w, start):
        return {"prototypes": w["net.0.weight"].repeat(4, 1)} if "net.0.weight" in w else {}


def test_a_rule_may_compare_what_it_likes(fit):
    state, _ = last(fit(ByFeatures(share="bias"), Regression(), ToyData()))
    assert set(state["models"]["client-00"]) == {"net.0.bias"}


@pytest.mark.parametrize("rule", [SimilarityAggregator(), FedACS(), FedAMP()], ids=lambda r: type(r).__name__)
def test_sealed_updates_are_refused(rule):
    state = rule.init({"w": torch.zeros(1)})
    sealed = [Update("a", 1.0, lambda: {"moved": {"w": torch.zeros(1)}, "signature": {}}, sealed=True)]
    with pytest.raises(Sealed):
        rule.aggregate(state, sealed, server())


def test_what_cannot_be_shared_or_compared_is_refused_by_name():
    params = {"head.weight": torch.zeros(1)}
    with pytest.raises(FedlitError, match=r"SimilarityAggregator\.share is 'lora_A'"):
        SimilarityAggregator(share="lora_A").init(params)
    with pytest.raises(FedlitError, match="FedAP finds nothing to compare"):
        FedAP().init(params)
    with pytest.raises(FedlitError, match="EPFL needs LoRA"):
        EPFL().init(params)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SimilarityAggregator(lam=1.1), "lam"), (lambda: SimilarityAggregator(signature="up"), "signature"),
        (lambda: SimilarityAggregator(share="("), "share"),
        (lambda: SimilarityAggregator(distance="l1"), "distance"), (lambda: FedACS(k=0), "k"),
        (lambda: FedACS(distance="euclidean"), "distance"), (lambda: FedACS(select="best"), "select"),
        (lambda: FedACS(threshold=0.0), "threshold"), (lambda: FedACS(temperature=0.0), "temperature"),
        (lambda: FedAMP(sigma=0.0), "sigma"), (lambda: FedAMP(alpha=1.5), "alpha"), (lambda: FedAMP(mu=-1.0), "mu"),
    ],
)  # fmt: skip
def test_hyperparameters_out_of_range_are_refused_by_name(make, field):
    with pytest.raises(FedlitError, match=rf"\.{field} is"):
        make()

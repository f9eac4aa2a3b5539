"""The averaging rules against arithmetic by hand and torch's optimizers, and what :meth:`Server.mean` promises."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from quadratics import play, quadratic
from toys import Regression, ToyData

from fedlit import tree
from fedlit.aggregators import FedAdam, FedAvg, FedProx, Sealed, Server, Update
from fedlit.aggregators.averaging import FedAdagrad, FedAvgM, FedNova, FedYogi
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read


def server() -> Server:
    return Server(0, torch.Generator().manual_seed(0))


def update(client: str, value, weight: float = 1.0, sealed: bool = False) -> Update:
    value = value if isinstance(value, dict) else {"w": torch.as_tensor(value)}
    return Update(client, weight, lambda: value, sealed=sealed)


def test_fedavg_is_the_weighted_mean_of_the_models():
    rule = FedAvg()
    state = rule.init({"w": torch.tensor([1.0, 2.0], dtype=torch.float64)})
    updates = [update("a", torch.tensor([1.0, 0.0], dtype=torch.float64), 30.0),
               update("b", torch.tensor([-1.0, 4.0], dtype=torch.float64), 10.0)]  # fmt: skip
    # models (2, 2) and (0, 6); weights 3/4 and 1/4
    new = rule.aggregate(state, updates, server())
    assert new["params"]["w"].tolist() == [1.5, 3.0]
    half = FedAvg(lr=0.5).aggregate(state, updates, server())
    assert half["params"]["w"].tolist() == [1.25, 2.5]


def test_weights_are_examples_or_uniform():
    assert FedAvg().weigh(17, None) == 17
    assert FedAvg(weighting="uniform").weigh(17, None) == 1


SECOND = {
    FedAdam: lambda v, d: 0.99 * v + 0.01 * d * d,
    FedYogi: lambda v, d: v - 0.01 * d * d * (1 if v > d * d else -1),
    FedAdagrad: lambda v, d: v + d * d,
}


@pytest.mark.parametrize("kind", SECOND)
def test_adaptive_servers_two_rounds_by_hand(kind):
    """Reddi et al. 2021, Algorithm 2, in plain Python floats."""
    lr, b1, tau = 0.1, 0.9, 1e-3
    w, m, v = 0.5, 0.0, tau**2
    rule = kind(lr=lr, beta1=b1, tau=tau)
    state = rule.init({"w": torch.tensor([w], dtype=torch.float64)})
    for deltas in ([(0.2, 1.0), (0.4, 3.0)], [(-0.6, 2.0), (0.1, 2.0)]):
        d = sum(x * n for x, n in deltas) / sum(n for _, n in deltas)
        m = b1 * m + (1 - b1) * d
        v = SECOND[kind](v, d)
        w = w + lr * m / (math.sqrt(v) + tau)
        updates = [update(f"c{i}", torch.tensor([x], dtype=torch.float64), n) for i, (x, n) in enumerate(deltas)]
        state = rule.aggregate(state, updates, server())
        assert state["params"]["w"].item() == pytest.approx(w, abs=1e-15)
        assert state["mean"]["w"].item() == pytest.approx(m, abs=1e-15)
        assert state["square"]["w"].item() == pytest.approx(v, abs=1e-15)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # 1e-6 + 0.01 * 1, then + 0.01 * 0.25 since that is under 0.25, then - 0.01 * 0.005 since it is over 0.005
        (FedYogi, (0.010001, 0.012501, 0.012451)),
        (FedAdagrad, (1.000001, 1.250001, 1.255001)),
    ],
)
def test_second_moments_pinned(kind, expected):
    state, seen = kind().init({"w": torch.zeros(1, dtype=torch.float64)}), []
    for d in (1.0, 0.5, math.sqrt(0.005)):
        state = kind().aggregate(state, [update("a", torch.tensor([d], dtype=torch.float64))], server())
        seen.append(state["square"]["w"].item())
    assert seen == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("rule", "optimizer"),
    [
        (FedAvgM(lr=0.3, beta=0.8), lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.8)),
        (
            FedAdagrad(lr=0.3, tau=0.01),
            lambda p: torch.optim.Adagrad(p, lr=0.3, initial_accumulator_value=1e-4, eps=0.01),
        ),
    ],
    ids=["FedAvgM", "FedAdagrad"],
)
def test_servers_are_torchs_optimizers_on_the_negative_mean_update(rule, optimizer):
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(4, generator=generator, dtype=torch.float64)
    p = torch.nn.Parameter(start.clone())
    other, state = optimizer([p]), rule.init({"w": start})
    for _ in range(5):
        p.grad = torch.randn(4, generator=generator, dtype=torch.float64)
        other.step()
        state = rule.aggregate(state, [update("a", -p.grad)], server())
        torch.testing.assert_close(state["params"]["w"], p.detach(), rtol=1e-12, atol=1e-12)


def test_fedavgm_two_rounds_by_hand():
    # v = 0.35, w = 0.5 + 0.5 * 0.35; then v = 0.9 * 0.35 - 0.25 = 0.065, w = 0.675 + 0.5 * 0.065
    rule = FedAvgM(lr=0.5)
    state = rule.init({"w": torch.tensor([0.5], dtype=torch.float64)})
    for deltas, w in (([(0.2, 1.0), (0.4, 3.0)], 0.675), ([(-0.6, 2.0), (0.1, 2.0)], 0.7075)):
        updates = [update(f"c{i}", torch.tensor([x], dtype=torch.float64), n) for i, (x, n) in enumerate(deltas)]
        state = rule.aggregate(state, updates, server())
        assert state["params"]["w"].item() == pytest.approx(w, abs=1e-15)


def test_fedavgm_without_momentum_is_fedavg_byte_for_byte(fit):
    states = [read(fit(rule).path / "checkpoints" / "last").state for rule in (FedAvg(), FedAvgM(beta=0.0))]
    assert tree.equal(states[0]["params"], states[1]["params"])


def test_fedadam_pinned():
    # First round from zero with mean update 0.35: m = 0.035, v = 0.99e-6 + 0.01 * 0.1225 = 0.00122599
    state = FedAdam().init({"w": torch.zeros(1, dtype=torch.float64)})
    state = FedAdam().aggregate(state, [update("a", torch.tensor([0.35], dtype=torch.float64))], server())
    assert state["params"]["w"].item() == pytest.approx(0.1 * 0.035 / (0.00122599**0.5 + 0.001), rel=1e-12)


def test_fedadam_with_bias_correction_is_flowers():
    """Figures of flwr's FedAdam at its defaults after two rounds from 0, each with the same two clients.

    One of 1 example has the model (1, 1), one of 2 examples (3, -1): means 7/3 and -1/3. ``tau`` is 1e-3.
    """
    rule = FedAdam(lr=0.1, bias_correction=True)
    state = rule.init({"w": torch.zeros(2, dtype=torch.float64)})
    w, m, v = torch.zeros(2, dtype=torch.float64), 0.0, 0.0
    for t in (1, 2):
        models = {"a": (torch.tensor([1.0, 1.0]), 1.0), "b": (torch.tensor([3.0, -1.0]), 2.0)}
        d = (models["a"][0] + 2 * models["b"][0]).double() / 3 - w
        m, v = 0.9 * m + 0.1 * d, 0.99 * v + 0.01 * d * d
        updates = [update(k, model.double() - state["params"]["w"], n) for k, (model, n) in models.items()]
        state = rule.aggregate(state, updates, server())
        w = w + 0.1 * (1 - 0.99 ** (t + 1)) ** 0.5 / (1 - 0.9 ** (t + 1)) * m / (v.sqrt() + 1e-3)
        torch.testing.assert_close(state["params"]["w"], w, rtol=1e-13, atol=1e-15)
    assert w.tolist() == pytest.approx([0.15924221, -0.15466622], abs=5e-9)


def test_fedadam_with_bias_correction_is_resumed_to_the_byte(fit):
    whole = fit(FedAdam(bias_correction=True), max_rounds=3)
    cut = fit(FedAdam(bias_correction=True), max_rounds=1)
    again = fit(FedAdam(bias_correction=True), max_rounds=3, ckpt_path=str(cut.path))
    states = [read(folder.path / "checkpoints" / "last").state for folder in (whole, again)]
    assert tree.equal(*states)
    assert float(states[0]["rounds"]) == 3


def test_the_mean_does_not_depend_on_the_order_of_replies():
    generator = torch.Generator().manual_seed(1)
    updates = [update(f"c{i}", torch.randn(50, generator=generator), 10.0**i) for i in range(4)]
    means = [server().mean(list(order)) for order in itertools.permutations(updates)]
    assert all(torch.equal(mean["w"], means[0]["w"]) for mean in means)
    assert means[0]["w"].dtype == torch.float32


def test_the_mean_is_summed_in_float64_and_cast_back_once():
    values = [torch.tensor([1e8]), torch.tensor([1.0]), torch.tensor([-1e8])]
    mean = server().mean([update(f"c{i}", v) for i, v in enumerate(values)])
    assert mean["w"].item() == pytest.approx(1 / 3, rel=1e-6)  # in float32 it would be 0
    half = [update(f"c{i}", torch.tensor([v], dtype=torch.bfloat16)) for i, v in enumerate([1.0, 2.0])]
    assert server().mean(half)["w"].dtype == torch.bfloat16


def test_weights_chosen_at_the_server():
    updates = [update("b", torch.tensor([3.0])), update("a", torch.tensor([1.0]))]
    assert server().mean(updates, [3.0, 1.0])["w"].item() == 2.5


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ([], "no client sent an update"),
        ([update("a", [1.0]), update("a", [1.0])], "'a' counts twice"),
        ([update("a", [1.0], 0.0), update("b", [1.0], 0.0)], "sum > 0"),
        ([update("a", [1.0], -1.0), update("b", [1.0], 2.0)], "not negative"),
        ([update("a", [1.0], float("nan"))], "finite"),
        ([update("a", [1.0], float("inf"))], "finite"),
    ],
    ids=["none", "twice", "zero", "negative", "nan", "infinite"],
)
def test_means_that_make_no_sense_are_refused(updates, message):
    with pytest.raises(FedlitError, match=message):
        server().mean(updates)


def test_a_client_of_weight_zero_counts_for_nothing():
    mean = server().mean([update("a", torch.tensor([1.0]), 0.0), update("b", torch.tensor([5.0]), 2.0)])
    assert mean["w"].item() == 5


@pytest.mark.parametrize(
    "rule", [FedAvg(), FedProx(), FedAvgM(), FedAdam(), FedYogi(), FedAdagrad()], ids=lambda r: type(r).__name__
)
def test_rules_of_means_work_on_sealed_updates(rule):
    open_, closed = (
        [update("a", torch.tensor([1.0]), 1, s), update("b", torch.tensor([2.0]), 3, s)] for s in (False, True)
    )
    state = rule.init({"w": torch.zeros(1)})
    assert tree.equal(rule.aggregate(state, closed, server()), rule.aggregate(state, open_, server()))


def test_sealed_updates_cannot_be_read_or_weighed_one_by_one():
    sealed = [update("a", torch.tensor([1.0]), sealed=True)]
    with pytest.raises(Sealed, match="'a' is sealed"):
        _ = sealed[0].tensors
    with pytest.raises(Sealed):
        server().mean(sealed, [1.0])


def test_validation_at_the_server():
    validating = Server(0, torch.Generator(), lambda models: [torch.tensor([3.0, 5.0]) for _ in models])
    assert validating.validate({}) == 4.0
    assert torch.equal(validating.losses({}), torch.tensor([3.0, 5.0]))
    with pytest.raises(FedlitError, match="server_dataset"):
        server().validate({})


def test_fednova_by_hand():
    # Shares 1/4 and 3/4, two steps and four: tau_eff = 3.5, mean steps 0.5 and 1, so w = 2 * 3.5 * (0.125 + 0.75).
    one = torch.ones(1, dtype=torch.float64)
    uploads = [update("a", {"step": {"w": 0.5 * one}, "tau": torch.tensor(2.0).double()}, 1.0),
               update("b", {"step": {"w": 1.0 * one}, "tau": torch.tensor(4.0).double()}, 3.0)]  # fmt: skip
    uploads[0].sealed = uploads[1].sealed = True  # means are all it reads
    rule = FedNova(lr=2.0)
    assert rule.aggregate(rule.init({"w": 0 * one}), uploads, server())["params"]["w"].item() == 6.125


@pytest.mark.parametrize("schedule", [False, True])
def test_fednova_is_fedavg_when_steps_agree(fit, schedule):
    data = ToyData(dtype="float64")
    runs = [
        fit(rule, Regression(hidden=4, linear_schedule=schedule, dtype="float64"), data, max_rounds=3, local_steps=4)
        for rule in (FedAvg(lr=0.7), FedNova(lr=0.7))
    ]
    states = [read(run.path / "checkpoints" / "last").state["params"] for run in runs]
    torch.testing.assert_close(*states, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("unrehearsed")
def test_fednova_normalises_by_the_steps_that_the_trainer_took(fit):
    done = {}

    class Watched(FedAvg):
        def finish(self, w, down, memory, work):
            upload, memory = super().finish(w, down, memory, work)
            if len(done) < 3 and any(leaf.any() for leaf in tree.leaves(upload)):  # not the template's dry call
                done[int(work.steps)] = upload
            return upload, memory

    def run(rule):
        data, task = ToyData(examples=3, batch_size=1, dtype="float64"), Regression(lr=0.05, dtype="float64")
        return read(fit(rule, task, data, max_rounds=1, local_epochs=1, local_steps=None).path / "checkpoints" / "last")

    start = {n: p.detach() for n, p in Regression(dtype="float64").named_parameters()}
    run(Watched())
    assert sorted(done) == [3, 4, 5]  # steps, and examples too
    effective = sum(k * k for k in done) / 12
    expected = {n: start[n] + effective * sum(k / 12 * d[n] / k for k, d in done.items()) for n in start}
    got = run(FedNova()).state["params"]
    torch.testing.assert_close(got, tree.ordered(expected), rtol=1e-12, atol=1e-12)


def test_fednova_ends_at_the_true_minimum_where_fedavg_does_not():
    """Minima 0 and 1, curvature 2, shares 1/4 and 3/4, one step and ten: the minimum of the weighted sum is at 3/4.

    The fixed point is ``sum p_k f_k m_k / sum p_k f_k`` with ``f_k = 1 - (1 - 2 eta)^tau_k`` for FedAvg, over
    ``tau_k`` for FedNova: as eta goes to 0 these tend to ``tau_k`` and 1.
    """
    losses = {"one": quadratic([2.0], [0.0]), "ten": quadratic([2.0], [1.0])}
    steps, examples, far = {"one": 1, "ten": 10}, {"one": 1, "ten": 3}, {}
    for kind in (FedAvg, FedNova):
        for eta in (2e-3, 1e-3):
            rates = {client: [eta] * n for client, n in steps.items()}
            state, _ = play(kind(lr=10.0), losses, [0.5], 200, rates, examples)
            f = {c: (1 - (1 - 2 * eta) ** n) / (n if kind is FedNova else 1) for c, n in steps.items()}
            assert state["params"]["w"].item() == pytest.approx(3 * f["ten"] / (f["one"] + 3 * f["ten"]), abs=1e-9)
            far[kind, eta] = abs(state["params"]["w"].item() - 0.75)
    assert far[FedAvg, 1e-3] > 0.2
    assert far[FedNova, 1e-3] < 0.002
    assert far[FedNova, 1e-3] == pytest.approx(far[FedNova, 2e-3] / 2, rel=0.02)


def test_fednova_under_schedules_steps_along_the_true_gradient():
    """Where gradients are constant, -1 and 5 with shares 1/4 and 3/4, the step is exactly -tau_eff * 3.5."""
    losses = {"up": lambda w: -w.sum(), "down": lambda w: 5 * w.sum()}
    rates = {"up": [0.1, 0.05], "down": [0.1, 0.075, 0.05, 0.025]}
    state, _ = play(FedNova(), losses, [0.0], 1, rates, {"up": 1, "down": 3})
    effective = 0.25 * 0.15 + 0.75 * 0.25
    assert state["params"]["w"].item() == pytest.approx(-effective * 3.5, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: FedAvgM(beta=1.0), "FedAvgM.beta"),
        (lambda: FedYogi(beta2=1.0), "FedYogi.beta2"),
        (lambda: FedAdagrad(tau=0.0), "FedAdagrad.tau"),
        (lambda: FedNova(lr=0.0), "FedNova.lr"),
    ],
)
def test_refused_by_name(make, name):
    with pytest.raises(FedlitError, match=name.replace(".", r"\.")):
        make()

"""Robust rules on known points: by hand, by scipy, and with a client that sends nonsense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from toys import Regression, ToyData

from fedlit import seeds, tree
from fedlit.aggregators import FedAvg, Server, Update
from fedlit.aggregators.robust import (
    CoordinateMedian,
    GeometricMedian,
    Krum,
    MultiKrum,
    NormBounding,
    TrimmedMean,
    distances,
)
from fedlit.aggregators.server import Sealed
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read

READING = [CoordinateMedian(), TrimmedMean(trim=0.25), Krum(), MultiKrum(), GeometricMedian()]


def updates(values, weights=None, sealed=False, dtype=torch.float64):
    """One client for each row; its first entry in a tensor of its own, so that distances run over all tensors."""

    def read(v):
        return {"a": torch.tensor(v[:1], dtype=dtype), "b": torch.tensor(v[1:], dtype=dtype)}

    weights = weights or [1.0] * len(values)
    return [
        Update(f"client-{i:02d}", weights[i], lambda v=v: read(v), sealed=sealed) for i, v in enumerate(values)
    ]  # fmt: skip


def step(rule, values, server=None, **settings):
    """The model after one round from 0."""
    params = {"a": torch.zeros(1), "b": torch.zeros(len(values[0]) - 1)}
    params = tree.map(lambda x: x.to(settings.get("dtype", torch.float64)), params)
    server = server or Server(0, seeds.generator(0, "test"), num_clients=len(values))
    out = rule.aggregate(rule.init(params), updates(values, **settings), server)["params"]
    return [*out["a"].tolist(), *out["b"].tolist()]


def test_the_median_of_each_coordinate_by_hand():
    odd = [[0.0, 9.0], [1.0, -5.0], [7.0, 2.0]]
    assert step(CoordinateMedian(), odd) == [1.0, 2.0]
    assert step(CoordinateMedian(lr=0.5), odd) == [0.5, 1.0]
    assert step(CoordinateMedian(), [*odd, [3.0, 4.0]]) == [2.0, 3.0]  # the middle two: {1, 3} and {2, 4}
    assert step(CoordinateMedian(), odd[:1]) == odd[0]
    assert step(CoordinateMedian(), odd[:2]) == [0.5, 2.0]


@pytest.mark.parametrize("count", [5, 6, 9, 10])
def test_the_median_is_that_of_numpy(count):
    values = np.random.default_rng(count).normal(size=(count, 3))
    assert step(CoordinateMedian(), values.tolist()) == pytest.approx(np.median(values, axis=0).tolist(), rel=1e-14)


def test_the_trimmed_mean_of_each_coordinate_by_hand():
    values = [[0.0, 90.0], [1.0, 4.0], [2.0, 2.0], [3.0, 3.0], [-80.0, -70.0]]
    # trim 0.2 of 5 drops one at each end: {0, 1, 2} are left of the first coordinate, {2, 3, 4} of the second.
    assert step(TrimmedMean(trim=0.2), values) == [1.0, 3.0]
    # trim 0.4 drops two: the median.
    assert step(TrimmedMean(trim=0.4), values) == step(CoordinateMedian(), values) == [1.0, 3.0]
    assert step(TrimmedMean(trim=0.1), values) == [-74 / 5, 29 / 5]  # half a client is none


def test_how_many_are_trimmed_is_exact_and_logged():
    server = Server(0, seeds.generator(0, "test"))
    step(TrimmedMean(trim=0.29), [[float(i), 0.0] for i in range(100)], server)
    assert server.logged == {"trimmed": 29.0}  # in floating point 0.29 * 100 is less than 29


def test_without_trimming_it_is_the_plain_mean():
    values = [[float(x) for x in row] for row in torch.randn(6, 3, generator=torch.Generator().manual_seed(0))]
    assert step(TrimmedMean(trim=0.0), values) == pytest.approx(step(FedAvg(weighting="uniform"), values), rel=1e-14)


# On a line at 0, 1, 3, 6, 10, 100 and 101; n = 7, f = 2, so 3 neighbours count. Squared distances to the nearest 3:
# 0: 1 + 9 + 36 = 46;  1: 1 + 4 + 25 = 30;  3: 4 + 9 + 9 = 22;  6: 9 + 16 + 25 = 50;  10: 16 + 49 + 81 = 146
LINE = [[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [6.0, 0.0], [10.0, 0.0], [100.0, 0.0], [101.0, 0.0]]


def test_krum_by_hand():
    assert step(Krum(byzantine=2), LINE) == [3.0, 0.0]
    assert step(Krum(byzantine=2), LINE[::-1]) == [3.0, 0.0]
    # f = 1: 4 neighbours. 0: 46 + 100 = 146;  1: 30 + 81 = 111;  3: 22 + 49 = 71;  6: 50 + 36 = 86
    assert step(Krum(byzantine=1), LINE) == [3.0, 0.0]
    # f = 2 of [0, 1, 4, 4.5, 5, 50, 50]: 3 neighbours, those of 4: .25 + 1 + 9; of 4.5: .25 + .25 + 12.25; of 5: 17.25
    assert step(Krum(byzantine=2), [[x, 0.0] for x in (50.0, 0.0, 1.0, 4.5, 4.0, 5.0, 50.0)]) == [4.0, 0.0]


def test_krum_measures_over_all_tensors():
    # Far in the second tensor alone; equal in the first.
    values = [[0.0, 0.0, 9.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 9.0, 0.0]]
    assert step(Krum(byzantine=1), values) == [0.0, 0.0, 0.0]


def test_multi_krum_by_hand():
    assert step(MultiKrum(byzantine=2, select=1), LINE) == [3.0, 0.0]
    assert step(MultiKrum(byzantine=2, select=3), LINE) == pytest.approx([(3 + 1 + 0) / 3, 0.0])  # 22, 30, 46
    assert step(MultiKrum(byzantine=2, select=4), LINE) == pytest.approx([10 / 4, 0.0])  # and 50
    assert step(MultiKrum(byzantine=2), LINE) == pytest.approx([20 / 5, 0.0])  # n - f = 5


def test_of_equal_scores_the_first_by_name_is_taken():
    square = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]  # corners score alike, the centre least
    assert step(MultiKrum(byzantine=1, select=2), square) == [0.5, 0.0]


def test_multi_krum_without_hostile_clients_is_the_mean():
    for count in (1, 2, 7):
        assert step(MultiKrum(byzantine=0), LINE[:count]) == pytest.approx(step(FedAvg(), LINE[:count]), rel=1e-14)
    assert step(Krum(byzantine=0), LINE[:1]) == LINE[0]


@pytest.mark.parametrize(("f", "fewest"), [(1, 5), (2, 7), (3, 9)])
def test_krum_says_how_many_clients_it_takes(f, fewest):
    values = [[float(i), 0.0] for i in range(fewest)]
    step(Krum(byzantine=f), values)
    with pytest.raises(FedlitError, match=rf"Krum.byzantine is {f}, which takes {fewest} .*: there are {fewest - 1}"):
        step(Krum(byzantine=f), values[1:])
    with pytest.raises(FedlitError, match=rf"MultiKrum.byzantine is {f}"):
        step(MultiKrum(byzantine=f), values[1:])


def test_multi_krum_does_not_take_more_than_the_honest():
    with pytest.raises(FedlitError, match=r"MultiKrum.select is 6: of 7 clients in a round, 2 hostile, take up to 5"):
        step(MultiKrum(byzantine=2, select=6), LINE)


def test_distances_are_exact_symmetric_and_in_float64():
    generator = torch.Generator().manual_seed(1)
    points = [{"a": torch.randn(40, 5, generator=generator) + 1e4} for _ in range(6)]
    found = distances(points)
    whole = torch.stack([p["a"].double().flatten() for p in points])
    torch.testing.assert_close(found, torch.cdist(whole, whole).square(), rtol=1e-6, atol=1e-6)
    assert torch.equal(found, found.T)
    assert torch.equal(found.diagonal(), torch.zeros(6).double())
    assert found[0, 1] == sum((x - y) ** 2 for x, y in zip(whole[0].tolist(), whole[1].tolist(), strict=True))


@pytest.mark.parametrize("weighting", ["uniform", "examples"])
def test_the_geometric_median_is_what_scipy_finds(weighting):
    points = np.random.default_rng(5).normal(size=(9, 4))
    weights = [float(w) for w in range(1, 10)]
    used = np.ones(9) if weighting == "uniform" else np.array(weights)
    best = minimize(
        lambda v: (used * np.linalg.norm(points - v, axis=1)).sum(), points.mean(0), tol=1e-14, method="BFGS"
    )
    rule = GeometricMedian(weighting=weighting, iterations=300)
    sent = [rule.weigh(int(w), None) for w in weights]
    assert step(rule, points.tolist(), weights=sent) == pytest.approx(best.x.tolist(), abs=1e-6)


def test_the_geometric_median_by_hand():
    # The Fermat point of an equilateral triangle is its centre; of a triangle with an angle above 120 degrees, the
    # corner there; of a convex quadrilateral, where its diagonals cross.
    corners = [[1.0, 0.0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]]
    rule = GeometricMedian(iterations=200)
    assert step(rule, corners) == pytest.approx([0.0, 0.0], abs=1e-9)
    assert step(rule, [[0.0, 0.0], [5.0, 1.0], [-5.0, 1.0]]) == pytest.approx([0.0, 0.0], abs=1e-4)
    assert step(rule, [[0.0, 0.0], [4.0, 4.0], [4.0, 0.0], [0.0, 2.0]]) == pytest.approx([4 / 3, 4 / 3], abs=1e-6)
    assert step(rule, corners[:1]) == pytest.approx(corners[0], rel=1e-15)


def test_one_step_of_weiszfeld_by_hand():
    # From the median (1, 0): distances 1, 0 and 5, so pulls 1, 1 / eps and 1 / 5, with eps 0.5.
    found = step(GeometricMedian(iterations=1, eps=0.5), [[0.0, 0.0], [1.0, 0.0], [5.0, 3.0]])
    assert found == pytest.approx([(2 + 5 / 5) / 3.2, (3 / 5) / 3.2], rel=1e-14)


def honest(count=8):
    return (torch.randn(count, 5, generator=torch.Generator().manual_seed(4)) / 10 + 1).tolist()


@pytest.mark.parametrize("rule", READING, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("sent", [1e6, -1e6])
def test_one_client_cannot_carry_them_away(rule, sent):
    values = [*honest(), [sent] * 5]
    assert max(abs(x - 1) for x in step(FedAvg(), values)) > 1e5
    assert max(abs(x - 1) for x in step(rule, values)) < 0.3


@pytest.mark.parametrize(
    "rule", [CoordinateMedian(), Krum(byzantine=3), GeometricMedian()], ids=lambda r: type(r).__name__
)
def test_three_clients_together_cannot_either(rule):
    values = [*honest(), *[[1e6] * 5] * 3]
    assert max(abs(x - 1) for x in step(rule, values)) < 0.3
    assert max(abs(x - 1) for x in step(TrimmedMean(trim=0.1), values)) > 1e4  # it drops one


def test_a_claimed_weight_counts_only_where_it_is_asked_for():
    values, claimed = [*honest(), [1e6] * 5], [1.0] * 8 + [1e9]
    for rule in READING:
        sent = [rule.weigh(int(w), None) for w in claimed]
        assert max(abs(x - 1) for x in step(rule, values, weights=sent)) < 0.3
    rule = GeometricMedian(weighting="examples")
    assert step(rule, values, weights=claimed)[0] > 1e5


@pytest.mark.parametrize("rule", READING, ids=lambda r: type(r).__name__)
def test_sealed_updates_are_refused(rule):
    with pytest.raises(Sealed, match="sealed"):
        step(rule, LINE, sealed=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rule", READING, ids=lambda r: type(r).__name__)
def test_the_order_and_the_dtype_of_updates_do_not_matter(rule, dtype):
    params = {"a": torch.zeros(1, dtype=dtype), "b": torch.zeros(4, dtype=dtype)}
    sent = updates(honest(), dtype=dtype)
    found = [
        rule.aggregate({"params": params}, some, Server(0, seeds.generator(0, "test")))["params"]
        for some in (sent, sent[::-1])
    ]
    assert tree.equal(*found)
    assert {leaf.dtype for leaf in tree.leaves(found[0])} == {dtype}


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TrimmedMean(trim=0.5), "TrimmedMean.trim"),
        (lambda: TrimmedMean(trim=-0.1), "TrimmedMean.trim"),
        (lambda: CoordinateMedian(weighting="examples"), "CoordinateMedian.weighting"),
        (lambda: CoordinateMedian(lr=0), "CoordinateMedian.lr"),
        (lambda: Krum(byzantine=-1), "Krum.byzantine"),
        (lambda: Krum(select=2), "Krum.select"),
        (lambda: Krum(select="all"), "Krum.select"),
        (lambda: MultiKrum(select=0), "MultiKrum.select"),
        (lambda: GeometricMedian(iterations=0), "GeometricMedian.iterations"),
        (lambda: GeometricMedian(eps=0), "GeometricMedian.eps"),
        (lambda: GeometricMedian(weighting="size"), "GeometricMedian.weighting"),
        (lambda: NormBounding(bound=0), "NormBounding.bound"),
    ],
)
def test_refused_by_name(make, field):
    with pytest.raises(FedlitError, match=field.replace(".", r"\.")):
        make()


def clip(values, bound):
    down = {"a": torch.tensor([1.0]), "b": torch.tensor([2.0, 3.0])}
    w = tree.add(down, {"a": torch.tensor(values[:1]), "b": torch.tensor(values[1:])})
    upload, _ = NormBounding(bound=bound).finish(w, down, {}, None)
    return [*upload["a"].tolist(), *upload["b"].tolist()]


def test_an_update_is_clipped_to_its_norm_over_all_tensors():
    assert clip([2.0, 3.0, 6.0], 3.5) == [1.0, 1.5, 3.0]  # its norm is 7
    assert clip([2.0, 3.0, 6.0], 7.0) == [2.0, 3.0, 6.0]
    assert clip([0.0, 0.0, 0.0], 1.0) == [0.0, 0.0, 0.0]


def state(folder):
    return read(folder.path / "checkpoints" / "last").state


def test_a_wide_bound_is_fedavg_and_a_narrow_one_holds(fit):
    start = {n: p.detach() for n, p in Regression().named_parameters()}
    plain, wide, narrow = (
        state(fit(rule, max_rounds=1)) for rule in (FedAvg(), NormBounding(bound=1e6), NormBounding(bound=1e-3))
    )
    assert tree.equal(plain, wide)
    assert float(tree.sq(tree.sub(plain["params"], tree.ordered(start))).sqrt()) > 1e-2
    assert float(tree.sq(tree.sub(narrow["params"], tree.ordered(start))).sqrt()) <= 1e-3 * (1 + 1e-3)


def test_norm_bounding_works_on_sealed_updates():
    assert step(NormBounding(), [[1.0, 0.0], [0.0, 1.0]], sealed=True) == [0.5, 0.5]


def test_a_client_with_absurd_targets_in_a_run(fit):
    """FedAvg follows it; the median of five clients stays where four of them are."""
    far = {}
    data = {"num_clients": 5, "spread": 0.1, "dtype": "float64"}
    for rule in (FedAvg(), CoordinateMedian(), Krum(), GeometricMedian(), NormBounding(bound=0.5)):
        models = []
        for poisoned in (-1, 2):
            task, given = Regression(dtype="float64"), ToyData(poisoned=poisoned, **data)
            models.append(state(fit(rule, task, given, max_rounds=3))["params"])
        far[type(rule).__name__] = float(tree.sq(tree.sub(*models)).sqrt())
    assert far.pop("FedAvg") > 1e5
    assert max(far.values()) < 1.5, far

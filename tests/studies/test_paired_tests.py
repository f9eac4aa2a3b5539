"""Paired tests of the studies against known values."""

import math

import numpy as np
import pytest

from studies.paired_tests import detectable, holm, paired_p

# Sleep gained by ten patients under two drugs (Student 1908): t(9) = -4.0621, p = 0.002833, as in every textbook.
SLEEP = ([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])


def test_p_of_students_own_data_is_the_published_one():
    assert paired_p([a - b for a, b in zip(*SLEEP, strict=True)]) == pytest.approx(0.002833, abs=5e-7)


def test_p_of_two_pairs_is_that_of_the_cauchy_distribution():
    t = 0.5 * (3 + 1) / (0.5 * abs(3 - 1))  # mean over its standard error, one degree of freedom
    assert paired_p([3.0, 1.0]) == pytest.approx(1 - 2 * math.atan(t) / math.pi)


def test_differences_without_spread_need_no_t():
    assert paired_p([0.0, 0.0, 0.0]) == 1.0
    assert paired_p([0.5, 0.5, 0.5]) == 0.0
    with pytest.raises(ValueError, match="two differences, here 1"):
        paired_p([0.5])


def test_holm_by_hand():
    # 4 x .01, 3 x .02, then 2 x .03 and 1 x .04 are lifted to what stands before them.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # p.adjust's, in R
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_is_not_below_p_nor_above_bonferroni_and_keeps_the_order():
    ps = np.random.default_rng(0).uniform(size=50) ** 3
    corrected = np.array(holm(ps.tolist()))
    assert (corrected >= ps).all()
    assert (corrected <= np.minimum(1, 50 * ps)).all()
    assert (np.diff(corrected[np.argsort(ps)]) >= 0).all()


def test_what_can_be_found_is_that_of_the_tables_of_power():
    assert detectable(34, 0.05) == pytest.approx(0.5, abs=0.01)  # Cohen 1988: 34 pairs for a medium effect
    assert detectable(10, 0.05) == pytest.approx(1.0, abs=0.01)  # and 10 for one of a whole standard deviation
    drawn = np.random.default_rng(1).normal(detectable(5, 0.01), 1.0, (1000, 5))
    found = np.mean([paired_p(row.tolist()) < 0.01 for row in drawn])
    assert found == pytest.approx(0.8, abs=0.04)

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedlit.backbones import load_backbone
from fedlit.seeds import numpy_generator

SCRIPT = Path(__file__).parents[2] / "scripts" / "pretrain_backbone.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("pretrain_backbone", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_series_are_finite_standard_and_keyed(script):
    one, two, other = (script.make_series(18, seed, "test") for seed in (0, 0, 1))
    assert one.shape == (18, script.LENGTH)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert np.isfinite(one).all()
    assert one.std(-1) == pytest.approx(np.ones(18), abs=1e-2)


def test_draws_have_the_covariance_asked_for(script):
    lag = np.arange(40.0)
    covariance = np.exp(-0.5 * (lag / 5) ** 2)
    draws = script.draw(numpy_generator(0, "test"), covariance, 20_000)
    assert np.mean(draws[:, :1] * draws, axis=0) == pytest.approx(covariance, abs=0.04)


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(script, tmp_path, monkeypatch):
    def run(work, out, *more):
        given = ["--steps", "4", "--series", "18", "--batch", "4", "--work", str(tmp_path / work)]
        monkeypatch.setattr(sys, "argv", ["pretrain_backbone.py", *given, "--out", str(tmp_path / out), *more])
        script.main()

    run("straight", "one")
    run("stopped", "two", "--stop-at", "2")
    assert "Stopped at step 2 of a schedule of 4" in (tmp_path / "two" / "README.md").read_text()
    run("stopped", "two")
    one, two = (load_backbone(str(tmp_path / name)).network.state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert "18 series" in (tmp_path / "two" / "README.md").read_text()

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from fedlit.data.base.batch import collate
from fedlit.data.signals.flat import FLAT, STEEP, flat_stretches, flat_windows
from fedlit.data.signals.windows import Run, Windows, cut, evenly


def two_runs(**kwargs) -> Windows:
    flat = np.concatenate([np.arange(20), 100 + 2 * np.arange(30)]).astype(np.float32)
    runs = [Run("a", "x", "ecg", 0, 2, 3, 2), Run("b", "y", "icg", 20, 1, 4, 5)]
    return Windows(flat, runs, context_length=4, prediction_length=2, **kwargs)


def test_a_batch_at_once_is_the_windows_one_by_one():
    data = two_runs()
    batch = data.__getitems__([0, 3, 6, 1])
    assert len(data) == 7
    assert batch["context"].shape == (4, 4)
    assert batch["target"].shape == (4, 2)
    assert batch["context"].dtype == batch["target"].dtype == batch["scale"].dtype == torch.float32
    assert batch["record"] == ["x", "y", "y", "x"]
    assert batch["client"] == ["a", "b", "b", "a"]
    assert batch["kind"] == ["ecg", "icg", "icg", "ecg"]
    assert batch["start"].tolist() == [2, 1, 16, 4]
    singly = collate([data[i] for i in (0, 3, 6, 1)])
    for name, value in batch.items():
        assert torch.equal(value, singly[name]) if isinstance(value, torch.Tensor) else value == singly[name]


def test_original_values_come_back():
    for scale in ("context", "standard", "none"):
        batch = two_runs(scale=scale).__getitems__(range(7))
        both = torch.cat([batch["context"], batch["target"]], 1) * batch["scale"][:, None] + batch["offset"][:, None]
        assert torch.allclose(both[0], torch.arange(2.0, 8.0), atol=1e-5)
        assert torch.allclose(both[3], 100 + 2 * torch.arange(1.0, 7.0), atol=1e-4)


def test_scales():
    context = two_runs().__getitems__([0, 5])["context"]
    assert torch.equal(context.min(1).values, torch.zeros(2))
    assert torch.equal(context.max(1).values, torch.ones(2))
    standard = two_runs(scale="standard").__getitems__([0, 5])["context"]
    assert torch.allclose(standard.mean(1), torch.zeros(2), atol=1e-6)
    assert torch.allclose(standard.std(1, unbiased=False), torch.ones(2), atol=1e-6)
    assert two_runs(scale="none")[0]["context"].tolist() == [2, 3, 4, 5]


def test_the_target_never_sets_the_scale():
    flat = np.array([0, 1, 0, 1, 50, -50], np.float32)
    batch = Windows(flat, [Run("a", "x", "ecg", 0, 0, 1, 1)], 4, 2).__getitems__([0])
    assert batch["target"].tolist() == [[50, -50]]
    assert batch["offset"].tolist() == [0]
    assert batch["scale"].tolist() == [1]


@pytest.mark.parametrize("scale", ["context", "standard", "none"])
def test_a_flat_context_has_scale_one(scale):
    flat = np.array([3, 3, 3, 3, 3, 4], np.float32)
    batch = Windows(flat, [Run("a", "x", "ecg", 0, 0, 1, 1)], 4, 2, scale).__getitems__([0])
    assert batch["scale"].tolist() == [1]
    assert torch.isfinite(batch["target"]).all()


@pytest.mark.parametrize("scale", ["context", "standard"])
def test_rounding_on_a_flat_context_is_not_blown_up(scale):
    lead_off = np.full(6, 0.37, np.float32)
    lead_off[1] = np.nextafter(lead_off[1], np.float32(1))
    lead_off[4:] = 1, -1
    batch = Windows(lead_off, [Run("a", "x", "ecg", 0, 0, 1, 1)], 4, 2, scale).__getitems__([0])
    assert batch["scale"].tolist() == [1]
    small = np.array([3, 3.001, 3, 3, 3, 4], np.float32)
    batch = Windows(small, [Run("a", "x", "ecg", 0, 0, 1, 1)], 4, 2, scale).__getitems__([0])
    assert batch["scale"].item() < 0.0011


def test_missing_context_is_kept_as_missing_and_does_not_set_the_scale():
    flat = np.array([0, np.nan, np.nan, 4, 2, 2], np.float32)
    for scale, size in (("context", 4.0), ("standard", 2.0)):
        batch = Windows(flat, [Run("a", "x", "ecg", 0, 0, 1, 1)], 4, 2, scale).__getitems__([0])
        assert batch["context"].isnan().tolist() == [[False, True, True, False]]
        assert batch["scale"].tolist() == [size]


def test_signals_are_not_copied():
    data = two_runs()
    assert not data._flat.flags.owndata or data._flat.base is None
    assert Windows(data._flat, data.runs, 4, 2)._flat is data._flat


def test_outside():
    with pytest.raises(IndexError):
        two_runs()[7]
    assert two_runs()[-1]["start"] == 16
    assert len(Windows(np.zeros(0, np.float32), [], 4, 2)) == 0


def test_dataloader_takes_whole_batches():
    batches = list(DataLoader(two_runs(), batch_size=3, collate_fn=collate))
    assert [len(batch["record"]) for batch in batches] == [3, 3, 1]


@settings(max_examples=80, deadline=None)
@given(
    cells=st.lists(st.sampled_from([None, 0.0, 1.0, 1.0 + 1e-7, 500.0]), min_size=0, max_size=40),
    context=st.integers(1, 6),
    horizon=st.integers(1, 4),
    stride=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_cut_agrees_with_a_plain_loop(cells, context, horizon, stride, share):
    values = np.array([np.nan if cell is None else cell for cell in cells], np.float32)
    wanted, moving, missing, flat = [], [], 0, 0
    for start in range(0, len(values) - context - horizon + 1, stride):
        seen, ahead = values[start : start + context], values[start + context : start + context + horizon]
        if np.isnan(seen).sum() > share * context or np.isnan(seen).all() or np.isnan(ahead).any():
            missing += 1
            continue
        wanted.append(start)
        low, high = np.nanmin(seen), np.nanmax(seen)
        off = max(ahead.max() - high, low - ahead.min())
        if high - low <= FLAT * (abs(low) + high - low) or off > STEEP * (high - low):
            flat += 1
        else:
            moving.append(start)
    for keep_flat, starts in ((True, wanted), (False, moving)):
        found = cut(values, context, horizon, stride, share, moving=not keep_flat)
        assert [first + stride * i for first, count in found.rows for i in range(count)] == starts
        assert (found.missing, found.flat) == (missing, 0 if keep_flat else flat)


def test_flat_windows_are_found_in_chunks_as_at_once(monkeypatch):
    generator = np.random.default_rng(3)
    values = generator.normal(size=3000).astype(np.float32)
    values[500:900], values[1500:1800], values[2000:2100] = 512, np.nan, 7
    total = (3000 - 40) // 7 + 1
    at_once = flat_windows(values, 30, 10, 7, total)
    monkeypatch.setattr("fedlit.data.signals.flat._CHUNK", 50)
    assert at_once.sum() > 50
    assert (flat_windows(values, 30, 10, 7, total) == at_once).all()


def test_noise_of_one_digit_before_the_signal_is_nearly_flat():
    values = np.full(60, 512, np.float32)
    values[::3] += 1
    values[44:] = 700
    assert flat_windows(values, 30, 10, 2, 11).tolist() == [False] * 3 + [True] * 5 + [False] * 3


@given(
    lengths=st.lists(st.integers(1, 9), max_size=8),
    shortest=st.integers(2, 6),
)
def test_flat_stretches(lengths, shortest):
    values = np.repeat(np.arange(len(lengths)), lengths).astype(np.float32)
    long = [length for length in lengths if length >= shortest]
    assert flat_stretches(values, shortest) == (len(long), sum(long))


@given(total=st.integers(0, 500), most=st.integers(1, 60))
def test_evenly(total, most):
    chosen = evenly(total, most)
    assert len(chosen) == min(total, most)
    assert len(set(chosen.tolist())) == len(chosen)
    assert all(0 <= i < total for i in chosen)
    if total > most:
        assert np.ptp(np.diff(chosen)) <= 1 if most > 1 else True

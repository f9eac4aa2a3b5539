"""Features that need no training: against values worked out by hand, and alike whatever the size."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.tasks.naive.features import BANDS, FEATURES, FRAME, SOUND_BANDS, band_edges

RNG = np.random.default_rng(0)


def test_a_signal_by_hand():
    found = FEATURES["signal"](np.float32([[[1, 3, 1, 3] * 8, [5] * 32]]))[0]
    assert found[:8].tolist() == [2, 5, 1, 0, 1, 5, 3, 5], "means, deviations, minima, maxima of both channels"
    bands = found[8:].reshape(2, BANDS)
    assert bands[0].argmax() == BANDS - 1, "all of it at half the rate"
    assert bands[0, -1] == pytest.approx(np.log(32**2 / 32))
    assert np.exp(bands[1]).max() < 1e-30, "a flat channel"


def test_missing_samples_count_as_the_mean_of_the_others():
    wave = np.float32([[[2, np.nan, 4, np.inf, 6, -np.inf]]])
    np.testing.assert_allclose(FEATURES["signal"](wave), FEATURES["signal"](np.float32([[[2, 4, 4, 4, 6, 4]]])))


@given(st.integers(0, 200), st.sampled_from([BANDS, SOUND_BANDS]))
def test_bands_are_of_one_bin_at_least_and_leave_none_out(more, bands):
    edges = band_edges(bands + 1 + more, bands)
    assert len(edges) == bands + 1
    assert (edges[0], edges[-1]) == (1, bands + 1 + more)
    assert (np.diff(edges) >= 1).all()


def test_bands_are_even_on_a_logarithmic_scale():
    assert band_edges(257, 8).tolist() == [1, 2, 4, 8, 16, 32, 64, 128, 257]


def test_a_tone_is_in_its_band_in_every_frame():
    t = np.arange(16 * FRAME)
    found = FEATURES["audio"](np.float32([np.sin(2 * np.pi * 200 / FRAME * t)]))[0]
    edges = band_edges(FRAME // 2 + 1, SOUND_BANDS)
    own = found[:SOUND_BANDS].argmax()
    assert edges[own] <= 200 < edges[own + 1]
    assert found[SOUND_BANDS + own] < 1e-3, "it does not change"


def test_an_image_by_hand():
    image = np.zeros((16, 16, 3), np.uint8)
    image[:2, 2:4] = (255, 0, 0)
    found = FEATURES["image"](image[None])[0]
    np.testing.assert_allclose(found[:3], [4 / 256, 0, 0])
    np.testing.assert_allclose(found[3:6], [np.sqrt(4 / 256 * 252 / 256), 0, 0])
    np.testing.assert_allclose(found[6:], np.eye(64)[1] / 3)


def test_words_by_hand():
    found = FEATURES["text"](["Pain, pain and fever", "fever PAIN pain and", "…"])
    counts = np.zeros(1024)
    for word, count in {b"pain": 2, b"and": 1, b"fever": 1}.items():
        counts[zlib.crc32(word) % 1024] += count
    logs = np.log1p(counts)
    np.testing.assert_allclose(found[0], logs / np.linalg.norm(logs))
    assert (found[0] == found[1]).all()
    assert not found[2].any()


@pytest.mark.parametrize(
    ("modality", "shapes", "size"),
    [
        ("signal", [(2, 1), (2, 15), (2, 1000)], 2 * 12),
        ("audio", [(1,), (FRAME - 1,), (FRAME,), (3 * FRAME + 7,), (200_000,)], 48),
        ("image", [(1, 1, 3), (5, 7, 3), (64, 30, 3)], 70),
    ],
)
@pytest.mark.filterwarnings("error")
def test_as_many_whatever_the_length_or_size_and_finite_whatever_the_values(modality, shapes, size):
    for shape in shapes:
        for value in (0.0, 1.0, np.nan, np.inf, -np.inf, 3e38, 1e308, -1e308, 1e-38):
            x = np.full((2, *shape), value)
            x[1] = RNG.normal(size=shape)
            x[0].flat[0] = 1
            found = FEATURES[modality](x)
            assert found.shape == (2, size)
            assert np.isfinite(found).all()
            np.testing.assert_allclose(FEATURES[modality](x[1:]), found[1:], err_msg="a row depends on another")

"""Sound files decoded, resampled, cut and padded; the truth is arithmetic."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from fedlit.data.base.records import BadRecord
from fedlit.data.classification.examples import Example
from fedlit.data.classification.sounds import SoundReader, fitted, span_fault
from fedlit.data.files.sounds import read_header, read_sound
from fedlit.errors import FedlitError


class Files(SoundReader):
    """A reader of whole files, each of its own subject."""

    def __init__(self, paths, **kwargs) -> None:
        self.paths = paths
        super().__init__(**kwargs)

    def read(self):
        return [
            Example(path.stem, path.stem, "s", "audio", ("ab"[i % 2],), self.part(path), self.rate)
            for i, path in enumerate(self.paths)
        ]

    def write_stand_in(self, folder):
        raise AssertionError("not used")


def sine(rate, seconds=1.0, frequency=100.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def wav(path, values, rate=8000, subtype="PCM_16"):
    soundfile.write(str(path), values, rate, subtype=subtype, format="WAV")
    return path


@pytest.mark.parametrize(
    ("subtype", "step"), [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_32", 2**-23), ("FLOAT", 0)]
)
def test_samples_of_every_depth_come_back_within_a_step(subtype, step, tmp_path):
    given = sine(8000)
    values, rate = read_sound(wav(tmp_path / "a.wav", given, subtype=subtype))
    assert (values.dtype, values.shape, rate) == (np.float32, (8000,), 8000)
    assert np.abs(values - given).max() <= step
    assert read_header(tmp_path / "a.wav").seconds == 1.0


def test_channels_are_averaged(tmp_path):
    left, right = sine(8000), sine(8000, frequency=300)
    values, _ = read_sound(wav(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(values, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [4000, 8000, 10000, 22050, 44100, 48000, 16000])
def test_a_sine_is_resampled_to_the_sine(rate, tmp_path):
    """Away from the ends, where the filter has seen nothing beyond; 440 Hz is well within every band."""
    reader = Files([], seconds=1.0, padding="crop")
    out = reader.excerpt(wav(tmp_path / "a.wav", sine(rate, 1.0, 440.0), rate, "FLOAT"))
    assert out.shape == (16000,)
    np.testing.assert_allclose(out[800:-800], sine(16000, 1.0, 440.0)[800:-800], atol=2e-3)


def test_what_the_new_rate_cannot_hold_is_filtered_away(tmp_path):
    out = Files([], rate=8000, seconds=1.0, padding="crop").excerpt(
        wav(tmp_path / "a.wav", sine(16000, 1.0, 6000.0), 16000, "FLOAT")
    )
    assert np.abs(out[400:-400]).max() < 2e-3


def test_circular_padding_by_hand():
    """16 Hz, so that a fade is one sample: it has the weight 0. Then a repeat from the start, and the last fade."""
    given = np.array([1, 2, 3, 4], np.float32)
    out = fitted(given, 16, 10 / 16, "circular")
    assert out.tolist() == [0, 2, 3, 0, 0, 2, 3, 0, 0, 0]
    assert given.tolist() == [1, 2, 3, 4]


def test_fades_of_circular_padding_last_a_sixteenth_of_a_second():
    """320 Hz: 20 samples, linear from 0 to 1 with both ends; 1 s of ones to 2.5 s."""
    out = fitted(np.ones(320, np.float32), 320, 2.5, "circular")
    ramp = np.arange(20) / 19
    once = np.concatenate([ramp, np.ones(280), ramp[::-1]])
    expected = np.concatenate([once, once, once[:160]])
    expected[-20:] *= ramp[::-1]
    np.testing.assert_allclose(out, expected, atol=1e-6)
    exact = fitted(np.ones(320, np.float32), 320, 1.0, "circular")
    np.testing.assert_allclose(exact, np.concatenate([once[:300], ramp[::-1] ** 2]), atol=1e-6)


def test_longer_sounds_lose_their_end_and_its_fade():
    out = fitted(np.ones(640, np.float32), 320, 1.0, "circular")
    np.testing.assert_allclose(out, np.concatenate([np.arange(20) / 19, np.ones(300)]), atol=1e-6)
    np.testing.assert_array_equal(out, fitted(np.ones(640, np.float32), 320, 1.0, "zeros"))


def test_lengths_are_rounded():
    """0.29 s at 100 Hz are 28.999999999999996 samples."""
    for padding in ("crop", "zeros", "circular"):
        assert len(fitted(np.ones(40, np.float32), 100, 0.29, padding)) == 29


def test_zeros_and_crop():
    out = fitted(np.array([1, 2, 3, 4], np.float32), 16, 10 / 16, "zeros")
    assert out.tolist() == [0, 2, 3, 0] + [0] * 6
    assert fitted(np.array([1, 2, 3, 4], np.float32), 16, 2 / 16, "crop").tolist() == [1, 2]
    with pytest.raises(FedlitError, match=r"lasts 0.250 s, data.seconds is 1: lower it, or set data.padding"):
        fitted(np.ones(4, np.float32), 16, 1.0, "crop")


@pytest.mark.parametrize("count", [1, 2, 3, 30])
def test_sounds_shorter_than_a_fade_are_padded_too(count):
    out = fitted(np.ones(count, np.float32), 320, 1.0, "circular")
    assert out.shape == (320,)
    assert np.isfinite(out).all()
    assert out.max() > 0 or count == 2


def test_a_part_of_a_file(tmp_path):
    """From 0.5 s to 0.75 s, at the file's own rate."""
    path = wav(tmp_path / "a.wav", np.arange(8000, dtype=np.float32) / 8000, subtype="FLOAT")
    out = Files([], rate=8000, seconds=0.25, padding="crop").excerpt(path, 0.5, 0.75)
    np.testing.assert_allclose(out, np.arange(4000, 6000) / 8000, atol=1e-7)
    with pytest.raises(BadRecord, match="a.wav: holds no sample from 0.5 s to 0.5 s"):
        Files([]).excerpt(path, 0.5, 0.5)


def damaged(folder, kind):
    path = wav(folder / f"{kind}.wav", sine(8000))
    whole = path.read_bytes()
    written = {
        "nothing": b"",
        "header": whole[:30],
        "short": whole[:10000],
        "silent": whole[:40] + struct.pack("<I", 0),
        "text": b"not a sound at all, but text",
    }
    if kind == "nan":
        wav(path, np.where(np.arange(8000) == 5, np.nan, sine(8000)), subtype="FLOAT")
    elif kind == "absent":
        path.unlink()
    else:
        path.write_bytes(written[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nothing", r"is empty \(0 bytes\): copy it again"),
        ("header", "cannot be read as sound .*: give a WAV file"),
        ("short", "ends 6044 bytes before the end of its sound: copy the whole file again"),
        ("silent", "holds no samples: copy it again"),
        ("text", r"cannot be read as sound \(Format not recognised\): give a WAV file, or leave it out"),
        ("nan", r"holds 1 NaN or infinite sample\(s\): mend them"),
        ("absent", "No such file or directory: copy it there"),
    ],
)
def test_files_that_cannot_be_read_are_named(kind, message, tmp_path):
    path = damaged(tmp_path, kind)
    with pytest.raises(BadRecord, match=f"{path}: {message}"):
        read_sound(path)


def test_a_file_written_to_a_pipe_is_read(tmp_path):
    """Its length is unknown when its header is written."""
    path = wav(tmp_path / "a.wav", sine(8000))
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + b"\xff" * 4 + whole[44:])
    assert len(read_sound(path)[0]) == 8000


def test_chunks_before_and_after_the_sound(tmp_path):
    path = wav(tmp_path / "a.wav", sine(8000))
    whole = path.read_bytes()
    chunk = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    path.write_bytes(whole[:36] + chunk + whole[36:] + chunk)
    assert len(read_sound(path)[0]) == 8000
    path.write_bytes(whole[:36] + chunk + whole[36:-2])
    with pytest.raises(BadRecord, match="ends 2 bytes before"):
        read_sound(path)


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        (0.0, 1.0, None),
        (0.5, 1.04, None),
        (0.5, 1.06, "ends at 1.06 s, and the sound at 1.000 s: mend the times, or copy"),
        (1.0, 1.01, "and the sound at 1.000 s"),
        (-0.1, 0.5, "starts at -0.1 s, before the sound"),
        (0.5, 0.5, "ends at 0.5 s, and starts at 0.5 s"),
        (float("nan"), 0.5, "lasts from nan to 0.5 s"),
    ],
)
def test_times_of_a_part(start, stop, message):
    fault = span_fault(start, stop, 1.0)
    assert fault is None if message is None else message in fault


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0}, "data.rate is 0: give a number above 0"),
        ({"seconds": float("inf")}, "data.seconds is inf"),
        ({"seconds": 1e-5}, "at 16000 Hz that is no sample"),
        ({"padding": "wrap"}, "data.padding is 'wrap': give one of circular, zeros, crop"),
    ],
)
def test_arguments_that_are_none(arguments, message):
    with pytest.raises(FedlitError, match=message):
        Files([], **arguments)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cached", [False, True])
def test_files_are_decoded_and_resampled_once_and_not_in_every_epoch(cached, tmp_path, monkeypatch):
    from fedlit.data import IID
    from fedlit.data.classification import sounds as sound_files

    paths = [wav(tmp_path / f"{i}.wav", sine(8000, 0.5, 50.0 + i)) for i in range(24)]
    calls = []
    for name in ("resample", "read_sound"):
        true = getattr(sound_files, name)
        monkeypatch.setattr(sound_files, name, lambda *a, true=true, name=name: calls.append(name) or true(*a))
    folder = tmp_path / "cache" if cached else None
    data = Files(paths, partition=IID(2), seconds=1.0, cache_folder=folder)
    data.setup()
    epochs = [
        [data.dataset(c, s).__getitems__([0])["x"] for c in data.clients for s in ("train", "val", "test")]
        for _ in range(3)
    ]
    assert calls.count("resample") == calls.count("read_sound") == 24
    assert all(bool((a == b).all()) for first, then in pairwise(epochs) for a, b in zip(first, then, strict=True))
    x = epochs[0][0]
    assert (tuple(x.shape), str(x.dtype)) == ((1, 16000), "torch.float32")


@pytest.mark.filterwarnings("ignore")
def test_a_bad_file_stops_the_run_or_is_left_out(tmp_path):
    from fedlit.data import IID

    paths = [wav(tmp_path / f"{i}.wav", sine(8000, 0.5, 50.0 + i)) for i in range(24)]
    paths[7].write_bytes(paths[7].read_bytes()[:500])
    with pytest.raises(
        BadRecord, match=r"7.wav: ends .* copy the whole file again; to leave it out: data.exclude \['7'\]"
    ):
        Files(paths, partition=IID(2)).setup()
    data = Files(paths, partition=IID(2), on_bad_record="skip")
    assert [item["record"] for item in data.describe()["excluded"]] == ["7"]
    other = Files(paths[:6], partition=IID(1), seconds=1.0, padding="crop")
    with pytest.raises(BadRecord, match="0.wav: lasts 0.500 s, data.seconds is 1"):
        other.setup()

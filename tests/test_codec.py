"""Trees as bytes: the same tree back, the same bytes always, and nothing but our own bytes read."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tree import TREES

from fedlit import codec, tree
from fedlit.errors import FedlitError


@given(TREES)
@settings(max_examples=100, deadline=None)
def test_round_trip(t):
    back, metadata = codec.decode(codec.encode(t, {"round": 3}))
    assert tree.equal(t, back)
    assert set(tree.empty_paths(t)) == set(tree.empty_paths(back))
    assert metadata == {"round": 3}
    assert isinstance(back, torch.Tensor) or list(back) == sorted(back)
    assert codec.encode(back, {"round": 3}) == codec.encode(t, {"round": 3})


@pytest.mark.parametrize(
    "t",
    [
        {},
        {"a": {}, "b": {"c": {}}},
        torch.arange(3.0),
        torch.tensor(2.5),
        {"x": torch.ones(2, dtype=torch.bfloat16), "i": torch.arange(3), "flag": torch.tensor([True])},
        {"empty": torch.zeros(0, 4)},
    ],
    ids=["empty", "nested empty", "bare tensor", "bare scalar", "dtypes", "no elements"],
)
def test_shapes_of_trees(t):
    back, _ = codec.decode(codec.encode(t))
    assert tree.equal(t, back)
    assert [x.dtype for x in tree.leaves(t)] == [x.dtype for x in tree.leaves(back)]
    assert set(tree.empty_paths(t)) == set(tree.empty_paths(back))


def test_equal_trees_give_equal_bytes_whatever_their_order_or_layout():
    square = torch.arange(9.0).reshape(3, 3)
    one = {"a": square.T.contiguous(), "b": torch.ones(2)}
    two = {"b": torch.ones(5)[:2], "a": square.T}
    assert codec.encode(one, {"x": 1, "y": 2}) == codec.encode(two, {"y": 2, "x": 1})


def test_views_of_one_storage_are_written_apart():
    base = torch.arange(4.0)
    back, _ = codec.decode(codec.encode({"a": base, "b": base, "head": base[:2]}))
    assert back["b"].tolist() == [0, 1, 2, 3]
    assert back["head"].tolist() == [0, 1]


def test_torn_bytes_are_refused_at_every_length():
    blob = codec.encode({"a": torch.arange(4.0)})
    for length in range(len(blob)):
        with pytest.raises(FedlitError, match="state"):
            codec.decode(blob[:length], "state")


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_garbage_is_refused(blob):
    with pytest.raises(FedlitError):
        codec.decode(blob)


def _with_header(text: str, body: bytes = b"\0" * 8) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(8, "little") + raw + body


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}, '
        '"a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        "[1, 2]",
        "not json",
        '{"a": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        '{"__metadata__": {"fedlit": "5"}, "a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        '{"__metadata__": 3}',
    ],
    ids=["duplicate", "list", "text", "huge integer", "deep", "no metadata", "other metadata", "number"],
)
def test_other_headers_are_refused(text):
    with pytest.raises(FedlitError, match="upload"):
        codec.decode(_with_header(text), "upload")


def test_a_header_longer_than_the_file_is_refused_before_it_is_parsed():
    with pytest.raises(FedlitError, match="cut short"):
        codec.decode((1 << 62).to_bytes(8, "little") + b"{}")


def test_no_pickle_and_one_metadata_key():
    head = codec.header(codec.encode({"a": torch.ones(1)}))
    assert list(head["__metadata__"]) == ["fedlit"]
    assert json.loads(head["__metadata__"]["fedlit"]) == {"empty": [], "metadata": None}

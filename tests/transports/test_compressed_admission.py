"""Compressed uploads at the server: the form is known, and values that no client makes are refused."""

from __future__ import annotations

import pytest
import torch
from uploads import CHAINS, draws, upload

from fedlit import codec, tree
from fedlit.compression import Channel, Int8
from fedlit.transports import Inbox, Job, Reply


@pytest.fixture(params=CHAINS)
def channel(request) -> Channel:
    return Channel(CHAINS[request.param])


def receive(channel: Channel, wire: object, **metrics: object) -> tuple[Inbox, bool]:
    box = Inbox(channel=channel)
    box.expect(Job("ticket", "a", 0, "train", b""), upload)
    told = {"train_loss": 1.0, "compression_error": 0.1, **metrics}
    return box, box.receive(Reply("ticket", "a", codec.encode(wire), 1.0, told))


def test_the_rule_gets_what_the_server_can_make_of_it(channel):
    sent = channel.encode(upload(3), None, draws())
    box, taken = receive(channel, sent.wire)
    assert taken, box.refused
    (update,) = box.updates
    assert tree.equal(update.tensors, channel.decode(sent.wire, upload()))


def test_an_upload_that_is_not_compressed_is_refused(channel):
    box, taken = receive(channel, upload())
    assert not taken
    assert "reply of 'a'" in box.refused["a"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["bfloat16", "int8", "top-k, int8"])
def test_values_that_are_not_finite_are_refused_also_from_a_client_that_sends_them(name, bad):
    channel = Channel(CHAINS[name])
    wire = channel.encode(upload(), None, draws()).wire
    place = wire["scales"] if "scales" in wire else wire["w"]
    place.view(-1)[0] = bad
    box, taken = receive(channel, wire)
    assert not taken
    assert "is not finite" in box.refused["a"]


def changed(channel: Channel, change) -> tuple[Inbox, bool]:
    wire = channel.encode(upload(), None, draws()).wire
    change(wire)
    return receive(channel, wire)


def put(*path: str, at: int, value: float):
    def change(wire: dict) -> None:
        for name in path:
            wire = wire[name]
        wire.view(-1)[at] = value

    return change


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("int8", put("tensors", "w", at=0, value=-128), "w has a scale below 0, or a code below -127"),
        ("int8", put("scales", at=0, value=-1.0), "below 0"),
        ("int8", put("scales", at=-1, value=3e38), "w is not finite"),  # 127 times that
        ("int8", lambda wire: wire.update(scales=torch.ones(3)), "expected"),
        ("top-k", put("places", at=0, value=-1), "places are not ascending"),
        ("top-k", put("places", at=-1, value=30), "w: its places are not ascending from 0 to 29"),
        ("top-k", put("places", at=-1, value=2**31 - 1), "w: its places"),
        ("top-k", put("places", at=-1, value=0), "w: its places"),
        ("top-k", lambda wire: wire["places"].copy_(wire["places"].flip(0).clone()), "its places"),
        ("top-k", lambda wire: wire.update(places=wire["places"].float()), "places is F32"),
        ("top-k", lambda wire: wire["tensors"].update(empty={}), "other parts of it are empty"),
        ("top-k", lambda wire: wire["tensors"].pop("nothing"), "other parts of it are empty"),
    ],
)
def test_a_wire_that_no_client_makes_is_refused(name, change, reason):
    box, taken = changed(Channel(CHAINS[name]), change)
    assert not taken
    assert reason in box.refused["a"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "small", None])
def test_a_reply_without_its_figure_is_refused(value):
    channel = Channel([Int8()])
    box, taken = receive(channel, channel.encode(upload(), None, draws()).wire, compression_error=value)
    assert not taken
    assert "its compression_error became" in box.refused["a"]

"""What a run says it sent, beside the full model."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from toys import Classifier, Regression

from fedlit.aggregators import FedAvg, LocalOnly, ZeroShot
from fedlit.compression import Int8
from fedlit.reports.communication import communication, line, lines, reference, size


def row(direction: str, parameters: int, bytes_: int, dtype: str = "F32") -> dict[str, str]:
    return {"direction": direction, "parameters": str(parameters), "bytes": str(bytes_), "dtype": dtype}


def test_by_hand():
    network = nn.Linear(1000, 100, bias=False)
    rows = [row("up", 10, 400), row("up", 20, 800, "I32+F32"), row("down", 5, 80), row("down", 5, 80)]
    about = communication(rows, network)
    assert about == {
        "per_client_and_round": {
            "up": {"parameters": 15.0, "bytes": 600.0, "dtype": "F32+I32"},
            "down": {"parameters": 5.0, "bytes": 80.0, "dtype": "F32"},
        },
        "reference": {
            "what": "the full model in the dtype it is held in",
            "parameters": 100_000,
            "bytes": 400_000,
            "dtype": "F32",
        },
        "less_than_reference": {"up": pytest.approx(0.9985), "down": pytest.approx(0.9998)},
    }
    assert line(about) == (
        "sent per client and round: up 15 parameters, 600 bytes (F32+I32); down 5 parameters, 80 bytes (F32); the full "
        "model in the dtype it is held in (F32) has 100,000 parameters, 400.0 kB: up 99.85 % less, down 99.98 % less"
    )


def test_little_is_never_said_to_be_nothing_and_more_is_said_to_be_more():
    network = nn.Linear(1000, 100, bias=False)
    assert "up 99.99 % less" in line(communication([row("up", 0, 1)], network))
    assert "up 50.00 % more" in line(communication([row("up", 0, 600_000)], network))
    assert line(communication([], network)) == "nothing was sent"


def test_the_base_is_the_model_as_it_is_held_without_adapters():
    whole, adapted = Classifier(width=8), Classifier(width=8, rank=4)
    assert reference(adapted) == reference(whole)
    count = sum(p.numel() for p in whole.parameters())
    assert reference(whole)["parameters"] == count
    assert reference(whole)["bytes"] == 4 * count
    half = nn.ModuleList([nn.Linear(3, 5).bfloat16(), nn.LayerNorm(5)])
    assert reference(half)["bytes"] == 2 * 20 + 4 * 10
    assert reference(half)["dtype"] == "BF16+F32"


def test_packed_weights_count_as_the_bytes_they_take():
    network = nn.Linear(1, 1, bias=False)
    packed = nn.Parameter(torch.zeros(5000, 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = type("State", (), {"shape": torch.Size([100, 100])})()
    network.weight = packed
    assert reference(network) == {
        "what": "the full model in the dtype it is held in",
        "parameters": 10_000,
        "bytes": 5000,
        "dtype": "4 bit",
    }


def test_sizes():
    assert [size(x) for x in (999, 1000, 5.25e6, 16.06e9)] == ["999 bytes", "1.0 kB", "5.2 MB", "16.1 GB"]


def test_a_run_says_it_of_every_rule(fit, capsys):
    folder = fit(FedAvg(), Regression(hidden=40), baselines=[LocalOnly(), ZeroShot()], compression=Int8())
    about = json.loads((folder.path / "summary.json").read_text())["communication"]
    rows = folder.ledger.read()
    for direction in ("up", "down"):
        sent = [int(r["bytes"]) for r in rows if r["direction"] == direction]
        assert about["per_client_and_round"][direction]["bytes"] == sum(sent) / len(sent)
    assert about["reference"]["bytes"] == 4 * (3 * 40 + 40 + 40 + 1)
    out = capsys.readouterr().out
    said = lines(folder, ["LocalOnly", "ZeroShot", "FedAvg"])
    assert all(one in out for one in said)
    assert said[0].startswith("LocalOnly: sent per client and round: up 0 parameters")
    assert said[1] == "ZeroShot: nothing was sent"
    assert said[2] == f"FedAvg: {line(about)}"


def test_a_run_of_before_has_no_line(fit):
    folder = fit(FedAvg())
    summary = json.loads((folder.path / "summary.json").read_text())
    del summary["communication"]
    folder.write_json("summary.json", summary)
    assert lines(folder, ["FedAvg"]) == []

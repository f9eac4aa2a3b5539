"""Names and shapes of LoRA tensors, against PEFT's own."""

from __future__ import annotations

import pytest
import torch
from toys import Classifier, Regression

from fedlit.aggregators import FedAvg
from fedlit.aggregators.parts import lora
from fedlit.backbones.lora import lora_scaling
from fedlit.errors import FedlitError


@pytest.fixture
def params():
    task = Classifier(rank=4, dtype="float64")
    generator = torch.Generator().manual_seed(0)
    return {
        n: torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for n, p in task.named_parameters()
        if p.requires_grad
    }


def test_layers_are_those_of_peft(params):
    found = lora.layers(params, FedAvg())
    assert [layer.name for layer in found] == ["network.first", "network.second"]
    task = Classifier(rank=4, alpha=12)
    assert {layer.weight for layer in found} <= {n for n, p in task.named_parameters() if not p.requires_grad}
    assert lora_scaling(task) == {"network.first": 3.0, "network.second": 3.0}
    assert lora_scaling(Classifier(rank=4, alpha=12, use_rslora=True))["network.first"] == 6.0


def test_product_is_the_update_that_peft_merges(params):
    task = Classifier(rank=4, dtype="float64", alpha=8)
    with torch.no_grad():
        for name, p in task.named_parameters():
            if name in params:
                p.copy_(params[name])
    for layer in lora.layers(params, FedAvg()):
        merged = task.get_submodule(layer.name).get_delta_weight("default")
        torch.testing.assert_close(2.0 * lora.product(params, layer), merged)


def test_cut_join_and_pad_keep_products(params):
    found = lora.layers(params, FedAvg())
    parts = [lora.cut_rank(params, found, 0, 1), lora.cut_rank(params, found, 1, 4)]
    joined = lora.join_rank(parts, found)
    for layer in found:
        assert torch.equal(joined[layer.a], params[layer.a])
        assert torch.equal(joined[layer.b], params[layer.b])
        whole = lora.product(params, layer)
        torch.testing.assert_close(sum(lora.product(part, layer) for part in parts), whole)
    padded = lora.pad_rank(parts[0], found, lora.ranks(params, found))
    for layer in found:
        assert padded[layer.a].shape == params[layer.a].shape
        torch.testing.assert_close(lora.product(padded, layer), lora.product(parts[0], layer))


def test_without_adapters_the_rule_is_named():
    with pytest.raises(FedlitError, match="FedAvg needs LoRA adapters"):
        lora.layers(dict(Regression().named_parameters()), FedAvg())

import pytest
import torch

from fedlit.backbones import stand_in
from fedlit.errors import FedlitError

NAMES = ["amazon/chronos-t5-tiny", "amazon/chronos-bolt-tiny", "amazon/chronos-2"]


def series(batch=6, length=80, horizon=16):
    generator = torch.Generator().manual_seed(0)
    both = torch.randn(batch, length + horizon, generator=generator).cumsum(-1) * 3 + 5
    both[1, :9] = torch.nan
    return both[:, :length], both[:, length:]


def upstream_loss(backbone, context, target):
    """The loss as the networks themselves return it."""
    network, family = backbone.network, backbone.family
    if "bolt" in backbone.name:
        return network(context=context, target=target).loss
    if "chronos-2" in backbone.name:
        patches = -(-target.shape[-1] // 16)
        return network(context=context, future_target=target, num_output_patches=patches).loss
    tokenizer = family.config.create_tokenizer()
    tokens, mask, scale = tokenizer.context_input_transform(context)
    labels, observed = tokenizer.label_input_transform(target, scale)
    labels[observed == 0] = -100
    return network(input_ids=tokens, attention_mask=mask, labels=labels).loss


@pytest.mark.parametrize("horizon", [16, 10])
@pytest.mark.parametrize("name", NAMES)
def test_mean_of_losses_is_upstreams_loss(name, horizon):
    backbone = stand_in(name, horizon)
    context, target = series(horizon=horizon)
    losses = backbone.family.losses(backbone.network, context, target)
    assert losses.shape == (6,)
    expected = upstream_loss(backbone, context, target.clone())
    torch.testing.assert_close(losses.mean(), expected, rtol=1e-6, atol=1e-6)
    alone = torch.cat([backbone.family.losses(backbone.network, context[[i]], target[[i]]) for i in range(6)])
    torch.testing.assert_close(alone, losses, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES[1:])
def test_missing_targets_count_as_upstream_has_them(name):
    backbone = stand_in(name, 16)
    context, target = series()
    target[2, 4:] = torch.nan
    losses = backbone.family.losses(backbone.network, context, target)
    torch.testing.assert_close(losses.mean(), upstream_loss(backbone, context, target.clone()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_forecast(name):
    backbone = stand_in(name, 16)
    context, _ = series()
    before = torch.random.get_rng_state()
    with torch.no_grad():
        once, twice = (backbone.family.forecast(backbone.network, context, 12, [0.1, 0.5, 0.9]) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert once.shape == (6, 3, 12)
    assert once.dtype == torch.float32
    assert torch.equal(once, twice)
    assert torch.isfinite(once).all()


@pytest.mark.parametrize("name", NAMES[1:])
def test_forecast_is_the_pipelines(name):
    from chronos import Chronos2Pipeline, ChronosBoltPipeline

    backbone = stand_in(name, 16)
    context, _ = series()
    levels = [0.1, 0.5, 0.9]
    with torch.no_grad():
        ours = backbone.family.forecast(backbone.network, context, 12, levels)
    if "bolt" in name:
        theirs, _ = ChronosBoltPipeline(backbone.network).predict_quantiles(context, 12, levels)
    else:
        each, _ = Chronos2Pipeline(backbone.network).predict_quantiles(context[:, None], 12, levels)
        theirs = torch.cat(each)
    torch.testing.assert_close(ours.transpose(1, 2), theirs, rtol=1e-5, atol=1e-5)


def test_unknown_level():
    backbone = stand_in(NAMES[1])
    with pytest.raises(FedlitError, match=r"\[0\.25\]"):
        backbone.family.forecast(backbone.network, series()[0], 8, [0.25])

"""Compression on the command line: short names, settings, and one line where they are wrong."""

from __future__ import annotations

import pytest

from fedlit.compression import BFloat16, Int8, TopK

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")


def asked(*arguments: str):
    """What the command line makes of it."""
    from fedlit.cli import build

    return build(["fit", "--model", "toys.Regression", "--data", "toys.ToyData", *arguments], run=False).trainer


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (("--trainer.compression", "TopK", "--trainer.compression.share", "0.1"), [TopK(0.1)]),
        (("--trainer.compression", "Int8", "--trainer.compression.stochastic", "true"), [Int8(stochastic=True)]),
        (("--trainer.compression", "[TopK, BFloat16]"), [TopK(), BFloat16()]),
        (("--trainer.compression", "[{class_path: TopK, init_args: {share: 0.2}}, Int8]"), [TopK(0.2), Int8()]),
        ((), None),
    ],
    ids=["top-k", "int8", "list", "list with settings", "none"],
)
def test_the_command_line_takes_short_names(arguments, made):
    assert asked(*arguments).compression == made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--trainer.compression", "TopKK"), "there is no class 'TopKK'; did you mean 'TopK'"),
        (("--trainer.compression", "TopK", "--trainer.compression.share", "3"), "TopK.share is 3.0"),
        (("--trainer.compression", "TopK", "--trainer.compression.shar", "0.3"), "did you mean 'share'"),
        (("--trainer.compression", "[Int8, TopK]"), "put Int8 last"),
    ],
    ids=["class", "value", "field", "order"],
)
def test_the_command_line_refuses_in_one_line(arguments, said):
    from fedlit.cli.app import ours_within

    with pytest.raises(Exception) as caught:  # noqa: PT011 - jsonargparse wraps those of constructors
        asked(*arguments)
    assert said in str(ours_within(caught.value))

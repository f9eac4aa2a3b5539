"""Parameters that stay as they are while the others train."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from fedlit.data.base.names import few
from fedlit.errors import FedlitError


def freeze(network: nn.Module, patterns: Sequence[str], name: str) -> None:
    """Let every parameter of a network train but those in whose name a pattern is found.

    Args:
        network: Changed in place.
        patterns: Regular expressions.
        name: Of the backbone, for errors.

    Raises:
        FedlitError: A pattern is no regular expression, or is in no parameter's name.
    """
    network.requires_grad_(True)
    for pattern in patterns:
        try:
            found = [parameter for path, parameter in network.named_parameters() if re.search(pattern, path)]
        except re.error as error:
            raise FedlitError(f"model.frozen: {pattern!r} is no regular expression ({error})") from error
        if not found:
            parts = dict.fromkeys(path.split(".")[0] for path, _ in network.named_parameters())
            raise FedlitError(f"model.frozen: {pattern!r} is in no parameter of {name!r}, which has {few(list(parts))}")
        for parameter in found:
            parameter.requires_grad_(False)

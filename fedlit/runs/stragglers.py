"""How often simulated clients drop out of a round, and how long they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from fedlit import seeds
from fedlit.errors import FedlitError


@dataclass(frozen=True)
class Stragglers:
    """How often clients drop out of a round, and how long they take.

    Each is one number for all clients, or numbers by client name or pattern (``{"site-0*": 0.5, "*": 0.1}``), of which
    the first that fits counts; a client that none fits is never late.

    Args:
        drop_out: Probability that a client does not answer in a round.
        delay_s: Mean of the seconds that a client takes, exponentially distributed. One that takes longer than
            ``trainer.deadline_s`` is missing; without a deadline delays change nothing.

    Raises:
        FedlitError: A probability is not from 0 to 1, or a delay is negative.
    """

    drop_out: float | dict[str, float] = 0.0
    delay_s: float | dict[str, float] = 0.0

    def __post_init__(self) -> None:
        for name, most in (("drop_out", 1.0), ("delay_s", float("inf"))):
            given = getattr(self, name)
            for value in given.values() if isinstance(given, Mapping) else (given,):
                if not 0 <= value <= most:
                    expected = "from 0 to 1" if most == 1 else "at least 0"
                    raise FedlitError(f"trainer.stragglers.{name} is {value}, expected a number {expected}")

    @property
    def delays(self) -> bool:
        """Whether any client may take time."""
        given = self.delay_s.values() if isinstance(self.delay_s, Mapping) else (self.delay_s,)
        return any(seconds > 0 for seconds in given)

    def answers(self, client: str, round: int, seed: int, deadline_s: float | None) -> bool:  # noqa: A002
        """Whether a client answers in time; the same for the same client, round and seed.

        Args:
            client: Its name.
            round: Index of the round, from 0.
            seed: Of the run.
            deadline_s: Seconds that are waited; None: for ever.
        """
        generator = seeds.generator(seed, "stragglers", round, client)
        draw, wait = torch.rand(2, generator=generator, dtype=torch.float64)
        if float(draw) < _of(self.drop_out, client):
            return False
        seconds = -_of(self.delay_s, client) * float(torch.log1p(-wait))
        return deadline_s is None or seconds <= deadline_s


def _of(given: float | dict[str, float], client: str) -> float:
    if not isinstance(given, Mapping):
        return given
    return next((value for pattern, value in given.items() if fnmatchcase(client, pattern)), 0.0)

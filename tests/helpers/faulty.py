"""Tasks that fail at a client whose targets are poisoned, each in its own way."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from torch import Tensor
from toys import Regression

from fedlit.errors import FedlitError


class Refusing(Regression):
    """Ends with an error that a user can mend."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if bool((batch[1] > 1e6).any()):
            raise FedlitError("a target is above 1e6: leave that client out")
        return super().training_step(batch, batch_idx)


class Buggy(Regression):
    """Ends with an error of the program."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if bool((batch[1] > 1e6).any()):
            raise ZeroDivisionError("by a bug")
        return super().training_step(batch, batch_idx)


class Dying(Regression):
    """Its process is killed, as by a system without memory."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if bool((batch[1] > 1e6).any()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, batch_idx)


class Waiting(Regression):
    """Says who it is, and waits to be killed."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        # one write: where Python does not buffer, print writes the line's end apart, and two ranks' lines become one
        sys.stdout.write(f"process {os.getpid()} waits\n")
        sys.stdout.flush()
        while True:
            signal.pause()

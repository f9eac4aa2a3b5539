"""Ranks of the command line on a CPU: copies of the process, one for each core, that share what it has imported."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedlit.aggregators import Aggregator

MOST = 8
"""Ranks that are started unasked: each holds a backbone of its own."""
LAUNCHED = ("LOCAL_RANK", "WORLD_SIZE", "SLURM_NTASKS")
"""Environment variables of those who start ranks themselves, such as torchrun."""
GONE = 0.3
"""Seconds within which the system ends the ranks of a process that is gone."""
WAIT = 2.0
"""Seconds that a rank's report may take to come through."""


def usual_ranks(trainer: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> int:
    """How many ranks a command is best run by at most, where its settings leave that open; 1: by this process alone.

    Two ranks of one thread are faster than one process of two threads (docs/performance.md). So there is one for each
    thread that PyTorch would take, if nothing is set against it.

    Args:
        trainer: Settings of :class:`fedlit.trainer.FederatedTrainer`.
        environment: Of the process.
    """
    import torch

    if not sys.platform.startswith("linux") or any(name in environment for name in LAUNCHED):
        return 1
    if trainer["devices"] is not None or trainer["fast_dev_run"] or trainer["num_threads"] not in (None, 1):
        return 1
    if trainer["num_nodes"] != 1 or trainer["strategy"] != "auto" or trainer["accelerator"] not in ("cpu", "auto"):
        return 1
    if trainer["accelerator"] == "auto" and torch.accelerator.is_available():
        return 1
    return min(MOST, torch.get_num_threads())


def groups(trainer: Mapping[str, Any], rules: Sequence[Aggregator], clients: Sequence[str]) -> int:
    """Groups of clients in a round, of which each rank needs one: those of the rule that has most.

    Args:
        trainer: Settings of :class:`fedlit.trainer.FederatedTrainer`.
        rules: The run's rule and its baselines.
        clients: Names of all clients.
    """
    from fedlit.federation.plan import RoundPlan
    from fedlit.runs.settings import RunSettings

    settings = RunSettings.given(dict(trainer), rules)
    return max(RoundPlan(rule, clients, settings).most_groups for rule in rules)


class Ranks:
    """The ranks of this process: it goes on as rank 0, and its copies as the others.

    Fabric finds them as it finds ranks of torchrun, by the environment. They end with rank 0, however it ends.
    """

    def __init__(self) -> None:
        self.rank = 0
        self._children: list[int] = []
        self._watchers: list[threading.Thread] = []
        self._report: int | None = None
        self._lost: str | None = None
        self._over = threading.Event()

    def start(self, count: int) -> None:
        """Make ``count - 1`` copies of this process; each rank has one thread.

        No backward pass may have run in it, which does not outlive a fork; OpenMP's threads do not either, so copies
        must not ask for several.
        """
        import torch

        torch.set_num_threads(1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": "0"}
        os.environ["WORLD_SIZE"] = str(count)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nothing that ranks exchange leaves the machine
        self._report, reporting = os.pipe()
        for name in ("fabric.utilities", "pytorch.utilities.rank_zero"):  # several lines on who has joined
            logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
        sys.stdout.flush()
        sys.stderr.flush()
        first = os.getpid()
        for rank in range(1, count):
            child = os.fork()
            if child == 0:
                os.close(self._report)
                self.rank, self._report, self._children = rank, reporting, []
                self._be_a_copy(first)
                return
            self._children.append(child)
        os.close(reporting)
        for rank, child in enumerate(self._children, start=1):
            self._watchers.append(threading.Thread(target=self._watch, args=(rank, child), daemon=True))
            self._watchers[-1].start()

    def _be_a_copy(self, first: int) -> None:
        import ctypes

        from lightning.fabric.utilities.rank_zero import rank_zero_only

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != first:  # it has ended in between
            os._exit(1)
        os.environ["LOCAL_RANK"] = str(self.rank)
        setattr(rank_zero_only, "rank", self.rank)  # noqa: B010 - it is typed as a function
        warnings.simplefilter("ignore")  # libraries have warned, or warn, on rank 0 as well
        warnings.filterwarnings("default", module="fedlit")  # this may be of a client that rank 0 never sees

    def _watch(self, rank: int, child: int) -> None:
        _, status = os.waitpid(child, 0)
        self._children.remove(child)
        if status == 0 or self._over.is_set():
            return
        code = os.waitstatus_to_exitcode(status)
        how = "was killed: out of memory?" if code == -signal.SIGKILL else f"ended with status {code}:"
        self._lost = f"rank {rank} {how} go on with --ckpt_path last; --trainer.devices 1 needs less memory"
        if self._over.wait(2 * WAIT):  # rank 0 meets this too, and stops by itself, unless it hangs
            return
        sys.stdout.flush()
        sys.stderr.write(f"fedlit: error: {self.told()}\n")
        sys.stderr.flush()
        os._exit(1)

    def outlive_the_first(self) -> None:
        """Wait a moment, in which this rank is ended where rank 0 is gone: what it met is then no bug of its own."""
        time.sleep(GONE)

    def tell(self, error: str) -> None:
        """Report to rank 0 why this rank stops."""
        assert self._report is not None
        os.write(self._report, error.encode()[: select.PIPE_BUF])

    def told(self) -> str | None:
        """On rank 0: why another rank has stopped, if one has."""
        deadline = time.monotonic() + WAIT
        while self._report is not None and time.monotonic() < deadline:
            if select.select([self._report], [], [], 0)[0]:
                text = os.read(self._report, select.PIPE_BUF)
                if text:
                    return text.decode(errors="replace")
            if self._lost is not None:
                return self._lost
            time.sleep(0.01)
        return None

    def end(self, status: int = 0) -> None:
        """Rank 0 ends the others; another rank ends itself, and nothing that it shares with rank 0 is cleaned up."""
        if self.rank:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        self._over.set()
        for child in list(self._children):
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(child, signal.SIGKILL)
        for watcher in self._watchers:  # a thread that wakes while the interpreter ends would abort it
            watcher.join(WAIT)

"""The workload of ``benchmarks/peers.py`` in Flower's simulation; run by that script.

The Ray backend with its actors, stock FedAvg, no evaluation. An actor builds the network for its first client and keeps
it; only the tensors that train are sent. Actors load the client's functions from this module, so that what an actor
keeps is not sent with every message.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from peers_work import Record, Work, arguments, optimizer

app = ClientApp()


@cache
def actor(settings: str) -> tuple[Work, Any, Any, dict[str, torch.nn.Parameter]]:
    """The work, the data, the task and what trains of it, made once in a process."""
    work = Work(**json.loads(settings))
    torch.set_num_threads(work.threads // work.processes)
    task = work.task()
    return work, work.data(), task, {n: p for n, p in task.named_parameters() if p.requires_grad}


@app.train()
def train(message: Message, context: Context) -> Message:
    """Local steps of one client."""
    config = message.content.config_records["config"]
    work, data, task, live = actor(str(config["work"]))
    with torch.no_grad():
        for name, array in message.content.array_records["arrays"].items():
            live[name].copy_(torch.from_numpy(array.numpy()))
    client = data.clients[int(context.node_config["partition-id"])]
    adamw = optimizer(list(live.values()), work.steps, task.learning_rate)
    for batch in work.batches(data, client, int(config["server-round"]) - 1):
        loss = task.losses(batch).mean()
        adamw.zero_grad()
        loss.backward()
        adamw.step()
    arrays = ArrayRecord({name: Array(p.detach().numpy()) for name, p in live.items()})
    examples = MetricRecord({"num-examples": 1})  # clients weigh the same
    return Message(RecordDict({"arrays": arrays, "metrics": examples}), reply_to=message)


class TimedFedAvg(FedAvg):
    """FedAvg that tells the record of each round's end."""

    def __init__(self, record: Record, clients: int) -> None:
        super().__init__(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
        )
        self.record = record

    def aggregate_train(self, server_round: int, replies: Any) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        failed = [reply.error.reason for reply in replies if reply.has_error()]
        if failed:
            raise RuntimeError(failed[0])
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert arrays is not None
        self.record.ended({name: array.numpy() for name, array in arrays.items()} if server_round == 1 else None)
        return arrays, metrics


def main() -> None:
    """The command line."""
    work, out, _ = arguments()
    record = Record(out)
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        if hasattr(grid, "pull_interval"):
            grid.pull_interval = 0.01  # of waiting for replies; 0.1 s as it comes
        first = {name: p.detach().numpy() for name, p in work.task().named_parameters() if p.requires_grad}
        TimedFedAvg(record, work.clients).start(
            grid,
            ArrayRecord({name: Array(value) for name, value in first.items()}),
            num_rounds=work.rounds,
            train_config=ConfigRecord({"work": json.dumps(asdict(work))}),
        )

    each = work.threads // work.processes
    run_simulation(
        server_app=server,
        client_app=app,
        num_supernodes=work.clients,
        backend_config={
            "init_args": {"num_cpus": work.threads, "num_gpus": 0, "object_store_memory": 10**8},
            "client_resources": {"num_cpus": each, "num_gpus": 0.0},
        },
    )
    record.close()


if __name__ == "__main__":
    import peers_flower

    peers_flower.main()

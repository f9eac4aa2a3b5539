"""What influence weights do: sites with wrong labels, with some wrong labels, and with few documents.

Round 1 of Fed-MedLoRA is trained once. What the server would then do with each validation set is computed from the
same updates: the weights from the losses of each site's model on each record, and the merged model's loss on test data.
"""

from __future__ import annotations

import random
import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fedlit import tree
from fedlit.aggregators import FedMedLoRA, FedMedLoRAPlus, ReliableInfluence, Server, Update
from fedlit.data import BySite
from fedlit.data.documents.documents import Document, Entity
from fedlit.engine.batches import evaluation_loader
from fedlit.seeds import key
from fedlit.tasks import InstructionTask
from fedlit.trainer import FederatedTrainer
from studies.medlora.data import Titles

SITES = {"site-clean-1": 24, "site-clean-2": 24, "site-noisy": 24, "site-shuffled": 24, "site-tiny": 9}
"""Training documents, four of each of which go to the server."""
SIZES, DRAWS, RECORDS = (1, 5, 10, 20), 5, 20
TEST = 40
TYPES = ("Chemical", "Disease")
WORD = re.compile(r"\w+")


def shuffled(document: Document) -> Document:
    """As many mentions as there were, on words at random, of types at random."""
    draw = random.Random(key("shuffled", document.id))
    words = [(m.start(), m.end()) for m in WORD.finditer(document.text)]
    places = sorted(draw.sample(words, min(len(words), len(document.entities))))
    made = tuple(Entity(f"T{i}", draw.choice(TYPES), a, b) for i, (a, b) in enumerate(places))
    return replace(document, entities=made)


def noisy(document: Document, share: float = 0.2) -> Document:
    """One mention in five of the other type, or not there."""
    draw = random.Random(key("noisy", document.id))
    kept = []
    for own in document.entities:
        if draw.random() >= share:
            kept.append(own)
        elif draw.random() < 0.5:
            kept.append(replace(own, type=TYPES[own.type == TYPES[0]]))
    return replace(document, entities=tuple(kept))


class Unequal(Titles):
    """Five sites of unlike worth; documents of the server and of tests are as their annotators left them."""

    def read(self) -> list[Document]:
        """Training documents in the order of their ids, dealt by a draw of the seed; tests in turn."""
        found = super().read()
        train = [own for own in found if own.fold == "train"]
        random.Random(self.seed).shuffle(train)
        sites = [site for site, size in SITES.items() for _ in range(size)]
        names = dict(zip((own.id for own in train), sites, strict=True))
        rest = [own for own in found if own.fold != "train"]
        names |= {own.id: list(SITES)[i % len(SITES)] for i, own in enumerate(rest)}
        return [replace(own, site=names[own.id]) for own in found]

    def _cut(self, client: str, split: str, held: list[Document]) -> list[Document]:
        seen = super()._cut(client, split, held)
        spoil = {"site-shuffled": shuffled, "site-noisy": noisy}.get(client)
        return seen if spoil is None or split != "train" else [spoil(own) for own in seen]


@dataclass(frozen=True)
class Kept(FedMedLoRA):
    """Fed-MedLoRA that leaves its updates where the study finds them."""

    def aggregate(self, state: Any, updates: Any, server: Any) -> Any:
        KEPT["base"] = state["params"]
        KEPT["updates"] = {u.client: u.tensors for u in updates}
        KEPT["sizes"] = {u.client: u.weight for u in updates}
        return super().aggregate(state, updates, server)


KEPT: dict[str, Any] = {}


def weigh(rule: Any, table: torch.Tensor, sizes: list[float]) -> list[float]:
    """Shares that a rule gives to sites: what it makes of updates that are a one at the site's own place.

    Args:
        rule: Fed-MedLoRA or one of its kin.
        table: Losses (sites, records).
        sizes: Training documents.
    """
    ones = torch.eye(len(sizes), dtype=torch.float64)
    updates = [
        Update(f"{i:03}", n, lambda one=one: {"share": one}) for i, (n, one) in enumerate(zip(sizes, ones, strict=True))
    ]

    def losses(models: Iterable[Any]) -> list[torch.Tensor]:
        return [table[int(model["share"].nonzero())] for model in models]

    server = Server(0, torch.Generator(), losses)
    found = rule.aggregate({"params": {"share": torch.zeros_like(ones[0])}}, updates, server)
    shares: list[float] = found["params"]["share"].tolist()
    return shares


RULES: dict[str, Any] = {
    "Plus, paper": FedMedLoRAPlus(),
    "Plus, release": FedMedLoRAPlus(preset="release"),
    "Plus, temperature 0.05": FedMedLoRAPlus(temperature=0.05),
    "ReliableInfluence": ReliableInfluence(),
}


def study(cell: Any, root: Path, where: dict[str, str]) -> dict[str, Any]:
    """One seed: weights and test losses by rule, size of the validation set and draw; F1 of some."""
    from studies.medlora.cells import Recorded, language_model

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data = Unequal(
        root, sum(SITES.values()), TEST, partition=BySite(), types=list(TYPES), batch_size=2, eval_batch_size=32,
        server_examples=RECORDS, seed=cell.seed,
    )  # fmt: skip
    task: InstructionTask = language_model(where["backbone"], cell.seed, {})
    recorded = Recorded(task)
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        trainer = FederatedTrainer(
            Kept(), max_rounds=1, local_epochs=2, evaluate_at=["after_local"], default_root_dir=folder,
            gradient_clip_val=1.0, seed=cell.seed, num_threads=1, enable_progress_bar=False, precision="bf16-mixed",
        )  # fmt: skip
        trainer.fit(task, data)
    engine, base, updates = trainer.session.engine, KEPT["base"], KEPT["updates"]
    names = sorted(updates)
    sizes = [float(KEPT["sizes"][name]) for name in names]
    held = data.server_dataset()
    models = [tree.add(base, updates[name]) for name in names]
    table = torch.stack(engine.losses(models, evaluation_loader(data, held)))
    test = data.dataset(data.clients, "test")

    def merged(shares: list[float]) -> Any:
        out = base
        for share, name in zip(shares, names, strict=True):
            out = tree.add(out, updates[name], share)
        return out

    def loss(shares: list[float]) -> float:
        return round(float(engine.losses([merged(shares)], evaluation_loader(data, test))[0].mean()), 5)

    def answers(shares: list[float]) -> dict[str, float]:
        recorded.pooled.reset()
        engine.evaluate([merged(shares)], [evaluation_loader(data, test)], "test", 32)
        found = recorded.pooled.compute()
        return {name: round(float(found[name]), 5) for name in ("entity_strict_f1", "entity_lenient_f1")}

    fixed = {
        "FedMedLoRA": weigh(FedMedLoRA(), table, sizes),
        "clean sites only": [0.5 * name.startswith("site-clean") for name in names],
    }
    rows: list[dict[str, Any]] = [
        {"rule": rule, "shares": shares, "loss": loss(shares), **answers(shares)} for rule, shares in fixed.items()
    ]
    for size in SIZES:
        for number in range(DRAWS if size < RECORDS else 1):
            chosen = random.Random(key("validation set", cell.seed, size, number)).sample(range(RECORDS), size)
            for label, rule in RULES.items():
                shares = weigh(rule, table[:, chosen], sizes)
                row = {"rule": label, "size": size, "draw": number, "shares": shares, "loss": loss(shares)}
                if size == 5 and number == 0:
                    row |= answers(shares)
                rows.append(row)
    for row in rows:
        row["shares"] = {name: round(share, 4) for name, share in zip(names, row["shares"], strict=True)}
    return {
        "part": "influence", "label": cell.label, "seed": cell.seed, "sizes": dict(zip(names, sizes, strict=True)),
        "site_losses": {n: round(statistics.fmean(own), 4) for n, own in zip(names, table.tolist(), strict=True)},
        "rows": rows, "tests": len(test), "seconds": round(time.process_time() - begin, 1), "test": {},
    }  # fmt: skip

"""The rules that are studied: hyperparameters, and the problem that each was made for, said before any run.

Whom a rule must beat there is said in ``references.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import fedlit.aggregators
from fedlit.aggregators import Aggregator
from fedlit.errors import FedlitError
from studies.rules.problems import CLIENTS, RANK

ALL, OWN, SHIFT, CONFLICT = "label skew, all classes", "label skew, own classes", "feature shift", "conflict"
GROUPS, NOISE, BYZANTINE, TINY = "two clusters", "noisy clients", "Byzantine clients", "tiny client"
ODD, STEPS = "odd client", "unequal steps"
HALF_RANKS = {f"client-{i}": RANK // 2 for i in range(0, CLIENTS, 2)}
"""Every other client, so that ranks do not follow the problems' groups: a rank of its own would tell them apart."""


@dataclass(frozen=True)
class Entry:
    """A rule as it is studied.

    Args:
        rule: Its class's name.
        made_for: The problem that it should win, or not lose; None: it is a reference.
        why: Why it should.
        settings: Its hyperparameters where they are not the defaults.
        chosen: Where they come from, if not the paper's or the class's defaults.
        grid: Values tried by ``--tune`` on validation data of other seeds.
        schedule: ``rounds``, all clients in each; ``ring``, one client's turn is a round, as many turns in all;
            ``one shot``, all local steps in one round; ``short rounds``, two local steps in each.
        rank: Of the network's adapters.
        finding: Why it loses, found out after the run.
    """

    rule: str
    made_for: str | None
    why: str
    settings: dict[str, Any] = field(default_factory=dict)
    chosen: str = "defaults"
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    schedule: Literal["rounds", "ring", "one shot", "short rounds"] = "rounds"
    rank: int = RANK
    finding: str = ""

    def make(self, **changes: Any) -> Aggregator:
        """The rule itself.

        Raises:
            FedlitError: fedlit has no rule of that name.
        """
        kind = getattr(fedlit.aggregators, self.rule, None)
        if kind is None:
            raise FedlitError(f"fedlit.aggregators has no {self.rule}: export it there, or leave it out by --rules")
        made: Aggregator = kind(**{**self.settings, **changes})
        return made


DRIFT = "corrects or damps the drift of clients whose classes differ, so the shared model is no worse than FedAvg's"
SERVER = "a server optimizer on the same updates, for clients that differ"
PERSONAL = "a client's own model profits from its class shares, and from the others through the shared part"
HEADS = "the names of classes live in the head, which stays at the client; the body learns from all"
FINDS = "who is alike is seen in the updates, and only those are mixed"
HOLDS = "up to two of ten hostile updates cannot move it far"
LISTENS = "the server's few clean records tell who is noisy"
EXACT = "less is lost by averaging A and B apart where clients differ"
TUNED = "by --tune"
SHARES_LITTLE = (
    "not shown; probably the body, which FedAvg trains on all records in spite of the names, and most of which this "
    "rule leaves at the client: FedPer shares it and is ahead of the same reference"
)
OVERFITS = (
    "gets the training loss lower and overfits the 400 records, where theory speaks of the former: after 60 rounds {} "
    "in training and {} in test, FedAvg 0.138 and 0.449 (three seeds, `python -m studies.rules.losses`)"
)

RULES: dict[str, Entry] = {
    "ZeroShot": Entry("ZeroShot", None, "reference: nobody trains"),
    "Centralized": Entry("Centralized", None, "reference: all records in one place"),
    "LocalOnly": Entry("LocalOnly", CONFLICT, "nothing of the others is of use as it is", finding=SHARES_LITTLE),
    "FedAvg": Entry("FedAvg", TINY, "a client that is like the others and has few records takes their model"),
    "FedAvg uniform": Entry(
        "FedAvg", NOISE, "records do not count, so noise has less than half", {"weighting": "uniform"}
    ),
    "FedAvg one shot": Entry("FedAvg", None, "reference of one-shot merging", schedule="one shot"),
    "FedAvg rank 2": Entry("FedAvg", None, "reference of mixed ranks: all take the smallest", rank=RANK // 2),
    # averaging
    "FedAvgM": Entry(
        "FedAvgM", ALL, SERVER, {"lr": 0.3}, TUNED, {"lr": (0.1, 0.3, 1.0)},
        finding=OVERFITS.format("0.073", "0.672"),
    ),
    "FedAdam": Entry(
        "FedAdam", ALL, SERVER, {"lr": 0.01}, TUNED, {"lr": (0.01, 0.03, 0.1)},
        finding=OVERFITS.format("0.095", "0.584"),
    ),
    "FedYogi": Entry(
        "FedYogi", ALL, SERVER, {"lr": 0.01}, TUNED, {"lr": (0.01, 0.03, 0.1)},
        finding=OVERFITS.format("0.103", "0.569"),
    ),
    "FedAdagrad": Entry("FedAdagrad", ALL, SERVER, {"lr": 0.03}, TUNED, {"lr": (0.03, 0.1, 0.3)}),
    "FedNova": Entry("FedNova", STEPS, "counts a client by its mean step, however many it takes"),
    # proximal and drift
    "FedProx": Entry("FedProx", ALL, DRIFT, {"mu": 0.1}, TUNED, {"mu": (0.01, 0.1, 1.0)}),
    "SCAFFOLD": Entry("SCAFFOLD", ALL, DRIFT),
    "FedDyn": Entry(
        "FedDyn", ALL, DRIFT, {"alpha": 0.3}, TUNED, {"alpha": (0.01, 0.03, 0.1, 0.3)},
        finding=OVERFITS.format("0.055", "0.707"),
    ),
    "MOON": Entry("MOON", ALL, DRIFT, {"mu": 1.0}, TUNED, {"mu": (0.1, 1.0, 5.0)}),
    # local adaptation
    "FedLA": Entry(
        "FedLA", OWN, PERSONAL, {"fedavg_rounds": 14, "adapt_rounds": 6, "mu": 1.0},
        "two thirds of the rounds, as in the paper; mu by --tune", {"mu": (0.01, 0.1, 1.0)},
    ),
    "Ditto": Entry("Ditto", OWN, PERSONAL, {"lam": 1.0}, TUNED, {"lam": (0.1, 0.3, 1.0)}),
    "APFL": Entry("APFL", OWN, PERSONAL, {"alpha": 0.25}, TUNED, {"alpha": (0.25, 0.5, 0.75)}),
    "PFedMe": Entry("PFedMe", OWN, PERSONAL, {"lam": 1.0, "eta": 1.0}, TUNED, {"lam": (0.1, 0.3, 1.0)}),
    "PerFedAvg": Entry("PerFedAvg", OWN, PERSONAL, {"alpha": 0.1}, TUNED, {"alpha": (0.03, 0.1, 0.3)}),
    "PerFedAvg first order": Entry(
        "PerFedAvg", OWN, PERSONAL, {"alpha": 0.1, "first_order": True}, TUNED, {"alpha": (0.03, 0.1, 0.3)}
    ),
    "FedPer": Entry("FedPer", CONFLICT, HEADS),
    "FedRep": Entry("FedRep", CONFLICT, HEADS),
    "LGFedAvg": Entry("LGFedAvg", SHIFT, "each client's own representation undoes its shift, under one head"),
    "FedBN": Entry("FedBN", SHIFT, "norms absorb scale and shift, and stay at the client"),
    "FedALA": Entry("FedALA", OWN, PERSONAL, {"mix_scale": 3.0}, TUNED, {"mix_scale": (1.0, 3.0, 14.0)}),
    "APPLE": Entry(
        "APPLE", GROUPS, "learns whose models help", {"mix_scale": 0.3}, TUNED, {"mix_scale": (0.3, 1.0, 3.0)}
    ),
    "MRMTL": Entry("MRMTL", OWN, PERSONAL, {"lam": 1.0}, TUNED, {"lam": (0.1, 0.3, 1.0)}),
    # similarity
    "SimilarityAggregator": Entry(
        "SimilarityAggregator", GROUPS, FINDS, {"signature": "weights"}, TUNED, {"signature": ("weights", "update")}
    ),
    "EPFL": Entry("EPFL", CONFLICT, "B and head stay at the client; alike clients' A are mixed", finding=SHARES_LITTLE),
    "ShrunkEPFL": Entry("ShrunkEPFL", TINY, "a client with few records gets the plain mean of A"),
    "SelectiveEPFL": Entry("SelectiveEPFL", GROUPS, "compares the layers that tell groups apart"),
    "FedAP": Entry("FedAP", SHIFT, "norms stay at the client and tell whose inputs are alike"),
    "FedAMP": Entry(
        "FedAMP", GROUPS, FINDS, {"sigma": 1e-2, "mu": 1.0}, TUNED, {"sigma": (1e-3, 1e-2, 1e-1), "mu": (0.1, 1.0)}
    ),
    "FedACS": Entry(
        "FedACS", GROUPS, FINDS, {"select": "threshold", "threshold": 0.3}, TUNED, {"threshold": (0.1, 0.3)}
    ),
    "FedACS top k": Entry("FedACS", GROUPS, FINDS, {"select": "top_k", "k": 4}, "four others in a group"),
    "FedACS softmax": Entry("FedACS", GROUPS, FINDS, {"select": "softmax"}, TUNED, {"temperature": (0.03, 0.1, 0.3)}),
    "ClusteredFL": Entry(
        "ClusteredFL", GROUPS, FINDS, {"eps1": 0.1, "eps2": 0.2}, TUNED, {"eps1": (0.05, 0.1, 0.15, 0.19)}
    ),
    "ModalityMean": Entry(
        "ModalityMean", ODD, "the odd client is found to be a group of its own", {"shrink": 0.0}, TUNED,
        {"shrink": (0.0, 0.1, 0.3)},
    ),
    # influence
    "FedMedLoRA": Entry("FedMedLoRA", TINY, "FedAvg by size"),
    "FedMedLoRAPlus paper": Entry("FedMedLoRAPlus", NOISE, LISTENS, {"preset": "paper"}),
    "FedMedLoRAPlus release": Entry("FedMedLoRAPlus", NOISE, LISTENS, {"preset": "release"}),
    "FedMedLoRAPlus improvement": Entry("FedMedLoRAPlus", NOISE, LISTENS, {"form": "improvement"}),
    "ReliableInfluence": Entry("ReliableInfluence", NOISE, LISTENS),
    "FedDGGA": Entry(
        "FedDGGA", SHIFT, "evens out the clients' gaps", {"rounds": 20}, "the run's rounds"
    ),
    # orthogonal
    "MedDualLoRA": Entry("MedDualLoRA", OWN, PERSONAL),
    "OrthogonalDualLoRA rows": Entry(
        "OrthogonalDualLoRA", OWN, PERSONAL, {"lam": 10.0}, TUNED, {"lam": (0.1, 1.0, 10.0)}
    ),
    "OrthogonalDualLoRA representations": Entry(
        "OrthogonalDualLoRA", OWN, PERSONAL, {"penalty": "representations", "lam": 1.0}, TUNED,
        {"lam": (0.1, 1.0, 10.0)},
    ),
    "FedDPA": Entry("FedDPA", OWN, PERSONAL),
    "FedDAT": Entry("FedDAT", OWN, PERSONAL),
    # LoRA-exact
    "FFALoRA": Entry("FFALoRA", ALL, EXACT),
    "FedSALoRA": Entry(
        "FedSALoRA", CONFLICT, "B and head stay at the client; A learns from all", finding=SHARES_LITTLE
    ),
    "AlternatingLoRA": Entry(
        "AlternatingLoRA", ALL, EXACT,
        finding="trains a factor in half of the rounds, and so is slower: a tie after 60 (-0.3 ± 0.6, `--rounds 60`)",
    ),
    "FedExLoRA": Entry("FedExLoRA", ALL, EXACT),
    "FLoRA": Entry("FLoRA", ALL, EXACT),
    "FlexLoRA": Entry("FlexLoRA", ALL, EXACT),
    "LoRAFair": Entry("LoRAFair", ALL, EXACT),
    "FlexLoRA mixed ranks": Entry(
        "FlexLoRA", ALL, "half of the clients keep rank 4", {"ranks": HALF_RANKS}
    ),
    "HetLoRA mixed ranks": Entry(
        "HetLoRA", ALL, "half of the clients keep rank 4", {"ranks": HALF_RANKS}
    ),
    # task vectors
    **{
        f"TaskVectors {mode}": Entry(
            "TaskVectors", ALL, "merges one round of long training", {"mode": mode, **more}, TUNED, grid,
            "one shot",
        )
        for mode, more, grid in (
            ("sum", {"coefficient": 0.2}, {"coefficient": (0.1, 0.2, 0.4)}),
            ("mean", {}, {}),
            ("ties", {"coefficient": 1.0}, {"coefficient": (0.5, 1.0, 2.0)}),
            ("dare", {"coefficient": 0.2, "density": 0.5}, {"coefficient": (0.1, 0.2, 0.4)}),
        )
    },
    # robust
    "CoordinateMedian": Entry("CoordinateMedian", BYZANTINE, HOLDS),
    "TrimmedMean": Entry("TrimmedMean", BYZANTINE, HOLDS, {"trim": 0.2}, "two of ten at each end"),
    "Krum": Entry("Krum", BYZANTINE, HOLDS, {"byzantine": 2}, "two of ten"),
    "MultiKrum": Entry("MultiKrum", BYZANTINE, HOLDS, {"byzantine": 2}, "two of ten"),
    "GeometricMedian": Entry("GeometricMedian", BYZANTINE, HOLDS),
    "NormBounding": Entry("NormBounding", BYZANTINE, HOLDS, {"bound": 1.0}, TUNED, {"bound": (0.25, 0.5, 1.0)}),
    # topology
    "MetaFed": Entry(
        "MetaFed", SHIFT, "each learns from the one before it, and keeps its own", {"cycles": 5, "lam": 0.1}, TUNED,
        {"lam": (0.1, 1.0), "cycles": (5, 10)}, schedule="ring",
    ),
    # fairness
    "QFedAvg": Entry(
        "QFedAvg", ODD, "counts the client with the largest loss most", {"q": 5.0}, TUNED, {"q": (0.1, 1.0, 5.0)},
    ),
    "AFL": Entry(
        "AFL", ODD, "weighs the worst client up", {"lambda_lr": 0.1}, TUNED, {"lambda_lr": (0.01, 0.1)},
    ),
}  # fmt: skip

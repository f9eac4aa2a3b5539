"""Whom each rule must beat in the setting that it was made for, said before the runs that test it.

A reference is the rule without what makes it, or the simplest way to do the same. One that cannot win there, such as a
shared model where clients contradict each other, is left out unless it is the rule's own ablation.
"""

from __future__ import annotations

from collections.abc import Mapping

from studies.rules.table import RULES, Entry

TUNED, UNIFORM = "FedAvg, then alone", "FedAvg uniform"
MIX, SHORT, RING = "uniform mix", "FedAvg in short rounds", "MetaFed without a teacher"

REFERENCES: dict[str, Entry] = {
    TUNED: Entry(
        "FedLA", None, "fine-tuning at the client: 14 rounds of FedAvg, 6 rounds alone",
        {"fedavg_rounds": 14, "adapt_rounds": 6, "mu": 0.0}, "as many rounds as FedLA's; no pull",
    ),
    MIX: Entry(
        "FedACS", None, "half of its own model, and all others alike", {"select": "softmax", "temperature": 1e6},
        "a temperature at which likeness counts for nothing",
    ),
    SHORT: Entry("FedAvg", None, "50 rounds of 2 steps in the place of 20 of 5", schedule="short rounds"),
    RING: Entry(
        "MetaFed", None, "a ring without distillation", {"cycles": 5, "lam": 0.0}, "as MetaFed", schedule="ring"
    ),
}  # fmt: skip
"""What is run as a reference only, and only where a rule is held against it."""

ENTRIES = {**RULES, **REFERENCES}

PLAIN = {"FedAvg": "the plain mean of the same updates"}
ALONE = {"LocalOnly": "nothing shared"}
SERVED = {**ALONE, TUNED: "the simplest personal model with the others' help"}
OWNED = {**PLAIN, **SERVED}
JOINT = {**OWNED, "MedDualLoRA": "two such adapters that just train together"}
LISTENING = {"FedAvg": "by records, without losses", UNIFORM: "all alike, without losses"}
HOLDING = {**PLAIN, **ALONE}
ALIKE = {**SERVED, MIX: "the same mix without likeness"}
ONCE = {"FedAvg one shot": "the plain mean of one round"}
TRIMMED = {**ONCE, "TaskVectors sum": "nothing trimmed or dropped; coefficient chosen as well"}
LOWEST = {"FedAvg rank 2": "all at the smallest rank"}
FAIR = {"FedAvg": "its weights held alike", "ZeroShot": "a shared model that nobody trained"}

AGAINST: dict[str, Mapping[str, str]] = {
    "LocalOnly": {"FedAvg": "all shared", TUNED: SERVED[TUNED]},
    "FedAvg": SERVED,
    UNIFORM: {"FedAvg": "by records", **ALONE},
    **dict.fromkeys(("FedAvgM", "FedAdam", "FedYogi", "FedAdagrad"), {"FedAvg": "a plain step of the server"}),
    "FedNova": {"FedAvg": "steps not counted", UNIFORM: "evens out steps too, where they follow the records"},
    "FedProx": {"FedAvg": "mu 0"},
    "SCAFFOLD": {
        "FedAvg": "no control variates; clients have as many records each, so weights are equal",
        SHORT: "as many steps, sent more often: 1.25 times SCAFFOLD's bytes, which are twice FedAvg's",
    },
    "FedDyn": {"FedAvg": "no dynamic terms"},
    "MOON": {"FedAvg": "mu 0"},
    "FedLA": {**OWNED, TUNED: "mu 0"},
    "Ditto": {**OWNED, "LocalOnly": "lam 0", "FedAvg": "lam infinite"},
    "APFL": {**OWNED, "LocalOnly": "alpha 1", "FedAvg": "alpha 0"},
    **dict.fromkeys(("PFedMe", "PerFedAvg", "PerFedAvg first order"), OWNED),
    "FedPer": SERVED,
    "FedRep": {**SERVED, "FedPer": "head and body at once"},
    "LGFedAvg": OWNED,
    "FedBN": {**OWNED, "FedAvg": "norms shared too"},
    "FedALA": {**OWNED, "FedAvg": "mix_share 0"},
    "APPLE": SERVED,
    "MRMTL": {**OWNED, "LocalOnly": "lam 0"},
    "SimilarityAggregator": ALIKE,
    "EPFL": {**SERVED, "FedSALoRA": "the plain mean of A, B and head at home as well"},
    **dict.fromkeys(
        ("ShrunkEPFL", "SelectiveEPFL"), {"EPFL": "prior 0, or all layers", "FedSALoRA": "no likeness at all"}
    ),
    "FedAP": {**SERVED, "FedBN": "the plain mean, norms at home as well"},
    "FedAMP": {**SERVED, "MRMTL": "pulled to the plain mean as strongly"},
    **dict.fromkeys(("FedACS", "FedACS top k", "FedACS softmax"), ALIKE),
    "ClusteredFL": SERVED,
    "ModalityMean": SERVED,
    "FedMedLoRA": {"FedAvg": "the same by construction"},
    **dict.fromkeys(
        ("FedMedLoRAPlus paper", "FedMedLoRAPlus release", "FedMedLoRAPlus improvement", "ReliableInfluence"), LISTENING
    ),
    "FedDGGA": {"FedAvg": "step_size 0"},
    "MedDualLoRA": OWNED,
    **dict.fromkeys(
        ("OrthogonalDualLoRA rows", "OrthogonalDualLoRA representations"),
        {**OWNED, "MedDualLoRA": "lam 0: ranks and head the same"},
    ),
    **dict.fromkeys(("FedDPA", "FedDAT"), JOINT),
    **dict.fromkeys(
        ("FFALoRA", "AlternatingLoRA", "FedExLoRA", "FLoRA", "FlexLoRA", "LoRAFair"),
        {"FedAvg": "A and B averaged apart"},
    ),
    "FedSALoRA": SERVED,
    **dict.fromkeys(("FlexLoRA mixed ranks", "HetLoRA mixed ranks"), LOWEST),
    "TaskVectors sum": {"FedAvg one shot": "the plain mean; the sum with 0.2 is twice that"},
    "TaskVectors mean": {"FedAvg one shot": "the same by construction"},
    **dict.fromkeys(("TaskVectors ties", "TaskVectors dare"), TRIMMED),
    **dict.fromkeys(
        ("CoordinateMedian", "TrimmedMean", "Krum", "MultiKrum", "GeometricMedian", "NormBounding"), HOLDING
    ),
    "MetaFed": {**SERVED, RING: "lam 0"},
    **dict.fromkeys(("QFedAvg", "AFL"), FAIR),
}
"""By rule: the references, each with why it is one."""

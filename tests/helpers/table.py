"""The rules that must pass every test of this folder: one row each, or several where a setting changes the algorithm.

A row's values should differ from the defaults where that makes the run less trivial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning as L  # noqa: N812
import torch
from custom_rules import HeadOnly, Influence, LateLoss, Noisy, Similarity
from torch import Tensor
from toys import Classifier, Regression, ToyData

from fedlit.aggregators import (
    AFL,
    APFL,
    APPLE,
    EPFL,
    MOON,
    MRMTL,
    SCAFFOLD,
    Aggregator,
    AlternatingLoRA,
    Centralized,
    ClusteredFL,
    CoordinateMedian,
    Ditto,
    FedACS,
    FedAdagrad,
    FedAdam,
    FedALA,
    FedAMP,
    FedAP,
    FedAvg,
    FedAvgM,
    FedBN,
    FedDAT,
    FedDGGA,
    FedDPA,
    FedDyn,
    FedExLoRA,
    FedLA,
    FedMedLoRA,
    FedMedLoRAPlus,
    FedNova,
    FedPer,
    FedProx,
    FedRep,
    FedSALoRA,
    FedYogi,
    FFALoRA,
    FlexLoRA,
    FLoRA,
    GeometricMedian,
    HetLoRA,
    Krum,
    LGFedAvg,
    LocalAdaptation,
    LocalOnly,
    LoRAFair,
    MedDualLoRA,
    MetaFed,
    ModalityMean,
    MultiKrum,
    NormBounding,
    OrthogonalDualLoRA,
    PerFedAvg,
    PFedMe,
    QFedAvg,
    ReliableInfluence,
    SelectiveEPFL,
    ShrunkEPFL,
    SimilarityAggregator,
    Stage,
    Stages,
    TaskVectors,
    TrimmedMean,
    ZeroShot,
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A task, and data that fit it."""

    task_class: type[L.LightningModule]
    network: Mapping[str, Any]
    lively: Mapping[str, Any]
    """What makes every source of randomness and state in the engine count."""
    data_arguments: Mapping[str, Any]

    def task(self, dtype: str = "float32", **arguments: Any) -> L.LightningModule:
        return self.task_class(**self.network, dtype=dtype, **(arguments or self.lively))

    def data(self, dtype: str = "float32", **arguments: Any) -> ToyData:
        return ToyData(**{"server": True, "dtype": dtype, "examples": 6, **self.data_arguments, **arguments})

    def examples(self) -> tuple[Tensor, Tensor]:
        """Eight examples in float64."""
        data = self.data("float64", num_clients=1, examples=8)
        data.setup()
        x, y = data.dataset(data.clients[0], "train").tensors
        return x, y


REGRESSION = Kind(Regression, {"hidden": 4}, {"optimizer": "adamw", "weight_decay": 0.1, "dropout": 0.2}, {})
CLASSIFIER = Kind(Classifier, {}, {"optimizer": "adamw"}, {"classes": 3, "features": 4})
"""Has features and logits."""
LORA = Kind(Classifier, {"rank": 4}, {"optimizer": "adamw"}, {"classes": 3, "features": 4})
"""As above; LoRA on two layers, and the head trains whole."""


@dataclass(frozen=True)
class Row:
    """A rule under test.

    Args:
        rule: With every argument it needs.
        kind: The task that suits it.
        clients: How many there are.
        per_round: How many of them train in a round.
        skip: ``{test function: why it cannot hold for this rule}``.
    """

    rule: Aggregator
    kind: Kind = REGRESSION
    clients: int = 3
    per_round: int | None = 2
    skip: Mapping[str, str] = field(default_factory=dict)


IDENTICAL = "test_identical_clients_are_as_one"

HALVES = "the halves of a batch follow each client's own order"
UNEQUAL = "clients of different rank are not alike"
RANKS = {"client-00": 2}

TABLE: dict[str, Row] = {
    # reference
    "ZeroShot": Row(ZeroShot(), skip={"test_another_seed_gives_another_result": "nothing trains"}),
    "Centralized": Row(
        Centralized(), skip={IDENTICAL: "pools the clients' data: three clients take three times the steps of one"}
    ),
    # averaging
    "FedAvg": Row(FedAvg()),
    "FedAvg uniform": Row(FedAvg(lr=0.5, weighting="uniform")),
    "FedAvg on LoRA": Row(FedAvg(), LORA),
    "FedAvgM": Row(FedAvgM(lr=0.5, beta=0.8)),
    "FedAdam": Row(FedAdam()),
    "FedAdam corrected": Row(FedAdam(bias_correction=True)),
    "FedYogi": Row(FedYogi(lr=0.05, beta2=0.9)),
    "FedAdagrad": Row(FedAdagrad(lr=0.05, beta1=0.5, tau=0.01)),
    "FedNova": Row(FedNova(lr=0.7)),
    # proximal and drift
    "FedProx": Row(FedProx(mu=0.5)),
    "SCAFFOLD": Row(SCAFFOLD(lr=0.5)),
    "SCAFFOLD on LoRA": Row(SCAFFOLD(), LORA),
    "FedDyn": Row(FedDyn(alpha=0.1)),
    "MOON": Row(MOON(mu=2.0, temperature=0.7), CLASSIFIER),
    "MOON on LoRA": Row(MOON(mu=1.0), LORA),
    # fairness
    "QFedAvg": Row(QFedAvg(q=2.0)),
    "QFedAvg with a Lipschitz constant": Row(QFedAvg(q=0.5, lipschitz=10.0)),
    "AFL": Row(AFL(lr=0.7, lambda_lr=0.05)),
    "AFL, others unseen": Row(AFL(lambda_lr=0.5), clients=4),
    # local adaptation
    "LocalOnly": Row(LocalOnly()),
    "LocalAdaptation": Row(LocalAdaptation(mu=0.5)),
    "FedLA": Row(FedLA(fedavg_rounds=2, adapt_rounds=2, mu=0.5)),
    "Ditto": Row(Ditto(lam=0.5, lr=0.5)),
    "APFL": Row(APFL(alpha=0.3)),
    "APFL fixed": Row(APFL(alpha=0.7, adaptive=False)),
    "PFedMe": Row(PFedMe(lam=2.0, eta=0.25, lr=0.7)),
    "PerFedAvg": Row(PerFedAvg(alpha=0.05), skip={IDENTICAL: HALVES}),
    "PerFedAvg first order": Row(PerFedAvg(alpha=0.05, first_order=True), skip={IDENTICAL: HALVES}),
    "MRMTL": Row(MRMTL(lam=0.5)),
    "FedPer": Row(FedPer(head=r"net\.3")),
    "FedPer on LoRA": Row(FedPer(), LORA),
    "FedRep": Row(FedRep(head=r"net\.3", head_share=0.3)),
    "LGFedAvg": Row(LGFedAvg(head=r"net\.3", weighting="uniform")),
    "FedBN": Row(FedBN(), CLASSIFIER),
    "FedALA": Row(FedALA(mixed=r"net\.3", mix_share=0.3, mix_scale=3.0)),
    "FedALA on top": Row(FedALA(mixed=r"net\.3", mix_share=0.5, mix_on_top=True, mix_rate=0.3)),
    "APPLE": Row(
        APPLE(mu=0.5, pull_rounds=3, mix_scale=0.5, weighting="uniform"),
        skip={
            IDENTICAL: "a core's gradient is its share of the mixture times the loss's: alike clients move by thirds"
        },
    ),
    # similarity
    "SimilarityAggregator": Row(SimilarityAggregator(signature="sketch", distance="euclidean", lam=0.3)),
    "SimilarityAggregator of part": Row(SimilarityAggregator(signature="weights", distance="cosine", share=r"net\.3")),
    "EPFL": Row(EPFL(lam=0.4), LORA),
    "EPFL of sketches": Row(EPFL(sketch=5), LORA),
    "ShrunkEPFL": Row(ShrunkEPFL(), LORA),
    "SelectiveEPFL": Row(SelectiveEPFL(), LORA),
    "FedAP": Row(FedAP(lam=0.3), CLASSIFIER),
    "FedAMP": Row(FedAMP(sigma=0.1, mu=0.5)),
    "FedACS": Row(FedACS(threshold=0.05)),
    "FedACS top k": Row(FedACS(select="top_k", k=1), clients=4, per_round=3),
    "FedACS softmax": Row(FedACS(select="softmax", temperature=0.5)),
    "ClusteredFL": Row(ClusteredFL(eps1=0.5, eps2=0.6), clients=4, per_round=3),
    "ModalityMean": Row(ModalityMean(shrink=0.2), clients=4, per_round=3),
    # influence
    "FedMedLoRA": Row(FedMedLoRA(weighting="tokens")),
    "FedMedLoRAPlus": Row(FedMedLoRAPlus(temperature=0.5)),
    "FedMedLoRAPlus release": Row(FedMedLoRAPlus(preset="release", temperature=0.5), LORA),
    "FedMedLoRAPlus improvement": Row(FedMedLoRAPlus(form="improvement", a=0.5, b=2.0)),
    "ReliableInfluence": Row(ReliableInfluence(a=0.5, temperature=0.5)),
    "FedDGGA": Row(FedDGGA(step_size=0.5, rounds=4)),
    # orthogonal
    "MedDualLoRA": Row(MedDualLoRA(shared_rank=1, local="head"), LORA),
    "OrthogonalDualLoRA": Row(OrthogonalDualLoRA(lam=0.5), LORA),
    "OrthogonalDualLoRA columns": Row(OrthogonalDualLoRA(lam=0.5, penalty="columns", local="bias"), LORA),
    "OrthogonalDualLoRA as O-LoRA": Row(
        OrthogonalDualLoRA(lam=0.5, penalty="inner_products", gradient="personal"), LORA
    ),
    "OrthogonalDualLoRA updates": Row(OrthogonalDualLoRA(lam=0.5, penalty="updates", shared_rank=3), LORA),
    "OrthogonalDualLoRA representations": Row(
        OrthogonalDualLoRA(lam=0.5, penalty="representations", gradient="personal"), LORA
    ),
    "FedDPA": Row(FedDPA(alpha=0.3, personal_steps=0.4), LORA),
    "FedDAT": Row(FedDAT(temperature=2.0, local="head"), LORA),
    # LoRA-exact
    "FFALoRA": Row(FFALoRA(), LORA),
    "FedSALoRA": Row(FedSALoRA(), LORA),
    "FedSALoRA with the head": Row(FedSALoRA(share_head=True), LORA),
    "AlternatingLoRA": Row(AlternatingLoRA(lr=0.7), LORA),
    "FedExLoRA": Row(FedExLoRA(), LORA),
    "FedExLoRA mixed ranks": Row(FedExLoRA(ranks=RANKS, weighting="uniform"), LORA, skip={IDENTICAL: UNEQUAL}),
    "FLoRA": Row(FLoRA(), LORA),
    "FLoRA mixed ranks": Row(FLoRA(ranks=RANKS), LORA, skip={IDENTICAL: UNEQUAL}),
    "FlexLoRA": Row(FlexLoRA(), LORA),
    "FlexLoRA mixed ranks": Row(FlexLoRA(ranks=RANKS), LORA, skip={IDENTICAL: UNEQUAL}),
    "HetLoRA mixed ranks": Row(HetLoRA(ranks=RANKS), LORA, skip={IDENTICAL: UNEQUAL}),
    "HetLoRA": Row(HetLoRA(), LORA),
    "LoRAFair": Row(LoRAFair(lam=0.1), LORA),
    "LoRAFair mixed ranks": Row(LoRAFair(lam=0.1, ranks=RANKS), LORA, skip={IDENTICAL: UNEQUAL}),
    # task vectors
    "TaskVectors": Row(TaskVectors(coefficient=0.7)),
    "TaskVectors on LoRA": Row(TaskVectors("ties", density=0.5), LORA),
    "TaskVectors mean": Row(TaskVectors("mean", coefficient=0.7)),
    "TaskVectors sum": Row(
        TaskVectors("sum", coefficient=0.4), skip={IDENTICAL: "the sum of three equal vectors is three times one"}
    ),
    "TaskVectors dare": Row(TaskVectors(mode="dare", density=0.5), skip={IDENTICAL: "each client's entries are drawn"}),
    # robust
    "CoordinateMedian": Row(CoordinateMedian(lr=0.7)),
    "TrimmedMean": Row(TrimmedMean(trim=0.3), clients=5, per_round=4),
    "Krum": Row(Krum(byzantine=0), clients=4, per_round=3),
    "MultiKrum": Row(MultiKrum(byzantine=0, select=1)),
    "GeometricMedian": Row(GeometricMedian(iterations=5)),
    "NormBounding": Row(NormBounding(bound=0.05)),
    # topology
    "MetaFed": Row(MetaFed(threshold=0.05), CLASSIFIER, skip={IDENTICAL: "one client trains in a round"}),
    # combinators
    "Stages": Row(
        Stages([Stage(FedAdam(), 1, trainable=r"net\.3"), Stage(FedProx(mu=0.1), 1), Stage(LocalAdaptation(mu=0.0), 1)])
    ),
    "Stages of measured and drawn rules": Row(Stages([Stage(QFedAvg(), 1), Stage(Ditto(), 2)])),
    "Stages, a head that stays": Row(Stages([Stage(FedAvg(), 1), Stage(FedRep(), 2)]), LORA),
    "Stages, A as it is": Row(Stages([Stage(FedAvg(), 1), Stage(FFALoRA(), 2)]), LORA),
    # as a user would write them
    "custom Similarity": Row(Similarity()),
    "custom HeadOnly": Row(HeadOnly()),
    "custom LateLoss": Row(LateLoss()),
    "custom Influence": Row(Influence()),
    "custom Noisy": Row(Noisy()),
}


def rules_of(package: Any) -> dict[str, type[Aggregator]]:
    """The rules that a package exports: its Aggregators that are dataclasses, which their bases are not."""
    found = {name: getattr(package, name) for name in package.__all__}
    return {
        name: cls
        for name, cls in found.items()
        if isinstance(cls, type) and issubclass(cls, Aggregator) and "__dataclass_params__" in vars(cls)
    }


def start_of(kind: Kind, dtype: str = "float32") -> dict[str, Tensor]:
    """The initial values of the parameters that train."""
    named = kind.task(dtype).named_parameters()
    return {name: p.detach().clone() for name, p in named if p.requires_grad}


def as_dtype(name: str) -> torch.dtype:
    kind: torch.dtype = getattr(torch, name)
    return kind

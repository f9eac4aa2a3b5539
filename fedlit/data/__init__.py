"""Data of many clients: readers, partitions, splits, windows."""

from fedlit.data.module import FederatedDataModule
from fedlit.data.partitions import IID, BySite, BySubject, FileList, Modality, Nested, Partition, statistics
from fedlit.data.records import BadRecord, Record
from fedlit.data.signals import SignalDataModule
from fedlit.data.simulated import SimulatedVitals
from fedlit.data.skews import Dirichlet, PairwiseDirichlet, QuantitySkew
from fedlit.data.windows import Windows

__all__ = [
    "IID",
    "BadRecord",
    "BySite",
    "BySubject",
    "Dirichlet",
    "FederatedDataModule",
    "FileList",
    "Modality",
    "Nested",
    "PairwiseDirichlet",
    "Partition",
    "QuantitySkew",
    "Record",
    "SignalDataModule",
    "SimulatedVitals",
    "Windows",
    "statistics",
]

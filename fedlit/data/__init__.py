"""Data of many clients: readers, partitions, splits, windows."""

from fedlit.data.base.module import FederatedDataModule
from fedlit.data.base.partitions import IID, BySite, BySubject, FileList, Modality, Nested, Partition, statistics
from fedlit.data.base.records import BadRecord, Record
from fedlit.data.base.skews import Dirichlet, PairwiseDirichlet, QuantitySkew
from fedlit.data.classification.adftd import ADFTD
from fedlit.data.classification.edf import EDFClasses
from fedlit.data.classification.examples import Example, Examples
from fedlit.data.classification.fed_isic import FedISIC2019
from fedlit.data.classification.icbhi import ICBHI
from fedlit.data.classification.med_mnist import MedMNIST
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.data.classification.ptbxl import PTBXLClasses
from fedlit.data.classification.signal_table import SignalClassTable
from fedlit.data.classification.simulated import SimulatedImages, SimulatedSignals, SimulatedSounds, SimulatedTexts
from fedlit.data.classification.sprsound import SPRSound
from fedlit.data.classification.tables import ImageTable, SoundTable, TextTable
from fedlit.data.classification.texts import MedicalAbstracts, PubMedRCT
from fedlit.data.classification.wfdb import WFDBLabels
from fedlit.data.documents.dataset import Documents
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.module import DocumentDataModule
from fedlit.data.documents.partitions import RareTagBalanced
from fedlit.data.documents.readers import BratFolder, ConllFolder, I2B2Folder, JSONLDocuments, PubTatorFolder
from fedlit.data.documents.simulated import SimulatedNotes
from fedlit.data.signals.edf_folder import EDFFolder
from fedlit.data.signals.module import SignalDataModule
from fedlit.data.signals.ptbxl import PTBXL
from fedlit.data.signals.simulated import SimulatedVitals
from fedlit.data.signals.table import SignalTable
from fedlit.data.signals.vital_signs import VitalSigns
from fedlit.data.signals.wfdb_folder import WFDBFolder
from fedlit.data.signals.windows import Windows

__all__ = [
    "ADFTD", "BadRecord", "BratFolder", "BySite", "BySubject", "ClassificationDataModule", "ConllFolder",
    "Dirichlet", "Document", "DocumentDataModule", "Documents", "EDFClasses", "EDFFolder", "Entity", "Example",
    "Examples",
    "FederatedDataModule", "FedISIC2019", "FileList", "I2B2Folder", "ICBHI", "IID", "ImageTable", "JSONLDocuments",
    "MedicalAbstracts", "MedMNIST", "Modality", "Nested", "PairwiseDirichlet", "Partition", "PTBXL", "PTBXLClasses",
    "PubMedRCT", "PubTatorFolder", "QuantitySkew", "RareTagBalanced", "Record", "Relation", "SignalClassTable",
    "SignalDataModule", "SignalTable", "SimulatedImages", "SimulatedNotes", "SimulatedSignals", "SimulatedSounds",
    "SimulatedTexts", "SimulatedVitals", "SoundTable", "SPRSound", "statistics", "TextTable", "VitalSigns",
    "WFDBFolder", "WFDBLabels", "Windows",
]  # fmt: skip

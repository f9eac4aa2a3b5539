"""Data of many clients: readers, partitions, splits, windows."""

from fedlit.data.adftd import ADFTD
from fedlit.data.classification import ClassificationDataModule
from fedlit.data.document_module import DocumentDataModule, Documents
from fedlit.data.document_partitions import RareTagBalanced
from fedlit.data.document_readers import BratFolder, ConllFolder, I2B2Folder, JSONLDocuments, PubTatorFolder
from fedlit.data.documents import Document, Entity, Relation
from fedlit.data.examples import Example, Examples
from fedlit.data.fed_isic import FedISIC2019
from fedlit.data.icbhi import ICBHI
from fedlit.data.image_table import ImageTable
from fedlit.data.med_mnist import MedMNIST
from fedlit.data.module import FederatedDataModule
from fedlit.data.partitions import IID, BySite, BySubject, FileList, Modality, Nested, Partition, statistics
from fedlit.data.ptbxl import PTBXL
from fedlit.data.ptbxl_labels import PTBXLClasses
from fedlit.data.records import BadRecord, Record
from fedlit.data.signal_table import SignalTable
from fedlit.data.signals import SignalDataModule
from fedlit.data.simulated import SimulatedVitals
from fedlit.data.simulated_documents import SimulatedNotes
from fedlit.data.simulated_examples import SimulatedImages, SimulatedSignals, SimulatedSounds, SimulatedTexts
from fedlit.data.skews import Dirichlet, PairwiseDirichlet, QuantitySkew
from fedlit.data.sound_table import SoundTable
from fedlit.data.sprsound import SPRSound
from fedlit.data.text_readers import MedicalAbstracts, PubMedRCT
from fedlit.data.text_table import TextTable
from fedlit.data.vital_signs import VitalSigns
from fedlit.data.wfdb_folder import WFDBFolder
from fedlit.data.wfdb_labels import WFDBLabels
from fedlit.data.windows import Windows

__all__ = [
    "ADFTD",
    "BadRecord",
    "BratFolder",
    "BySite",
    "BySubject",
    "ClassificationDataModule",
    "ConllFolder",
    "Dirichlet",
    "Document",
    "DocumentDataModule",
    "Documents",
    "Entity",
    "Example",
    "Examples",
    "FederatedDataModule",
    "FedISIC2019",
    "FileList",
    "I2B2Folder",
    "ICBHI",
    "IID",
    "ImageTable",
    "JSONLDocuments",
    "MedicalAbstracts",
    "MedMNIST",
    "Modality",
    "Nested",
    "PairwiseDirichlet",
    "Partition",
    "PTBXL",
    "PTBXLClasses",
    "PubMedRCT",
    "PubTatorFolder",
    "QuantitySkew",
    "RareTagBalanced",
    "Record",
    "Relation",
    "SignalDataModule",
    "SignalTable",
    "SimulatedImages",
    "SimulatedNotes",
    "SimulatedSignals",
    "SimulatedSounds",
    "SimulatedTexts",
    "SimulatedVitals",
    "SoundTable",
    "SPRSound",
    "statistics",
    "TextTable",
    "VitalSigns",
    "WFDBFolder",
    "WFDBLabels",
    "Windows",
]

"""Constructor arguments are what a config file may say."""

import pytest
from jsonargparse import ArgumentParser

import fedlit.data
from fedlit.data import (
    ADFTD,
    ICBHI,
    PTBXL,
    BySite,
    ClassificationDataModule,
    DocumentDataModule,
    EDFClasses,
    EDFFolder,
    FederatedDataModule,
    FedISIC2019,
    ImageTable,
    MedicalAbstracts,
    MedMNIST,
    Modality,
    PTBXLClasses,
    PubMedRCT,
    SignalClassTable,
    SignalDataModule,
    SignalTable,
    SimulatedImages,
    SimulatedSignals,
    SimulatedSounds,
    SimulatedTexts,
    SimulatedVitals,
    SoundTable,
    SPRSound,
    TextTable,
    VitalSigns,
    WFDBFolder,
    WFDBLabels,
)

CONFIGS = {
    SimulatedVitals: {"kinds": ["ecg", "icg"], "rate": 50},
    PTBXL: {"root": "data", "lead": "V2"},
    VitalSigns: {"root": "data", "channels": ["tfm_icg"]},
    WFDBFolder: {"root": "data", "channels": {"V2": "ecg", "bp": ["ABP", "ART"]}, "site_pattern": "(.)"},
    EDFFolder: {"root": "data", "channels": {"eeg": ["Cz", "Fz"]}, "subject_pattern": "(.)"},
    SignalTable: {"root": "data", "columns": {"a": "ecg"}, "table_rate": 250},
}


@pytest.mark.parametrize("reader", CONFIGS)
def test_a_reader_and_its_partition_from_a_config(reader):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    inner = {"class_path": "BySite", "init_args": {"min_records": 3}}
    partition = {"class_path": "Modality", "init_args": {"partition": inner, "kind": "icg"}}
    arguments = {**CONFIGS[reader], "partition": partition, "context_length": 99, "split": "time"}
    made = parser.parse_object({"data": {"class_path": reader.__name__, "init_args": arguments}})
    data = parser.instantiate(made).data
    assert type(data) is reader
    assert data.partition == Modality(BySite(min_records=3), "icg")
    config = data.config()
    assert config["context_length"] == 99
    assert all(config[name] == value for name, value in CONFIGS[reader].items())


CLASSIFIED = {
    ADFTD: {"root": "data", "channels": ["Fp1"], "window_seconds": 2.0},
    EDFClasses: {"root": "data", "channels": [["C3", "C4"], "O1"], "annotation_pattern": "Sleep stage (.)"},
    FedISIC2019: {"root": "data", "size": 128},
    ICBHI: {"root": "data", "padding": "zeros"},
    ImageTable: {"root": "a.csv", "path_column": "file", "resize": "squash"},
    MedicalAbstracts: {"root": "data"},
    MedMNIST: {"root": "data", "name": "bloodmnist", "size": 64, "check_md5": False},
    PTBXLClasses: {"root": "data", "labels": "superclasses", "leads": ["II", "V1"], "window_seconds": 1.0},
    PubMedRCT: {"root": "data"},
    SignalClassTable: {"root": "a.csv", "columns": ["II"], "table_rate": 250.0, "time_column": "t", "time_unit": "ms"},
    SimulatedImages: {"subjects": 30, "mix": 2.0},
    SimulatedSignals: {"sites": 3},
    SimulatedSounds: {"per_subject": 2},
    SimulatedTexts: {"simulation_seed": 4},
    SoundTable: {"root": "a.csv", "rate": 8000.0, "seconds": 2.0},
    SPRSound: {"root": "data", "level": "record", "test_part": "inter"},
    TextTable: {"root": "a.csv", "text_column": "note", "label_separator": ";"},
    WFDBLabels: {"root": "data", "label_pattern": "^(.)", "channels": [["I", "II"]], "site_pattern": "(.)"},
}


@pytest.mark.parametrize("reader", CLASSIFIED)
def test_a_reader_of_examples_and_its_partition_from_a_config(reader):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    partition = {"class_path": "Dirichlet", "init_args": {"clients": 4, "alpha": 0.5}}
    arguments = {**CLASSIFIED[reader], "partition": partition, "split": "stratified", "val_fraction": 0.2}
    made = parser.parse_object({"data": {"class_path": reader.__name__, "init_args": arguments}})
    data = parser.instantiate(made).data
    assert type(data) is reader
    config = data.config()
    assert config["partition"] == {"class": "Dirichlet", "clients": 4, "alpha": 0.5, "by": "label", "min_records": 1}
    assert (config["split"], config["val_fraction"]) == ("stratified", 0.2)
    assert all(config[name] == value for name, value in CLASSIFIED[reader].items())


def test_every_reader_that_is_exported_is_here():
    made = {cls for cls in vars(fedlit.data).values() if isinstance(cls, type) and issubclass(cls, FederatedDataModule)}
    made -= {FederatedDataModule, SignalDataModule, ClassificationDataModule}
    made -= {cls for cls in made if issubclass(cls, DocumentDataModule)}  # in test_document_readers.py
    assert made == CONFIGS.keys() | CLASSIFIED.keys()

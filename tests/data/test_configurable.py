"""Constructor arguments are what a config file may say."""

import pytest
from jsonargparse import ArgumentParser

from fedlit.data import (
    PTBXL,
    BySite,
    FederatedDataModule,
    Modality,
    SignalTable,
    SimulatedVitals,
    VitalSigns,
    WFDBFolder,
)

CONFIGS = {
    SimulatedVitals: {"kinds": ["ecg", "icg"], "rate": 50},
    PTBXL: {"root": "data", "lead": "V2"},
    VitalSigns: {"root": "data", "channels": ["tfm_icg"]},
    WFDBFolder: {"root": "data", "channels": {"V2": "ecg"}, "site_pattern": "(.)"},
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

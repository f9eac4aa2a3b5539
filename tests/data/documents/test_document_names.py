"""Fold and site out of names."""

from __future__ import annotations

from pathlib import PurePath

from fedlit.data.documents.files import fold_of, site_of


def test_folds_and_sites_in_names():
    folds = {
        "CDR_TrainingSet.PubTator.txt": ("train", "CDR"),
        "CDR_DevelopmentSet.PubTator.txt": ("val", "CDR"),
        "NCBItestset_corpus.txt": ("test", "NCBI_corpus"),
        "NCBIdevelopset_corpus.txt": ("val", "NCBI_corpus"),
        "clinic-a_train.conll": ("train", "clinic-a"),
        "TRAIN.tsv": ("train", "site-unknown"),
        "testTrain.tsv": ("train", "site-unknown"),
        "protests.tsv": (None, "protests"),
        "latest.tsv": (None, "latest"),
        "training/beth/a.tsv": ("train", "a"),
    }
    for name, (fold, site) in folds.items():
        assert fold_of(PurePath(name)) == fold, name
        assert site_of(PurePath(name), "file") == site, name
    assert site_of(PurePath("training/beth/a.tsv"), "folder") == "beth"
    assert site_of(PurePath("a.tsv"), "folder") == "site-unknown"
    assert site_of(PurePath("x/y/a.tsv"), "folder") == "x-y"

"""Options of a partition on data that bring their own."""

from __future__ import annotations

import pytest

from fedlit.cli.app import build
from fedlit.data import BySite, Dirichlet, PairwiseDirichlet

IMAGES = ["fit", "--model", "ClassificationTask", "--model.backbone", "stand-in:vit", "--data", "MedMNIST",
          "--data.root", "absent", "--data.name", "organamnist"]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data.partition.alpha", "0.5"], Dirichlet(20, 0.5, min_records=10)),
        (["--data.partition.alpha=0.5", "--data.partition.clients=5"], Dirichlet(5, 0.5, min_records=10)),
        (["--data.partition.alpha", "0.5", "--data.parity", "true"], PairwiseDirichlet(20, 0.5)),
        (["--data.partition", "PairwiseDirichlet", "--data.partition.alpha", "1"], PairwiseDirichlet(20, 1.0)),
        (["--data.partition=Dirichlet", "--data.partition.alpha=1", "--data.parity=true"], Dirichlet(20, 1.0)),
        (["--data.partition", "BySite", "--data.partition.min_records", "3"], BySite(min_records=3)),
    ],
)
def test_what_is_not_given_of_a_partition_is_as_the_data_have_it(capsys, options, expected):
    assert build([*IMAGES, *options], run=False).datamodule.partition == expected
    said = capsys.readouterr().err
    assert ("as the data have it, but for" in said) == (not isinstance(expected, BySite))


def test_a_partition_that_a_file_names_is_changed_as_before(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("data: {class_path: MedMNIST, init_args: {partition: {class_path: Dirichlet, init_args: "
                    "{clients: 3, alpha: 1.0}}}}")  # fmt: skip
    given = [*IMAGES[:1], "--config", str(file), *IMAGES[1:5], *IMAGES[7:], "--data.partition.alpha", "9"]
    assert build(given, run=False).datamodule.partition == Dirichlet(3, 9.0)
    assert "as the data have it" not in capsys.readouterr().err

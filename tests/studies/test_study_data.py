"""Data of the studies: what they change of readers reaches the clients."""

import pytest

from fedlit.data import BySite
from studies.medlora.influence import SITES, Unequal


@pytest.fixture
def corpus(tmp_path):
    def abstract(number):
        mentions = ["0\t7\taspirin\tChemical\tD1", "12\t18\tnausea\tDisease\tD2"]
        lines = [f"{number}|t|aspirin and nausea, case {number}", f"{number}|a|Nothing else.",
                 *(f"{number}\t{own}" for own in mentions), f"{number}\tCID\tD1\tD2"]  # fmt: skip
        return "\n".join(lines) + "\n\n"

    half = sum(SITES.values())
    for part, numbers in (("Training", range(half)), ("Test", range(half, 2 * half))):
        (tmp_path / f"CDR_{part}Set.PubTator.txt").write_text("".join(map(abstract, numbers)))
    return tmp_path


def test_labels_of_two_sites_are_spoilt_in_training_and_nowhere_else(corpus):
    data = Unequal(corpus, train=sum(SITES.values()), test=20, partition=BySite(), seed=0)
    data.setup()
    whole = {own.id: own for own in data.documents}
    changed = {
        (client, split): [own.entities != whole[own.id].entities for own in data.dataset(client, split).documents]
        for client in data.clients
        for split in ("train", "test")
    }
    spoilt = {client for client, split in changed if split == "train" and any(changed[client, split])}
    assert spoilt == {"site-noisy", "site-shuffled"}
    assert sum(changed["site-shuffled", "train"]) > len(changed["site-shuffled", "train"]) / 2
    assert not any(any(own) for (_, split), own in changed.items() if split == "test")

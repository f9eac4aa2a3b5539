import hashlib
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data import (
    IID,
    BySite,
    BySubject,
    Dirichlet,
    FileList,
    Modality,
    Nested,
    PairwiseDirichlet,
    QuantitySkew,
    Record,
    statistics,
)
from fedlit.data.base.partitions import Partition, named
from fedlit.data.base.records import natural, safe_name
from fedlit.errors import FedlitError

EMPTY = np.zeros(0, np.float32)


def make(subject: int, site: int = 0, kind: str = "ecg", label: int = 0, number: int = 0) -> Record:
    name = f"r{subject}-{kind}-{number}"
    return Record(name, f"GDN{subject:04d}", str(site), kind, 100.0, EMPTY, label=f"label-{label}")


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    subjects = draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=40)
    )
    return [make(i, site, "ecg", label, n) for i, (site, label, count) in enumerate(subjects) for n in range(count)]


def random_partitions(clients: int, alpha: float) -> list[Partition]:
    return [
        BySubject(),
        BySubject(clients),
        BySite(),
        IID(clients),
        IID(clients, unit="record"),
        Dirichlet(clients, alpha),
        Dirichlet(clients, alpha, by="site", min_records=2),
        PairwiseDirichlet(clients, alpha),
        QuantitySkew(clients, alpha),
        Nested(BySite(), BySubject()),
    ]


@settings(max_examples=60, deadline=None)
@given(
    found=records(),
    which=st.integers(0, 9),
    clients=st.integers(1, 12),
    alpha=st.sampled_from([1e-300, 1e-6, 0.01, 0.1, 1.0, 100.0, 1e6]),
    seed=st.integers(0, 3),
)
def test_every_record_once_no_empty_client_same_for_a_seed(found, which, clients, alpha, seed):
    partition = random_partitions(clients, alpha)[which]
    try:
        assignment = partition.assign(found, seed)
    except FedlitError as error:
        if "ask for fewer clients" in str(error) or "even" in str(error):
            return
        raise
    assert sorted(i for indices in assignment.values() for i in indices) == list(range(len(found)))
    assert all(assignment.values())
    assert assignment == partition.assign(found, seed)
    assert all(safe_name(name) == name for name in assignment)
    assert sorted(assignment) == sorted(assignment, key=natural)
    statistics(found, assignment)


@pytest.mark.parametrize("partition", [IID(4), Dirichlet(4, 0.3), PairwiseDirichlet(4, 0.3), QuantitySkew(4, 0.3)])
def test_seed_matters(partition):
    found = [make(i, label=i % 5) for i in range(60)]
    assert partition.assign(found, 0) != partition.assign(found, 1)


def test_thirty_subjects_over_twenty_clients_as_in_the_paper():
    found = [make(subject) for subject in range(1, 31)]
    assignment = BySubject(20).assign(found, seed=0)
    held = [[found[i].subject for i in assignment[client]] for client in sorted(assignment)]
    assert [len(subjects) for subjects in held] == [2] * 10 + [1] * 10
    assert sum(held, []) == [f"GDN{subject:04d}" for subject in range(1, 31)]
    assert sorted(assignment)[0] == "client-01"
    assert sorted(assignment)[-1] == "client-20"


def test_subject_names():
    assert list(BySubject().assign([make(1), make(30)], 0)) == ["subject-GDN0001", "subject-GDN0030"]


def test_sites_largest_and_smallest():
    found = [make(i, site=site) for i, site in enumerate([0] * 5 + [1] * 3 + [10] * 2 + [2])]
    assert [len(v) for v in BySite().assign(found, 0).values()] == [5, 3, 1, 2]
    assert list(BySite().assign(found, 0)) == ["site-00", "site-01", "site-02", "site-10"]
    assert list(BySite(clients=2).assign(found, 0)) == ["site-0", "site-1"]
    assert list(BySite(min_records=2).assign(found, 0)) == ["site-00", "site-01", "site-10"]
    with pytest.raises(FedlitError, match="min_records = 9"):
        BySite(min_records=9).assign(found, 0)


def test_iid_keeps_subjects_whole():
    found = [make(subject, number=n) for subject in range(10) for n in range(3)]
    assignment = IID(3).assign(found, 0)
    held = [{found[i].subject for i in indices} for indices in assignment.values()]
    assert sum(map(len, held)) == 10
    assert {len(indices) for indices in IID(3, unit="record").assign(found, 0).values()} == {10}


def test_small_alpha_gives_few_labels_and_large_alpha_equal_mixes():
    found = [make(i, label=i % 10) for i in range(2000)]
    far = statistics(found, Dirichlet(10, 0.01).assign(found, 0))["label"]["total_variation"]
    near = statistics(found, Dirichlet(10, 1000).assign(found, 0))["label"]["total_variation"]
    assert near < 0.1 < 0.6 < far


def test_total_variation_is_the_mean_distance_of_mixes():
    found = [make(i, label=label) for i, label in enumerate([0, 0, 1, 1, 2, 0])]
    counts = {"a": [0, 1, 2], "b": [3, 4, 5]}
    mixes = np.array([[2 / 3, 1 / 3, 0], [1 / 3, 1 / 3, 1 / 3]])
    expected = np.abs(mixes - [3 / 6, 2 / 6, 1 / 6]).sum(axis=1).mean() / 2
    assert statistics(found, counts)["label"]["total_variation"] == round(expected, 4)


def test_ten_thousand_clients_of_a_site_each_are_counted_in_a_moment():
    found = [make(i, site=i) for i in range(10_000)]
    began = time.process_time()
    told = statistics(found, {f"client-{i}": [i] for i in range(10_000)})
    assert time.process_time() - began < 5
    assert told["site"]["total_variation"] == 0.9999


def test_min_records_is_kept_at_extreme_alpha():
    found = [make(i, label=i % 2) for i in range(40)]
    assignment = Dirichlet(10, 0.001, min_records=4).assign(found, 0)
    assert {len(indices) for indices in assignment.values()} == {4}
    with pytest.raises(FedlitError, match="min_records = 5"):
        Dirichlet(10, 0.001, min_records=5).assign(found, 0)


def test_pairwise_dirichlet_is_as_mild_as_measured():
    """FHBench at alpha 0.1, 11 classes, 20 clients: sizes 463 to 713 and total variation 0.44; standard is 0.70."""
    sizes = [1222, 1500, 600, 950, 1100, 1011, 900, 1200, 1283, 1000, 1000]
    found = [make(i, label=label) for i, label in enumerate(np.repeat(range(11), sizes))]
    pairwise = statistics(found, PairwiseDirichlet(20, 0.1).assign(found, 0))
    standard = statistics(found, Dirichlet(20, 0.1).assign(found, 0))
    assert 0.38 < pairwise["label"]["total_variation"] < 0.5
    assert 0.6 < standard["label"]["total_variation"] < 0.8
    assert pairwise["sizes"]["min"] >= len(found) // 40
    assert pairwise["sizes"]["variation"] < 0.25 < 0.5 < standard["sizes"]["variation"]


@pytest.mark.parametrize("clients", [5, 7])
def test_the_last_client_of_an_odd_number_is_in_no_pair_and_has_the_mix_of_all(clients):
    """As the code of FHBench does with its rest: 5 clients are two pairs and one with a random fifth."""
    found = [make(i, label=label) for i, label in enumerate(np.repeat(range(4), 700))]
    each = len(found) / clients
    for seed in range(5):
        held = list(PairwiseDirichlet(clients, 0.05).assign(found, seed).values())
        assert sorted(i for indices in held for i in indices) == list(range(len(found)))
        counts = [np.bincount([int(found[i].label[6:]) for i in indices], minlength=4) for indices in held]
        shares = [count / count.sum() for count in counts]
        assert abs(len(held[-1]) - each) <= 1
        assert abs(shares[-1] - 0.25).max() < 0.06 < 0.15 < min(abs(s - 0.25).max() for s in shares[:-1])
        for one, other in zip(held[:-1:2], held[1::2], strict=True):
            assert abs(len(one) + len(other) - 2 * each) <= 2


def test_pairs_of_an_even_number_are_as_they_were_before_odd_numbers_were_taken():
    """Digest of an assignment that was made then."""
    found = [make(i, label=i % 5) for i in range(200)]
    told = json.dumps(PairwiseDirichlet(6, 0.3).assign(found, 3), sort_keys=True)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "0550020d9eb9e7d5"


def test_one_client_alone_has_all():
    found = [make(i, label=i % 2) for i in range(10)]
    assert PairwiseDirichlet(1, 0.1).assign(found, 0) == {"client-1": list(range(10))}


def test_quantity_skew_changes_sizes():
    found = [make(i) for i in range(500)]
    assert statistics(found, QuantitySkew(10, 0.2).assign(found, 0))["sizes"]["variation"] > 0.8
    assert statistics(found, QuantitySkew(10, 1e5).assign(found, 0))["sizes"]["variation"] < 0.05


def test_modality_nineteen_ecg_and_one_icg():
    found = [make(i, kind=kind) for i in range(1, 31) for kind in ("ecg", "icg")]
    assignment = Modality(BySubject(20), kind="icg").assign(found, 0)
    kinds = [{found[i].kind for i in assignment[client]} for client in sorted(assignment)]
    assert kinds == [{"ecg"}] * 19 + [{"icg"}]
    assert [found[i].subject for i in assignment["client-20"]] == ["GDN0030"]
    assert len(assignment["client-01"]) == 2


def test_modality_refuses_what_it_cannot_do():
    found = [make(i) for i in range(4)]
    with pytest.raises(FedlitError, match=r"'subject-GDN0003' has no record of 'icg'"):
        Modality(BySubject(), kind="icg").assign(found, 0)
    with pytest.raises(FedlitError, match="give 1 to 3 of 4 clients"):
        Modality(BySubject(), kind="ecg", clients=4).assign(found, 0)


def test_nested_names_and_records():
    found = [make(i, site=i % 2) for i in range(8)]
    assignment = Nested(BySite(), IID(2)).assign(found, 0)
    assert list(assignment) == ["site-0-client-1", "site-0-client-2", "site-1-client-1", "site-1-client-2"]
    assert all(found[i].site == name[5] for name, indices in assignment.items() for i in indices)


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_file_list(tmp_path, suffix):
    found = [make(i) for i in range(3)]
    table = {found[0].id: "north", found[1].id: "south", found[2].id: "north", "absent": "east"}
    path = tmp_path / f"clients.{suffix}"
    rows = "".join(f"{record},{client}\n" for record, client in table.items())
    path.write_text(json.dumps(table) if suffix == "json" else "record,client\n" + rows)
    assert FileList(str(path)).assign(found, 0) == {"client-north": [0, 2], "client-south": [1]}
    with pytest.raises(FedlitError, match="no client for 1 of 4 records, first 'r9-ecg-0'"):
        FileList(str(path)).assign([*found, make(9)], 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "id,client\n1,2\n", "no column 'record', there are id, client"),
        ("a.csv", "record,who\n1,2\n", "no column 'client', there are record, who"),
        ("a.csv", "record;client\n1;2\n", "separate the columns by commas"),
        ("a.csv", "record,client\nr0-ecg-0,\n", "the client of record 'r0-ecg-0' is empty"),
        ("a.csv", "record,client\nr0-ecg-0\n", "the client of record 'r0-ecg-0' is empty"),
        ("a.json", '{"r0-ecg-0": null}', "the client of record 'r0-ecg-0' is empty"),
        ("a.json", '{"1": "a", "1": "b"}', "'1' is listed more than once"),
        ("a.json", '{"1": ["a"]}', "is not a flat object"),
        ("a.csv", "record,client\n1,2\n1,3\n", "'1' is listed more than once"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[]", "is not a flat object"),
    ],
)
def test_file_list_malformed(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(FedlitError, match=message):
        FileList(str(tmp_path / name)).assign([make(0)], 0)
    with pytest.raises(FedlitError, match="No such file"):
        FileList(str(tmp_path / "absent.csv")).assign([make(0)], 0)


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        (BySubject(5), "5 clients wanted, but there are only 4 subjects"),
        (IID(5), "only 4 subjects"),
        (QuantitySkew(5, 1.0), "only 4 records"),
        (BySite(2), "only 1 sites"),
        (Dirichlet(2, 0.0), "alpha is 0.0"),
        (Dirichlet(2, 1.0, by="age"), "has no age"),
        (IID(0), "at least 1"),
    ],
)
def test_impossible_requests(partition, message):
    with pytest.raises(FedlitError, match=message):
        partition.assign([make(i) for i in range(4)], 0)


def test_a_missing_label_is_named():
    with pytest.raises(FedlitError, match="'r' has no label"):
        Dirichlet(1, 1.0).assign([Record("r", "s", "a", "ecg", 1.0, EMPTY)], 0)


def test_names_that_collide_as_files():
    with pytest.raises(FedlitError, match="both named 'site-a-b'"):
        named("site", {"a/b": [0], "a b": [1]})


def test_config_is_json():
    made = Modality(Nested(BySite(), IID(2)), kind="icg").config()
    assert json.loads(json.dumps(made)) == made
    assert made["partition"]["inner"] == {"class": "IID", "clients": 2, "unit": "subject"}

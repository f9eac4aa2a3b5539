"""Verdicts of the study of rules, on scores made up for it: who wins, what the correction takes away, what is told."""

import json

import pytest

from studies.paired_tests import holm, paired_p
from studies.rules.problems import PROBLEMS
from studies.rules.references import AGAINST, ENTRIES, REFERENCES
from studies.rules.report import write_report
from studies.rules.run import Job, load, made_of, work, write
from studies.rules.scores import key, scored_on
from studies.rules.table import RULES
from studies.rules.verdicts import Comparison, Verdict, judged, paired_runs
from studies.rules.verdicts_told import withdrawn

SEEDS = range(10)
WIGGLE = (0.3, -0.2, 0.1, -0.3, 0.2, 0.0, -0.1, 0.25, -0.25, 0.05)


def scored(ahead=None):
    """Runs of all that is compared: every rule has 50 points, a little off by seed, and those in ``ahead`` more."""
    cells = {}
    for place, (label, problem) in enumerate(paired_runs(RULES)):
        for seed in SEEDS:
            mean = 50 + (ahead or {}).get(label, 0) + WIGGLE[(seed + place * (1 + place // 10)) % 10]
            cells[key(label, problem, seed)] = {"made_of": "0", "refused": 0, "scores": [[mean, mean]] * 2}
    return cells


def verdicts(cells):
    return {v.rule: v for v in judged(cells, SEEDS)}


def said(cells):
    return {label: v.verdict for label, v in verdicts(cells).items()}


def test_every_rule_has_references_that_there_are_and_is_not_its_own():
    assert set(AGAINST) == {label for label, entry in RULES.items() if entry.made_for}
    for label, references in AGAINST.items():
        assert references, label
        assert label not in references
        assert set(references) <= set(ENTRIES), label
        assert all(references.values()), label
    assert set(REFERENCES) == {x for some in AGAINST.values() for x in some} - set(RULES)


@pytest.mark.parametrize(
    ("label", "reference"),
    [("FedMedLoRAPlus release", "FedAvg uniform"), ("FedMedLoRAPlus paper", "FedAvg uniform"),
     ("ReliableInfluence", "FedAvg uniform"), ("OrthogonalDualLoRA rows", "MedDualLoRA"), ("EPFL", "FedSALoRA"),
     ("FedAMP", "MRMTL"), ("Ditto", "LocalOnly"), ("FedLA", "FedAvg, then alone"),
     ("SCAFFOLD", "FedAvg in short rounds"), ("QFedAvg", "ZeroShot"), ("TaskVectors dare", "TaskVectors sum")],
)  # fmt: skip
def test_rules_stand_against_themselves_without_what_makes_them(label, reference):
    assert reference in AGAINST[label]


def test_a_rule_and_its_own_ablation_differ_in_that_alone():
    whole, without = (ENTRIES[x].make() for x in ("FedLA", "FedAvg, then alone"))
    assert (without.fedavg_rounds, without.adapt_rounds) == (whole.fedavg_rounds, whole.adapt_rounds)
    assert (whole.mu, without.mu) == (1.0, 0.0)
    whole, without = (ENTRIES[x].make() for x in ("MetaFed", "MetaFed without a teacher"))
    assert (whole.cycles, whole.lam > 0, without.cycles, without.lam) == (without.cycles, True, whole.cycles, 0.0)
    assert ENTRIES["FedAMP"].make().mu == ENTRIES["MRMTL"].make().lam


def test_every_reference_takes_as_many_local_steps():
    for label, problem in paired_runs(RULES):
        settings = work(ENTRIES[label], problem)
        if "local_steps" in settings:
            turns = len(PROBLEMS[problem].clients(0)) if ENTRIES[label].schedule == "ring" else 1
            assert settings["max_rounds"] * settings["local_steps"] == 100 * turns, label


def test_nobody_wins_where_all_are_alike():
    assert set(said(scored()).values()) == {"open"}


def test_a_rule_wins_if_it_is_ahead_of_all_of_its_references_and_loses_if_behind_one():
    assert said(scored({"FedBN": 5}))["FedBN"] == "wins"
    assert said(scored({"FedBN": 5, "LocalOnly": 5}))["FedBN"] == "open"
    assert said(scored({"FedBN": 5, "LocalOnly": 9}))["FedBN"] == "loses"


def test_p_of_a_win_is_that_of_the_reference_that_is_hardest_to_beat():
    found = verdicts(scored({"FedBN": 5, "LocalOnly": 4.5}))["FedBN"]
    assert len(found.comparisons) == 3
    assert found.p == max(c.p for c in found.comparisons)


def test_p_of_a_rule_that_is_behind_pays_for_the_choice_among_its_references():
    found = verdicts(scored({"FedBN": 5, "LocalOnly": 9}))["FedBN"]
    behind = [c for c in found.comparisons if c.difference < 0]
    assert [c.against for c in behind] == ["LocalOnly"]
    assert found.p == pytest.approx(3 * behind[0].p)


def test_half_a_point_is_needed_however_sure_it_is():
    steady = {}
    for ahead in (0.4, 0.6, -0.4, -0.6):
        cells = scored()
        for k, cell in cells.items():
            if k.startswith(("FedProx |", "FedAvg |")):
                cell["scores"] = [[50 + ahead * k.startswith("FedProx"), 50]] * 2
        steady[ahead] = verdicts(cells)["FedProx"]
    assert {v.corrected for v in steady.values()} == {0.0}
    assert [v.verdict for v in steady.values()] == ["open", "wins", "open", "loses"]


def test_p_is_corrected_over_all_verdicts_of_the_page():
    found = judged(scored({"FedProx": 0.55}), SEEDS)
    assert len(found) == len(AGAINST)
    assert [v.corrected for v in found] == holm([v.p for v in found])
    (one,) = (v for v in found if v.rule == "FedProx")
    assert one.comparisons[0].difference > 0.5
    assert one.p < 0.05 < one.corrected
    assert one.verdict == "open"


def test_p_is_of_differences_paired_by_seed():
    cells = scored()
    own, other = (
        [cells[key(x, RULES["FedProx"].made_for, s)]["scores"][0][0] for s in SEEDS] for x in ("FedProx", "FedAvg")
    )
    found = verdicts(cells)["FedProx"]
    assert found.p == pytest.approx(paired_p([a - b for a, b in zip(own, other, strict=True)]))


def test_a_failed_run_is_told_and_not_compared():
    cells = scored({"APPLE": 9})
    cells[key("APPLE", RULES["APPLE"].made_for, 3)] = {"made_of": "0", "error": "FedlitError: nan"}
    found = verdicts(cells)
    assert found["APPLE"] == Verdict("APPLE", RULES["APPLE"].made_for, "fails", None, None, ())
    assert [v.corrected for v in found.values() if v.p is not None] == holm(
        [v.p for v in found.values() if v.comparisons]
    )


def test_rules_without_all_seeds_have_no_verdict_yet():
    cells = scored()
    del cells[key("FedProx", RULES["FedProx"].made_for, 9)]
    assert "FedProx" not in verdicts(cells)


def test_withdrawn_claims_are_named_with_what_they_fail_on():
    apart = (Comparison("FedAvg", 19.6, 5.5, 1e-6), Comparison("ZeroShot", -9.0, 3.0, 1e-4))
    lost = Verdict("QFedAvg", "odd client", "loses", 2e-4, 0.01, apart)
    same = Verdict("FedBN", "feature shift", "wins", 1e-6, 1e-4, (Comparison("LocalOnly", 6.8, 1.8, 1e-6),))
    lines = withdrawn([lost, same])
    assert (
        "| QFedAvg | wins against FedAvg, +19.6 ± 5.5 | loses | 0.010 | FedAvg +19.6 ± 5.5 (1e-06) | "
        "ZeroShot -9.0 ± 3.0 (1e-04) |"
    ) in lines
    assert not any(line.startswith("| FedBN") for line in lines)
    assert lines[-1].startswith("Verdicts that are what they were: 1")


def test_the_page_says_how_it_was_tested_and_the_file_keeps_it(tmp_path):
    cells = scored({"FedBN": 5})
    found = judged(cells, SEEDS)
    write(cells, tmp_path / "rules.json", found)
    assert load(tmp_path / "rules.json") == cells
    kept = json.loads((tmp_path / "rules.json").read_text())["verdicts"]
    assert {v["rule"]: v["corrected"] for v in kept} == {v.rule: v.corrected for v in found}
    write_report(cells, range(5), SEEDS, found, tmp_path / "rules.md")
    page = (tmp_path / "rules.md").read_text()
    assert f"over all {len(found)} verdicts of this page" in page
    assert "9 degrees of freedom" in page
    assert "On the new seeds alone (5), 2 of the 2 rules that win or lose" in page  # FedAP loses to FedBN
    assert "| FedBN | feature shift | norms absorb" in page
    assert "### Claims of the former page that did not survive" in page
    assert (
        "| OrthogonalDualLoRA rows | label skew, own classes | MedDualLoRA | lam 0: ranks and head the same |" in page
    )
    assert (tmp_path / "rules.png").stat().st_size > 0


def test_a_run_is_stale_when_its_settings_change_and_not_when_a_rule_gets_a_new_field():
    job = Job("FedProx", "tiny client", 0)
    assert made_of(job) != made_of(Job("FedProx", "tiny client", 0, (("mu", 1.0),)))
    assert made_of(job) == made_of(Job("FedProx", "tiny client", 0, (("mu", 0.1),)))
    assert made_of(job) != made_of(Job("FedAvg in short rounds", "tiny client", 0))
    assert scored_on(RULES["FedAvgM"].made_for) == ["label skew, all classes", "label skew, own classes"]

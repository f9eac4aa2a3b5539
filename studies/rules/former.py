"""What the page said before differences were tested: five seeds, and a win where the mean was above the spread.

Kept so that the page can name the claims that did not survive.
"""

from __future__ import annotations

FORMER: dict[str, tuple[str, str, str]] = {
    "LocalOnly": ("wins", "FedAvg", "+45.2 ± 5.5"),
    "FedAvg": ("wins", "LocalOnly", "+44.6 ± 6.2"),
    "FedAvg uniform": ("wins", "FedAvg", "+6.6 ± 2.3"),
    "FedAvgM": ("loses", "FedAvg", "-1.4 ± 0.6"),
    "FedAdam": ("loses", "FedAvg", "-1.4 ± 1.2"),
    "FedYogi": ("loses", "FedAvg", "-1.4 ± 1.1"),
    "FedDyn": ("loses", "FedAvg", "-0.7 ± 0.5"),
    "FedLA": ("wins", "LocalOnly", "+3.8 ± 2.0"),
    "Ditto": ("wins", "LocalOnly", "+4.1 ± 2.3"),
    "APFL": ("wins", "LocalOnly", "+2.2 ± 1.5"),
    "PFedMe": ("wins", "LocalOnly", "+3.8 ± 2.0"),
    "PerFedAvg": ("wins", "LocalOnly", "+3.6 ± 2.3"),
    "PerFedAvg first order": ("wins", "LocalOnly", "+2.6 ± 2.4"),
    "FedPer": ("wins", "LocalOnly", "+4.9 ± 1.0"),
    "FedRep": ("wins", "LocalOnly", "+3.6 ± 1.3"),
    "FedBN": ("wins", "LocalOnly", "+6.8 ± 1.8"),
    "APPLE": ("wins", "LocalOnly", "+2.7 ± 1.0"),
    "MRMTL": ("wins", "LocalOnly", "+2.9 ± 1.3"),
    "SimilarityAggregator": ("wins", "LocalOnly", "+4.9 ± 1.4"),
    "EPFL": ("wins", "LocalOnly", "+0.8 ± 0.8"),
    "FedAP": ("wins", "LocalOnly", "+6.8 ± 1.6"),
    "FedAMP": ("wins", "LocalOnly", "+2.9 ± 1.1"),
    "FedACS": ("wins", "LocalOnly", "+6.2 ± 1.4"),
    "FedACS top k": ("wins", "LocalOnly", "+7.4 ± 2.8"),
    "FedACS softmax": ("wins", "LocalOnly", "+7.7 ± 2.0"),
    "ClusteredFL": ("wins", "LocalOnly", "+8.5 ± 3.1"),
    "FedMedLoRAPlus paper": ("wins", "FedAvg", "+5.0 ± 2.7"),
    "FedMedLoRAPlus release": ("wins", "FedAvg", "+7.1 ± 2.6"),
    "ReliableInfluence": ("wins", "FedAvg", "+5.6 ± 4.1"),
    "MedDualLoRA": ("wins", "LocalOnly", "+1.1 ± 0.7"),
    "OrthogonalDualLoRA rows": ("wins", "LocalOnly", "+1.3 ± 0.9"),
    "OrthogonalDualLoRA representations": ("wins", "LocalOnly", "+1.3 ± 0.8"),
    "FedDPA": ("wins", "LocalOnly", "+3.3 ± 2.0"),
    "FedDAT": ("wins", "LocalOnly", "+2.7 ± 2.4"),
    "AlternatingLoRA": ("loses", "FedAvg", "-0.7 ± 0.3"),
    "TaskVectors sum": ("wins", "FedAvg one shot", "+4.7 ± 3.0"),
    "CoordinateMedian": ("wins", "LocalOnly", "+12.5 ± 2.7"),
    "TrimmedMean": ("wins", "LocalOnly", "+12.4 ± 2.8"),
    "Krum": ("wins", "FedAvg", "+30.9 ± 8.4"),
    "MultiKrum": ("wins", "LocalOnly", "+12.6 ± 2.8"),
    "GeometricMedian": ("wins", "LocalOnly", "+12.4 ± 2.9"),
    "NormBounding": ("wins", "LocalOnly", "+12.2 ± 2.6"),
    "QFedAvg": ("wins", "FedAvg", "+19.6 ± 5.5"),
    "AFL": ("wins", "FedAvg", "+18.1 ± 5.8"),
}
"""By rule: verdict, the best of its references, and the difference to it ± standard deviation; others tied."""

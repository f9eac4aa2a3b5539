"""Tasks: LightningModules that the federated engine trains."""

from fedlit.tasks.classification import ClassificationTask
from fedlit.tasks.exported import load_classifier
from fedlit.tasks.exported_tagger import load_tagger
from fedlit.tasks.forecasting import ForecastingTask
from fedlit.tasks.instruction import InstructionTask
from fedlit.tasks.task import Task
from fedlit.tasks.token_classification import TokenClassificationTask

__all__ = [
    "ClassificationTask",
    "ForecastingTask",
    "InstructionTask",
    "Task",
    "TokenClassificationTask",
    "load_classifier",
    "load_tagger",
]

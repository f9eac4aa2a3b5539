"""Tasks: LightningModules that the federated engine trains."""

from fedlit.tasks.classification import ClassificationTask, load_classifier
from fedlit.tasks.documents.instruction import InstructionTask
from fedlit.tasks.documents.token_classification import TokenClassificationTask, load_tagger
from fedlit.tasks.forecasting import ForecastingTask
from fedlit.tasks.task import Task

__all__ = [
    "ClassificationTask",
    "ForecastingTask",
    "InstructionTask",
    "Task",
    "TokenClassificationTask",
    "load_classifier",
    "load_tagger",
]

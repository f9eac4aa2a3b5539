"""Tasks: LightningModules that the federated engine trains."""

from fedlit.tasks.classification import ClassificationTask
from fedlit.tasks.exported import load_classifier
from fedlit.tasks.forecasting import ForecastingTask
from fedlit.tasks.instruction import InstructionTask
from fedlit.tasks.task import Task

__all__ = ["ClassificationTask", "ForecastingTask", "InstructionTask", "Task", "load_classifier"]

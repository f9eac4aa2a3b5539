"""Tasks: LightningModules that the federated engine trains."""

from fedlit.tasks.forecasting import ForecastingTask
from fedlit.tasks.task import Task

__all__ = ["ForecastingTask", "Task"]

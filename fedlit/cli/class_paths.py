"""Arguments that are kept when a later file or option names another class."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from jsonargparse import Namespace

Values: TypeAlias = "Namespace | dict[str, Any]"


def use_clean_class_paths() -> None:
    """Let jsonargparse keep only those arguments that were meant for the new class too.

    By default it keeps every argument whose name and type fit, also the old class's defaults, so that
    ``--aggregator FedAdam`` after ``class_path: FedAvg`` would run Adam with FedAvg's learning rate. Here a rule
    starts from its own defaults, since the ``mu`` of two rules are different things. Tasks and data keep values that
    differ from the old class's default, such as lengths and batch sizes.
    """
    from jsonargparse import _typehints

    kept = _typehints.discard_init_args_on_class_path_change
    if getattr(kept, "clean", False):
        return

    def discard(parser_or_action: object, prev_val: Values | None, value: Values) -> None:
        if prev_val and "init_args" in prev_val and prev_val["class_path"] not in (None, value["class_path"]):
            for name in not_meant_for_others(prev_val["class_path"], prev_val["init_args"]):
                del prev_val["init_args"][name]
        kept(parser_or_action, prev_val, value)  # type: ignore[no-untyped-call]

    discard.clean = True  # type: ignore[attr-defined]
    _typehints.discard_init_args_on_class_path_change = discard


def not_meant_for_others(class_path: str, init_args: Values) -> list[str]:
    """Names of arguments that must not be kept: all of a rule; of other classes, those at their default.

    Args:
        class_path: The class that is replaced.
        init_args: Its arguments by name.
    """
    from jsonargparse._util import import_object

    from fedlit.aggregators import Aggregator

    cls = import_object(class_path)
    names = list(vars(init_args)) if not isinstance(init_args, dict) else list(init_args)
    if isinstance(cls, type) and issubclass(cls, Aggregator):
        return names
    defaults: dict[str, Any] = {}
    for base in reversed(inspect.getmro(cls)) if isinstance(cls, type) else ():
        if "__init__" in vars(base):
            signature = inspect.signature(vars(base)["__init__"])
            defaults |= {name: parameter.default for name, parameter in signature.parameters.items()}
    return [name for name in names if name in defaults and init_args[name] == defaults[name]]

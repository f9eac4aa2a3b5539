"""What stays of a class's arguments when a later file or option names another class in its place."""

from __future__ import annotations

import inspect
from typing import Any


def use_clean_class_paths() -> None:
    """Let jsonargparse carry over only what was meant for the new class too.

    By itself it keeps every argument whose name and type fit, the old class's defaults among them, so that
    ``--aggregator FedAdam`` after ``class_path: FedAvg`` would run Adam with FedAvg's learning rate. Here a rule
    starts from its own defaults, since one's ``mu`` is not another's. Tasks and data keep what was set to another
    value than the old class's default: lengths and batch sizes go on to apply.
    """
    from jsonargparse import _typehints

    kept: Any = _typehints.discard_init_args_on_class_path_change
    if getattr(kept, "clean", False):
        return

    def discard(parser_or_action: Any, prev_val: Any, value: Any) -> None:
        before = prev_val["class_path"] if prev_val and "init_args" in prev_val else None
        if before and before != value["class_path"]:
            foreign = not_meant_for_others(before, prev_val["init_args"])
            for name in foreign:
                prev_val["init_args"].pop(name)
        kept(parser_or_action, prev_val, value)

    discard.clean = True  # type: ignore[attr-defined]
    _typehints.discard_init_args_on_class_path_change = discard


def not_meant_for_others(class_path: str, init_args: Any) -> list[str]:
    """Names of arguments that must not pass to another class: all of a rule's; of others, those left at their default.

    Args:
        class_path: Of the class that is replaced.
        init_args: Its arguments, names to values.
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

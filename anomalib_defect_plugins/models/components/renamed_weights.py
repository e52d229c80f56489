"""Weights of checkpoints from earlier versions, under their present names."""

from functools import partial
from typing import Any

from torch import nn


def rename_weights(module: nn.Module, former: str, present: str) -> None:
    """Rename weights of older checkpoints when they are loaded into a module.

    Args:
        module: Module that the names are relative to.
        former: Beginning of the former names, such as ``backbone.``.
        present: What replaces it.
    """
    module.register_load_state_dict_pre_hook(partial(_rename, former, present))  # type: ignore[no-untyped-call]


def _rename(former: str, present: str, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    del module
    for name in [name for name in state_dict if name.startswith(prefix + former)]:
        state_dict[prefix + present + name.removeprefix(prefix + former)] = state_dict.pop(name)

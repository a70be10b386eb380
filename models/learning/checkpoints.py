"""How far a training has come, in one safetensors file: no pickle, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from slidetriage.errors import UsageError

_MEND = "Remove the file to begin this training anew."


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """What must be kept beside the model and its optimiser to go on."""

    seed: int
    best: dict[str, Tensor]
    """The weights of the best epoch so far."""
    history: tuple[tuple[float, ...], ...]
    """A row of numbers for each epoch."""

    @classmethod
    def begin(cls, model: nn.Module, seed: int) -> Progress:
        """Before the first epoch."""
        return cls(seed, _copy(model), ())

    def with_best(self, model: nn.Module) -> Progress:
        """The model as it is now is the best so far."""
        return replace(self, best=_copy(model))

    def with_history(self, rows: Sequence[tuple[float, ...]]) -> Progress:
        """These epochs are done."""
        return replace(self, history=tuple(rows))


def save_progress(
    path: Path, progress: Progress, model: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write everything beside the target and move it there."""
    tensors = {f"best.{name}": value for name, value in progress.best.items()}
    tensors |= {f"model.{name}": value for name, value in _copy(model).items()}
    state = optimiser.state_dict()["state"]
    for number, kept in state.items():
        tensors |= {f"optimiser.{number}.{name}": torch.as_tensor(v) for name, v in kept.items()}
    facts = {"seed": progress.seed, "history": progress.history}
    data = safetensors.torch.save(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        {"progress": json.dumps(facts)},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def load_progress(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, *, seed: int
) -> Progress:
    """Put model and optimiser back to where they were; raises `UsageError` for another training."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        if facts["seed"] != seed:
            raise UsageError(f"{path} is of seed {facts['seed']}, not {seed}.", mend=_MEND)
        model.load_state_dict(_part(tensors, "model."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimiser.").items():
            number, _, what = name.partition(".")
            state.setdefault(int(number), {})[what] = value
        optimiser.load_state_dict(
            {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
        )
        best = _part(tensors, "best.")
        return Progress(seed, best, tuple(tuple(row) for row in facts["history"]))
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise UsageError(
            f"{path} is no progress of this training ({error}).", mend=_MEND
        ) from error


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

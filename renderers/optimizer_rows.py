"""Parameters whose rows come and go while an optimiser holds state for each of them."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim import Optimizer


def replace_rows(optimizer: Optimizer, old: nn.Parameter, values: Tensor, origin: Int64[Tensor, " M"]) -> nn.Parameter:
    """A parameter of `values`, of M rows, that takes the place of `old` in the optimiser.

    Row i goes on with the optimiser's state of row `origin[i]` of `old`; a row with origin -1 starts from zeros.
    Raises ValueError if the optimiser does not hold `old`.
    """
    new = nn.Parameter(values.detach().clone())
    for group in optimizer.param_groups:
        for place, parameter in enumerate(group["params"]):
            if parameter is old:
                group["params"][place] = new
                _carry_state(optimizer, old, new, origin)
                return new
    raise ValueError("the optimiser does not hold this parameter; make it from groups() of the scene it settles")


def reset_moments(optimizer: Optimizer, parameter: nn.Parameter) -> None:
    """Starts the optimiser's moments of a parameter from zeros."""
    for name, value in optimizer.state.get(parameter, {}).items():
        if name != "step":
            value.zero_()


def _carry_state(optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, origin: Int64[Tensor, " M"]) -> None:
    state = optimizer.state.pop(old, None)
    if state is None:
        return
    optimizer.state[new] = {
        name: _rows(value, origin) if isinstance(value, Tensor) and value.shape == old.shape else value
        for name, value in state.items()
    }


def _rows(values: Tensor, origin: Int64[Tensor, " M"]) -> Tensor:
    """Rows `origin` of `values`, zeros for -1."""
    fresh = (origin < 0).view(-1, *[1] * (values.ndim - 1))
    return torch.where(fresh, 0.0, values[origin.clamp_min(0)])


def optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """What Adam remembers of each parameter group (of one parameter, with a `name`), for `load_optimizer_state`."""
    state: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        memory = optimizer.state.get(group["params"][0], {})
        state |= {f"{group['name']}.{key}": torch.as_tensor(value).clone() for key, value in memory.items()}
    return state


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Tensor]) -> None:
    """Takes over what `optimizer_state` gave; nothing of a parameter means it was never stepped."""
    for group in optimizer.param_groups:
        start = group["name"] + "."
        memory = {key[len(start) :]: value.clone() for key, value in state.items() if key.startswith(start)}
        if memory:
            parameter = group["params"][0]
            moments = {key: value.to(parameter.device) for key, value in memory.items() if key != "step"}
            # The fused kernel counts steps where the parameter is, the plain one on the CPU.
            step = memory["step"].to(parameter.device if group.get("fused") else "cpu")
            optimizer.state[parameter] = moments | {"step": step}

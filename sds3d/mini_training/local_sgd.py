"""Several workers of one training: what they share, and when they stop."""

from __future__ import annotations

import torch
from torch import distributed as dist

from sds3d.mini_training.train_state import TrainState


@torch.no_grad()
def average_workers(state: TrainState, steps: int, loss: float, together: bool) -> tuple[int, float, float]:
    """Averages all workers' parameters and moments by the steps each did: (all steps, mean steps, mean loss)."""
    if not together:
        return steps, steps, loss
    counts = torch.tensor([float(steps), loss * steps])
    dist.all_reduce(counts)
    weight = steps / float(counts[0])
    kinds = ("exp_avg", "exp_avg_sq")
    tensors = [t for _, p in state.in_order() for t in (p, *(state.optimizer.state[p][kind] for kind in kinds))]
    flat = torch.cat([t.reshape(-1) for t in tensors]) * weight
    dist.all_reduce(flat)
    place = 0
    for t in tensors:
        t.copy_(flat[place : place + t.numel()].reshape(t.shape))
        place += t.numel()
    return int(counts[0]), float(counts[0]) / dist.get_world_size(), float(counts[1] / counts[0])


def any_worker(mine: bool, together: bool) -> bool:
    """Whether any worker wants to stop."""
    votes = torch.tensor([float(mine)])
    if together:
        dist.all_reduce(votes)
    return bool(votes[0] > 0)

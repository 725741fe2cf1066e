"""Batch normalization over the batches of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


class BatchNorm(nn.BatchNorm2d):
    """Batch normalization (Ioffe & Szegedy 2015) with statistics over all processes during training.

    Training with several processes is then equivalent to training with one on the same batch. torch's
    SyncBatchNorm supports only GPUs. In a single process and at inference, this is `nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize: (N, C, H, W) => (N, C, H, W)."""
        if not (self.training and distributed.is_available() and distributed.is_initialized()):
            return super().forward(x)
        if distributed.get_world_size() == 1:
            return super().forward(x)
        over = (0, 2, 3)
        values = x.float()
        count = values.numel() // self.num_features * distributed.get_world_size()
        mean = _total(values.sum(over)) / count
        centered = values - mean.view(1, -1, 1, 1)
        variance = _total(centered.square().sum(over)) / count
        self._update_running_statistics(mean.detach(), variance.detach() * count / (count - 1))
        scale = (variance + self.eps).rsqrt() * self.weight
        normalized: Tensor = centered * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalized.to(x.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics for inference."""
        momentum = 0.1 if self.momentum is None else self.momentum
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(new, momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _Sum(torch.autograd.Function):
    """Sum over all processes, with gradients to all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004 - as autograd calls it
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    total = values.detach().clone().contiguous()
    distributed.all_reduce(total)
    return total


def _total(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total

"""Batch normalization whose batch is that of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` (Ioffe & Szegedy 2015), in training with the statistics of all processes' batches.

    So several processes learn what one would with the same batch. torch's own SyncBatchNorm runs on GPUs
    only. With one process, and at inference, it is `nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) => (N, C, H, W)."""
        if not (self.training and distributed.is_available() and distributed.is_initialized()):
            return super().forward(x)
        if distributed.get_world_size() == 1:
            return super().forward(x)
        over = (0, 2, 3)
        values = x.float()
        count = values.numel() // self.num_features * distributed.get_world_size()
        mean = _total(values.sum(over)) / count
        centred = values - mean.view(1, -1, 1, 1)
        variance = _total(centred.square().sum(over)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = (variance + self.eps).rsqrt() * self.weight
        normalized: Tensor = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalized.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the statistics of inference."""
        momentum = 0.1 if self.momentum is None else self.momentum
        for running, now in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(now, momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _Sum(torch.autograd.Function):
    """The sum over all processes; gradients flow back to all of them."""

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

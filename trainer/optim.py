"""Optimizers by name: how a network's parameters are moved along their gradients.

A row of the table takes parameters and a weight decay and gives the optimizers that together move them all;
their learning rates are set before every update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast, overload

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from trainer.config import Config, ConfigError

# The quintic of Jordan et al. 2024: its slope at zero is steep, and it maps (0, 1] into about [0.7, 1.2].
_QUINTIC = (3.4445, -4.7750, 2.0315)
_MIN_SIDE = 16  # a narrower filter bank is moved by AdamW


class Muon(Optimizer):
    """Momentum, orthogonalised: every direction in a layer's filters is moved equally far.

    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with the learning rate
    scaled to AdamW's size of update (Liu et al. 2025, arXiv 2502.16982). torch.optim.Muon takes matrices only
    and rounds to bfloat16, which CPUs without it emulate; this one takes convolutions too, as matrices of one
    row per output channel, and keeps their precision.

    Args:
        params: tensors of two or more dimensions.
        weight_decay: decoupled, as in AdamW.
        momentum: of the moving average of gradients, looked ahead as by Nesterov.
        steps: Newton-Schulz iterations.
    """

    def __init__(
        self, params: Iterable[Tensor], weight_decay: float = 0.0, momentum: float = 0.95, steps: int = 5
    ) -> None:
        defaults = {"lr": 0.0, "weight_decay": weight_decay, "momentum": momentum, "steps": steps}
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move the parameters once; a closure is evaluated first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(average, group["momentum"]).flatten(1)
        scale = 0.2 * max(direction.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        update = orthogonalised(direction, group["steps"]).view_as(parameter)
        parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonalised(matrix: Tensor, steps: int) -> Tensor:
    """About the nearest matrix with orthonormal rows, or columns if these are fewer.

    Newton-Schulz iteration of an odd quintic. X_k+1 = (a + b A_k + c A_k^2) X_k with A_k = X_k X_k^T is
    carried out on the Gram matrices alone, which commute with each other, and applied to the matrix once:
    cheaper where one side is much longer than the other, as in filter banks.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalised(matrix.T, steps).T
    a, b, c = _QUINTIC
    x = matrix / matrix.norm().clamp(min=1e-7)
    gram = x @ x.T
    identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
    total = identity
    for _ in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c) + a * identity
        total = factor @ total
        gram = factor @ gram @ factor
    orthonormal: Tensor = total @ x
    return orthonormal


def _adamw(parameters: list[nn.Parameter], weight_decay: float) -> list[Optimizer]:
    filters = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    # Weight decay for what multiplies features, none for norms and biases.
    groups = [{"params": filters, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    filled = [group for group in groups if group["params"]]
    return [AdamW(cast(Any, filled), lr=0.0, betas=(0.9, 0.99), fused=True)] if filled else []


def _muon(parameters: list[nn.Parameter], weight_decay: float) -> list[Optimizer]:
    """Muon for the filters, AdamW for everything else."""
    wide = [p for p in parameters if p.ndim > 1 and min(p.shape[0], p[0].numel()) >= _MIN_SIDE]
    taken = set(map(id, wide))
    others = _adamw([p for p in parameters if id(p) not in taken], weight_decay)
    return [Muon(wide, weight_decay), *others] if wide else others


def build_optimizers(config: Config, network: nn.Module) -> list[Optimizer]:
    """Build the optimizers that together train a generator.

    A pretrained encoder (the network's attribute `encoder`) is trained by AdamW at `config.encoder_rate`
    times the learning rate, the rest by the row of `OPTIMIZERS` that the configuration names. Frozen
    parameters are left out.

    Raises:
        ConfigError: if there is no such row.
    """
    if config.optimizer not in OPTIMIZERS:
        raise ConfigError(f"optimizer: {config.optimizer!r} is none of {', '.join(OPTIMIZERS)}")
    encoder = getattr(network, "encoder", None)
    pretrained = [] if encoder is None else [p for p in encoder.parameters() if p.requires_grad]
    taken = set(map(id, pretrained))
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in taken]
    slow = _adamw(pretrained, config.weight_decay)
    for optimizer in slow:
        for group in optimizer.param_groups:
            group["rate_factor"] = config.encoder_rate
    return [*OPTIMIZERS[config.optimizer](rest, config.weight_decay), *slow]


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups, times the group's `rate_factor` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], float], list[Optimizer]]] = {
    "adamw": _adamw,
    "muon": _muon,
}

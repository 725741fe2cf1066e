"""The optimizers, in a table by name.

A row of the table takes parameters and a weight decay, and returns optimizers that together update all of
the parameters. Their learning rates are set before every update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast, overload

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from trainer.config import Config, ConfigError

# The quintic of Jordan et al. 2024. Its steep slope at zero takes singular values in (0, 1] to about
# [0.7, 1.2] in a few iterations.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_MIN_SIDE = 16  # AdamW updates narrower filter banks


class Muon(Optimizer):
    """Gradient descent with orthogonalized momentum: updates have equal size in all directions.

    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with learning rates scaled
    to AdamW's size of updates (Liu et al. 2025, arXiv 2502.16982). torch.optim.Muon supports matrices only,
    and rounds to bfloat16, which many CPUs emulate. This implementation also supports convolutions, as
    matrices of one row per output channel, and keeps the precision of the gradients.

    Args:
        params: tensors of two or more dimensions.
        weight_decay: decoupled weight decay, as in AdamW.
        momentum: decay of the moving average of gradients, with Nesterov's look-ahead.
        steps: number of Newton-Schulz iterations.
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
        """Update the parameters once, after evaluating the closure if there is one. Returns its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(average, group["momentum"]).flatten(1)
        scale = 0.2 * max(direction.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        update = orthogonalized(direction, group["steps"]).view_as(parameter)
        parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonalized(matrix: Tensor, steps: int) -> Tensor:
    """Approximate the nearest matrix with orthonormal rows, or columns if there are fewer columns than rows.

    Newton-Schulz iteration of an odd quintic: X_k+1 = (a + b A_k + c A_k^2) X_k with A_k = X_k X_k^T. Here
    it runs on the Gram matrices A_k, which commute with each other, and the product of all factors is applied
    to the matrix once. This is cheaper if one side is much longer than the other, as in filter banks.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalized(matrix.T, steps).T
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
    # No weight decay for the parameters of norms and for biases.
    groups = [{"params": filters, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    filled = [group for group in groups if group["params"]]
    return [AdamW(cast(Any, filled), lr=0.0, betas=(0.9, 0.99), fused=True)] if filled else []


def _muon(parameters: list[nn.Parameter], weight_decay: float) -> list[Optimizer]:
    """Build Muon for the filters and AdamW for all other parameters."""
    wide = [p for p in parameters if p.ndim > 1 and min(p.shape[0], p[0].numel()) >= _MIN_SIDE]
    taken = set(map(id, wide))
    others = _adamw([p for p in parameters if id(p) not in taken], weight_decay)
    return [Muon(wide, weight_decay), *others] if wide else others


def build_optimizers(config: Config, network: nn.Module) -> list[Optimizer]:
    """Build the optimizers of a generator.

    AdamW trains a pretrained encoder (the network's attribute `encoder`) at `config.encoder_rate` times the
    learning rate. The row `config.optimizer` of `OPTIMIZERS` trains the rest. Frozen parameters are left out.

    Raises:
        ConfigError: if the table has no such row.
    """
    if config.optimizer not in OPTIMIZERS:
        raise ConfigError(f"optimizer: {config.optimizer!r} is not one of {', '.join(OPTIMIZERS)}")
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
    """Set the learning rate of all parameter groups, multiplied by a group's `rate_factor` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], float], list[Optimizer]]] = {
    "adamw": _adamw,
    "muon": _muon,
}

"""The minimum of a smooth loss of a few numbers: temperature, map of confidence, offsets, gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MOST_STEPS = 200


def minimise(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> None:
    """Move `parameters` in place to where `loss` of them is least.

    L-BFGS with a strong Wolfe line search on the whole data (Nocedal and Wright 2006, section 7.2): no step
    size to choose, and the same result every time.
    """
    optimizer = torch.optim.LBFGS(parameters, max_iter=MOST_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]

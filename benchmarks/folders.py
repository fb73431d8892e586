"""What does `pawmatch classify DIR` cost beside the bare model, and what do others take for the same files?

    python -m benchmarks.folders

Four peers in turns, all with a randomly initialised ConvNeXtV2 at 224 pixels, the smallest unless
--backbone says otherwise, in batches of 16:
- `classify`: the command with models loaded, from the start of its reading processes to the finished CSV;
- `engine`: the same engine and head on tensors that are ready in memory, nothing else;
- `timm`: timm's own model on the same tensors, in inference mode;
- `pipeline`: the image-classification pipeline of transformers on the same files, built from a config.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.pictures import make_photos
from benchmarks.side_by_side import arguments, compare
from pawmatch.cli import main as pawmatch
from pawmatch.evaluation.folders import BATCH

# Processes that read images import this file again; torch, which they do not need, is left to functions.
if TYPE_CHECKING:
    from torch import Tensor

    from pawmatch.classifier import Classifier

# Widths of the stages and blocks in each, for the peer that is built from a config.
BACKBONES = {
    "convnextv2_atto": ([40, 80, 160, 320], [2, 2, 6, 2]),
    "convnextv2_pico": ([64, 128, 256, 512], [2, 2, 6, 2]),
    "convnextv2_nano": ([80, 160, 320, 640], [2, 2, 8, 2]),
}
CLASSES = 120
READY_BATCHES = 8  # distinct ones in memory; more would only measure the memory


def main() -> None:
    """Print the table and the ratios; write them with --json."""
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--images", type=int, default=480, help="files in the folder (default: %(default)s)")
    parser.add_argument("--workers", help="processes that read images (default: what classify picks)")
    parser.add_argument("--engine", default="auto", help="of ours (default: auto)")
    parser.add_argument("--backbone", default="convnextv2_atto", choices=BACKBONES, help="(default: atto)")
    args = parser.parse_args()
    import pawmatch.classifier as loading

    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        files = make_photos(root / "photos", args.images)
        write_checkpoint(root / "weights", args.backbone, 224)
        classifier = loading.load("breed", root / "weights", device="cpu", engine=args.engine)
        loading.load = lambda *_: classifier  # each run of the command then begins with models loaded
        ready = ready_batches(classifier, files)
        # As many batches as the folder has, the last one as short as there.
        sizes = [min(BATCH, len(files) - start) for start in range(0, len(files), BATCH)]

        def batches() -> Iterator[Tensor]:
            return (batch[:size] for size, batch in zip(sizes, cycle(ready), strict=False))

        peers: dict[str, Callable[[], object]] = {
            "classify": lambda: classify(root, args.workers),
            "engine": lambda: run_engine(classifier, batches()),
            "timm": timm_model(args.backbone, batches),
        }
        if (pipeline := transformers_pipeline(args.backbone, files)) is not None:
            peers["pipeline"] = pipeline
        result = compare(peers, args.rounds)
    print(result.table("classify"))
    rates = {name: args.images / seconds for name, seconds in result.medians.items()}
    print("images a second: " + ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items()))
    print(f"throughput of classify as a share of the engine's: {result.ratio('engine', 'classify'):.2f}")
    if args.json:
        engine = classifier.main.engine.name
        result.write_json(args.json, images_per_second=rates, images=args.images, engine=engine)


def write_checkpoint(folder: Path, backbone: str, size: int) -> None:
    """A breed checkpoint with random weights, a backbone and one linear layer, that sees size x size."""
    from pawmatch.checkpoint import CheckpointConfig, save_checkpoint
    from pawmatch.images import InputSpec
    from pawmatch.labels import new_task
    from pawmatch.models import build_model

    architecture = {"backbone": backbone}
    labels = tuple(f"breed_{number}" for number in range(CLASSES))
    model = build_model(family="hybrid", variant="cnn", num_classes=CLASSES, **architecture)
    config = CheckpointConfig(
        task=new_task("breed"),
        family="hybrid",
        variant="cnn",
        architecture=architecture,
        labels=labels,
        input=InputSpec(size=size),
        license="random values, free for any use",
    )
    save_checkpoint(folder, model.eval(), config)


def classify(root: Path, workers: str | None) -> None:
    """The command on the whole folder."""
    command = ["classify", str(root / "photos"), "--out", str(root / "results.csv"), "--fresh"]
    command += ["--workers", workers] if workers else []
    with contextlib.redirect_stderr(io.StringIO()):
        if pawmatch(command) != 0:
            raise SystemExit("classify failed; run it by hand to see why.")


def ready_batches(classifier: Classifier, files: list[Path]) -> list[Tensor]:
    """Normalised batches (N, 3, 224, 224), float32."""
    import torch

    from pawmatch.images import prepare

    spec = classifier.main.spec
    pixels = [torch.from_numpy(prepare(file, [spec]).pixels[spec]) for file in files[: READY_BATCHES * BATCH]]
    return [spec.normalise(torch.cat(pixels[at : at + BATCH])) for at in range(0, len(pixels), BATCH)]


def run_engine(classifier: Classifier, batches: Iterator[Tensor]) -> None:
    """The engine's features and the head on batches that are ready."""
    import torch

    for batch in batches:
        features = classifier.main.engine.features(batch)
        with torch.no_grad():
            classifier.main.model.forward_head(features)


def timm_model(backbone: str, batches: Callable[[], Iterator[Tensor]]) -> Callable[[], None]:
    """The model of the same name from timm on the same batches."""
    import timm
    import torch

    model = timm.create_model(backbone, num_classes=CLASSES).eval()

    def run() -> None:
        with torch.inference_mode():
            for batch in batches():
                model(batch)

    return run


def transformers_pipeline(backbone: str, files: list[Path]) -> Callable[[], None] | None:
    """The pipeline of transformers with a model of the same shape, or None where it is not installed."""
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        print("transformers is not installed; its pipeline is left out.", file=sys.stderr)
        return None
    widths, depths = BACKBONES[backbone]
    config = transformers.ConvNextV2Config(
        hidden_sizes=widths, depths=depths, num_labels=CLASSES, image_size=224
    )
    pipeline = transformers.ImageClassificationPipeline(
        model=transformers.ConvNextV2ForImageClassification(config).eval(),
        image_processor=transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=1.0),
        device=-1,
    )
    names = [str(file) for file in files]

    def run() -> None:
        for _ in pipeline(names, batch_size=BATCH, top_k=5):
            pass

    return run


if __name__ == "__main__":
    main()

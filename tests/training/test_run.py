"""Training from end to end on tiny data: it learns, resumes to the same result, and writes checkpoints."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pawmatch import load
from pawmatch.checkpoint import load_checkpoint, load_task
from pawmatch.errors import PawMatchError, TrainingError, UnknownVariant
from pawmatch.models import build_model
from pawmatch.training import loop
from pawmatch.training.distributed import LOCK_FILE
from pawmatch.training.optim import Together
from pawmatch.training.recipe import Recipe
from pawmatch.training.run import run_training
from tests.support.training import RECIPE, train_tiny


def test_learns_and_writes_a_checkpoint_with_its_card(data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    out = train_tiny(data, tmp_path / "run", variant="cnn_transformer", report=lines.append)
    checkpoint = load_checkpoint(str(out))
    assert checkpoint.config.metrics["top1"] > 0.9
    assert checkpoint.config.labels == ("blue", "red")
    assert checkpoint.config.training["recipe"] == "tiny"
    assert sum(line.startswith("epoch") for line in lines) == 4
    card = (out / "README.md").read_text()
    assert card.startswith("---\n")
    assert "made for tests" in card
    assert f"{checkpoint.config.metrics['top1']:.1%}" in card


def test_the_run_says_what_it_did(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    for name in ("one", "two"):
        (folder / "train" / "red" / f"{name}.jpg").write_bytes(b"no picture")
    recipe = replace(RECIPE, epochs=2, keep_best=True)
    lines: list[str] = []
    out = train_tiny(folder, tmp_path / "run", recipe=recipe, report=lines.append)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["recipe"]["name"] == "tiny"
    counts = ("classes", "train_images", "val_images", "smallest_class", "largest_class", "epochs")
    assert [summary[key] for key in counts] == [2, 64, 48, 32, 32, 2]
    assert [entry.split(":")[0] for entry in summary["skipped_images"]] == ["one.jpg", "two.jpg"]
    losses = [epoch["val_loss"] for epoch in summary["history"]]
    best = losses.index(min(losses)) + 1
    assert (summary["best_epoch"], summary["kept"]) == (best, f"epoch {best}")
    training = load_checkpoint(str(out)).config.training
    assert training["skipped_images"] == 2
    assert training["skipped"] == summary["skipped_images"]
    assert training["kept"] == summary["kept"]
    said = "\n".join(lines)
    assert "2 images skipped: one.jpg: " in said
    assert f"kept epoch {best}; lowest validation loss" in said
    rows = (out / "history.csv").read_text().splitlines()
    assert rows[0].startswith("number,size,train_loss,val_loss")
    assert len(rows) == 3


class Cut(Exception):
    """Stands for a kill between two epochs."""


@pytest.mark.parametrize(
    "change",
    [
        {"mixup": 0.2, "cutmix": 1.0},
        {"mixup": 0.2, "cutmix": 1.0, "ema": 0.9},
        {"unfreeze": ((0.0, 0),), "cached_views": 2, "ema": 0.9},
    ],
)
def test_a_cut_run_goes_on_to_the_same_weights(change: dict[str, Any], data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, zoom_out=0.5, **change)
    whole = train_tiny(data, tmp_path / "whole", recipe=recipe)

    def cut(line: str) -> None:
        if line.startswith("epoch   3"):
            raise Cut

    with pytest.raises(Cut):
        train_tiny(data, tmp_path / "cut", recipe=recipe, report=cut)
    assert not (tmp_path / "cut" / "config.json").exists()
    resumed = train_tiny(data, tmp_path / "cut", recipe=recipe)
    ours, theirs = (load_checkpoint(str(place)).model.state_dict() for place in (resumed, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_run_may_be_judged_on_other_folders(data: Path, tmp_path: Path) -> None:
    """All images of the data are learnt from then, and those that are judged may lack a class."""
    val = tmp_path / "val"
    shutil.copytree(data / "val" / "red", val / "red")
    (val / "blue").mkdir()
    recipe = replace(RECIPE, epochs=1, zoom_out=1.0)
    folders = [data / "train", data / "val"]
    lines: list[str] = []
    out = train_tiny(folders, tmp_path / "run", recipe=recipe, val=[val], scenes=val, report=lines.append)
    assert lines[0] == "2 classes, 112 training and 24 validation images, 0 skipped"
    assert load_checkpoint(str(out)).config.labels == ("blue", "red")


def test_averaged_weights_are_the_ones_that_are_kept(data: Path, tmp_path: Path) -> None:
    """With a decay of nearly one, the average stays where the first step led, whatever the others do."""
    still = replace(RECIPE, ema=1 - 1e-9)
    out = train_tiny(data, tmp_path, recipe=still)
    kept = load_checkpoint(str(out)).model.state_dict()["classifier.weight"]
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.testing.assert_close(kept, state["averaged"]["module.classifier.weight"], rtol=0, atol=1e-3)
    assert not torch.allclose(kept, state["model"]["classifier.weight"], rtol=0, atol=1e-2)


def test_another_variant_or_other_images_do_not_take_over_a_run(data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    folder, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data, folder)

    def again(variant: str) -> None:
        train_tiny(folder, out, variant=variant, recipe=recipe)

    again("cnn")
    for variant in ("cnn_transformer", "all"):
        with pytest.raises(TrainingError, match=f"a run of variant cnn, not {variant}; name another --out"):
            again(variant)
    (folder / "train" / "red" / "0.png").rename(folder / "train" / "red" / "new.png")
    with pytest.raises(TrainingError, match="on other images; name another --out"):
        again("cnn")


def test_all_variants_together_share_their_first_member(data: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for name in ("a", "b"):
        (outside / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (40, 40), (20 * i, 250, 20)).save(outside / name / f"{i}.png")
    out = train_tiny(data, tmp_path / "run", variant="all", outside=[outside])
    checkpoints = {c.config.variant: c for c in load_task(out, RECIPE.task)}
    assert list(checkpoints) == ["cnn", "cnn_transformer", "cnn_transformer_mfe"]
    for name, checkpoint in checkpoints.items():
        assert [file.name for file in checkpoint.config.files] == ["stem.safetensors", f"{name}.safetensors"]
    losses = {name: checkpoint.config.metrics["nll"] for name, checkpoint in checkpoints.items()}
    answering = load_checkpoint(out).config
    assert answering.variant == min(losses, key=losses.__getitem__)
    assert answering.answers is not None
    assert f"{answering.variant} {losses[answering.variant]:.3f}" in answering.answers.why
    classifier = load("artist", tmp_path / "run")
    assert len(classifier.variants) == 3
    green = classifier.predict(Image.new("RGB", (200, 200), (20, 250, 20)))
    assert "out_of_scope" in [reason.code for reason in green.review.reasons]


def test_a_loss_that_is_no_number_stops_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "normalize", lambda images, mean, std: images * float("nan"))
    with pytest.raises(TrainingError, match="no finite number any more in epoch 1; lower learning_rate"):
        train_tiny(data, tmp_path)


def test_wrong_variants_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownVariant, match="'rnn'"):
        train_tiny(data, tmp_path, variant="rnn")
    with pytest.raises(TrainingError, match="for --variant cnn"):
        train_tiny(data, tmp_path, variant="all", recipe=replace(RECIPE, variant="cnn"))


def test_together_gives_each_variants_own_logits() -> None:
    values: dict[str, Any] = {"family": "chae", "num_classes": 2, **RECIPE.architecture}
    models = {name: build_model(variant=name, **values) for name in ("cnn", "cnn_transformer")}
    together = Together(models).eval()
    images = torch.rand(3, 3, 32, 32)
    logits = together(images)
    assert logits.shape == (2, 3, 2)
    for row, model in zip(logits, models.values(), strict=True):
        torch.testing.assert_close(row, model(images))


def test_whatever_can_be_known_is_said_before_the_first_epoch(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    (folder / "train" / "green").mkdir()
    (folder / "val" / "green").mkdir()

    def refused(said: str, recipe: Recipe = RECIPE, **options: Any) -> None:
        lines: list[str] = []
        with pytest.raises(PawMatchError, match=said):
            run_training(recipe, "cnn", folder, tmp_path / "out", report=lines.append, **options)
        assert not any("epoch" in line for line in lines)

    refused("Class 'green' has no training image that can be read")
    (folder / "train" / "green" / "a.png").write_bytes(b"no picture")
    refused("Class 'green' has no training image that can be read")
    for half in ("train", "val"):
        shutil.rmtree(folder / half / "green")
    refused("task.name", replace(RECIPE, task="Not a name!"))
    refused("'words.colour' is unknown", replace(RECIPE, words={"colour": "red"}))
    refused("license", replace(RECIPE, license="x" * 2000))
    refused("it must be above 0 and below 1", val_share=0.0)
    refused("Input size 5000 is outside 16 to 2048", replace(RECIPE, sizes=((0.0, 32), (0.5, 5000))))
    deep = {**RECIPE.architecture, "filters": [4] * 5}
    refused("Recipe tiny: the model cannot read images of input.size 16", replace(
        RECIPE, architecture=deep, sizes=((0.0, 32), (0.5, 16)),
    ))  # fmt: skip
    few = tmp_path / "few"
    shutil.copytree(data / "val" / "red", few)
    for path in sorted(few.iterdir())[3:]:
        path.unlink()
    refused("3 images of unknown classes are too few", unknown=[few])


def test_a_failed_run_goes_on_from_its_last_epoch_once_its_folder_is_mended(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is said in words, and a broken image that is taken away makes no other run of it."""
    folder, out, lines = tmp_path / "data", tmp_path / "out", list[str]()
    shutil.copytree(data, folder)
    broken = folder / "train" / "red" / "broken.jpg"
    broken.write_bytes(b"no picture")
    save = torch.save

    def full(state: Any, file: Any) -> None:
        if len(state["history"]) == 3:
            with open("/dev/full", "wb") as nowhere:  # noqa: PTH123
                save(state, nowhere)
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"The disk of .* is full; free some space and give the same"):
        train_tiny(folder, out, report=lines.append)
    assert not list(out.glob("*.tmp"))
    monkeypatch.setattr(torch, "save", save)
    broken.unlink()
    lines.clear()
    train_tiny(folder, out, report=lines.append)
    assert [line[:9] for line in lines if line.startswith("epoch")] == ["epoch   3", "epoch   4"]


def test_two_runs_do_not_share_a_folder(data: Path, tmp_path: Path) -> None:
    def meanwhile(line: str) -> None:
        if line.startswith("epoch"):
            with pytest.raises(TrainingError, match=r"Another training runs in .*; wait for it, or name"):
                train_tiny(data, tmp_path / "out")
            seen.append(line)

    seen: list[str] = []
    short = replace(RECIPE, epochs=1)
    train_tiny(data, tmp_path / "out", recipe=short, report=meanwhile)
    assert len(seen) == 1
    assert not (tmp_path / "out" / LOCK_FILE).exists()

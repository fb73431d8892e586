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
from pawmatch.errors import TrainingError, UnknownVariant
from pawmatch.models import build_model
from pawmatch.training import loop
from pawmatch.training.optim import Together
from pawmatch.training.run import run_training
from tests.support.training import RECIPE, SETTINGS


def test_learns_and_writes_a_checkpoint_with_its_card(data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    out = run_training(
        RECIPE, "cnn_transformer", data, tmp_path / "run", settings=SETTINGS, report=lines.append
    )
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
    out = run_training(recipe, "cnn", folder, tmp_path / "run", settings=SETTINGS, report=lines.append)
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
        {"unfreeze": ((0.0, 0),), "cached_views": 2, "rand_augment": 5, "ema": 0.9},
    ],
)
def test_a_cut_run_goes_on_to_the_same_weights(change: dict[str, Any], data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, zoom_out=0.5, **change)
    whole = run_training(recipe, "cnn", data, tmp_path / "whole", settings=SETTINGS, report=lambda _: None)

    def cut(line: str) -> None:
        if line.startswith("epoch   3"):
            raise Cut

    with pytest.raises(Cut):
        run_training(recipe, "cnn", data, tmp_path / "cut", settings=SETTINGS, report=cut)
    assert not (tmp_path / "cut" / "config.json").exists()
    resumed = run_training(recipe, "cnn", data, tmp_path / "cut", settings=SETTINGS, report=lambda _: None)
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
    out = run_training(
        recipe,
        "cnn",
        folders,
        tmp_path / "run",
        val=[val],
        scenes=val,
        settings=SETTINGS,
        report=lines.append,
    )
    assert lines[0] == "2 classes, 112 training and 24 validation images, 0 skipped"
    assert load_checkpoint(str(out)).config.labels == ("blue", "red")


def test_averaged_weights_are_the_ones_that_are_kept(data: Path, tmp_path: Path) -> None:
    """With a decay of nearly one, the average stays where the first step led, whatever the others do."""
    still = replace(RECIPE, ema=1 - 1e-9)
    out = run_training(still, "cnn", data, tmp_path, settings=SETTINGS, report=lambda _: None)
    kept = load_checkpoint(str(out)).model.state_dict()["classifier.weight"]
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.testing.assert_close(kept, state["averaged"]["module.classifier.weight"], rtol=0, atol=1e-3)
    assert not torch.allclose(kept, state["model"]["classifier.weight"], rtol=0, atol=1e-2)


def test_a_finished_run_is_not_trained_again(data: Path, tmp_path: Path) -> None:
    run_training(RECIPE, "cnn", data, tmp_path, settings=SETTINGS, report=lambda _: None)
    lines: list[str] = []
    run_training(RECIPE, "cnn", data, tmp_path, settings=SETTINGS, report=lines.append)
    assert not any(line.startswith("epoch") for line in lines)


def test_another_recipe_does_not_take_over_a_run(data: Path, tmp_path: Path) -> None:
    run_training(RECIPE, "cnn", data, tmp_path, settings=SETTINGS, report=lambda _: None)
    with pytest.raises(TrainingError, match="another recipe"):
        run_training(
            replace(RECIPE, epochs=5), "cnn", data, tmp_path, settings=SETTINGS, report=lambda _: None
        )


def test_another_variant_or_other_images_do_not_take_over_a_run(data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    folder, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data, folder)

    def again(variant: str) -> None:
        run_training(recipe, variant, folder, out, settings=SETTINGS, report=lambda _: None)

    again("cnn")
    for variant in ("cnn_transformer", "all"):
        with pytest.raises(TrainingError, match=f"a run of variant cnn, not {variant}; name another --out"):
            again(variant)
    (folder / "train" / "red" / "0.png").rename(folder / "train" / "red" / "new.png")
    with pytest.raises(TrainingError, match="on other images; name another --out"):
        again("cnn")


def test_all_variants_together_share_their_feature_extractor(data: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for name in ("a", "b"):
        (outside / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (40, 40), (20 * i, 250, 20)).save(outside / name / f"{i}.png")
    out = run_training(
        RECIPE, "all", data, tmp_path / "run", outside=outside, settings=SETTINGS, report=lambda _: None
    )
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


def test_a_recipe_with_a_base_trains_that_first_and_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pawmatch.training import run

    base = replace(RECIPE, name="tiny-base", variant="cnn_transformer", epochs=2)
    monkeypatch.setattr(run, "read_recipe", lambda name: {"tiny-base": base}[name])
    recipe = replace(RECIPE, base="tiny-base", epochs=1)
    lines: list[str] = []
    run_training(recipe, "cnn", data, tmp_path / "run", settings=SETTINGS, report=lines.append)
    assert any("tiny-base" in line for line in lines)
    assert (tmp_path / "tiny-base" / "config.json").is_file()
    lines.clear()
    out = run_training(
        recipe, "cnn_transformer", data, tmp_path / "again", settings=SETTINGS, report=lines.append
    )
    assert sum(line.startswith("epoch") for line in lines) == 1
    assert "100% of the parameters" in "\n".join(lines)
    assert load_checkpoint(str(out)).config.training["init"] == "tiny-base"


def test_a_loss_that_is_no_number_stops_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "normalise", lambda images, spec: images.float() * float("nan"))
    with pytest.raises(TrainingError, match="steps in a row"):
        run_training(RECIPE, "cnn", data, tmp_path, settings=SETTINGS, report=lambda _: None)


def test_wrong_variants_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownVariant, match="'rnn'"):
        run_training(RECIPE, "rnn", data, tmp_path, settings=SETTINGS)
    with pytest.raises(TrainingError, match="for --variant cnn"):
        run_training(replace(RECIPE, variant="cnn"), "all", data, tmp_path, settings=SETTINGS)


def test_together_gives_each_variants_own_logits() -> None:
    values: dict[str, Any] = {"family": "chae", "num_classes": 2, **RECIPE.architecture}
    models = {name: build_model(variant=name, **values) for name in ("cnn", "cnn_transformer")}
    together = Together(models).eval()
    images = torch.rand(3, 3, 32, 32)
    logits = together(images)
    assert logits.shape == (2, 3, 2)
    for row, model in zip(logits, models.values(), strict=True):
        torch.testing.assert_close(row, model(images))


def test_a_base_of_all_variants_hands_each_its_own_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pawmatch.training import run

    base = replace(RECIPE, name="tiny-base", variant="all", epochs=1)
    monkeypatch.setattr(run, "read_recipe", lambda name: {"tiny-base": base}[name])
    recipe = replace(RECIPE, base="tiny-base", epochs=1)
    lines: list[str] = []
    run_training(recipe, "all", data, tmp_path / "run", settings=SETTINGS, report=lines.append)
    taken = [line for line in lines if "of the parameters start from" in line]
    assert len(taken) == 3
    assert all("100%" in line for line in taken)
    assert taken[2].endswith("tiny-base, cnn_transformer_mfe")

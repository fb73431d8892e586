"""One folder for all variants of a task: what they share, what is looked for elsewhere, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pawmatch import load
from pawmatch.checkpoint import (
    Answers,
    CheckpointConfig,
    load_checkpoint,
    load_task,
    push,
    push_space,
    save_again,
    save_task,
)
from pawmatch.checkpoint.load import Checkpoint
from pawmatch.classifier import Classifier
from pawmatch.errors import (
    AccessDenied,
    BadOption,
    CheckpointError,
    DigestMismatch,
    KeyMismatch,
    NotACheckpoint,
    TruncatedFile,
)
from pawmatch.images import InputSpec
from pawmatch.models import VARIANTS
from pawmatch.results import Task
from tests.support.checkpoints import build, change_config, change_weights, trio, write_format_1
from tests.support.hub_server import Fault, HubServer

pytest_plugins = ("tests.support.hub_fixture",)

CONFIG = CheckpointConfig(
    task=Task("bird", "Garden bird", "bird", "species", "species", ("robin.jpg",)),
    family="hybrid",
    variant="cnn",
    architecture={
        "backbone": "resnet10t",
        "backbone_config": {"channels": [8, 8, 16, 16], "stem_width": 8},
        "morphology_channels": 4,
        "morphology_width": 8,
    },
    labels=("Robin", "Wren", "Rook"),
    input=InputSpec(size=32),
    license="random values",
    answers=Answers("cnn_transformer", "lowest of all"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three variants of one run in one folder."""
    return save_task(tmp_path / "run", *trio(CONFIG))


def confidences(checkpoints: list[Checkpoint], photo: Image.Image) -> dict[str, float]:
    classifier = Classifier("bird", checkpoints, engine="torch")
    return {answer.variant: answer.confidence for answer in classifier.predict(photo).variants}


def test_variants_name_one_file_for_the_backbone_they_share(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "backbone.safetensors",
        *(f"{name}.safetensors" for name in VARIANTS),
    }
    checkpoints = load_task(folder, "bird")
    assert [c.config.variant for c in checkpoints] == list(VARIANTS)
    assert len({c.config.files[0] for c in checkpoints}) == 1
    assert len({id(c.model.features()) for c in checkpoints}) == 1
    models, configs = trio(CONFIG)
    for checkpoint in checkpoints:
        variant = checkpoint.config.variant
        assert replace(checkpoint.config, files=()) == configs[variant]
        images = torch.rand(1, 3, 32, 32)
        torch.testing.assert_close(checkpoint.model(images), models[variant](images), atol=2e-3, rtol=1e-3)


def test_one_variant_is_asked_for_by_name_and_else_the_one_that_answers(folder: Path) -> None:
    assert load_checkpoint(folder).config.variant == "cnn_transformer"
    assert load_checkpoint(folder, "cnn").config.variant == "cnn"
    assert load("bird", folder).main.variant == "cnn_transformer"
    some = [load_checkpoint(folder, name) for name in ("cnn", "cnn_transformer_mfe")]
    assert Classifier("bird", some).main.variant == "cnn_transformer_mfe"


def test_a_task_is_data(folder: Path, photo: Image.Image) -> None:
    classifier = load("bird", folder)
    assert classifier.task == CONFIG.task
    assert classifier.predict(photo).task == "bird"


@pytest.mark.parametrize("format_1", [True, False])
def test_variants_of_two_runs_answer_together_as_they_do_alone(
    format_1: bool, tmp_path: Path, photo: Image.Image
) -> None:
    """Both runs are of one recipe and seed by name, and have different backbones."""
    for seed, variant in ((1, "cnn"), (2, "cnn_transformer")):
        models, configs = trio(CONFIG, seed)
        if format_1:
            write_format_1(tmp_path / variant, models[variant], configs[variant])
        else:
            save_task(tmp_path / variant, {variant: models[variant]}, {variant: configs[variant]})
    checkpoints = load_task(tmp_path, "bird")
    assert len({c.features_digest for c in checkpoints}) == 2
    alone = {c.config.variant: confidences([c], photo)[c.config.variant] for c in checkpoints}
    assert confidences(checkpoints, photo) == alone


def test_two_runs_may_lie_in_one_folder(tmp_path: Path, photo: Image.Image) -> None:
    runs = [save_task(tmp_path / str(seed), *trio(CONFIG, seed)) for seed in (1, 2)]
    picked = [load_checkpoint(runs[0], "cnn"), load_checkpoint(runs[1], "cnn_transformer_mfe")]
    mixed = save_again(tmp_path / "mixed", picked, {c.config.variant: c.config for c in picked})
    together = load_task(mixed, "bird")
    assert [c.features_digest for c in together] == [c.features_digest for c in picked]
    alone = {c.config.variant: confidences([c], photo)[c.config.variant] for c in picked}
    assert confidences(together, photo) == alone


def test_format_1_shares_a_backbone_where_its_tensors_are_equal(tmp_path: Path) -> None:
    models, configs = trio(CONFIG)
    for variant in VARIANTS:
        write_format_1(tmp_path / variant, models[variant], configs[variant])
    with torch.no_grad():
        next(iter(models["cnn"].features().parameters())).view(-1)[0] += 1e-3
    shutil.rmtree(tmp_path / "cnn")
    write_format_1(tmp_path / "cnn", models["cnn"], configs["cnn"])
    first, second, third = (c.model.features() for c in load_task(tmp_path, "bird"))
    assert second is third
    assert first is not second


def test_equal_tensors_in_another_network_are_not_shared(tmp_path: Path) -> None:
    """A pool has no tensors, and the maps behind it are others."""
    sizes = {"input_size": 32, "filters": [4, 8], "heads": 2}
    plain = replace(CONFIG, family="chae", architecture=sizes)
    pooled = replace(plain, variant="cnn_transformer", architecture={**sizes, "average_pool": 2})
    first = build(plain)
    for config, model in ((plain, first), (pooled, build(pooled, start=first))):
        save_task(tmp_path / config.variant, {config.variant: model}, {config.variant: config})
    one, two = load_task(tmp_path, "bird")
    state = two.model.features().state_dict()
    assert all(torch.equal(state[key], value) for key, value in one.model.features().state_dict().items())
    assert one.features_digest != two.features_digest
    assert one.model.features() is not two.model.features()


def bundle(folder: Path, monkeypatch: pytest.MonkeyPatch, among: str = "backbone/tiny") -> Path:
    """Make a folder the bundled weights, with its backbone `among` them: one of the pretrained ones."""
    weights = folder.parent / "weights"
    place = weights / among
    place.mkdir(parents=True)
    shutil.copy(folder / "backbone.safetensors", place)
    monkeypatch.setenv("PAWMATCH_WEIGHTS", str(weights))
    return place / "backbone.safetensors"


def test_a_missing_file_is_found_among_the_bundled_ones(
    folder: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = confidences(load_task(folder, "bird"), photo)
    bundled = bundle(folder, monkeypatch, among="another/task")  # a pretrained one would bring a head too
    (folder / "backbone.safetensors").unlink()
    checkpoints = load_task(folder, "bird")
    assert {c.paths[0] for c in checkpoints} == {bundled}
    assert confidences(checkpoints, photo) == before
    save_file({"x": torch.zeros(1)}, bundled)
    with pytest.raises(NotACheckpoint, match=r"holds no backbone\.safetensors"):
        load_task(folder, "bird")


def test_a_backbone_that_is_bundled_is_not_written_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = bundle(folder, monkeypatch)
    loaded = load_task(folder, "bird")
    models = {c.config.variant: c.model for c in loaded}
    configs = {c.config.variant: c.config for c in loaded}
    again = save_task(tmp_path / "again", models, configs)
    assert not (again / bundled.name).exists()
    assert [c.config.files for c in load_task(again, "bird")] == [c.config.files for c in loaded]
    copied = save_again(tmp_path / "copied", load_task(again, "bird"), configs)
    assert {path.name for path in copied.iterdir()} == {path.name for path in again.iterdir()}
    with torch.no_grad():
        next(iter(models["cnn"].features().parameters())).view(-1)[0] += 0.1  # trained further
    own = save_task(tmp_path / "own", models, configs)
    assert (own / "backbone.safetensors").is_file()


def test_a_bundled_backbone_is_not_downloaded(
    hub_server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(folder, monkeypatch)
    (folder / "backbone.safetensors").unlink()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (folder / "README.md").write_text("# Birds")
    (folder / "calibration_cnn.png").write_bytes(b"a picture")
    push(folder, "ann/birds")
    repo = hub_server.repos["ann/birds"]
    names = set(repo.commits[repo.branches["main"]])
    assert names >= {path.name for path in folder.iterdir()}
    assert len(load_task("hf://ann/birds", "bird", strict=True)) == 3
    assert load_checkpoint("hf://ann/birds", "cnn").config.variant == "cnn"
    monkeypatch.delenv("PAWMATCH_WEIGHTS")
    with pytest.raises(NotACheckpoint, match=r"holds no backbone\.safetensors"):
        load_task("hf://ann/birds", "bird", strict=True)


def other_bytes(folder: Path) -> None:
    tensors = load_file(folder / "cnn.safetensors")
    tensors["classifier.2.bias"] += 1
    save_file(tensors, folder / "cnn.safetensors")


def another_files_digest(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    other = values["variants"]["cnn_transformer"]["files"][1]["sha256"]
    change_config(folder, lambda c: c["variants"]["cnn"]["files"][1].update(sha256=other))


def cut(folder: Path) -> None:
    data = (folder / "backbone.safetensors").read_bytes()
    (folder / "backbone.safetensors").write_bytes(data[:-1])


def two_digests(folder: Path) -> None:
    change_config(folder, lambda c: c["variants"]["cnn"]["files"][0].update(sha256="0" * 64))


def twice(folder: Path) -> None:
    stem = load_file(folder / "backbone.safetensors")
    change_weights(
        folder, "cnn.safetensors", lambda t: t.update({"backbone.bn1.bias": stem["backbone.bn1.bias"]})
    )


def left_out(folder: Path) -> None:
    change_weights(folder, "backbone.safetensors", lambda t: t.pop("backbone.bn1.bias"))


def not_named(folder: Path) -> None:
    change_config(folder, lambda c: [entry["files"].pop(0) for entry in c["variants"].values()])


def led_out(folder: Path) -> None:
    change_config(folder, lambda c: c["variants"]["cnn"]["files"][1].update(name="../cnn.safetensors"))


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (other_bytes, DigestMismatch, r"cnn\.safetensors of .* is not the file that its config names"),
        (another_files_digest, DigestMismatch, r"cnn\.safetensors of .* is not the file"),
        (cut, TruncatedFile, "bytes, which is not what their header announces"),
        (two_digests, NotACheckpoint, r"backbone\.safetensors has two different SHA-256"),
        (twice, KeyMismatch, r"backbone\.bn1\.bias of .* in backbone\.safetensors and in cnn\.safetensors"),
        (left_out, KeyMismatch, r"lack backbone\.bn1\.bias"),
        (not_named, KeyMismatch, r"lack backbone\."),
        (led_out, NotACheckpoint, r"'\.\./cnn\.safetensors' is no plain name"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    damage: Callable[[Path], None], error: type[CheckpointError], said: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(error, match=said):
        load_task(folder, "bird")


def test_a_file_that_changed_after_loading_is_not_copied(folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(folder, "cnn")
    other_bytes(folder)
    with pytest.raises(DigestMismatch, match="has changed"):
        save_again(tmp_path / "out", [checkpoint], {"cnn": checkpoint.config})
    assert not (tmp_path / "out").exists()


def test_variants_that_differ_in_what_is_written_once_need_folders_of_their_own(tmp_path: Path) -> None:
    models, configs = trio(CONFIG)
    with pytest.raises(NotACheckpoint, match="differ in license"):
        save_task(tmp_path / "run", models, {**configs, "cnn": replace(CONFIG, license="another")})
    assert not (tmp_path / "run").exists()


def test_format_1_becomes_format_2_with_the_same_bytes(tmp_path: Path, photo: Image.Image) -> None:
    models, configs = trio(CONFIG)
    for variant in VARIANTS:
        write_format_1(tmp_path / "old" / variant, models[variant], configs[variant])
    old = load_task(tmp_path / "old", "bird")
    folder = save_again(tmp_path / "new", old, {c.config.variant: c.config for c in old})
    for variant in VARIANTS:
        before = (tmp_path / "old" / variant / "model.safetensors").read_bytes()
        assert (folder / f"{variant}.safetensors").read_bytes() == before
    new = confidences(load_task(folder, "bird"), photo)
    assert np.allclose(list(new.values()), list(confidences(old, photo).values()), atol=1e-6)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A checkout of the project, in small."""
    root = tmp_path / "checkout"
    for name in (
        "app.py",
        "pawmatch/cli.py",
        "pawmatch/__pycache__/cli.pyc",
        "weights/.cache/x",
        "runs/secret",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("pass")
    shutil.copy(Path(__file__).parents[2] / "README.md", root)
    return root


def test_the_app_becomes_a_space_with_its_variables_and_hardware(
    hub_server: HubServer, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    variables = {"PAWMATCH_BREED_SOURCE": "hf://ann/dogs"}
    for _ in range(2):  # the second time it is there already
        address = push_space(app, "ann/app", variables=variables, hardware="cpu-basic", private=True)
    assert address == f"{hub_server.url}/spaces/ann/app"
    repo = hub_server.repos["spaces/ann/app"]
    assert (repo.sdk, repo.private, repo.hardware, repo.variables) == ("gradio", True, "cpu-basic", variables)
    assert set(repo.commits[repo.branches["main"]]) == {"app.py", "README.md", "pawmatch/cli.py"}


def test_hardware_that_an_account_lacks_costs_the_hardware_alone(
    hub_server: HubServer, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub_server.faults = [Fault("/hardware", status=402)]
    with pytest.raises(AccessDenied, match="ann/app"):
        push_space(app, "ann/app", hardware="a100-large")
    assert "app.py" in hub_server.repos["spaces/ann/app"].commits.popitem()[1]


@pytest.mark.parametrize("repo", ["hf://ann/app", "ann/app/sub", "ann"])
def test_what_is_no_space_is_refused(repo: str, app: Path) -> None:
    with pytest.raises(BadOption, match=r"names no Space|no place on the Hub"):
        push_space(app, repo)


@pytest.mark.parametrize("text", [None, "# pawmatch", "---\nsdk: docker\n---\n", "---\n: : :\n---\n"])
def test_a_folder_without_an_app_is_no_space(text: str | None, app: Path) -> None:
    (app / "README.md").unlink()
    if text is not None:
        (app / "README.md").write_text(text)
    with pytest.raises(BadOption, match="give a checkout"):
        push_space(app, "ann/app")

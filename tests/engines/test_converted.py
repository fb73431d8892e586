"""What is kept on disk is whole or made again, and no disk is a reason to fail."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from pawmatch.engines import converted
from pawmatch.models import ImageModel


def write(path: Path) -> None:
    path.write_text("<net/>")
    path.with_suffix(".bin").write_bytes(bytes(range(1, 200)))


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    assert converted.find(tmp_path / "new", "one") is None
    path = converted.keep(tmp_path / "new", "one", write)
    assert path == converted.find(tmp_path / "new", "one") == tmp_path / "new" / "one" / "model.xml"
    assert converted.find(tmp_path / "new", "two") is None
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["one"]


@pytest.mark.parametrize("file", ["model.xml", "model.bin", "digests.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "more"])
def test_a_damaged_entry_is_not_used_and_then_replaced(file: str, damage: str, tmp_path: Path) -> None:
    path = converted.keep(tmp_path, "one", write)
    assert path is not None
    damaged = path.with_name(file)
    data = damaged.read_bytes()
    if damage == "gone":
        damaged.unlink()
    elif damage == "more":
        path.with_name("stranger").write_text("what is this")
    else:
        damaged.write_bytes(data[:-3] if damage == "cut" else b"\0" + data[1:])
    assert converted.find(tmp_path, "one") is None
    assert converted.keep(tmp_path, "one", write) == converted.find(tmp_path, "one") == path
    assert damaged.read_bytes() == data


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def full(path: Path) -> None:
        write(path)
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.INFO):
        assert converted.keep(tmp_path, "one", full) is None
    assert list(tmp_path.iterdir()) == []
    assert "No space left on device" in caplog.text


def test_an_entry_that_another_process_made_meanwhile_stays(tmp_path: Path) -> None:
    def slow(path: Path) -> None:
        converted.keep(tmp_path, "one", write)
        path.write_text("later")

    path = converted.keep(tmp_path, "one", slow)
    assert path is not None
    assert path.read_text() == "<net/>"
    assert [entry.name for entry in tmp_path.iterdir()] == ["one"]


def test_no_folder_to_keep_anything_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(converted, "cached_assets_path", lambda *_, **__: (tmp_path / "file" / "x").mkdir())
    assert converted.default_folder() is None


def test_a_digest_tells_weights_structure_and_facts_apart(model: ImageModel) -> None:
    layer = torch.nn.Linear(2, 2)
    before = converted.digest_of(layer, ["32"])
    assert converted.digest_of(layer, ["32"]) == before
    others = {
        converted.digest_of(layer, ["64"]),
        converted.digest_of(torch.nn.Conv2d(2, 2, 1), ["32"]),
        converted.digest_of(model, ["32"]),
    }
    with torch.no_grad():
        layer.bias[0] += 1
    assert len({before, converted.digest_of(layer, ["32"]), *others}) == 5

"""The OpenVINO engine: torch's map, from any thread, converted once, kept with care, and nobody is told."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from pawmatch.cli import main
from pawmatch.engines import create_engine
from pawmatch.engines import openvino as openvino_engine
from pawmatch.engines.openvino import TELEMETRY, OpenVinoEngine, import_openvino
from pawmatch.errors import BadOption
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel, build_model

PROGRAM = """
import os, sys, time

def note(event, arguments):
    if event in ("os.fork", "socket.getaddrinfo", "socket.connect"):
        print(event, flush=True)

sys.addaudithook(note)
if sys.argv[1] == "quietly":
    from pawmatch.engines.openvino import import_openvino
    import_openvino().Core().available_devices
else:
    import openvino
time.sleep(0.5)  # what is sent is sent from a thread
print("reports" if "openvino_telemetry" in sys.modules else "silent")
"""


@pytest.mark.parametrize(("how", "silent"), [("quietly", True), ("plainly", False)])
@pytest.mark.usefixtures("openvino")
def test_nothing_is_told(how: str, silent: bool, tmp_path: Path) -> None:
    pytest.importorskip(TELEMETRY)
    # A proxy that is not there keeps what the plain import sends on this computer.
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        cwd=Path(__file__).parents[2],
        env={"HOME": str(tmp_path), **proxy},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.split() == ["silent"]) is silent
    assert (list(tmp_path.iterdir()) == []) is silent


def test_other_programs_keep_what_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType(TELEMETRY)
    seen: list[tuple[str, ModuleType | None]] = []

    def look(name: str) -> ModuleType:
        seen.append((name, sys.modules.get(TELEMETRY)))
        raise ImportError(name)

    monkeypatch.setattr(openvino_engine, "import_module", look)
    monkeypatch.setitem(sys.modules, TELEMETRY, theirs)
    with pytest.raises(ImportError):
        import_openvino()
    assert seen == [("openvino", None)]
    assert sys.modules[TELEMETRY] is theirs


def write(path: Path) -> None:
    path.write_text("<net/>")
    path.with_suffix(".bin").write_bytes(bytes(range(1, 200)))


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    assert openvino_engine.find(tmp_path / "new", "one") is None
    path = openvino_engine.keep(tmp_path / "new", "one", write)
    assert path == openvino_engine.find(tmp_path / "new", "one") == tmp_path / "new" / "one" / "model.xml"
    assert openvino_engine.find(tmp_path / "new", "two") is None
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["one"]


@pytest.mark.parametrize("file", ["model.xml", "model.bin", "digests.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "more"])
def test_a_damaged_entry_is_not_used_and_then_replaced(file: str, damage: str, tmp_path: Path) -> None:
    path = openvino_engine.keep(tmp_path, "one", write)
    assert path is not None
    damaged = path.with_name(file)
    data = damaged.read_bytes()
    if damage == "gone":
        damaged.unlink()
    elif damage == "more":
        path.with_name("stranger").write_text("what is this")
    else:
        damaged.write_bytes(data[:-3] if damage == "cut" else b"\0" + data[1:])
    assert openvino_engine.find(tmp_path, "one") is None
    assert openvino_engine.keep(tmp_path, "one", write) == openvino_engine.find(tmp_path, "one") == path
    assert damaged.read_bytes() == data


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def full(path: Path) -> None:
        write(path)
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.INFO):
        assert openvino_engine.keep(tmp_path, "one", full) is None
    assert list(tmp_path.iterdir()) == []
    assert "No space left on device" in caplog.text


def test_an_entry_that_another_process_made_meanwhile_stays(tmp_path: Path) -> None:
    def slow(path: Path) -> None:
        openvino_engine.keep(tmp_path, "one", write)
        path.write_text("later")

    path = openvino_engine.keep(tmp_path, "one", slow)
    assert path is not None
    assert path.read_text() == "<net/>"
    assert [entry.name for entry in tmp_path.iterdir()] == ["one"]


def test_no_folder_to_keep_anything_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(
        openvino_engine, "cached_assets_path", lambda *_, **__: (tmp_path / "file" / "x").mkdir()
    )
    assert openvino_engine.default_folder() is None


def test_a_digest_tells_weights_structure_and_facts_apart(model: ImageModel) -> None:
    layer = torch.nn.Linear(2, 2)
    before = openvino_engine.digest_of(layer, ["32"])
    assert openvino_engine.digest_of(layer, ["32"]) == before
    others = {
        openvino_engine.digest_of(layer, ["64"]),
        openvino_engine.digest_of(torch.nn.Conv2d(2, 2, 1), ["32"]),
        openvino_engine.digest_of(model, ["32"]),
    }
    with torch.no_grad():
        layer.bias[0] += 1
    assert len({before, openvino_engine.digest_of(layer, ["32"]), *others}) == 5


pytestmark = pytest.mark.usefixtures("openvino")


@pytest.fixture(scope="module")
def engine(model: ImageModel, real_openvino: ModuleType) -> OpenVinoEngine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "openvino", real_openvino)
        return OpenVinoEngine(model, 32)


@pytest.mark.parametrize("count", [1, 3, 7, 2])
def test_gives_torchs_map_in_float32_for_any_batch(
    engine: OpenVinoEngine, model: ImageModel, count: int
) -> None:
    images = torch.rand(count, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    found = engine.features(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, model.forward_features(images), rtol=1e-4, atol=1e-5)


def test_a_large_batch_takes_no_more_memory_than_a_middling_one(
    engine: OpenVinoEngine, model: ImageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_max_images", 3)
    run, sizes = engine._request.infer, []

    def infer(inputs: dict[int, Any], **options: Any) -> Any:
        sizes.append(len(inputs[0]))
        return run(inputs, **options)

    monkeypatch.setattr(engine, "_request", SimpleNamespace(infer=infer))
    images = torch.rand(8, 3, 32, 32)
    torch.testing.assert_close(engine.features(images), model.forward_features(images), rtol=1e-4, atol=1e-5)
    assert sizes == [3, 3, 2]


def test_a_gradient_can_start_at_the_map(
    engine: OpenVinoEngine, model: ImageModel, images: torch.Tensor
) -> None:
    feature_map = engine.features(images)
    assert not feature_map.requires_grad
    logits = model.forward_head(feature_map.requires_grad_(True))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), feature_map)
    assert gradient.abs().sum() > 0


def test_eight_threads_get_their_lone_maps(engine: OpenVinoEngine) -> None:
    batches = [torch.rand(1 + i % 3, 3, 32, 32) for i in range(10)]
    alone = [engine.features(batch) for batch in batches]
    jobs = [i % len(batches) for i in range(80)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: engine.features(batches[i]), jobs))
    for i, feature_map in zip(jobs, together, strict=True):
        assert torch.equal(feature_map, alone[i])


def test_a_map_stays_what_it_was_when_the_next_one_comes(engine: OpenVinoEngine) -> None:
    first = engine.features(torch.rand(2, 3, 32, 32))
    before = first.clone()
    engine.features(torch.rand(2, 3, 32, 32))
    assert torch.equal(first, before)


def test_the_stem_of_chae_converts_too() -> None:
    chae = build_model(family="chae", variant="cnn", num_classes=3, input_size=32, filters=(4, 4, 4, 8))
    chae.eval().requires_grad_(False)
    images = torch.rand(2, 3, 32, 32)
    found = OpenVinoEngine(chae, 32).features(images)
    torch.testing.assert_close(found, chae.forward_features(images), rtol=1e-4, atol=1e-5)


def test_a_second_start_converts_nothing(
    model: ImageModel, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = OpenVinoEngine(model, 32, folder=tmp_path).features(images)
    monkeypatch.setattr(openvino_engine, "convert", lambda *_: pytest.fail("converted again"))
    assert torch.equal(OpenVinoEngine(model, 32, folder=tmp_path).features(images), first)


def test_without_a_place_to_keep_it_the_model_is_converted_in_memory(
    model: ImageModel, images: torch.Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be made below a file")
    with caplog.at_level(logging.INFO):
        found = OpenVinoEngine(model, 32, folder=blocked / "kept").features(images)
    assert found.shape == (3, 8, 4, 4)
    (record,) = caplog.records
    assert record.message.startswith("Converted models cannot be kept in")


def test_a_full_disk_costs_the_entry_alone(
    model: ImageModel,
    images: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    openvino: ModuleType,
) -> None:
    real = openvino.save_model

    def cut_short(converted_model: object, path: Path, **options: object) -> None:
        real(converted_model, path, **options)
        weights = path.with_suffix(".bin")
        weights.write_bytes(weights.read_bytes()[:100])

    monkeypatch.setattr(openvino, "save_model", cut_short)
    found = OpenVinoEngine(model, 32, folder=tmp_path).features(images)
    torch.testing.assert_close(found, model.forward_features(images), rtol=1e-4, atol=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_conversion_tells_nobody(model: ImageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))
    telemetry = pytest.importorskip("openvino_telemetry")
    monkeypatch.setattr(telemetry.Telemetry, "send_event", lambda *_: pytest.fail("telemetry"))
    openvino_engine.convert(model, 32)


def test_asked_for_by_name(model: ImageModel, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = InputSpec(size=32)
    made = create_engine("openvino", [model], "cpu", spec)
    assert made.name == "openvino"
    assert len(list(folder.iterdir())) == 1
    with pytest.raises(BadOption, match="device cpu"):
        create_engine("openvino", [model], "cuda", spec)

    def refuse(*_: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(openvino_engine, "convert_once", refuse)
    with pytest.raises(BadOption, match="cannot run this model"):
        create_engine("openvino", [model], "cpu", spec)


def test_the_number_of_threads_changes_no_byte_of_results(
    openvino: ModuleType, breeds: str, album: Path, tmp_path: Path
) -> None:
    written = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        out = tmp_path / f"{threads}.jsonl"
        argv = ["classify", str(album), "--source", breeds, "--engine", "openvino float32", "--out", str(out)]
        assert main(argv) == 1  # one of the files is broken
        assert torch.get_num_threads() == 1
        written.append(out.read_bytes())
    assert written[0] == written[1]

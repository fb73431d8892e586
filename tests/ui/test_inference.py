"""Answering: the same answer alone and in company, and an error that stays the one request's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pawmatch.classifier import Examined
from pawmatch.errors import BrokenImage, UnknownLabel
from pawmatch.results import Prediction
from pawmatch.ui.handlers import NO_MEMORY, OUR_FAULT, Handlers, Unavailable
from pawmatch.ui.inference import MOST_AT_ONCE, Classifiers, Here, Lent, Question
from tests.ui.pretend import PretendClassifier, as_upload


@pytest.fixture(scope="module")
def tiny(tiny_checkpoints: Callable[..., Path]) -> Classifiers:
    from pawmatch.classifier import load

    return Classifiers(lambda task: load(task, tiny_checkpoints(task), device="cpu"), ("breed", "artist"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Twelve different photos."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for number in range(12):
        small = rng.integers(0, 255, (9, 12 + number, 3), dtype=np.uint8)
        Image.fromarray(small).resize((160 + number, 120)).save(folder / f"{number}.png")
    return [str(folder / f"{number}.png") for number in range(12)]


def confidences(answer: Prediction) -> list[float]:
    """Those of the choices, then those of the variants."""
    return [
        *(entry.confidence for entry in answer.predictions),
        *(entry.confidence for entry in answer.variants),
    ]


def close(answer: Prediction, lone: Prediction) -> bool:
    same = [entry.label for entry in answer.predictions] == [entry.label for entry in lone.predictions]
    pairs = zip(confidences(answer), confidences(lone), strict=True)
    return same and all(abs(one - other) <= 1e-6 for one, other in pairs)


def test_every_answer_equals_its_lone_answer(tiny: Classifiers, photos: list[str]) -> None:
    here = Here(tiny)
    batches: list[int] = []
    examine = here._collector._answer

    def counted(questions: Sequence[Question]) -> Sequence[Examined]:
        batches.append(len(questions))
        return examine(questions)

    here._collector._answer = counted
    asked = [(task, path) for path in photos for task in ("breed", "artist")]
    lone = [tiny.get(task).predict(path) for task, path in asked]
    hold = threading.Event()
    tiny.thread.submit(hold.wait, 10)  # so that they pile up
    with ThreadPoolExecutor(len(asked)) as pool:
        futures = [pool.submit(here.predict, task, path, 5) for task, path in asked]
        explained = pool.submit(here.explain, "breed", photos[0], "Collie", 5)
        hold.set()
        answers = [future.result(60) for future in futures]
    assert all(map(close, answers, lone))
    assert max(batches) > 1
    assert max(batches) <= MOST_AT_ONCE
    expected = tiny.get("breed").explain(photos[0], "Collie")
    assert close(explained.result().prediction, lone[0])
    assert explained.result().label == "Collie"
    for variant, heatmap in expected.heatmaps.items():
        np.testing.assert_allclose(explained.result().heatmaps[variant].cam, heatmap.cam, atol=1e-3)


def test_a_long_list_keeps_its_order_and_its_errors(
    tiny: Classifiers, photos: list[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0nothing")
    paths = [*photos, str(bad), *photos]
    assert len(paths) > MOST_AT_ONCE
    answers = Here(tiny).predict_all("breed", paths, 2)
    lone = [tiny.get("breed").predict(path, 2) for path in photos]
    assert isinstance(answers.pop(12), BrokenImage)
    assert all(
        isinstance(answer, Prediction) and close(answer, expected)
        for answer, expected in zip(answers, lone * 2, strict=True)
    )


def test_a_label_that_does_not_exist_is_said_before_the_models_run() -> None:
    pretender = PretendClassifier(failure=AssertionError("the models ran"))
    with pytest.raises(UnknownLabel):
        Here(Classifiers(lambda task: pretender, ("breed",))).explain("breed", "x.jpg", "Cat", 5)  # type: ignore[arg-type,return-value]


class Failing(PretendClassifier):
    """Fails for wide photos: those that are wide alone, batches that are long and hold one with them."""

    def examine(self, prepared: Any) -> Any:
        if any(entry.width > 1000 for entry in prepared) and self.failure:
            raise self.failure
        return list(prepared)


def out_of_memory(kind: str) -> Exception:
    import torch

    return {
        "python": MemoryError(),
        "accelerator": torch.OutOfMemoryError("CUDA out of memory."),
        "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    }[kind]


@pytest.mark.parametrize("kind", ["python", "accelerator", "cpu"])
def test_out_of_memory_costs_only_the_photo_that_needs_it(
    kind: str, upload: dict[str, Any], tmp_path: Path
) -> None:
    failure = out_of_memory(kind)
    wide = tmp_path / "wide.jpg"
    Image.new("RGB", (1600, 900), "tan").save(wide)
    classifiers = Classifiers(lambda task: Failing(failure=failure), ("breed",))  # type: ignore[arg-type,return-value]
    handlers = Handlers(classifiers)
    hold = threading.Event()
    classifiers.thread.submit(hold.wait, 10)
    with ThreadPoolExecutor(4) as pool:
        good = [pool.submit(handlers.predict, upload) for _ in range(3)]
        bad = pool.submit(handlers.predict, as_upload(wide))
        hold.set()
        assert all(answer.result(30)["predictions"] for answer in good)
        with pytest.raises(Unavailable) as caught:
            bad.result(30)
    assert str(caught.value) == NO_MEMORY
    assert handlers.predict(upload)["predictions"]
    with pytest.raises(Unavailable) as caught:
        handlers.explain(as_upload(wide))
    assert str(caught.value) == NO_MEMORY


def test_another_error_is_ours(upload: dict[str, Any]) -> None:
    classifiers = Classifiers(lambda task: PretendClassifier(failure=RuntimeError("x")), ("breed",))  # type: ignore[arg-type,return-value]
    with pytest.raises(Unavailable) as caught:
        Handlers(classifiers).predict(upload)
    assert str(caught.value) == OUR_FAULT


def test_no_more_photos_are_decoded_at_a_time_than_there_are_places(upload: dict[str, Any]) -> None:
    now, most, lock = 0, 0, threading.Lock()

    class Counting(PretendClassifier):
        def prepare(self, image: Any) -> Any:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            prepared = super().prepare(image)
            with lock:
                now -= 1
            return prepared

    here = Here(Classifiers(lambda task: Counting(), ("breed",)))  # type: ignore[arg-type,return-value]
    here._decoding = threading.BoundedSemaphore(2)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: here.predict("breed", upload["path"], 5), range(24)))
    assert 1 <= most <= 2


def test_a_lent_accelerator_is_asked_in_the_visitor_s_own_thread(upload: dict[str, Any]) -> None:
    threads: list[int] = []

    def on_gpu(compute: Any) -> Any:
        def call(*arguments: Any) -> Any:
            threads.append(threading.get_ident())
            return compute(*arguments)

        return call

    lent = Lent(Classifiers(lambda task: PretendClassifier(), ("breed",)), on_gpu)  # type: ignore[arg-type,return-value]
    lent.predict("breed", upload["path"], 5)
    assert len(lent.predict_all("breed", [upload["path"]] * 2, 5)) == 2
    assert lent.explain("breed", upload["path"], "Akita", 5).label == "Akita"
    assert set(threads) == {threading.get_ident()}

"""Inference: the same answer alone and in company, and an error that stays the one request's own."""

from __future__ import annotations

import logging
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pawmatch.classifier import Classifier, ModelOutputs
from pawmatch.errors import BrokenImage, Busy, CheckpointNotFound, ImageError, NotACheckpoint, UnknownLabel
from pawmatch.labels import new_task
from pawmatch.results import Prediction
from pawmatch.settings import Settings, on_lent_gpu
from pawmatch.ui import inference
from pawmatch.ui.faults import NO_MEMORY, OUR_FAULT
from pawmatch.ui.handlers import Handlers, Unavailable
from pawmatch.ui.inference import (
    GPU_SECONDS,
    MAX_BATCH,
    Classifiers,
    Collector,
    Here,
    Lent,
    from_settings,
    lent_gpu,
)
from tests.ui.conftest import ONE_TASK, as_upload

# --- the collector


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Doubler:
    """Doubles numbers; records its batches; waits, if told to, before it begins."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, questions: Sequence[int]) -> list[int]:
        self.batches.append(list(questions))
        self.begun.set()
        assert self.go_on.wait(240)
        if 13 in questions:
            raise MemoryError("13 is too much")
        return [2 * question for question in questions]


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def busy(doubler: Doubler, thread: ThreadPoolExecutor) -> Collector[int, int]:
    """A collector of batches of four that has begun with one question, 0, and waits there."""
    collector = Collector(doubler, 4, thread)
    collector.hand_in([0])
    assert doubler.begun.wait(240)
    return collector


def test_what_piles_up_is_answered_together_in_order_and_no_more_than_fits(
    busy: Collector[int, int], doubler: Doubler, thread: ThreadPoolExecutor
) -> None:
    futures = [future for number in range(1, 7) for future in busy.hand_in([number])]
    other = thread.submit(lambda: len(doubler.batches))
    doubler.go_on.set()
    assert [future.result(240) for future in futures] == [2, 4, 6, 8, 10, 12]
    assert doubler.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert other.result(240) == 2  # another job got its turn between batches


def test_an_exception_is_that_question_s_own(busy: Collector[int, int], doubler: Doubler) -> None:
    futures = busy.hand_in([12, 13, 14])
    doubler.go_on.set()
    assert (futures[0].result(240), futures[2].result(240)) == (24, 28)
    with pytest.raises(MemoryError, match="13 is too much"):
        futures[1].result(240)
    (again,) = busy.hand_in([1])
    assert again.result(240) == 2


def test_a_cancelled_question_is_left_out(busy: Collector[int, int], doubler: Doubler) -> None:
    first, second = busy.hand_in([1, 2])
    assert first.cancel()
    doubler.go_on.set()
    assert second.result(240) == 4
    assert doubler.batches == [[0], [2]]


def test_too_few_answers_are_an_error_and_no_hang(thread: ThreadPoolExecutor) -> None:
    collector: Collector[int, int] = Collector(lambda questions: [], 4, thread)
    (future,) = collector.hand_in([1])
    with pytest.raises(ValueError, match="zip"):
        future.result(240)


def test_many_threads_get_their_own_answers(doubler: Doubler, thread: ThreadPoolExecutor) -> None:
    doubler.go_on.set()
    collector = Collector(doubler, 8, thread)
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda number: collector.hand_in([number])[0].result(240), range(14, 514))
        assert list(answers) == list(range(28, 1028, 2))


# --- in this process


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
    choices = [entry.confidence for entry in answer.predictions]
    return choices + [entry.confidence for entry in answer.variants]


def close(answer: Prediction, lone: Prediction) -> bool:
    same = [entry.label for entry in answer.predictions] == [entry.label for entry in lone.predictions]
    pairs = zip(confidences(answer), confidences(lone), strict=True)
    return same and all(abs(one - other) <= 1e-6 for one, other in pairs)


def test_every_answer_equals_its_lone_answer(classifiers: Classifiers, photos: list[str]) -> None:
    here = Here(classifiers)
    batches: list[int] = []
    run = here._collector._answer

    def counted(questions: Sequence[inference.Question]) -> Sequence[ModelOutputs]:
        batches.append(len(questions))
        return run(questions)

    here._collector._answer = counted
    asked = [(task, path) for path in photos for task in ("breed", "artist")]
    lone = [classifiers.get(task).predict(path) for task, path in asked]
    hold = threading.Event()
    classifiers.thread.submit(hold.wait, 10)  # so that they pile up
    with ThreadPoolExecutor(len(asked)) as pool:
        futures = [pool.submit(here.predict, task, path, 5) for task, path in asked]
        explained = pool.submit(here.explain, "breed", photos[0], "Collie", 5)
        hold.set()
        answers = [future.result(240) for future in futures]
    assert all(map(close, answers, lone))
    assert 1 < max(batches) <= MAX_BATCH
    expected = classifiers.get("breed").explain(photos[0], "Collie")
    assert close(explained.result().prediction, lone[0])
    for variant, heatmap in expected.heatmaps.items():
        np.testing.assert_allclose(explained.result().heatmaps[variant].cam, heatmap.cam, atol=1e-3)


def test_a_long_list_keeps_its_order_and_its_errors(
    classifiers: Classifiers, photos: list[str], text_file: dict[str, Any]
) -> None:
    bad = Path(text_file["path"])
    bad.write_bytes(b"\xff\xd8\xff\xe0nothing")
    paths = [*photos, str(bad), *photos]
    assert len(paths) > MAX_BATCH
    answers = Here(classifiers).predict_all("breed", paths, 2)
    lone = [classifiers.get("breed").predict(path, 2) for path in photos]
    assert isinstance(answers.pop(12), BrokenImage)
    assert all(
        isinstance(answer, Prediction) and close(answer, expected)
        for answer, expected in zip(answers, lone * 2, strict=True)
    )


def test_heatmaps_come_from_what_was_kept_without_pixels(
    classifiers: Classifiers, breed: Classifier, photos: list[str], fail: Callable[[Exception], None]
) -> None:
    here, photo = Here(classifiers), Image.open(photos[0]).convert("RGB")
    seen = here.look("breed", photos[0], 5)
    assert close(seen.prediction, breed.predict(photos[0]))
    assert len(pickle.dumps(seen)) < 300_000
    expected = breed.explain(photos[0], "Collie")
    fail(AssertionError("the backbone ran again"))
    found = here.heatmaps("breed", seen, photo, "collie")
    assert (found.label, found.name) == ("Collie", "Collie")
    for variant, heatmap in expected.heatmaps.items():
        np.testing.assert_allclose(found.heatmaps[variant].cam, heatmap.cam, atol=1e-5)
        assert (found.heatmaps[variant].box, found.heatmaps[variant].size) == (heatmap.box, heatmap.size)
    assert here.heatmaps("breed", seen, photo, None).label == seen.prediction.top.label
    with pytest.raises(UnknownLabel):
        here.heatmaps("breed", seen, photo, "Wolpertinger")


def test_a_label_that_does_not_exist_is_said_before_the_models_run(
    classifiers: Classifiers, photos: list[str], fail: Callable[[Exception], None]
) -> None:
    fail(AssertionError("the models ran"))
    with pytest.raises(UnknownLabel):
        Here(classifiers).explain("breed", photos[0], "Cat", 5)


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
    ids=["python", "accelerator", "cpu"],
)
def test_out_of_memory_costs_only_the_photo_that_needs_it(
    failure: Exception,
    classifiers: Classifiers,
    upload: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examine = Classifier.run_models

    def fail_for_wide_ones(self: Classifier, prepared: Any) -> Any:
        if any(entry.width > 1000 for entry in prepared):
            raise failure
        return examine(self, prepared)

    monkeypatch.setattr(Classifier, "run_models", fail_for_wide_ones)
    wide = tmp_path / "wide.jpg"
    Image.new("RGB", (1600, 900), "tan").save(wide)
    handlers = Handlers(classifiers)
    hold = threading.Event()
    classifiers.thread.submit(hold.wait, 10)
    with ThreadPoolExecutor(4) as pool:
        good = [pool.submit(handlers.predict, upload) for _ in range(3)]
        bad = pool.submit(handlers.predict, as_upload(wide))
        hold.set()
        assert all(answer.result(240)["predictions"] for answer in good)
        with pytest.raises(Unavailable) as caught:
            bad.result(240)
    assert str(caught.value) == NO_MEMORY
    assert handlers.predict(upload)["predictions"]


def test_another_error_is_ours(
    handlers: Handlers, upload: dict[str, Any], fail: Callable[[Exception], None]
) -> None:
    fail(RuntimeError("x"))
    with pytest.raises(Unavailable) as caught:
        handlers.predict(upload)
    assert str(caught.value) == OUR_FAULT


def test_no_more_photos_are_decoded_at_a_time_than_there_are_places(
    classifiers: Classifiers, upload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, highest, lock, prepare = 0, 0, threading.Lock(), Classifier.prepare

    def counting(self: Classifier, image: Any) -> Any:
        nonlocal now, highest
        with lock:
            now += 1
            highest = max(highest, now)
        prepared = prepare(self, image)
        with lock:
            now -= 1
        return prepared

    monkeypatch.setattr(Classifier, "prepare", counting)
    here = Here(classifiers)
    here._decoding = threading.BoundedSemaphore(2)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: here.predict("breed", upload["path"], 5), range(16)))
    assert 1 <= highest <= 2


# --- a lent accelerator


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A ZeroGPU Space whose GPU is this CPU; CUDA fails outside of `spaces.GPU`. Gives what calls gave."""
    inside = threading.local()
    results: list[Any] = []

    def gpu(duration: int) -> Callable[[Any], Any]:
        assert duration == GPU_SECONDS

        def wrap(compute: Any) -> Any:
            def call(*arguments: Any) -> Any:
                inside.now = True
                try:
                    found = compute(*pickle.loads(pickle.dumps(arguments)))
                finally:
                    inside.now = False
                results.append(pickle.loads(pickle.dumps(found)))
                return results[-1]

            return call

        return wrap

    def moved(classifier: Classifier, device: str) -> Classifier:
        assert (device, inside.now) == ("cuda", True)
        return classifier

    def refused(*arguments: Any) -> Any:
        raise AssertionError("CUDA was asked for something outside of spaces.GPU")

    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))
    monkeypatch.setattr(Classifier, "moved", moved)
    for name in ("is_available", "device_count", "init", "_lazy_init", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, refused)
    yield results
    assert not getattr(inside, "now", False)


def test_cuda_is_left_alone_outside_of_a_lent_gpu(
    lent: list[Any], tiny_settings: Settings, classifiers: Classifiers, upload: dict[str, Any]
) -> None:
    own = from_settings(replace(tiny_settings, device="auto", engine="auto"))
    own.warm_up()
    handlers, expected = Handlers(own, lent_gpu()), classifiers.get("breed").predict(upload["path"])
    assert isinstance(handlers.inference, Lent)
    best = expected.predictions[0].label
    assert handlers.predict(upload)["predictions"][0]["label"] == best
    assert handlers.explain(upload, "breed", "Collie")[0]["explanation"]["label"] == "Collie"
    assert len(handlers.predict_batch([upload] * (MAX_BATCH + 1))) == MAX_BATCH + 1
    paid = len(lent)
    assert paid == 3  # the same photo, however often it is in a batch, is run once
    state = handlers.look(upload, "artist")
    assert len(lent) == paid + 1
    # Heatmaps, for whatever label, cost nobody's quota.
    assert set(handlers.paint(state)[1].heatmaps) == set(handlers.paint(state, "Rembrandt")[1].heatmaps)
    assert len(lent) == paid + 1


def test_errors_on_a_lent_gpu_come_back_as_values_in_the_visitor_s_own_thread(
    classifiers: Classifiers,
    upload: dict[str, Any],
    text_file: dict[str, Any],
    fail: Callable[[Exception], None],
) -> None:
    threads: list[int] = []

    def on_gpu(compute: Any) -> Any:
        def call(*arguments: Any) -> Any:
            threads.append(threading.get_ident())
            return pickle.loads(pickle.dumps(compute(*arguments)))

        return call

    lent = Lent(classifiers, on_gpu, device="cpu")
    with pytest.raises(ImageError):
        lent.predict("breed", text_file["path"], 5)
    assert threads == []  # which cost nobody's quota
    fail(NotACheckpoint("NaN"))
    with pytest.raises(NotACheckpoint):
        lent.predict("breed", upload["path"], 5)
    assert threads == [threading.get_ident()]


def test_a_gpu_is_borrowed_on_zero_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    assert lent_gpu() is None
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")

    def gpu(duration: int) -> Any:
        asked.append(duration)
        return id

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))
    assert lent_gpu() is id
    assert asked == [GPU_SECONDS]
    monkeypatch.setitem(sys.modules, "spaces", None)
    assert on_lent_gpu()
    assert lent_gpu() is None


# --- loading


def test_two_visitors_wait_for_one_load(breed: Classifier) -> None:
    loads: list[str] = []
    begun, finish = threading.Event(), threading.Event()

    def load(task: str) -> Classifier:
        loads.append(task)
        begun.set()
        finish.wait(240)
        return breed

    classifiers = Classifiers(load, ONE_TASK)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(classifiers.get, "breed") for _ in range(4)]
        begun.wait(240)
        assert not classifiers.is_ready("breed")
        finish.set()
        assert {id(future.result(240)) for future in found} == {id(breed)}
    assert loads == ["breed"]


def test_a_load_that_does_not_end_keeps_nobody_else_waiting(breed: Classifier) -> None:
    loads: list[str] = []
    finish = threading.Event()

    def load(task: str) -> Classifier:
        loads.append(task)
        if task == "breed":
            finish.wait(5)
        return breed

    classifiers = Classifiers(load, {**ONE_TASK, "artist": new_task("artist")})
    for _ in range(2):
        with pytest.raises(Busy, match="still being loaded; please try again in a minute"):
            classifiers.get("breed", 0.01)
    assert classifiers.get("artist") is breed
    assert loads == ["breed", "artist"]
    finish.set()
    assert classifiers.get("breed") is breed


def test_a_failed_load_is_tried_again(breed: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    failures = [CheckpointNotFound("Not yet.")]

    def load(task: str) -> Classifier:
        if failures:
            raise failures.pop()
        return breed

    classifiers = Classifiers(load, ONE_TASK)
    with caplog.at_level(logging.ERROR):
        classifiers.warm_up()
    assert "Not yet." in caplog.text
    assert not classifiers.is_ready("breed")
    classifiers.warm_up()
    assert classifiers.is_ready("breed")


def test_warming_up_draws_the_figure_that_the_first_heatmaps_come_with(breed: Classifier) -> None:
    fresh = copy(breed)
    vars(fresh).pop("architecture", None)
    Classifiers(lambda task: fresh, ONE_TASK).warm_up()
    assert vars(fresh)["architecture"] == breed.architecture


def test_a_fallback_is_replaced_and_what_was_meant_to_serve_is_not() -> None:
    loads: list[Any] = [SimpleNamespace(notice=None), SimpleNamespace(notice="The bundled weights answer.")]
    classifiers = Classifiers(lambda task: loads.pop(), ONE_TASK)
    classifiers.replace_fallback("breed")  # nothing is loaded yet
    assert classifiers.notice("breed") is None
    classifiers.get("breed")
    assert classifiers.notice("breed") == "The bundled weights answer."
    reload(classifiers, "breed")
    assert classifiers.notice("breed") is None
    assert classifiers.replace_fallback("breed") is None  # would find nothing to load


def reload(classifiers: Classifiers, task: str) -> None:
    done = classifiers.replace_fallback(task)
    assert done
    done.result(10)


def test_any_number_of_visitors_reload_once_a_minute_while_the_old_model_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go, loads = threading.Event(), 0

    def load(task: str) -> Any:
        nonlocal loads
        loads += 1
        assert loads == 1 or go.wait(10)
        return SimpleNamespace(notice=f"Fallback {loads} answers.")

    classifiers = Classifiers(load, ONE_TASK)
    classifiers.get("breed")
    done = classifiers.replace_fallback("breed")
    assert done
    assert not done.done()  # it goes on in a thread of its own
    assert [classifiers.replace_fallback("breed") for _ in range(16)] == [None] * 16
    assert classifiers.get("breed").notice == "Fallback 1 answers."
    go.set()
    done.result(10)
    assert classifiers.notice("breed") == "Fallback 2 answers."
    assert classifiers.replace_fallback("breed") is None
    monkeypatch.setattr("pawmatch.ui.inference.RETRY_SECONDS", 0)  # a minute later
    reload(classifiers, "breed")
    assert loads == 3

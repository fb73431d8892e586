"""Classifier: images in, predictions out."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pawmatch import load
from pawmatch.calibration import Calibration, LabelGroup, OutsideRule, ScopeGate, UnknownRule
from pawmatch.calibration.facts import given_facts
from pawmatch.checkpoint import load_checkpoint
from pawmatch.checkpoint.backbone import default_backbone, imagenet_names
from pawmatch.classifier import BATCH_SIZE, Classifier, ModelOutputs
from pawmatch.errors import (
    BadOption,
    BrokenImage,
    ImageNotFound,
    KeyMismatch,
    NotACheckpoint,
    PawMatchError,
    UnknownTask,
)
from pawmatch.images import Box
from pawmatch.models import VARIANTS
from pawmatch.results import Prediction, SubjectBox
from pawmatch.subjects import Subject

KEYS = [
    *("task", "model", "verdict", "predictions", "review", "candidates_90", "group", "looks_like", "boxes"),
    *("variants", "facts", "question", "timing_ms", "warnings"),
]


@pytest.fixture(scope="module", params=["breed", "artist"])
def classifier(request: pytest.FixtureRequest, tiny_checkpoints: Callable[..., Path]) -> Classifier:
    return load(request.param, tiny_checkpoints(request.param))


def test_facts_move_the_answer_and_can_be_taken_back(classifier: Classifier, photo: Image.Image) -> None:
    plain = classifier.predict(photo)
    asked = plain.question
    assert asked is not None
    before = {one.label: one.confidence for one in plain.predictions}
    for choice in asked.choices:
        given = classifier.predict(photo, facts={asked.attribute: choice.value})
        assert [(fact.attribute, fact.value) for fact in given.facts] == [(asked.attribute, choice.value)]
        assert given.question is None or given.question.attribute != asked.attribute
        (table,) = [one for one in classifier.table if one.key == asked.attribute]
        row = table.likelihood[asked.choices.index(choice)]
        places = [classifier.labels.index(label) for label in before]
        expected = dict(zip(before, np.array(list(before.values())) * row[places], strict=True))
        ratio = {
            one.label: one.confidence / expected[one.label]
            for one in given.predictions
            if one.label in before
        }
        np.testing.assert_allclose(list(ratio.values()), ratio[given.top.label])
    unsure = classifier.predict(photo, facts={asked.attribute: "unsure"})
    assert unsure.predictions == plain.predictions
    assert unsure.question is None or unsure.question.attribute != asked.attribute
    back = classifier.predict(photo, facts={})
    assert replace(back, timing_ms={}) == replace(plain, timing_ms={})
    with pytest.raises(BadOption, match="'wings' is unknown"):
        classifier.predict(photo, facts={"wings": "two"})


def test_who_has_begun_is_asked_on(classifier: Classifier, photo: Image.Image) -> None:
    (outputs,) = classifier.run_models([classifier.prepare(photo)])
    main, count = classifier.main.variant, len(classifier.labels)
    fair = np.full(count, 0.3 / (count - 1))
    fair[0] = 0.7
    logits = np.log(fair).astype(np.float32)
    same = dict.fromkeys(outputs.logits, logits)  # the variants agree
    outputs = replace(outputs, probabilities={main: fair}, logits=same)
    plain = classifier.to_prediction(outputs)
    assert (plain.review.needed, plain.question) == (False, None)
    key = classifier.table[0].key
    begun = classifier.to_prediction(outputs, facts=given_facts(classifier.table, {key: "unsure"}))
    assert not begun.review.needed
    assert begun.question is not None


def test_a_sure_answer_is_not_asked_about_and_stands_against_a_wrong_fact(
    classifier: Classifier, photo: Image.Image
) -> None:
    (outputs,) = classifier.run_models([classifier.prepare(photo)])
    main, count = classifier.main.variant, len(classifier.labels)
    sure = np.full(count, 0.03 / (count - 1))
    sure[0] = 0.97
    outputs = replace(outputs, probabilities={main: sure}, logits={main: np.log(sure).astype(np.float32)})
    prediction = classifier.to_prediction(outputs)
    assert (prediction.verdict.code, prediction.question) == ("answer", None)
    for attribute in classifier.table:
        for choice in attribute.choices:
            told = given_facts(classifier.table, {attribute.key: choice.value})
            assert classifier.to_prediction(outputs, facts=told).top.label == classifier.labels[0]


def test_prediction_has_the_documented_shape(classifier: Classifier, photo: Image.Image) -> None:
    result = classifier.predict(photo, top_k=3).to_dict()
    assert list(result) == KEYS
    assert result["task"] == classifier.task.name
    assert result["model"]["variant"] == classifier.variants[-1]
    assert result["model"]["classes"] == len(classifier.labels)
    assert [list(entry) for entry in result["predictions"]] == [["label", "name", "confidence"]] * 3
    assert [entry["variant"] for entry in result["variants"]] == list(VARIANTS)
    assert set(result["timing_ms"]) == {"decode", "features", "head"}
    assert set(result["review"]) == {"needed", "reasons", "threshold"}


def test_confidences_are_sorted_and_not_renormalised(classifier: Classifier, photo: Image.Image) -> None:
    everything = classifier.predict(photo, top_k=len(classifier.labels)).predictions
    confidences = [candidate.confidence for candidate in everything]
    assert confidences == sorted(confidences, reverse=True)
    assert sum(confidences) == pytest.approx(1)
    assert [c.label for c in everything[:2]] == [c.label for c in classifier.predict(photo, 2).predictions]
    assert classifier.predict(photo, 2).predictions[0].confidence == pytest.approx(confidences[0])


def test_answer_comes_from_the_main_variant(classifier: Classifier, photo: Image.Image) -> None:
    prediction = classifier.predict(photo)
    main = next(a for a in prediction.variants if a.variant == classifier.main.variant)
    assert (main.label, main.confidence) == (prediction.top.label, prediction.top.confidence)


def test_path_bytes_and_image_give_the_same(
    classifier: Classifier, photo: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    photo.save(path)
    answers = {
        tuple(classifier.predict(source).predictions)
        for source in (path, str(path), path.read_bytes(), photo)
    }
    assert len(answers) == 1


def test_batch_keeps_order_and_goes_on_after_a_failure(classifier: Classifier, photo: Image.Image) -> None:
    images = [photo.rotate(10 * i) for i in range(BATCH_SIZE + 3)]
    mixed: list[Image.Image | bytes] = [*images[:2], b"no picture", *images[2:]]
    results = list(classifier.predict_batch(mixed))
    assert isinstance(results[2], PawMatchError)
    predictions = [result for result in results if isinstance(result, Prediction)]
    assert len(predictions) == len(images)
    for image, batched in zip(images, predictions, strict=True):
        alone = classifier.predict(image)
        assert batched.top.label == alone.top.label
        assert batched.top.confidence == pytest.approx(alone.top.confidence, abs=1e-5)


def test_batch_is_lazy(classifier: Classifier, photo: Image.Image) -> None:
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield photo

    next(classifier.predict_batch(endless()))  # type: ignore[arg-type]
    assert taken == BATCH_SIZE


def test_bad_input_is_named(classifier: Classifier, photo: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound):
        classifier.predict(tmp_path / "gone.jpg")
    photo.save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    with pytest.raises(BrokenImage):
        classifier.predict(data[: len(data) // 2])
    assert len(classifier.predict(photo, top_k=99).predictions) == len(classifier.labels)
    for top_k in (0, -1, True, 2.5):
        with pytest.raises(BadOption, match="top_k"):
            classifier.predict(photo, top_k=top_k)  # type: ignore[arg-type]


def test_a_source_may_hold_one_variant(tiny_checkpoints: Callable[..., Path], photo: Image.Image) -> None:
    classifier = load("breed", tiny_checkpoints("breed") / "cnn")
    prediction = classifier.predict(photo)
    assert classifier.variants == ("cnn",)
    assert prediction.model.variant == "cnn"
    assert len(prediction.variants) == 1


def test_unknown_task_device_and_engine_are_named(tiny_checkpoints: Callable[..., Path]) -> None:
    source = tiny_checkpoints("breed")
    with pytest.raises(UnknownTask, match="cats"):
        load("cats")
    with pytest.raises(NotACheckpoint, match="is for the task breed, not cats"):
        load("cats", source)
    with pytest.raises(BadOption, match="abacus"):
        load("breed", source, device="abacus")
    with pytest.raises(BadOption, match="warp"):
        load("breed", source, engine="warp")


@pytest.mark.parametrize("where", ["stem", "classifier"])
def test_numbers_that_overflow_are_an_error_and_never_an_answer(
    where: str, tiny_checkpoints: Callable[..., Path], photo: Image.Image
) -> None:
    classifier = load("artist", tiny_checkpoints("artist") / "cnn", engine="torch")
    module = classifier.main.model.get_submodule(where)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(torch.finfo(torch.float32).max)  # finite itself, as in a file that passes
    with pytest.raises(NotACheckpoint, match="computes NaN or infinity; train it again"):
        classifier.predict(photo)
    with pytest.raises(NotACheckpoint, match="computes NaN or infinity"):
        classifier.explain(photo)


def test_variants_must_share_their_labels(tiny_checkpoints: Callable[..., Path]) -> None:
    checkpoints = [
        load_checkpoint(tiny_checkpoints("breed") / "cnn"),
        load_checkpoint(tiny_checkpoints("artist") / "cnn_transformer"),
    ]
    with pytest.raises(KeyMismatch, match="different labels"):
        Classifier("breed", checkpoints)


def examined(classifier: Classifier, image: Image.Image) -> ModelOutputs:
    found = next(classifier.run_batches([image]))
    assert isinstance(found, ModelOutputs)
    return found


def test_logits_are_averaged_over_the_views(
    tiny_checkpoints: Callable[..., Path], photo: Image.Image, tmp_path: Path
) -> None:
    plain = load("breed", tiny_checkpoints("breed"))
    folder = Path(shutil.copytree(tiny_checkpoints("breed"), tmp_path / "breed"))
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text())
        config["input"]["views"] = ["plain", "mirror"]
        path.write_text(json.dumps(config))
    both = load("breed", folder)
    turned = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    one, other = examined(plain, photo), examined(plain, turned)
    mean = examined(both, photo)
    for variant in both.variants:
        expected = (one.logits[variant] + other.logits[variant]) / 2
        np.testing.assert_allclose(mean.logits[variant], expected, atol=1e-5)
        np.testing.assert_allclose(
            mean.pooled[variant], (one.pooled[variant] + other.pooled[variant]) / 2, atol=1e-5
        )
        # The heatmap's map is the plain view's own.
        torch.testing.assert_close(mean.feature_maps[variant], one.feature_maps[variant], rtol=0, atol=1e-5)


def test_an_image_does_not_keep_the_map_of_its_batch(classifier: Classifier, photo: Image.Image) -> None:
    first, *_ = classifier.run_models([classifier.prepare(photo)] * 4)
    for feature_map in first.feature_maps.values():
        assert feature_map.untyped_storage().nbytes() == feature_map.nbytes


def test_threads_get_their_lone_answers(classifier: Classifier, photo: Image.Image) -> None:
    from concurrent.futures import ThreadPoolExecutor

    images = [photo.rotate(15 * i) for i in range(6)]
    alone = [classifier.predict(image).predictions for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            together = list(pool.map(lambda image: classifier.predict(image).predictions, images))
            assert together == alone


def test_a_feature_extractor_that_variants_share_runs_once(
    tiny_checkpoints: Callable[..., Path], photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = [load_checkpoint(tiny_checkpoints("breed") / v) for v in ("cnn", "cnn_transformer")]
    apart = [Classifier("breed", [checkpoint]).predict(photo) for checkpoint in checkpoints]
    grouped = Classifier("breed", checkpoints)
    runs = []
    (engine,) = {id(member.engine): member.engine for member in grouped.members.values()}.values()
    features = engine.features

    def counted(images: torch.Tensor) -> torch.Tensor:
        runs.append(1)
        return features(images)

    monkeypatch.setattr(engine, "features", counted)
    together = grouped.predict(photo)
    assert len(runs) == 1
    assert np.allclose([a.confidence for a in together.variants], [a.variants[0].confidence for a in apart])


def with_calibration(classifier: Classifier, **changes: Any) -> Classifier:
    """The same classifier whose main variant has a calibration of our own."""
    members = {
        variant: replace(
            member.checkpoint,
            config=replace(
                member.checkpoint.config, calibration=Calibration(review_threshold=0.0, **changes)
            ),
        )
        for variant, member in classifier.members.items()
    }
    return Classifier(classifier.task.name, list(members.values()))


def test_an_unknown_class_gets_no_answer(classifier: Classifier, photo: Image.Image) -> None:
    offsets = (0.0,) * len(classifier.labels)
    rule = UnknownRule((0.0, 0.0, 0.0), 1.0, offsets, 2.0, 3.0, "numbers")
    found = with_calibration(classifier, unknown=rule).predict(photo)
    assert found.verdict.code == "unknown"
    assert found.review.reasons[0].code == "unknown_class"
    doubtful = with_calibration(classifier, unknown=replace(rule, threshold=0.0)).predict(photo)
    assert doubtful.verdict.code == "answer"
    assert doubtful.review.reasons[0].code == "unknown_class"


def test_look_alikes_get_a_group(classifier: Classifier, photo: Image.Image) -> None:
    pair = classifier.predict(photo, 2).predictions
    labels = tuple(sorted(classifier.labels.index(candidate.label) for candidate in pair))
    quantile = 1 - pair[1].confidence * 0.999
    found = with_calibration(
        classifier,
        groups=(LabelGroup("look-alike", labels),),
        group_threshold=0.0,
        conformal_quantile=quantile,
        close_call_margin=1.0,
    ).predict(photo)
    assert found.verdict.code == "group"
    assert found.group is not None
    assert found.group.labels == tuple(candidate.label for candidate in pair)
    assert found.verdict.text.startswith("A look-alike: ")


def test_what_shows_another_subject_is_said_to_look_like_it(
    classifier: Classifier, photo: Image.Image
) -> None:
    rule = OutsideRule((151,), 0.5, "numbers")
    strict = with_calibration(classifier, outside=rule)
    seen = examined(strict, photo)
    assert (
        strict.to_prediction(seen).verdict.code == "answer"
    )  # no ImageNet head, so that the rule says nothing
    imagenet = np.zeros(1000, dtype=np.float32)
    imagenet[[281, 282]] = 0.7, 0.3
    found = strict.to_prediction(replace(seen, imagenet=imagenet))
    assert found.verdict.code == "outside"
    assert [one.name for one in found.looks_like] == ["tabby", "tiger cat"]
    assert found.verdict.text.endswith("this looks like a tabby")
    imagenet[[281, 151]] = 0.0, 0.7
    assert strict.to_prediction(replace(seen, imagenet=imagenet)).looks_like == ()


def test_what_a_picture_shows_instead_is_asked_of_a_bundled_backbone(
    classifier: Classifier, photo: Image.Image
) -> None:
    """Where the model's own has no ImageNet head, and only of a picture that is turned away."""
    width = len(examined(classifier, photo).pooled[classifier.main.variant])
    gate = ScopeGate((0.0,) * width, -1.0, 0.0, "numbers")
    default_backbone.cache_clear()
    assert (
        with_calibration(classifier, scope_gates=(replace(gate, bias=1.0),)).predict(photo).looks_like == ()
    )
    assert default_backbone.cache_info().misses == 0
    found = with_calibration(classifier, scope_gates=(gate,)).predict(photo)
    assert found.verdict.code == "outside"
    assert default_backbone.cache_info().misses == 1
    assert all(one.name in imagenet_names() for one in found.looks_like)


def test_a_subjects_box_is_given_in_pixels_of_the_photo(classifier: Classifier, photo: Image.Image) -> None:
    seen = examined(classifier, photo)
    assert classifier.to_prediction(seen).boxes == ()
    subject = Subject(Box(0.25, 0.5, 0.75, 1.0), 0.9)
    assert classifier.to_prediction(replace(seen, subject=subject)).boxes == (
        SubjectBox(60, 90, 120, 90, 0.9),
    )


def test_pictures_that_show_too_little_are_poor(classifier: Classifier, photo: Image.Image) -> None:
    shade = Image.linear_gradient("L").convert("RGB")
    blank = Image.new("RGB", (200, 200), "teal")
    pictures = {"out of focus": shade, "one color": blank, "small": photo.resize((30, 40))}
    for message, picture in pictures.items():
        found = classifier.predict(picture)
        assert found.verdict.code == "poor_image"
        assert message in found.review.reasons[0].message


def test_top_k_is_checked_at_the_call(classifier: Classifier) -> None:
    with pytest.raises(BadOption, match="top_k is 0"):
        classifier.predict_batch([], top_k=0)


def test_a_second_look_is_taken_only_where_the_first_leaves_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = load("breed", engine="torch")
    engine, seen = classifier.main.engine, list[int]()
    features = engine.features

    def counted(batch: torch.Tensor) -> torch.Tensor:
        seen.append(len(batch))
        return features(batch)

    monkeypatch.setattr(engine, "features", counted)
    photo = Path(__file__).parents[1] / "examples" / "golden_retriever.jpg"
    answers = {}
    for bound in (1e-6, 1.0):
        members = {
            variant: replace(
                member,
                checkpoint=replace(
                    member.checkpoint,
                    config=replace(member.checkpoint.config, input=replace(member.spec, focus_below=bound)),
                ),
            )
            for variant, member in classifier.members.items()
        }
        monkeypatch.setattr(classifier, "members", members)
        monkeypatch.setattr(classifier, "main", members[classifier.main.variant])
        monkeypatch.setattr(classifier, "specs", (classifier.main.spec,))
        seen.clear()
        answers[bound] = classifier.run_models([classifier.prepare(photo), classifier.prepare(photo)])[0]
        assert seen == ([2] if bound < 1 else [2, 2])
    sure, doubted = (answers[bound].logits["cnn"] for bound in (1e-6, 1.0))
    assert sure.argmax() == doubted.argmax()
    assert abs(sure - doubted).max() > 0.01
    assert not answers[1e-6].doubted
    # Each exit has a quantile of its own: here the first leaves one candidate, the second all.
    exits = with_calibration(classifier, conformal_quantile=0.0, second_look_quantile=1.0)
    assert len(exits.to_prediction(answers[1e-6]).candidates_90) == 1
    assert len(exits.to_prediction(answers[1.0]).candidates_90) == len(classifier.labels)


def test_an_adaptive_one_asks_the_other_variants_only_after_a_second_look() -> None:
    usual, adaptive = (load("breed", engine="torch", adaptive=chosen) for chosen in (False, True))
    examples = Path(__file__).parents[1] / "examples"
    doubtful, sure = examples / "west_highland_white_terrier.jpg", examples / "golden_retriever.jpg"
    photos = [sure, doubtful, sure, doubtful]
    asked = []
    for outputs, all_asked in zip(adaptive.run_batches(photos), usual.run_batches(photos), strict=True):
        assert isinstance(outputs, ModelOutputs)
        assert isinstance(all_asked, ModelOutputs)
        asked.append(list(outputs.logits))
        assert outputs.doubted == all_asked.doubted
        assert outputs.subject == all_asked.subject
        assert np.allclose(outputs.feature_maps["cnn"], all_asked.feature_maps["cnn"], atol=1e-5)
        for variant, logits in outputs.logits.items():
            assert np.allclose(logits, all_asked.logits[variant], atol=1e-4)
        answer, other = adaptive.to_prediction(outputs), usual.to_prediction(all_asked)
        assert [one.label for one in answer.predictions] == [one.label for one in other.predictions]
        assert answer.candidates_90 == other.candidates_90
        assert answer.verdict == other.verdict
        assert [one.variant for one in answer.variants] == asked[-1]
    assert asked == [["cnn"], list(VARIANTS), ["cnn"], list(VARIANTS)]
    assert list(adaptive.explain(sure).heatmaps) == list(VARIANTS)

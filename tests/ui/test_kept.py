"""What stays in memory of an answer: little, and enough to paint its heatmaps anew."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
from PIL import Image

from pawmatch.ui.handlers import EXAMPLES, Shown, keep
from tests.ui.pretend import make_explanation, make_prediction


def shown(photo: Image.Image) -> Shown:
    return Shown(replace(make_explanation(make_prediction(0.7)), photo=photo), photo)


def test_the_photo_comes_back_as_it_looked() -> None:
    with Image.open(EXAMPLES / "beagle.jpg") as file:
        photo = file.convert("RGB")
    kept = keep(shown(photo))
    again = kept.photo()
    assert (again.size, again.mode) == (photo.size, "RGB")
    assert np.abs(np.asarray(again, dtype=float) - np.asarray(photo, dtype=float)).mean() < 3
    assert (kept.name, set(kept.heatmaps)) == ("Border Collie", {"cnn", "cnn_transformer"})


def test_no_pixels_stay_even_after_the_photo_was_looked_at() -> None:
    with Image.open(EXAMPLES / "beagle.jpg") as file:
        photo = file.convert("RGB")
    kept = keep(shown(photo))
    kept.photo().load()
    assert len(pickle.dumps(kept)) < len(photo.tobytes()) / 5

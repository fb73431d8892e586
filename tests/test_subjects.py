"""Where a subject is found, and when a closer look follows."""

import numpy as np
import pytest

from pawmatch.images import Box
from pawmatch.subjects import MAX_SIDE, MIN_SIDE, find_subject, second_look

WHOLE = Box(0, 0, 1, 1)


def blob(rows: slice, columns: slice, grid: int = 10) -> np.ndarray:
    mass = np.zeros((grid, grid), dtype=np.float32)
    mass[rows, columns] = 0.9
    return mass


def test_the_box_covers_what_was_seen_and_little_else() -> None:
    subject = find_subject(blob(slice(2, 6), slice(5, 9)), WHOLE)
    assert subject is not None
    assert subject.score == pytest.approx(0.9)
    assert subject.box == pytest.approx((0.5, 0.2, 0.9, 0.6), abs=0.03)


def test_a_box_is_given_in_shares_of_the_picture_not_of_the_view() -> None:
    """The middle half of a picture, seen whole, is a box from 0.25 to 0.75."""
    subject = find_subject(blob(slice(0, 10), slice(0, 10)), Box(0.25, 0, 0.75, 1))
    assert subject is not None
    assert subject.box == pytest.approx((0.25, 0, 0.75, 1), abs=0.02)


def test_nothing_likely_is_no_subject() -> None:
    assert find_subject(np.full((7, 7), 0.29, dtype=np.float32), WHOLE) is None


def test_a_small_subject_is_looked_at_closer_and_lies_within() -> None:
    subject = find_subject(blob(slice(1, 3), slice(7, 9)), WHOLE)
    assert subject is not None
    box = second_look(subject, 400, 300)
    assert box is not None
    side = MIN_SIDE * 300
    assert ((box.right - box.left) * 400, (box.bottom - box.top) * 300) == pytest.approx((side, side))
    assert box.left <= subject.box.left
    assert box.right >= subject.box.right
    assert box.top >= 0
    assert box.right <= 1 + 1e-9


def test_a_large_subject_is_not_looked_at_again() -> None:
    subject = find_subject(blob(slice(0, 10), slice(0, 10)), WHOLE)
    assert subject is not None
    assert second_look(subject, 300, 300) is None
    assert MAX_SIDE < 1


@pytest.mark.parametrize("turned", [False, True])
def test_a_subject_that_the_square_cuts_off_is_looked_at_whole(turned: bool) -> None:
    mass = blob(slice(2, 8), slice(0, 10))  # as wide as the view
    view = Box(0.25, 0, 0.75, 1)
    shape = (400, 200)
    if turned:
        mass, view, shape = mass.T, Box(0, 0.25, 1, 0.75), (200, 400)
    subject = find_subject(mass, view)
    assert subject is not None
    assert subject.cut == pytest.approx(0.9 * 6 / 10)
    assert second_look(subject, *shape) == WHOLE
    # Where the picture ends with the view, nothing is cut off.
    uncut = find_subject(mass, WHOLE)
    assert uncut is not None
    assert uncut.cut == 0


def test_a_score_is_a_probability_though_a_sum_may_be_rounded_up() -> None:
    found = find_subject(np.full((7, 7), np.nextafter(np.float32(1), np.float32(2))), WHOLE)
    assert found is not None
    assert found.score == 1.0

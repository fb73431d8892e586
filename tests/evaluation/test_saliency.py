"""Maps of importance: enlarged, random, centred, ranked."""

import numpy as np

from pawmatch.evaluation.faithfulness import centre_map, enlarge, random_map, ranked


def test_enlarging_keeps_the_place() -> None:
    cam = np.zeros((4, 4), dtype=np.float32)
    cam[0, 3] = 1
    large = enlarge(cam, 64)
    assert large.shape == (64, 64)
    assert np.unravel_index(large.argmax(), large.shape)[0] < 16
    assert large[:16, 48:].sum() > 0.5 * large.sum()


def test_random_maps_are_as_smooth_as_heatmaps() -> None:
    rng = np.random.default_rng(0)
    one, other = random_map(rng, (4, 4), 64), random_map(rng, (4, 4), 64)
    assert not np.allclose(one, other)
    steps = np.abs(np.diff(one, axis=0)).max()
    assert steps < 0.1


def test_the_blob_is_in_the_middle() -> None:
    blob = centre_map(33)
    row, column = np.unravel_index(blob.argmax(), blob.shape)
    assert (int(row), int(column)) == (16, 16)
    np.testing.assert_allclose(blob, blob[::-1, ::-1])


def test_ranks_are_all_different_and_ties_follow_the_other_map() -> None:
    saliency = np.array([[0, 0], [5, 0]], dtype=np.float32)
    tie_break = np.array([[3, 1], [0, 2]], dtype=np.float32)
    assert ranked(saliency, tie_break).tolist() == [[0.5, 0], [0.75, 0.25]]
    noise = np.random.default_rng(0).random((16, 16), dtype=np.float32)
    many = ranked(np.zeros((16, 16), dtype=np.float32), noise)
    assert len(np.unique(many)) == 256
    assert 0 <= many.min() < many.max() < 1

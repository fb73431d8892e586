"""The minimum of a convex loss."""

import torch

from pawmatch.calibration.scope import minimise


def test_a_badly_scaled_bowl_is_solved_exactly() -> None:
    """Its axes differ ten-thousandfold, where plain gradient descent would crawl."""
    scales, centre = torch.tensor([1e-2, 1.0, 1e2]).double(), torch.tensor([3.0, -2.0, 0.5]).double()
    point = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    minimise(lambda: (scales * (point - centre).square()).sum(), [point])
    torch.testing.assert_close(point.detach(), centre, rtol=0, atol=1e-3)


def test_several_parameters_move_together() -> None:
    """Least squares of a line, its slope and intercept apart, against the closed form."""
    x = torch.tensor([0.0, 1.0, 2.0, 5.0]).double()
    y = torch.tensor([1.0, 2.0, 2.0, 4.0]).double()
    slope, intercept = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    minimise(lambda: (slope * x + intercept - y).square().mean(), [slope, intercept])
    design = torch.stack([x, torch.ones_like(x)], dim=1)
    expected = torch.linalg.lstsq(design, y[:, None]).solution.flatten()
    torch.testing.assert_close(torch.stack([slope, intercept]).detach(), expected, rtol=0, atol=1e-5)

"""Logistic regression, of which weights may be drawn towards values and kept from being negative."""

from __future__ import annotations

import numpy as np

from thermalreid_ros.reid.fusion import probability_of


def fit_log_odds(design: np.ndarray, true: np.ndarray, weight: np.ndarray, *, pull: np.ndarray, towards: np.ndarray,
                 positive: np.ndarray, start: np.ndarray, steps: int = 60) -> np.ndarray:
    """The weights (F,) of log-odds = design @ weights, float64.

    design: (N, F), a column of ones for the bias. true: bool (N,). weight: (N,), of the examples; their sum is that of
    the evidence. pull: (F,), how strongly weights are drawn to `towards` (F,), as that many examples do. positive:
    bool (F,), those that may not be negative. start: (F,), which has to be allowed. Newton's method, each step solving
    its quadratic under the constraint and shortened until the loss falls.
    """
    solution = np.array(start, np.float64)

    def loss(at: np.ndarray) -> float:
        z = design @ at
        return float(weight @ (np.logaddexp(0.0, z) - true * z) + 0.5 * pull @ (at - towards) ** 2)

    value = loss(solution)
    for _ in range(steps):
        p = probability_of(design @ solution)
        gradient = design.T @ (weight * (p - true)) + pull * (solution - towards)
        curvature = (design * (weight * np.maximum(p * (1.0 - p), 1e-9))[:, None]).T @ design + np.diag(pull)
        goal = _lowest(curvature, curvature @ solution - gradient, positive)
        step = 1.0
        while (new := loss(solution + step * (goal - solution))) > value and step > 1e-6:
            step *= 0.5
        moved = step * np.abs(goal - solution).max()
        solution, value = solution + step * (goal - solution), min(new, value)
        if moved < 1e-8:
            break
    return solution


def _lowest(curvature: np.ndarray, slope: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Where x @ curvature @ x / 2 - slope @ x is lowest with no x[positive] negative: by sets of entries held at 0, of
    which each round takes in those that would be negative, or lets go the one that would gain most."""
    held = np.zeros(len(slope), bool)
    for _ in range(4 * len(slope)):
        solution = np.zeros(len(slope))
        solution[~held] = np.linalg.solve(curvature[np.ix_(~held, ~held)], slope[~held])
        negative = positive & (solution < 0.0)
        if negative.any():
            held |= negative
            continue
        gain = np.where(held, slope - curvature @ solution, 0.0)
        if gain.max() <= 1e-9 * max(np.abs(slope).max(), 1.0):
            break
        held[int(np.argmax(gain))] = False
    return np.where(positive, np.maximum(solution, 0.0), solution)

"""Pictures of what localization did: a flight over the map, its errors over time, recall, and one frame's score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - after the choice of a backend without windows
from matplotlib.patches import Ellipse  # noqa: E402

from thermalreid_ros.evaluation.localization import FALSE_LOCK_M, FlightRun  # noqa: E402
from thermalreid_ros.evaluation.localization_drawing import (ESTIMATE, ODOMETRY, PRIOR, TRUTH,  # noqa: E402
                                                             VERDICT_COLOURS, covariance_ellipse, map_picture)
from thermalreid_ros.evaluation.pictures import save_plot  # noqa: E402
from thermalreid_ros.maps.classes import CLASS_COLOURS_RGB  # noqa: E402
from thermalreid_ros.maps.store import SemanticMap  # noqa: E402

_ELLIPSES = 40  # at most, of a track
_MARGIN_M = 140.0


def plot_track(path: Path, run: FlightRun, semantic_map: SemanticMap) -> None:
    true = np.array([outcome.true_m for outcome in run.outcomes])
    fixes = run.fixes
    places = np.vstack([true, run.odometry_m, run.prior_m[None], *[
        [[outcome.result.fix.x, outcome.result.fix.y]] for outcome in fixes]])
    low, high = places.min(axis=0) - _MARGIN_M, places.max(axis=0) + _MARGIN_M
    size, centre = high - low, 0.5 * (low + high)
    figure, axes = pyplot.subplots(figsize=(9, 9 * float(np.clip(size[1] / size[0], 0.5, 1.4))), layout="constrained")
    axes.imshow(map_picture(semantic_map, centre, tuple(size), max(size.max() / 1600.0, semantic_map.resolution_m)),
                extent=(low[0], high[0], low[1], high[1]), interpolation="nearest")
    axes.plot(*true.T, color=TRUTH, lw=3, label="truth")
    axes.plot(*run.odometry_m.T, color=ODOMETRY, lw=1.6, ls="--", label="odometry alone, begun at the true place")
    axes.plot(*run.prior_m, "x", color=PRIOR, ms=11, mew=2.5, label=f"rough prior, 1 sigma {run.prior_sigma_m:.0f} m")
    axes.add_patch(Ellipse(run.prior_m, 2 * run.prior_sigma_m, 2 * run.prior_sigma_m, fill=False, ec=PRIOR, ls=":"))
    for number, outcome in enumerate(fixes):
        fix = outcome.result.fix
        if number % -(-len(fixes) // _ELLIPSES) == 0:
            axes.add_patch(Ellipse((fix.x, fix.y), *covariance_ellipse(fix.covariance_m2)[:2],
                                   angle=covariance_ellipse(fix.covariance_m2)[2], fill=False, ec=ESTIMATE, lw=0.9))
    axes.plot([outcome.result.fix.x for outcome in fixes], [outcome.result.fix.y for outcome in fixes], ".",
              color=ESTIMATE, ms=4, label=f"{len(fixes)} fixes of {len(run.outcomes)} frames, 95 % ellipses")
    axes.plot(*true[0], "o", color=TRUTH, ms=9, label="start")
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="east, m", ylabel="north, m", aspect="equal",
             title=run.name)
    axes.legend(loc="best", fontsize=8, framealpha=0.9)
    _save(figure, path)


def plot_errors(path: Path, run: FlightRun) -> None:
    """East and north with the published 1 and 3 sigma about zero, the distance beside that of odometry alone, and the
    verdicts below."""
    seconds = np.array([outcome.seconds for outcome in run.outcomes])
    true = np.array([outcome.true_m for outcome in run.outcomes])
    error = np.array([[np.nan, np.nan] if o.error_m is None else o.error_m for o in run.outcomes])
    sigma = np.array([[np.nan, np.nan] if o.error_m is None else np.sqrt(np.diag(o.result.fix.covariance_m2))
                      for o in run.outcomes])
    figure, axes = pyplot.subplots(4, 1, figsize=(10, 8.5), sharex=True, layout="constrained",
                                   height_ratios=(3, 3, 3, 0.7))
    limit = max(np.nanpercentile(np.abs(np.concatenate([error, 3 * sigma])), 99), 5.0) * 1.15 if run.fixes else 10.0
    for axis, (row, name) in enumerate(zip(axes, ("east", "north"))):
        for factor, shade in ((3, 0.15), (1, 0.25)):
            row.fill_between(seconds, -factor * sigma[:, axis], factor * sigma[:, axis], color=ESTIMATE, alpha=shade,
                             lw=0, label=f"{factor} sigma")
        row.plot(seconds, error[:, axis], color=TRUTH, lw=1.3, marker=".", ms=3)
        row.set(ylabel=f"{name}, m", ylim=(-limit, limit))
    axes[0].legend(loc="upper left", ncols=2, fontsize=8)
    axes[0].set_title(f"{run.name}: error of the published fixes")
    axes[2].plot(seconds, np.hypot(*error.T), color=ESTIMATE, lw=1.3, marker=".", ms=3, label="fixes")
    axes[2].plot(seconds, np.hypot(*(run.odometry_m - true).T), color=ODOMETRY, ls="--", label="odometry alone")
    spread = np.array([outcome.result.spread_m for outcome in run.outcomes], np.float64)
    axes[2].plot(seconds, spread, color="#999999", lw=1, label="spread of the filter")
    axes[2].axhline(FALSE_LOCK_M, color="#999999", lw=0.8, ls=":")
    axes[2].set(ylabel="distance, m", yscale="log")
    axes[2].set_ylim(bottom=0.3)
    axes[2].legend(loc="upper right", ncols=3, fontsize=8)
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    for verdict, colour in VERDICT_COLOURS.items():
        at = [outcome.seconds for outcome in run.outcomes if outcome.result.verdict is verdict]
        if at:
            axes[3].bar(at, 1.0, step, color=colour, label=verdict.value)
    axes[3].set(yticks=[], ylim=(0, 1), xlabel="seconds", xlim=(seconds[0] - step, seconds[-1] + step))
    axes[3].legend(loc="upper center", bbox_to_anchor=(0.5, -0.9), ncols=8, fontsize=8, frameon=False)
    _save(figure, path)


def plot_recall(path: Path, errors_m: Mapping[str, tuple[Sequence[float], int]]) -> None:
    """errors_m: of each method, the errors and the number of frames asked (those without an answer count as missed)."""
    figure, axes = pyplot.subplots(figsize=(7, 4.6), layout="constrained")
    for name, (errors, count) in errors_m.items():
        errors = np.sort(np.asarray(errors, np.float64))
        share = np.arange(1, len(errors) + 1) / max(count, 1)
        axes.step(np.concatenate([[0.5], errors, [400.0]]), np.concatenate([[0.0], share, share[-1:]]) if len(errors)
                  else np.zeros(2 + len(errors)), where="post", label=f"{name} (n = {count})")
    for radius_m in (10.0, 25.0):
        axes.axvline(radius_m, color="#bbbbbb", lw=0.8, zorder=0)
    axes.set(xscale="log", xlim=(1.0, 400.0), ylim=(0, 1.01), xlabel="radius, m", ylabel="share of frames within it")
    axes.set_xticks([1, 2, 5, 10, 25, 50, 100, 200], ["1", "2", "5", "10", "25", "50", "100", "200"])
    axes.minorticks_off()
    axes.legend(fontsize=8, loc="best")
    _save(figure, path)


def plot_ambiguity(path: Path, score: np.ndarray, extent: tuple[float, float, float, float], true_m: np.ndarray,
                   best_m: np.ndarray, frame: np.ndarray, labels: np.ndarray, title: str) -> None:
    """One frame, its labelling, and how well it fits at each place of the camera.

    score: (h, w), row 0 north, higher fits better. extent: west, east, south, north. labels: uint8 (h, w).
    """
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 5), layout="constrained", width_ratios=(1, 1, 1.1))
    table = np.zeros((256, 3), np.uint8)
    table[:len(CLASS_COLOURS_RGB)] = CLASS_COLOURS_RGB
    axes[0].imshow(frame, cmap="gray")
    axes[1].imshow(table[labels])
    for axis, name in zip(axes, ("frame", "labelling")):
        axis.set(xticks=[], yticks=[], title=name)
    finite = score[np.isfinite(score)]
    shown = axes[2].imshow(score, extent=extent, cmap="magma", vmin=np.percentile(finite, 40), vmax=finite.max())
    axes[2].plot(*true_m, "o", mfc="none", mec="#39d0ff", ms=13, mew=2, label="truth")
    axes[2].plot(*best_m, "x", color="#ffffff", ms=9, mew=2, label="best fit")
    axes[2].set(title=title, xlabel="east, m", ylabel="north, m")
    axes[2].legend(loc="lower left", fontsize=8)
    figure.colorbar(shown, ax=axes[2], label="score, nats a point")
    _save(figure, path)


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_plot(path, figure, dpi=110)
    pyplot.close(figure)

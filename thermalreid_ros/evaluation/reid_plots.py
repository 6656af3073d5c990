"""Pictures of re-identification: CMC and open-set curves, what probabilities are worth, and ranked galleries."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - after the choice of a backend without windows

from thermalreid_ros.camera.crops import MARGIN, square_crop  # noqa: E402
from thermalreid_ros.evaluation.reid import Distance, Gallery, Outcome, Ranked  # noqa: E402
from thermalreid_ros.evaluation.reid_figures import FALSE_ALARMS, Measured  # noqa: E402
from thermalreid_ros.evaluation.reid_open_set import open_set_curve  # noqa: E402
from thermalreid_ros.evaluation.reid_terms import SetTerms  # noqa: E402
from thermalreid_ros.files import write_atomically  # noqa: E402
from thermalreid_ros.synthesis import ProbeSynthesizer  # noqa: E402

_CURVE_RANKS = 20
_SHOWN = 8
_CELL_PX = 72
_RATES = np.geomspace(2e-3, 1.0, 60)
_COLOURS = {"fused": "C3", "cross_modal_embedding": "C0", "thermal_signature": "C1", "vrai": "C2", "bot_bs": "C4",
            "vrai_retrained": "C2", "bot_bs_retrained": "C4"}


def plot_curves(path: Path, measured: Measured) -> None:
    """CMC in mixed and same-class galleries, detection and identification over false alarms, and reliability."""
    figure, axes = pyplot.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
    ranks = np.arange(1, _CURVE_RANKS + 1)
    for axis, part, figures in ((axes[0], "mixed", measured.figures), (axes[1], "same_class",
                                                                       measured.figures["same_class"])):
        for name, outcome in measured.outcomes.items():
            ranked: Ranked = getattr(outcome, part)
            axis.plot(ranks, ranked.curve(_CURVE_RANKS), label=name.replace("_", " "), **_style(name))
        sizes = figures["gallery_size"]
        axis.plot(ranks, np.minimum(ranks / sizes, 1.0), color="#888888", ls=":", label="guessing")
        axis.set(title=f"{part.replace('_', ' ')} gallery of {sizes:.0f}", xlabel="rank", ylabel="CMC", ylim=(0, 1),
                 xlim=(1, _CURVE_RANKS), xticks=(1, 5, 10, 15, 20))
    for name, outcome in measured.outcomes.items():
        axes[2].plot(_RATES, open_set_curve(outcome.searches, _RATES), **_style(name))
    axes[2].axvline(FALSE_ALARMS, color="#bbbbbb", lw=0.8, zorder=0)
    axes[2].set(title="open set", xscale="log", xlabel="false alarms", ylabel="detected and identified", ylim=(0, 1))
    share, mean, right = measured.reliability.T
    used = share > 0
    axes[3].plot((0, 1), (0, 1), color="#bbbbbb", lw=0.8)
    axes[3].plot(mean[used], right[used], "o-", color=_COLOURS["fused"], ms=4)
    axes[3].set(title="fused: the best candidate", xlabel="probability said", ylabel="share right", xlim=(0, 1),
                ylim=(0, 1))
    axes[0].legend(fontsize=7, loc="upper left")
    _save(figure, path)


def _style(name: str) -> dict:
    return {"color": _COLOURS.get(name), "lw": 2.2 if name == "fused" else 1.3,
            "ls": "-" if name == "fused" or not name.startswith(("vrai", "bot")) else
            "--" if name.endswith("retrained") else "-."}


def plot_ranked(path: Path, terms: SetTerms, measured: Measured, synthesizer: ProbeSynthesizer, rows: int = 3) -> None:
    """The best and the worst cases of fused in the first draw: photograph, its likeliest thermal probe at the true
    candidate's hour, the first candidates and, where it is not among them, the true one."""
    outcome, galleries = measured.outcomes["fused"], measured.galleries[0]
    chosen = choose_cases(outcome, galleries, [picture.class_name for picture in terms.photographs], rows)
    columns = _SHOWN + 3
    figure, axes = pyplot.subplots(len(chosen), columns, figsize=(columns * 0.92, len(chosen) * 1.12 + 0.3),
                                   layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, (number, gallery) in zip(axes, chosen):
        _draw_case(row, terms, gallery, measured.distances["fused"], synthesizer)
        row[0].set_title(f"rank {outcome.mixed.ranks[0][number]} of {len(gallery.label)}", fontsize=7, pad=2)
    axes[0][1].set_title("made thermal", fontsize=7, pad=2)
    _save(figure, path, quality=70)


def choose_cases(outcome: Outcome, galleries: Sequence[Gallery], classes: Sequence[str],
                 rows: int) -> list[tuple[int, Gallery]]:
    """(number within the draw, gallery) of the searches won and lost by most, each of another identity's class as far
    as there are classes."""
    count = len(galleries)
    margin = outcome.searches.true[:count] - outcome.searches.best_other[:count]
    found: list[int] = []
    for order in (np.argsort(-margin), np.argsort(margin)):
        taken: list[int] = []
        for again in (False, True):  # a class comes twice where there are too few
            for number in order:
                kinds = [classes[galleries[k].photograph] for k in taken]
                if len(taken) < rows and number not in (*found, *taken) and (
                        again or classes[galleries[number].photograph] not in kinds):
                    taken.append(int(number))
        found += taken
    return [(number, galleries[number]) for number in found]


def _draw_case(row: Sequence, terms: SetTerms, gallery: Gallery, distance: Distance,
               synthesizer: ProbeSynthesizer) -> None:
    picture = terms.photographs[gallery.photograph]
    pixels = picture.photograph()
    own = terms.gallery[gallery.pictures[gallery.true, 0]]
    row[0].imshow(square_crop(pixels, picture.box, _CELL_PX))
    made = synthesizer.synthesize(pixels, own.conditions, box=picture.box, count=1, class_name=picture.class_name)
    distances = distance(gallery.photograph, gallery.pictures)
    order = np.argsort(distances, kind="stable")
    shown = list(order[:_SHOWN])
    if gallery.true not in shown:
        shown.append(gallery.true)
    row[1].imshow(square_crop(made.squares[0], (0, 0, *made.squares.shape[1:]), _CELL_PX, margin=1.0), cmap="inferno")
    for axis, candidate in zip(row[2:], shown):
        seen = terms.gallery[gallery.pictures[candidate, 0]]
        axis.imshow(square_crop(seen.thermal().values(), seen.box, _CELL_PX, MARGIN), cmap="inferno")
        rank = int(np.flatnonzero(order == candidate)[0]) + 1
        right = candidate == gallery.true
        axis.set_title(f"{rank}" + (" true" if right else ""), fontsize=7, pad=2, color="#1a9641" if right else "black")
        if right:
            axis.axis("on")
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(color="#1a9641", linewidth=3)


def _save(figure, path: Path, quality: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    if quality:
        figure.savefig(buffer, format="jpeg", dpi=88, pil_kwargs={"quality": quality})
    else:
        figure.savefig(buffer, format="png", dpi=80)
    pyplot.close(figure)
    write_atomically(path, buffer.getvalue())

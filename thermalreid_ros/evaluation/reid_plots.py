"""Pictures of re-identification: CMC and open-set curves, what probabilities are worth, and ranked galleries."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - after the choice of a backend without windows
from PIL import Image  # noqa: E402 - matplotlib's own requirement

from thermalreid_ros.camera.crops import MARGIN, square_crop  # noqa: E402
from thermalreid_ros.evaluation.reid import Distance, Gallery, Outcome, Ranked  # noqa: E402
from thermalreid_ros.evaluation.reid_figures import FALSE_ALARMS, Measured  # noqa: E402
from thermalreid_ros.evaluation.reid_open_set import open_set_curve  # noqa: E402
from thermalreid_ros.evaluation.reid_terms import SetTerms  # noqa: E402
from thermalreid_ros.files import write_atomically  # noqa: E402
from thermalreid_ros.synthesis import ProbeSynthesizer, SynthesisError  # noqa: E402

_CURVE_RANKS = 20
_SHOWN = 8
_CELL_PX, _GAP_PX, _TITLE_PX = 84, 8, 18
_MOST_BYTES = 78_000
_RIGHT = (26, 150, 65)
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
        axis.set(title=f"{part.replace('_', ' ')} gallery of {sizes:.0f}", xlabel="rank", ylabel="CMC", ylim=(0, None),
                 xlim=(1, _CURVE_RANKS), xticks=(1, 5, 10, 15, 20))
    for name, outcome in measured.outcomes.items():
        axes[2].plot(_RATES, open_set_curve(outcome.searches, _RATES), **_style(name))
    axes[2].axvline(FALSE_ALARMS, color="#bbbbbb", lw=0.8, zorder=0)
    axes[2].set(title="open set", xscale="log", xlabel="false alarms", ylabel="detected and identified",
                ylim=(0, None))
    share, mean, right = measured.reliability.T
    used = share > 0
    highest = max(1.1 * float(np.max([mean, right])), 0.1)
    axes[3].plot((0, highest), (0, highest), color="#bbbbbb", lw=0.8)
    axes[3].plot(mean[used], right[used], "o-", color=_COLOURS["fused"], ms=4)
    axes[3].set(title="fused: the best candidate", xlabel="probability said", ylabel="share right",
                xlim=(0, highest), ylim=(0, highest))
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
    width, height = (_SHOWN + 3) * (_CELL_PX + _GAP_PX) + _GAP_PX, _CELL_PX + _GAP_PX + _TITLE_PX
    sheet = np.full((len(chosen) * height + _GAP_PX, width, 3), 255, np.uint8)
    for number, (case, gallery) in enumerate(chosen):
        titles = f"rank {outcome.mixed.ranks[0][case]} of {len(gallery.label)}", "made thermal"
        cells = _case(terms, gallery, measured.distances["fused"], synthesizer, titles)
        for column, (pixels, title, right) in enumerate(cells):
            x, y = _GAP_PX + column * (_CELL_PX + _GAP_PX), number * height + _TITLE_PX
            if right:
                cv2.rectangle(sheet, (x - 3, y - 3), (x + _CELL_PX + 2, y + _CELL_PX + 2), _RIGHT, cv2.FILLED)
            sheet[y:y + _CELL_PX, x:x + _CELL_PX] = pixels
            cv2.putText(sheet, title, (x, y - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _RIGHT if right else (0, 0, 0), 1,
                        cv2.LINE_AA)
    for quality in (88, 78, 68, 55, 40):
        data = cv2.imencode(".jpg", sheet[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        if len(data) < _MOST_BYTES:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data.tobytes())


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


def _case(terms: SetTerms, gallery: Gallery, distance: Distance, synthesizer: ProbeSynthesizer,
          titles: Sequence[str]) -> list[tuple[np.ndarray, str, bool]]:
    """(pixels RGB, title, whether it is the true candidate) of each cell of a row. titles: of the first two."""
    picture = terms.photographs[gallery.photograph]
    pixels = picture.photograph()
    true = terms.gallery[gallery.pictures[gallery.true, 0]]
    cells = [(square_crop(pixels, picture.box, _CELL_PX), titles[0], False)]
    try:
        made = synthesizer.synthesize(pixels, true.conditions, box=picture.box, count=1, class_name=picture.class_name)
        whole = square_crop(made.squares[0], (0.0, 0.0, *made.squares.shape[1:]), _CELL_PX, margin=1.0)
        cells.append((_warm(whole), titles[1], False))
    except SynthesisError:
        cells.append((np.full((_CELL_PX, _CELL_PX, 3), 255, np.uint8), "none made", False))
    order = np.argsort(distance(gallery.photograph, gallery.pictures), kind="stable")
    shown = [*order[:_SHOWN], *([gallery.true] if gallery.true not in order[:_SHOWN] else [])]
    for candidate in shown:
        seen = terms.gallery[gallery.pictures[candidate, 0]]
        place = int(np.flatnonzero(order == candidate)[0]) + 1
        right = bool(candidate == gallery.true)
        cells.append((_warm(square_crop(seen.thermal().values(), seen.box, _CELL_PX, MARGIN)),
                      f"{place} true" if right else str(place), right))
    return cells


def _warm(celsius: np.ndarray) -> np.ndarray:
    """RGB, its coldest black, its warmest yellow."""
    low, high = float(celsius.min()), float(celsius.max())
    grey = np.uint8(255.0 * (celsius - low) / max(high - low, 1e-6))
    return cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]


def _save(figure, path: Path) -> None:
    """As a PNG of few colours, a quarter of the size of one of all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn, written = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80)
    pyplot.close(figure)
    Image.open(drawn).convert("RGB").quantize(32, dither=Image.Dither.NONE).save(written, "png", optimize=True)
    write_atomically(path, written.getvalue())

"""How long the searched object is by its photographs: kinds have their sizes, and photographs show the kind."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from thermalreid_ros.camera.crops import square_crop
from thermalreid_ros.engine import Engine, EngineError
from thermalreid_ros.reid.length import ERRORS, LENGTHS_M, ToldLength

TASK = "length"
_LEAST_TOLD = 0.02  # share of a class's variance: photographs that take away less of it say nothing


class LengthTeller:
    """Runs a model that tells lengths by photographs. One caller at a time.

    The model takes `pictures` float32 (N, 3, S, S), squares of crops.MARGIN around objects, RGB from 0 to 255, and
    returns `length` (N, C, 2): for each of the card's classes, were the object of it, ln of its longest side in metres
    and ln of the standard deviation of that. The card's `lengths` holds mean and spread of ln of the lengths of each
    class: what was known without the photograph.
    """

    def __init__(self, engine: Engine):
        card = engine.card
        if card.task != TASK:
            raise EngineError(f"model '{card.name}' does {card.task}, not {TASK}")
        self.engine, self._classes = engine, list(card.classes)
        self.size_px = card.tensor("pictures", 2).shape[-1]
        try:
            self._known = {name: (float(row["mean"]), float(row["spread"]))
                           for name, row in card.extra["lengths"].items()}
            if not all(math.isfinite(mean) and 0.0 < spread < math.inf for mean, spread in self._known.values()):
                raise ValueError("a spread that is not above 0")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(f"model '{card.name}': its card tells no lengths of classes ({error})") from None

    def close(self) -> None:
        """Give the model's memory back."""
        self.engine.close()

    def tell(self, photographs: Sequence[tuple[np.ndarray, Sequence[float]]], class_name: str) -> ToldLength | None:
        """Of photographs of one object, RGB pixels (H, W, 3) and box of each; None where its class is not known or they
        tell no more than the class does.

        What they tell is freed of what was known of the class, which who hears it knows, too (FusedModel.length_ratio).
        The errors of several photographs are one error: what makes them err is the object. Raises CropError and
        EngineError.
        """
        if class_name not in self._classes or class_name not in self._known or not photographs:
            return None
        squares = np.stack([square_crop(pixels, box, self.size_px) for pixels, box in photographs])
        squares = np.concatenate([squares, squares[:, :, ::-1]])
        pictures = np.ascontiguousarray(squares.transpose(0, 3, 1, 2), np.float32)
        said = self.engine.run({"pictures": pictures})["length"][:, self._classes.index(class_name)].mean(axis=0)
        return freed(float(said[0]), math.exp(float(said[1])), *self._known[class_name], class_name)


def freed(mean: float, sigma: float, class_mean: float, class_spread: float, class_name: str = "") -> ToldLength | None:
    """The measurement that, with a class's mean and spread known before, leaves mean and sigma; all of ln of metres.
    None where sigma is hardly less than the spread."""
    believed = 1.0 - (sigma / class_spread) ** 2  # share of the measurement in the mean
    if believed < _LEAST_TOLD:
        return None
    error = sigma / math.sqrt(believed)
    if error > ERRORS[1]:
        return None
    least, most = LENGTHS_M[class_name]
    metres = math.exp(class_mean + (mean - class_mean) / believed)
    return ToldLength(min(max(metres, least), most), max(error, ERRORS[0]))

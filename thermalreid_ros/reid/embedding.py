"""The cross-modal embedding in flight: photographs and thermal crops as unit vectors of one space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thermalreid_ros.camera.crops import square_crop
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.engine import Engine, EngineError

TASK = "embedding"
#: Probability from which on a class that `recognise` tells is believed: networks are surer than they are right, most of
#: all of pictures of nothing.
CERTAIN = 0.998
IN_FLIGHT = 8  # crops in one run: more are no faster on a processor, and what the largest run needs is kept for good


class Embedder:
    """Runs an embedding model. One caller at a time.

    The model takes `pictures` float32 (N, 3, S, S), squares of crops.MARGIN around objects, RGB from 0 to 255 or
    degrees Celsius thrice, and `thermal` float32 (N,), 1 for the latter, 0 for the former; it returns `embedding`
    (N, D), unit vectors whose distance is 1 - dot, and `classes` (N, C), probabilities of the card's classes.
    """

    def __init__(self, engine: Engine, batch: int = 32):
        if engine.card.task != TASK:
            raise EngineError(f"model '{engine.card.name}' does {engine.card.task}, not {TASK}")
        if engine.card.classes != CLASS_NAMES:  # whoever reads probabilities counts on their order
            raise EngineError(f"model '{engine.card.name}' tells {', '.join(engine.card.classes) or 'no classes'} "
                              f"apart; an embedding's classes are {', '.join(CLASS_NAMES)}")
        self.engine, self._batch = engine, batch
        self.size_px = engine.card.tensor("pictures", 2).shape[-1]

    @property
    def dimensions(self) -> int:
        """Of its descriptors."""
        return self.engine.card.tensor("embedding", 1).shape[-1]

    def warm_up(self) -> None:
        """Run the largest batch, so that memory is taken now and not in flight."""
        self.embed(np.zeros((self._batch, self.size_px, self.size_px), np.float32))

    def close(self) -> None:
        """Give the model's memory back."""
        self.engine.close()

    def thermal_squares(self, celsius: np.ndarray, boxes: Sequence[Sequence[float]]) -> np.ndarray:
        """float32 (N, S, S), the squares around boxes of a frame (H, W) in degrees Celsius. Raises CropError."""
        celsius = np.asarray(celsius, np.float32)
        squares = [square_crop(celsius, box, self.size_px) for box in boxes]
        return np.stack(squares) if squares else np.zeros((0, self.size_px, self.size_px), np.float32)

    def photograph_square(self, photograph: np.ndarray, box: Sequence[float]) -> np.ndarray:
        """uint8 (S, S, 3), the square around the object of a photograph (H, W, 3). Raises CropError."""
        return square_crop(photograph, box, self.size_px)

    def whole_squares(self, squares: np.ndarray) -> np.ndarray:
        """float32 (N, S, S), squares of another size, such as a synthesis makes, at the model's own."""
        whole = (0.0, 0.0, squares.shape[2], squares.shape[1])
        return np.stack([square_crop(square, whole, self.size_px, margin=1.0) for square in squares])

    def embed(self, crops: np.ndarray, mirrored: bool = False) -> np.ndarray:
        """float32 (N, D) of squares: uint8 (N, S, S, 3) RGB, or float32 (N, S, S) degrees Celsius.

        mirrored: the mean of each crop and its mirror image, for probes, which have the time. Raises EngineError where
        crops are of another kind or size, or not finite.
        """
        return self._run(crops, mirrored)[0]

    def describe(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(what `embed` gives, float32 (N, C), probabilities of the card's classes), of squares as it takes them."""
        return self._run(crops, False)

    def _run(self, crops: np.ndarray, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
        thermal = crops.ndim == 3
        size = (self.size_px, self.size_px)
        if crops.shape[1:] != (size if thermal else (*size, 3)) or crops.dtype != (np.float32 if thermal else np.uint8):
            raise EngineError(f"model '{self.engine.card.name}' embeds uint8 (N, {self.size_px}, {self.size_px}, 3) or "
                              f"float32 (N, {self.size_px}, {self.size_px}), not {crops.dtype} {list(crops.shape)}")
        if thermal and not np.isfinite(crops).all():
            raise EngineError("a thermal crop holds values that are not finite; repair dead pixels first")
        vectors, classes = [], []
        for first in range(0, len(crops), self._batch):
            part = crops[first:first + self._batch]
            pictures = np.repeat(part[:, None], 3, axis=1) if thermal else part.transpose(0, 3, 1, 2).astype(np.float32)
            if mirrored:
                pictures = np.concatenate([pictures, pictures[..., ::-1]])
            out = self.engine.run({"pictures": pictures, "thermal": np.full(len(pictures), thermal, np.float32)})
            vector, probability = out["embedding"], out["classes"]
            if mirrored:
                vector = 0.5 * (vector[:len(part)] + vector[len(part):])
                probability = probability[:len(part)]
            vectors.append(vector)
            classes.append(probability)
        if not vectors:
            return np.zeros((0, self.dimensions), np.float32), np.zeros((0, len(self.engine.card.classes)), np.float32)
        return np.concatenate(vectors), np.concatenate(classes)


def recognise(embedder: Embedder, photographs: Sequence[tuple[np.ndarray, Sequence[float]]]) -> tuple[str, float]:
    """(the class that photographs of one object most likely show, its probability), pixels and box of each. To be
    believed from CERTAIN on. Raises CropError and EngineError."""
    shown = np.stack([embedder.photograph_square(pixels, box) for pixels, box in photographs])
    probability = embedder.describe(np.concatenate([shown, shown[:, :, ::-1]]))[1].mean(axis=0)
    likeliest = int(probability.argmax())
    return embedder.engine.card.classes[likeliest], float(probability[likeliest])


def describe_probe(embedder: Embedder, photographs: Sequence[tuple[np.ndarray, Sequence[float]]],
                   squares: np.ndarray) -> np.ndarray:
    """float32 (P + K, D), descriptors of a probe: of its photographs, pixels and box of each, then of the K thermal
    squares that were made of them. Raises CropError and EngineError."""
    shown = np.stack([embedder.photograph_square(pixels, box) for pixels, box in photographs])
    return np.concatenate([embedder.embed(shown, mirrored=True), embedder.embed(embedder.whole_squares(squares))])

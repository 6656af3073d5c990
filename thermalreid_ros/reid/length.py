"""How long the searched object is, as somebody knows it: "a Golf, 4.3 m", "a child of ten", "a dachshund"."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thermalreid_ros.errors import ThermalReidError

#: Longest sides that there are, metres, by class: of a person the height, of a dog nose to tail. "" is any class.
LENGTHS_M = {"car": (2.0, 20.0), "person": (0.5, 2.3), "bicycle": (0.8, 3.0), "dog": (0.2, 2.0), "": (0.2, 20.0)}
#: Standard deviation of ln of a length by heart, as a share of it; and of one that may be believed at all.
USUAL_ERROR = 0.05
ERRORS = (0.005, 0.5)


class LengthError(ThermalReidError):
    """A length that no such object has."""


@dataclass(frozen=True)
class ToldLength:
    """metres: longest side of the object. error: standard deviation of its natural logarithm."""

    metres: float
    error: float = USUAL_ERROR

    @property
    def log(self) -> float:
        return math.log(self.metres)


def told_length(metres: float, error: float = USUAL_ERROR, class_name: str = "") -> ToldLength | None:
    """What parameters and messages say; None where metres is 0: not known. An error of 0 stands for the usual one.

    Raises LengthError for a length that no object of the class (of CLASS_NAMES, "" any) has, an unknown class, or an
    error out of ERRORS.
    """
    metres, error = round(float(metres), 6), round(float(error), 6) or USUAL_ERROR  # messages hold float32
    if metres == 0.0:
        return None
    if class_name not in LENGTHS_M:
        raise LengthError(f"a length of '{class_name}', a class that is unknown; use one of "
                          f"{', '.join(filter(None, LENGTHS_M))}, or nothing for any")
    least, most = LENGTHS_M[class_name]
    if not least <= metres <= most:
        raise LengthError(f"a length of {metres:g} m: {f'a {class_name}' if class_name else 'what is searched'} is "
                          f"{least:g} to {most:g} m long; give its longest side in metres, or 0 where it is not known")
    if not ERRORS[0] <= error <= ERRORS[1]:
        raise LengthError(f"an error of {error:g} of the length: give it as a share of the length, {ERRORS[0]:g} to "
                          f"{ERRORS[1]:g}")
    return ToldLength(metres, error)

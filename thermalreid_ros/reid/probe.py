"""The object to be found: thermal crops of it, from a file or a message, turned into signatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from thermalreid_ros.camera.pixels import decoded
from thermalreid_ros.camera.thermal import PLAUSIBLE_MEDIAN_C, Polarity, ThermalFrame, ThermalUnits
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.reid.fusion import pooled, probe_descriptor
from thermalreid_ros.reid.length import ToldLength
from thermalreid_ros.reid.signature import MIN_CROP_SIDE_PX, ThermalSignature, compute_signature, scale_for

_DTYPES = {ThermalUnits.AGC8: np.uint8, ThermalUnits.CELSIUS_F32: np.float32}
_UNIT_DTYPES = {units: _DTYPES.get(units, np.uint16)
                for units in ThermalUnits if units is not ThermalUnits.COUNTS}


class ProbeError(ThermalReidError):
    """A probe that cannot be used; the message names it, the fault and the remedy."""


@dataclass(frozen=True, eq=False)
class Probe:
    """One object to be found. class_name: "" is any class. signatures: one for each of its K crops.

    descriptors: float32 (P + K, D), of unit length at most, of the P photographs that the crops were made of, then of
    the crops; (0, 0) without. descriptor_model: name of the embedding that made them. length: None where nobody told
    it.
    """

    probe_id: str
    class_name: str
    signatures: tuple[ThermalSignature, ...]
    descriptors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    descriptor_model: str = ""
    length: ToldLength | None = None

    @property
    def photograph(self) -> np.ndarray | None:
        """float32 (D,), pooled of the photographs'; None where there are none."""
        rows = self.descriptors[:max(len(self.descriptors) - len(self.signatures), 0)]
        return pooled(rows) if len(rows) else None

    def descriptor(self, synthetic_share: float) -> np.ndarray | None:
        """float32 (D,), the mixture of photographs and crops that tracks are compared with; None without descriptors.

        synthetic_share: of the crops, 0 to 1, where there are photographs.
        """
        if not len(self.descriptors):
            return None
        photograph, crops = self.photograph, pooled(self.descriptors[-len(self.signatures):])
        return crops if photograph is None else probe_descriptor(photograph, crops, synthetic_share)


def make_probe(crops: Sequence[np.ndarray], units: ThermalUnits | str, probe_id: str, class_name: str = "", *,
               descriptors: np.ndarray | None = None, descriptor_model: str = "",
               length: ToldLength | None = None, polarity: Polarity | str = Polarity.WHITE_HOT) -> Probe:
    """Probe of K crops (h, w) that show the object alone, cut as a detector's box would cut it.

    units: of all the crops; their dtype must be that of the units (uint8 for agc8, float32 for celsius_f32,
    uint16 for centikelvin, decikelvin and optris). Raw counts have no scale that outlives one frame, and are
    refused. descriptors, descriptor_model, length: see Probe. polarity: of the camera that took crops in agc8.
    Raises ProbeError.
    """
    if class_name and class_name not in CLASS_NAMES:
        raise ProbeError(f"probe '{probe_id}': class '{class_name}' is unknown; "
                         f"use one of {', '.join(CLASS_NAMES)}, or nothing for any")
    if not crops:
        raise ProbeError(f"probe '{probe_id}': it holds no image; give one thermal crop or more")
    signatures = []
    for number, crop in enumerate(crops, 1):
        try:
            signatures.append(compute_signature(_values(crop, units, Polarity(polarity)), scale_for(units)))
        except ThermalReidError as error:
            raise ProbeError(f"probe '{probe_id}', image {number} of {len(crops)}: {error}") from None
    if descriptors is None or not descriptors.size:
        return Probe(probe_id, class_name, tuple(signatures), length=length)
    if descriptors.ndim != 2 or len(descriptors) < len(crops) or not np.isfinite(descriptors).all():
        raise ProbeError(f"probe '{probe_id}': descriptors of {list(descriptors.shape)} do not fit its {len(crops)} "
                         "image(s), or are not finite")
    return Probe(probe_id, class_name, tuple(signatures), np.asarray(descriptors, np.float32), descriptor_model, length)


def load_probe(path: str | Path, units: ThermalUnits | str, class_name: str = "",
               probe_id: str = "", *, length: ToldLength | None = None,
               polarity: Polarity | str = Polarity.WHITE_HOT) -> Probe:
    """Probe from one thermal crop in a file: 8 or 16 bit grey PNG or TIFF, float32 TIFF for celsius_f32.

    probe_id: the file's stem unless given. polarity: as in make_probe. Raises ProbeError.
    """
    path = Path(path)
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ProbeError(f"{path}: the probe cannot be read ({error.strerror}); "
                         f"give the path of a thermal crop") from None
    crop = decoded(data)
    if crop is None:
        raise ProbeError(f"{path}: this is no readable picture; give a PNG or TIFF with 8 or 16 bit grey")
    try:
        return make_probe([crop], units, probe_id or path.stem, class_name, length=length, polarity=polarity)
    except ProbeError as error:
        raise ProbeError(f"{path}: {error}") from None


def _values(crop: np.ndarray, units: ThermalUnits | str, polarity: Polarity) -> np.ndarray:
    try:
        units = ThermalUnits(units)
        dtype = np.dtype(_UNIT_DTYPES[units])
    except (ValueError, KeyError):
        raise ProbeError(f"units '{getattr(units, 'value', units)}' do not fit a probe; "
                         f"use one of {', '.join(unit.value for unit in _UNIT_DTYPES)}") from None
    if crop.ndim == 3 and crop.shape[2] == 3 and (crop[..., :1] == crop).all():
        crop = crop[..., 0]
    if crop.ndim != 2:
        raise ProbeError("a colour picture is no thermal crop; give a grey one")
    if crop.dtype != dtype:
        fitting = [unit.value for unit, other in _UNIT_DTYPES.items() if np.dtype(other) == crop.dtype]
        remedy = f"the units may be {' or '.join(fitting)}" if fitting else f"convert them to {dtype}"
        raise ProbeError(f"{crop.dtype} pixels are not '{units.value}'; {remedy}")
    if min(crop.shape) < MIN_CROP_SIDE_PX:
        raise ProbeError(f"a crop of {crop.shape[1]}x{crop.shape[0]} px is too small; "
                         f"it needs {MIN_CROP_SIDE_PX}x{MIN_CROP_SIDE_PX} px or more")
    frame = ThermalFrame(np.ascontiguousarray(crop), units, 0, "", polarity)
    if frame.is_radiometric:
        if np.isnan(frame.temperature_c()).mean() > 0.5:
            raise ProbeError("more than half of its pixels hold no temperature; check the units")
        median_c = float(np.median(frame.values()))
        if not PLAUSIBLE_MEDIAN_C[0] <= median_c <= PLAUSIBLE_MEDIAN_C[1]:
            raise ProbeError(f"units are probably wrong: a median of {median_c:.1f} C as '{units.value}'")
    return frame.values()

"""Frames and units: what a thermal camera delivers and what its numbers mean."""

from thermalreid_ros.camera.thermal import FrameError, Polarity, ThermalFrame, ThermalUnits, make_frame

__all__ = ["FrameError", "Polarity", "ThermalFrame", "ThermalUnits", "make_frame"]

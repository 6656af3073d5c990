"""The virtual city: a town of any map, seen in the visible and the thermal band, with every pixel known."""

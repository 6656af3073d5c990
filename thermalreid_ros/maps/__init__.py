"""Semantic maps: built from OpenStreetMap, read at any place, rotation and scale, cut into tiles."""

"""Where the camera is: labelling, tile distance, refinement, filter, and the map aligned with the frame."""

"""Re-identification: thermal signatures and their distance, tracks, the gallery and its ranking."""

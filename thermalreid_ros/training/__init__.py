"""Networks, losses, loops and export: the only room that imports torch, and never on the flight path."""

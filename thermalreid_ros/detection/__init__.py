"""Detection: what is in the thermal frame, and where (the paper's section 3.3)."""

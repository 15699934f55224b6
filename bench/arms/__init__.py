"""Ways of sending, with one interface (bench/arm.py)."""

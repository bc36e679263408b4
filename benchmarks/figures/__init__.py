"""The figures of `speed.py`, one module each: `SIZES` by profile, `measure`, `lines` of the table, `draw`."""

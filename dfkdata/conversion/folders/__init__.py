"""Finished conversions as a whole: compare two of them, merge several."""

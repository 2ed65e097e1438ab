"""One conversion from its input to its manifest."""

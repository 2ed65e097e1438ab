"""One conversion from its input to its manifest; `folders` compares and merges finished ones."""

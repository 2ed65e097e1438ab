"""What a row and a data set must keep: rules, grounding, leakage between splits, lengths."""

"""Numbers over finished runs: statistics, comparison, pooling, gates and exports."""

"""Ask every row, grade the answers, score them and write the run."""

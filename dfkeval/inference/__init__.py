"""Answers without gold: one, many, labelled by a teacher, or served."""

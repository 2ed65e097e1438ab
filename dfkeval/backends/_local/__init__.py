"""Helpers of the backends that run the model in this process."""

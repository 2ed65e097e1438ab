"""The answer loss and the KL term to the base model."""

"""How the built-in tiny model was made."""

"""The row: its record, the prompt it asks, the messages it is written as, and where it is handed on."""

"""Text to a typed value: tool calls, marked text, JSON and their schemas."""

"""Read what a model wrote as a typed value: tool calls, marked text and JSON."""

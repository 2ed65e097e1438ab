"""The platform that vLLM runs on."""

from types import SimpleNamespace

current_platform = SimpleNamespace(device_type="cuda")

"""What every process of `tests.helpers.processes` has imported: the trainer, without what it seldom uses."""

from dfkeval.models.light_import import light_transformers

light_transformers()

import accelerate  # noqa: E402, F401
import peft  # noqa: E402, F401
import safetensors.torch  # noqa: E402, F401
import transformers.trainer  # noqa: E402, F401

import dfktrain.training.run  # noqa: E402, F401

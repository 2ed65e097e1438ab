"""What comes before the first answer: the model and requests of the benchmark, and where a start's time goes."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import time
from pathlib import Path

import gpu_workload
import pieces


def questions(options: argparse.Namespace) -> None:
    """Build the model and the requests alone; `prepare` makes the rows of the training benchmark as well."""
    pieces.write_result(options.work, "questions", gpu_workload.questions(options.work, options.tiny))


def starts(options: argparse.Namespace) -> None:
    """Note when each part of a start is done, one after the other and without what runs beside it."""
    began, found = pieces.began(), {}

    def done(name: str) -> None:
        found[name] = round(time.time() - began, 1)

    done("python")
    import torch

    done("torch")
    from dfkeval.models.light_import import light_transformers

    light_transformers()
    done("transformers' generation")
    if importlib.util.find_spec("fla") is not None:
        importlib.import_module("fla.ops.gated_delta_rule")
    done("fla")
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForConditionalGeneration

    done("the model's module")
    from dfkdata.common.hashing import folder_sha256
    from dfkeval import backends  # noqa: F401
    from dfkeval.models.processor import load_processor
    from dfkeval.models.source import model_source

    done("dfkeval")
    base = gpu_workload.base_name(options.work, options.tiny)
    load_processor(base)
    done("processor")
    source = model_source(base)
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    done("the card")
    model = Qwen3_5ForConditionalGeneration.from_pretrained(source, dtype=torch.bfloat16)
    done("weights")
    if torch.cuda.is_available():
        model.to("cuda")
        torch.cuda.synchronize()
    done("weights on the card")
    folder_sha256(Path(source))
    done("hash of the weights")
    pieces.write_result(options.work, "starts", found)

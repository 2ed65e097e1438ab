"""A Qwen3-VL processor that needs no torchvision. Import it only where transformers may be loaded.

The library's class demands a video processor, which demands torchvision. The sub-processors of a
`ProcessorMixin` are read off the signature of `__init__`, so a subclass without `video_processor` loads and
works with Pillow alone. Where torchvision is there, `add_video` puts the model's video processor beside
it."""

from __future__ import annotations

from typing import Any

from transformers import AutoVideoProcessor, Qwen3VLProcessor
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available

IMAGE, VIDEO, START, END = "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"


class ImageTextProcessor(Qwen3VLProcessor):  # type: ignore[misc] # transformers is loaded untyped
    """`Qwen3VLProcessor` for images and text; `save_pretrained` names the library's class, so that others
    can load it."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **kwargs: Any
    ):
        self.image_token, self.video_token = IMAGE, VIDEO
        self.vision_start_token, self.vision_end_token = START, END
        ids = tokenizer.convert_tokens_to_ids([IMAGE, VIDEO, START, END])
        self.image_token_id, self.video_token_id, self.vision_start_token_id, self.vision_end_token_id = ids
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def to_dict(self) -> dict[str, Any]:
        saved: dict[str, Any] = super().to_dict()
        saved["processor_class"] = "Qwen3VLProcessor"
        if getattr(self, "video_processor", None) is not None:
            saved["video_processor"] = self.video_processor.to_dict()
        return saved


def add_video(processor: ImageTextProcessor, source: str) -> None:
    """Give `processor` the video processor of the model at `source`, if torchvision is installed and it is of
    the kind that this class can write into the text."""
    if not is_torchvision_available():
        return
    try:
        found = AutoVideoProcessor.from_pretrained(source)
    except (OSError, ValueError, ImportError):
        return  # the model has none
    if type(found).__name__ == "Qwen3VLVideoProcessor":
        processor.video_processor = found

"""A Qwen3-VL processor that needs no torchvision. Import it only where transformers may be loaded.

How it works: the library's class requires a video processor, which requires torchvision. The sub-processors
of a `ProcessorMixin` are read from the signature of `__init__`, so a subclass without `video_processor` loads
and works with Pillow alone. If torchvision is installed, `add_video` adds the model's video processor."""

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

    def add_video(self, source: str, kind: str) -> None:
        """Add the video processor of the model at `source`, if torchvision is installed and its class is
        `kind`, which this class can write into the text."""
        if not is_torchvision_available():
            return
        try:
            video = AutoVideoProcessor.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError, ImportError):
            return  # the model has none
        if type(video).__name__ == kind:
            self.video_processor = video

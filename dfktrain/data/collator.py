"""Turn rows of the messages layout into batches of tensors, the same for every engine.

How it works: a row is encoded once (text, image sizes from file headers, mask) and batched often; only
making a batch decodes images. Image tokens are counted with the processor's own rule and the stage's pixel
budget. The budget is passed with each call, because image processors keep their size in a dict that
instances share. Videos are read twice, for their text and for their tensors, at their processor's own budget.

Guarantees:
    - A batch holds only arguments of the model's forward call; `loss_weights`, which label weights and
      weights of turns add, is one after `dfktrain.losses.attach`.
    - Making a batch never cuts a row: one that is longer than `max_length` raises `DataError`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dfkdata.common.errors import DataError
from dfkdata.media.images import ImageSource, image_name, image_size, open_image
from dfkdata.rows.messages import check_row
from dfkdata.rows.part_files import with_part_files
from dfkeval.models import video
from dfkeval.models.rendering import render_sample
from dfktrain.data import masking
from dfktrain.data.masking import IGNORE, EncodedSample
from dfktrain.data.pixels import BYTES, BytePixels

_MEDIA = {"video": "video", "audio": "audio", "input_audio": "audio", "video_url": "video_url"}


class Collator:
    """Make batches of rows, or of samples that `encode` has made of them.

    Args:
        processor: A vision-language processor, or the tokenizer of a model that sees no images.
        max_length: Largest number of tokens of a row, image tokens included; None is no limit.
        max_pixels: Largest number of pixels of an image; None keeps the processor's budget.

    Example:
        >>> from dfktrain import Collator, tiny
        >>> _, processor = tiny.load()
        >>> row = {
        ...     "id": "1",
        ...     "messages": [
        ...         {"role": "user", "content": "Is this true?"},
        ...         {"role": "assistant", "content": "Label: Netral"},
        ...     ],
        ... }
        >>> collate = Collator(processor)
        >>> batch = collate([row])
        >>> batch["labels"].shape == batch["input_ids"].shape
        True
        >>> scored = batch["labels"][batch["labels"] != -100]
        >>> processor.tokenizer.decode(scored)
        'Label: Netral<|im_end|>'
    """

    def __init__(
        self, processor: Any, *, max_length: int | None = None, max_pixels: int | None = None
    ) -> None:
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.image_processor: Any = getattr(processor, "image_processor", None)
        self.max_length = max_length
        self.size = _size(self.image_processor, max_pixels)
        self.byte_pixels: BytePixels | None = (
            None  # the trainer sets it where it makes the numbers on the device
        )
        self.multiple = (
            1  # of which widths of batches are multiples; the trainer sets it where shapes are to be few
        )
        self.image_id = _token_id(processor, "image_token", "<|image_pad|>")
        self.video_id = _token_id(processor, "video_token", "<|video_pad|>")
        self.pad_id = self.tokenizer.pad_token_id
        if self.pad_id is None:
            self.pad_id = self.tokenizer.eos_token_id

    def __call__(self, rows: Sequence[dict[str, Any] | EncodedSample]) -> dict[str, Tensor]:
        """Return a batch of B rows, padded on the right to T tokens.

        Args:
            rows: Rows of the messages layout, or encoded samples. `images` holds paths, `data:` URIs,
                bytes or Pillow images.

        Returns:
            input_ids, attention_mask and labels (B, T) int64; labels are -100 at tokens without loss. For a
            vision-language model also mm_token_type_ids (B, T), 1 at image and 2 at video tokens. With images
            pixel_values (patches, dim) and image_grid_thw (N, 3), with videos pixel_values_videos and
            video_grid_thw. If a sample's weight is not 1, loss_weights (B, T) float32.

        Raises:
            DataError: A row cannot be trained on; the message names its id.
        """
        samples = [row if isinstance(row, EncodedSample) else self.encode(row) for row in rows]
        for sample in samples:
            self._check_length(sample)
        batch = pad(samples, self.pad_id, self.multiple)
        if self.image_processor is None:
            return batch
        at_videos = batch["input_ids"] == self.video_id
        batch["mm_token_type_ids"] = (batch["input_ids"] == self.image_id).long() + 2 * at_videos.long()
        images = [(sample.id, image) for sample in samples for image in sample.images]
        videos = [path for sample in samples for path in sample.videos]
        batch |= self._pixels(images) if images else {}
        return batch | (video.tensors(self.processor, videos, int(at_videos.sum())) if videos else {})

    def encode(self, row: dict[str, Any]) -> EncodedSample:
        """Return the sample of the row's last answer; it opens headers of images, and videos.

        Raises:
            DataError: The row cannot be trained on; the message names its id.
        """
        check_row(row)
        row = with_part_files(row)
        self._check_media(row)
        row = next(masking.turns(row))
        images, videos = tuple(row.get("images") or ()), tuple(row.get("videos") or ())
        parts = video.insert_text(render_sample(row, self.processor), row["id"], videos, self.processor)
        ids, labels = masking.tokens(parts, self.processor)
        ids, labels = self._repeat_placeholders(row["id"], ids, labels, images)
        weight = masking.weight_of(row["messages"][-1])
        return EncodedSample(str(row["id"]), ids, labels, images, videos, weight=weight, turn_weight=weight)

    def _check_media(self, row: dict[str, Any]) -> None:
        """Raise `DataError` for audio, and for video that cannot be read, in parts or in lists of files."""
        # a file in a list without a part would be left out silently
        unread = {"audio": "this trainer does not read it", "video": video.video_fault(self.processor)}
        unread["video_url"] = "this trainer does not read it; write a video part and the file in `videos`"
        kinds = [kind for key, kind in (("videos", "video"), ("audios", "audio")) if row.get(key)]
        for turn in row["messages"]:
            content = turn.get("content")
            parts = content if isinstance(content, list) else []
            kinds += [_MEDIA[part["type"]] for part in parts if part.get("type") in _MEDIA]
        for kind in kinds:
            if unread[kind]:
                raise DataError(f"row {row['id']}: holds {kind}: {unread[kind]}")

    def _repeat_placeholders(
        self, row_id: str, ids: list[int], labels: list[int], images: tuple[ImageSource, ...]
    ) -> tuple[list[int], list[int]]:
        """Repeat each placeholder as often as its image has tokens."""
        placeholders = 0 if self.image_id is None else ids.count(self.image_id)
        if placeholders != len(images):
            raise DataError(
                f"row {row_id}: {placeholders} image placeholders in the prompt, {len(images)} images in the row"
            )
        if not images:
            return ids, labels
        try:
            counts = iter([self.image_tokens(image) for image in images])
        except DataError as error:
            raise DataError(f"row {row_id}: {error}") from error
        wide_ids: list[int] = []
        wide_labels: list[int] = []
        for token, label in zip(ids, labels, strict=True):
            times = next(counts) if token == self.image_id else 1
            wide_ids += [token] * times
            wide_labels += [IGNORE if token == self.image_id else label] * times
        return wide_ids, wide_labels

    def image_tokens(self, image: ImageSource) -> int:
        """Return the number of tokens of an image at this pixel budget, from its header.

        Args:
            image: A path, a `data:` URI, bytes, or a Pillow image.

        Raises:
            DataError: The image cannot be opened, or the model sees no images.
        """
        name = f"image {image_name(image)}"
        if self.image_processor is None:
            raise DataError(f"{name}: this model sees no images; use model.kind: vlm or modality: text")
        width, height = image_size(image)
        try:
            patches = self.image_processor.get_number_of_image_patches(height, width, self._budget())
        except ValueError as error:  # the processor's own limit on the aspect ratio
            raise DataError(f"{name}: {error}") from error
        return int(patches) // int(self.image_processor.merge_size) ** 2

    def _budget(self) -> dict[str, Any]:
        """Return the pixel budget under all of its names."""
        # a class with attributes min_pixels and max_pixels (Unsloth adds them) prefers those to `size` alone
        low, high = self.size["shortest_edge"], self.size["longest_edge"]
        return {"size": dict(self.size), "min_pixels": low, "max_pixels": high}

    def _pixels(self, images: list[tuple[str, ImageSource]]) -> dict[str, Tensor]:
        """Return the tensors of images, each given with the id of its row."""
        pictures = []
        for row_id, image in images:
            try:
                pictures.append(open_image(image))
            except DataError as error:
                raise DataError(f"row {row_id}: {error}") from error
        if self.byte_pixels is not None:
            out = self.byte_pixels(pictures, self._budget())
        else:
            out = self.image_processor(images=pictures, return_tensors="pt", **self._budget())
        counts = out["image_grid_thw"].prod(-1) // self.image_processor.merge_size**2
        for (row_id, image), tokens in zip(images, counts.tolist(), strict=True):
            if tokens != self.image_tokens(image):
                raise DataError(
                    f"row {row_id}: image {image_name(image)}: {tokens} tokens once opened,"
                    f" {self.image_tokens(image)} by its header"
                )
        return {key: out[key] for key in ("pixel_values", BYTES, "image_grid_thw") if key in out}

    def _check_length(self, sample: EncodedSample) -> None:
        if self.max_length is not None and len(sample) > self.max_length:
            raise DataError(
                f"row {sample.id}: {len(sample)} tokens, max_length is {self.max_length}; raise it, "
                f"lower max_pixels, or choose on_too_long: drop or truncate_prompt"
            )

    def shorten(self, sample: EncodedSample, width: int) -> EncodedSample:
        """Return the sample cut to `width` tokens, at the end of the longest plain text of its prompt.

        Raises:
            DataError: That text is too short; the rest is images, the answer, or marks of turns.
        """
        excess = len(sample) - width
        if excess <= 0:
            return sample
        if sample.videos:
            raise DataError(
                f"row {sample.id}: {len(sample)} tokens do not fit {width}, and a prompt with a video is not "
                f"shortened, since times of its frames stand in the text; choose on_too_long: drop"
            )
        start, stop = self._longest_text(sample)
        if stop - start < excess:
            raise DataError(
                f"row {sample.id}: {len(sample)} tokens do not fit {width} even without its longest "
                f"prompt text ({stop - start} tokens); lower max_pixels or raise max_length"
            )
        cut = slice(stop - excess, stop)
        ids, labels = list(sample.input_ids), list(sample.labels)
        del ids[cut], labels[cut]
        return replace(sample, input_ids=ids, labels=labels)

    def _longest_text(self, sample: EncodedSample) -> tuple[int, int]:
        """Return the longest run of prompt tokens without a mark or a turn's header, before the answer's turn."""
        marks = set(self.tokenizer.get_added_vocab().values()) | set(self.tokenizer.all_special_ids)
        opening = self.tokenizer.get_added_vocab().get("<|im_start|>")
        answer = next(index for index, label in enumerate(sample.labels) if label != IGNORE)
        places = [index for index, token in enumerate(sample.input_ids[:answer]) if token in marks]
        turn = max((index for index in places if sample.input_ids[index] == opening), default=answer)
        gaps = [(0, 0)]
        for left, right in pairwise([-1, *(place for place in places if place <= turn)]):
            header = self._header(sample, left + 1, right) if sample.input_ids[left] == opening else 0
            gaps.append((left + 1 + header, right))
        return max(gaps, key=lambda gap: gap[1] - gap[0])

    def _header(self, sample: EncodedSample, start: int, stop: int) -> int:
        """Return the number of tokens of a turn's header, its newline included."""
        for index in range(start, stop):
            if "\n" in self.tokenizer.decode([sample.input_ids[index]]):
                return index + 1 - start
        return stop - start


def pad(samples: Sequence[EncodedSample], pad_id: int, multiple: int = 1) -> dict[str, Tensor]:
    """Return input_ids, attention_mask and labels (B, T) int64, padded on the right.

    T is the smallest multiple of `multiple` that holds the longest sample.
    If a sample's weight is not 1, loss_weights (B, T) float32 is added."""
    width = -(-max(len(sample) for sample in samples) // multiple) * multiple
    ids = torch.full((len(samples), width), pad_id, dtype=torch.long)
    labels = torch.full((len(samples), width), IGNORE, dtype=torch.long)
    attention = torch.zeros((len(samples), width), dtype=torch.long)
    for index, sample in enumerate(samples):
        ids[index, : len(sample)] = torch.tensor(sample.input_ids)
        labels[index, : len(sample)] = torch.tensor(sample.labels)
        attention[index, : len(sample)] = 1
    batch = {"input_ids": ids, "attention_mask": attention, "labels": labels}
    weights = torch.tensor([sample.weight for sample in samples], dtype=torch.float32)
    if bool((weights != 1).any()):
        batch["loss_weights"] = weights.unsqueeze(1).expand(-1, width).clone()
    return batch


def _size(image_processor: Any, max_pixels: int | None) -> dict[str, int]:
    """Return a new dict of the processor's pixel limits, changed to `max_pixels`."""
    if image_processor is None:
        return {}
    own = image_processor.size
    low, high = int(own["shortest_edge"]), int(own["longest_edge"])
    if max_pixels is not None:
        low, high = min(low, max_pixels), max_pixels
    return {"shortest_edge": low, "longest_edge": high}


def _token_id(processor: Any, attribute: str, usual: str) -> int | None:
    tokenizer = getattr(processor, "tokenizer", processor)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary.get(getattr(processor, attribute, usual))

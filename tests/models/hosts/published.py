"""The hosts' published processors as far as they run without torchvision: text and images in full, of videos the text
and the order of patches."""

from __future__ import annotations

from typing import Any

import transformers
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.processing_utils import ProcessorMixin

IMAGES = {
    "qwen2_5_vl": Qwen2VLImageProcessorPil,
    "qwen3_vl": Qwen2VLImageProcessorPil,
    "llava": LlavaImageProcessorPil,
    "llava_next_video": LlavaNextImageProcessorPil,
    "llava_onevision": LlavaOnevisionImageProcessorPil,
}
WHOLE = {
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "llava": "LlavaProcessor",
    "llava_next_video": "LlavaNextVideoProcessor",
    "llava_onevision": "LlavaOnevisionProcessor",
}


def image_processor(kind: str, files: Any, config: Any) -> Any:
    more = (
        {"image_grid_pinpoints": config.image_grid_pinpoints}
        if hasattr(config, "image_grid_pinpoints")
        else {}
    )
    return IMAGES[kind](**files.image(), **more)


def published(kind: str, processor: Any) -> Any:
    """The published processor of a host with our processor's tokenizer and settings; its ``__init__`` insists on a
    video processor, which needs torchvision, so the fields it would set are set here."""
    base: Any = getattr(transformers, WHOLE[kind])
    config, tokenizer = processor.config, processor.tokenizer

    class WithoutVideo(base):  # type: ignore[misc]
        def __init__(
            self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None
        ) -> None:
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    made = WithoutVideo(image_processor(kind, processor.files, config), tokenizer, tokenizer.chat_template)
    qwen = kind.startswith("qwen")
    names = {
        "image_token": "<|image_pad|>" if qwen else "<image>",
        "video_token": "<|video_pad|>" if qwen else "<video>",
    }
    if qwen:
        names |= {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}
        made.video_processor = Qwen3VLVideoProcessor(**processor.files.video())
    for name, token in names.items():
        setattr(made, name, token)
        setattr(made, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
    if not qwen:
        vision = config.vision_config
        made.patch_size = vision.patch_size
        made.vision_feature_select_strategy = config.vision_feature_select_strategy
        made.num_additional_image_tokens = int(vision.model_type == "clip_vision_model")
        made.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
        made.vision_aspect_ratio = getattr(config, "vision_aspect_ratio", None)
    return made

"""Where a picture comes from, in one sentence that stays with it."""

from __future__ import annotations

from typing import Any

from workbench import __version__
from workbench.captures import Capture


def of_capture(capture: Capture) -> str:
    """Model, checkpoint, sample, frames, seed and version of a capture."""
    meta = capture.meta
    parts = [f"{capture.kind.replace('_', ' ')} of {_checkpoint(meta)}"]
    if sample := meta.get("sample"):
        parts.append(f"sample {sample['id']}: “{sample['question']}” (answer: {sample['answer']})")
    if frames := meta.get("frames"):
        parts.append(f"{len(frames['indices'])} frame{'s' if len(frames['indices']) != 1 else ''}")
    if meta.get("seed") is not None:
        parts.append(f"seed {meta['seed']}")
    parts.append(f"workbench {meta.get('workbench') or __version__}, {str(meta.get('created') or '')[:10]}")
    return "; ".join(part.rstrip("; ") for part in parts) + "."


def _checkpoint(meta: dict[str, Any]) -> str:
    model = (meta.get("model") or {}).get("type", "a model")
    checkpoint = meta.get("checkpoint")
    if not checkpoint:
        return f"{model} (weights not named)"
    step = f", step {checkpoint['step']}" if checkpoint.get("step") is not None else ""
    digest = f", sha256 {checkpoint['sha256'][:8]}" if checkpoint.get("sha256") else ""
    return f"{model}, checkpoint {checkpoint['name']}{step}{digest}"

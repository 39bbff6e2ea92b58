"""Do two captures speak of the same thing? Otherwise the sentence that says why they are not put beside each other."""

from __future__ import annotations

from workbench.captures import Capture


def mismatch(one: Capture, other: Capture, same_weights: bool) -> str | None:
    """Why ``other`` cannot be compared with ``one``; None when it can.

    Args:
        same_weights: both must be of one checkpoint (effect beside attention); otherwise of one architecture (before and
            after a training).
    """
    mine, theirs = one.meta, other.meta
    if (found := _sample(theirs)) != (asked := _sample(mine)):
        return f"it is about {found}, this view about {asked}"
    if (found := _clip(theirs)) != (asked := _clip(mine)):
        return f"it saw {found}, this view's model saw {asked}"
    if _shape(theirs) != _shape(mine):
        return f"it is of another model ({_model(theirs)}; this view's is {_model(mine)})"
    if theirs.get("token_map") != mine.get("token_map"):
        return "its conversation was laid out differently (another template, or other places of the tokens)"
    if same_weights and (found := _weights(theirs)) != (asked := _weights(mine)):
        return f"it is of the weights {found}, this view's are {asked}"
    return None


def checkpoint_name(capture: Capture) -> str:
    """The checkpoint in a word or two, for headings."""
    checkpoint = capture.meta.get("checkpoint") or {}
    step = checkpoint.get("step")
    name = str(checkpoint.get("name") or "weights without a name")
    return name if step is None or str(step) in name else f"{name} (step {step})"


def _sample(meta: dict) -> str:
    sample = meta.get("sample")
    if not sample:
        return "no named sample"
    turn = f", question {sample['turn']}" if sample.get("turn") else ""
    return f"the sample {sample['id']}{turn}: “{sample['question']}”"


def _clip(meta: dict) -> str:
    frames = meta.get("frames")
    if not frames or not frames["indices"]:
        return "no frames"
    indices = frames["indices"]
    shown = ", ".join(map(str, indices[:6])) + (" ..." if len(indices) > 6 else "")
    return f"{len(indices)} frame{'s' if len(indices) > 1 else ''} ({shown})"


def _shape(meta: dict) -> tuple:
    model = meta.get("model") or {}
    text = model.get("text") or {}
    return model.get("type"), *(
        text.get(key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    )


def _model(meta: dict) -> str:
    kind, width, layers, heads = _shape(meta)
    return f"{kind}, {layers} layers, {heads} heads, width {width}"


def _weights(meta: dict) -> str:
    checkpoint = meta.get("checkpoint") or {}
    digest = (checkpoint.get("sha256") or "without a hash")[:12]
    return f"{checkpoint.get('name') or 'without a name'} ({digest})"

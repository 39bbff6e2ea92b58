"""`workbench model describe PATH|NAME`: parameters by group. `workbench tokens WIDTHxHEIGHT`: visual tokens."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.errors import RecipeError

PATCH, MAX_PATCHES = 16, 8192  # siglip2-so400m-patch16-naflex under the paper's cap


def register(subparsers: argparse._SubParsersAction) -> None:
    model = subparsers.add_parser("model", help="describe a model")
    verbs = model.add_subparsers(dest="verb", required=True, metavar="VERB")
    describe = verbs.add_parser(
        "describe",
        help="parameters by module group",
        description="No weights are downloaded and no memory is taken: the model is built on the meta device.",
    )
    describe.add_argument(
        "name",
        help="a preset (an unknown name lists them), a model folder (ours or a stock host's), or a hub name",
    )
    describe.set_defaults(func=run_describe)

    tokens = subparsers.add_parser(
        "tokens",
        help="visual tokens of an image or clip under each encoding",
        description="For patches of 16 pixels and at most 2048 tokens a frame, as in the full models.",
    )
    tokens.add_argument("size", metavar="WIDTHxHEIGHT", help="frame size in pixels, for example 1280x720")
    tokens.add_argument("--frames", type=int, default=1, metavar="F", help="frames of a clip (default 1)")
    tokens.add_argument(
        "--pool-to", type=int, metavar="N", help="average time down to at most N frames (release: 32)"
    )
    tokens.add_argument("--newline", action="store_true", help="a newline token after every frame (release)")
    tokens.set_defaults(func=run_tokens)


def run_describe(args: argparse.Namespace) -> int:
    model, about = _open(args.name)
    rows = [
        (group, sum(model.get_parameter(name).numel() for name in names), about(group))
        for group, names in model.module_groups().items()
    ]
    total = sum(count for _, count, _ in rows)
    print(f"{args.name}\n")
    print(f"  {'group':<8} {'parameters':>14}  {'share':>6}  about")
    for group, count, text in rows:
        print(f"  {group:<8} {count:>14,}  {count / total:>6.1%}  {text}")
    print(f"  {'total':<8} {total:>14,}  {1:>6.1%}  {2 * total / 2**20:,.1f} MiB in bf16")
    return 0


def _open(name: str) -> tuple[Any, Callable[[str], str]]:
    """The model on the meta device, and what to say of its groups."""
    import torch

    from workbench.models import LOADERS, model_folder
    from workbench.models.hosts.loading import describe_host, read_model_type
    from workbench.models.tempflex.checkpoints import check_weights, read_config
    from workbench.models.tempflex.modeling import TempFlexForConditionalGeneration
    from workbench.models.tempflex.presets import PRESETS, preset_config

    path = model_folder(Path(name))
    asked = f"describe the checkpoint {path}"
    hub_name = not path.is_dir() and name not in PRESETS and name.count("/") == 1
    if hub_name or (path.is_dir() and read_model_type(path, asked) not in LOADERS):
        host = describe_host(name if hub_name else path)
        return host, lambda group: _about_host(group, host)
    if path.is_dir():
        config = read_config(path, asked)
        check_weights(path, config, asked)
    else:
        config = preset_config(name)
    with torch.device("meta"):
        return TempFlexForConditionalGeneration(config), lambda group: _about(group, config)


def _about_host(group: str, host: Any) -> str:
    from workbench.models.hosts.loading import HOSTS

    config = host.config
    vision, text = config.vision_config, config.get_text_config()
    if group == "encoder":
        layers = len(host.attention_layers()["encoder"])
        return f"{vision.model_type}, {layers} layers of {vision.hidden_size}, patch {vision.patch_size}"
    if group == "merger":
        return f"projector of {HOSTS[config.model_type].title}"
    if group == "unused":
        return "of the encoder: behind the layer whose features are taken"
    tied = "tied" if config.tie_word_embeddings else "untied"
    return (
        f"{text.model_type}, {text.num_hidden_layers} layers of {text.hidden_size}, "
        f"vocabulary {text.vocab_size:,} ({tied})"
    )


def _about(group: str, config: Any) -> str:
    vision, text = config.vision_config, config.text_config
    if group == "encoder":
        table = f"{vision.position_rows}x{vision.position_cols} positions ({vision.interpolation})"
        return (
            f"NaFlex ViT, {vision.num_hidden_layers} layers of {vision.hidden_size}, "
            f"patch {vision.patch_size}, {table}, {config.encoding} encoding"
        )
    if group == "fusion":
        if not config.fusion_depth:
            return "none"
        return f"{config.fusion_depth} layers, {config.fusion_variant} variant, images {config.images}"
    if group == "merger":
        newline = ", newline vector" if config.newline else ""
        pool = f", at most {config.pool_to} frames" if config.pool_to else ""
        return f"{config.merge}{newline}{pool}"
    tied = "tied" if config.tie_word_embeddings else "untied"
    return (
        f"{text.model_type}, {text.num_hidden_layers} layers of {text.hidden_size}, "
        f"vocabulary {text.vocab_size:,} ({tied})"
    )


def run_tokens(args: argparse.Namespace) -> int:
    from workbench.models.tempflex.encodings import place, published_tokens, visual_tokens

    match = re.fullmatch(r"(\d+)[xX×](\d+)", args.size)
    width, height = (int(n) for n in match.groups()) if match else (0, 0)
    for name, value in (("frames", args.frames), ("pool-to", args.pool_to), ("size", min(width, height))):
        if value is not None and value < 1:
            raise RecipeError(
                f"count the tokens of {args.size}",
                f"{name} is not a positive number" if match else "the size is not WIDTHxHEIGHT",
                "write for example: workbench tokens 1280x720 --frames 16",
            )
    clip = f", {args.frames} frames" if args.frames > 1 else ""
    print(f"{width}x{height}{clip}, patch {PATCH}, cap {MAX_PATCHES // 4} tokens a frame\n")
    print(
        f"  {'encoding':<8} {'resized to':>11} {'patches':>8} {'tokens':>8} {'in the LLM':>11} {'paper':>7}"
    )
    for encoding in ("fixed", "tiled", "native"):
        p = place(width, height, encoding, PATCH, MAX_PATCHES)
        n_rows, n_cols = (n * p.cols for n in p.tiles) if p.tiles else (p.rows, p.cols)
        resized = f"{n_cols * PATCH}x{n_rows * PATCH}"
        inside = visual_tokens((args.frames, p.rows, p.cols), args.pool_to, args.newline)
        paper = published_tokens(width, height, encoding)
        print(f"  {encoding:<8} {resized:>11} {p.patches:>8,} {p.tokens:>8,} {inside:>11,} {paper:>7,}")
    print("\n  patches, tokens: of one frame, before and after merging four patches into a token")
    print("  in the LLM: all frames, averaged over time and with newlines if asked for")
    print("  paper: one frame in its table, which does not merge fixed and tiled")
    return 0

"""Temporal Fiber Fusion: memory and whole layer against two plain implementations, forward and backward.

    python benchmarks/tff.py [--size study] [--frames 8 64 128] [--repeats 7] [--threads 1]

ours     workbench.models.tempflex
(a)      the recurrence as a Python loop over frames under autograd; in the layer, all else in plain torch too
(b)      the release's operations in plain torch (cumulative product and sum along a fiber). They compute the
         release's memory and layer; beside the paper's variant they are a time only, and their error says so.

Times are the least of the repeats, taken in turn so that other load hits all three alike; a ratio is that
implementation's forward + backward over ours (more than 1: ours is faster). An error is the largest, over the
output and every gradient, of max |value - exact| / max |exact|, exact being (a) in float64; up to 1e-5 counts
as exact.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workbench.models.tempflex.fusion import TemporalFiberFusion
from workbench.models.tempflex.scan import gated_memory, release_memory

SIZES = {"study": (4, 16, 64), "wide": (1, 64, 256), "full": (1, 64, 1152)}  # clips, patches, channels
FREQUENCIES = (1, 2, 4, 8, 16)
EXACT = 1e-5
Params = dict[str, Tensor]
Memory = Callable[[Tensor, Tensor], Tensor]


def loop_paper_memory(a: Tensor, x: Tensor) -> Tensor:
    """[F, ...]: eq. 2 as written. unbind, not indexing: autograd of indexing costs O(F^2)."""
    m, out = torch.zeros_like(x[0]), []
    for a_f, x_f in zip(a.unbind(0), x.unbind(0), strict=True):
        m = a_f * m + (1 - a_f) * x_f
        out.append(m)
    return torch.stack(out)


def loop_release_memory(a: Tensor, x: Tensor) -> Tensor:
    a_F, x_F = a.unbind(0), x.unbind(0)
    weight, product = [torch.ones_like(x_F[0])] * len(x_F), torch.ones_like(x_F[0])
    for f in range(len(x_F) - 1, 0, -1):
        product = product * a_F[f]
        weight[f] = product * a_F[f - 1]
    total, out = torch.zeros_like(x_F[0]), []
    for w_f, a_f, x_f in zip(weight, a_F, x_F, strict=True):
        total = total + w_f * (1 - a_f) * x_f
        out.append(total)
    return torch.stack(out)


def cumulative_release_memory(a: Tensor, x: Tensor, axis: int = 0) -> Tensor:
    """(b): suffix products of the gates, shifted by one frame, then a running sum."""
    suffix = torch.cumprod(a.flip(axis), axis).flip(axis)
    first, rest = torch.ones_like(suffix.narrow(axis, 0, 1)), suffix.narrow(axis, 0, suffix.shape[axis] - 1)
    return torch.cumsum((1 - a) * x * torch.cat([first, rest], axis), axis)


def _linear(params: Params, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])


def _norm(params: Params, name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])


def plain_layer(x: Tensor, params: Params, variant: str, memory: Memory, frames_axis: int) -> Tensor:
    """A layer in plain torch; ``frames_axis`` 0: loops on [F, B, P, D], 2: fibers [B, P, F, D]."""
    patches_axis = 2 if frames_axis == 0 else 1
    frames = x.shape[frames_axis]
    per_frame = [1, 1, 1, 1]
    per_frame[frames_axis] = frames
    mean = x.mean(frames_axis, keepdim=True)
    kernel = _linear(params, "local_out", functional.gelu(_linear(params, "local_in", mean)))
    before, now, after = kernel.chunk(3, -1)
    last, first = x.narrow(frames_axis, frames - 1, 1), x.narrow(frames_axis, 0, 1)
    padded = torch.cat([last, x, first], frames_axis)
    local = (
        before * padded.narrow(frames_axis, 0, frames)
        + now * x
        + after * padded.narrow(frames_axis, 2, frames)
    )
    m = memory(torch.sigmoid(_linear(params, "gate", x)), x)
    periodic = torch.zeros_like(x)
    for i, w in enumerate(FREQUENCIES):
        phase = torch.arange(frames, dtype=x.dtype) * (2 * math.pi * w / frames)
        wave = torch.cos(phase).view(per_frame)
        periodic = periodic + wave * (
            functional.linear(x, params["periodic"][i]) if variant == "paper" else x
        )
    beta = torch.softmax(_linear(params, "blend", mean), -1)
    y = beta[..., 0:1] * local + beta[..., 1:2] * m + beta[..., 2:3] * periodic
    y = y + params["gamma"] * y.mean(patches_axis, keepdim=True)
    if variant == "paper":
        hidden = _linear(params, "ffn_out", functional.gelu(_linear(params, "ffn_in", y)))
        value, gate = hidden.chunk(2, -1)
        return x + _norm(params, "norm", y + value * torch.sigmoid(gate))
    out = x + _norm(params, "norm", y)
    hidden = _linear(
        params, "ffn_out", functional.gelu(_linear(params, "ffn_in", _norm(params, "norm_ffn", out)))
    )
    value, gate = hidden.chunk(2, -1)
    return out + value * torch.sigmoid(gate)


@dataclass(frozen=True)
class Contest:
    """Three implementations of one part at one size, each from its own leaves, and (a) in float64."""

    title: str
    leaves: list[Tensor]
    ours: Callable[[list[Tensor]], Tensor]
    loop: Callable[[list[Tensor]], Tensor]
    release: Callable[[list[Tensor]], Tensor]
    release_leaves: list[
        Tensor
    ]  # the leaves of (b): the release's parameters when the variant is the paper's


def memory_contest(variant: str, frames: int, size: tuple[int, int, int]) -> Contest:
    clips, patches, dim = size
    a, x = torch.sigmoid(torch.randn(frames, clips, patches, dim)), torch.randn(frames, clips, patches, dim)
    ours, loop = {
        "paper": (gated_memory, loop_paper_memory),
        "release": (release_memory, loop_release_memory),
    }[variant]

    def release(
        leaves: list[Tensor],
    ) -> Tensor:  # along the third axis of [B, P, F, D], as a fiber layout has it
        fibers = (leaf.permute(1, 2, 0, 3).contiguous() for leaf in leaves)
        return cumulative_release_memory(*fibers, axis=2).permute(2, 0, 1, 3)

    return Contest(f"{variant} memory", [a, x], lambda l: ours(*l), lambda l: loop(*l), release, [a, x])


def layer_contest(variant: str, frames: int, size: tuple[int, int, int]) -> Contest:
    clips, patches, dim = size
    torch.manual_seed(0)
    x = torch.randn(clips, frames, patches, dim)
    stacks = {name: TemporalFiberFusion(dim, 1, variant=name) for name in (variant, "release")}
    params = {
        name: {key.removeprefix("layers.0."): value.detach() for key, value in stack.named_parameters()}
        for name, stack in stacks.items()
    }
    loop_memory = loop_paper_memory if variant == "paper" else loop_release_memory

    def ours(leaves: list[Tensor]) -> Tensor:
        named = {f"layers.0.{key}": leaf for key, leaf in zip(params[variant], leaves[1:], strict=True)}
        return torch.func.functional_call(stacks[variant], named, (leaves[0],))

    def loop(leaves: list[Tensor]) -> Tensor:
        named = dict(zip(params[variant], leaves[1:], strict=True))
        return plain_layer(leaves[0].transpose(0, 1), named, variant, loop_memory, 0).transpose(0, 1)

    def release(leaves: list[Tensor]) -> Tensor:
        named = dict(zip(params["release"], leaves[1:], strict=True))
        fibers = leaves[0].transpose(1, 2).contiguous()
        return plain_layer(
            fibers, named, "release", lambda a, x: cumulative_release_memory(a, x, 2), 2
        ).transpose(1, 2)

    own, theirs = [x, *params[variant].values()], [x, *params["release"].values()]
    return Contest(f"{variant} layer", own, ours, loop, release, theirs)


def _run(
    function: Callable[[list[Tensor]], Tensor], leaves: list[Tensor]
) -> tuple[float, float, list[Tensor]]:
    """Seconds forward, seconds backward, output and gradients."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    start = time.perf_counter()
    out = function(leaves)
    middle = time.perf_counter()
    gradients = torch.autograd.grad(out, leaves, torch.cos(out.detach()))
    end = time.perf_counter()
    return middle - start, end - middle, [out.detach(), *gradients]


def _error(found: list[Tensor], exact: list[Tensor]) -> float:
    if [f.shape for f in found] != [e.shape for e in exact]:  # (b) beside the paper's layer: other parameters
        found, exact = found[:2], exact[:2]
    return max(
        float((f.double() - e).abs().max() / e.abs().max().clamp_min(1e-30))
        for f, e in zip(found, exact, strict=True)
    )


def compete(contest: Contest, repeats: int) -> bool:
    """Prints one row; returns whether ours is exact and at least as fast as every exact rival."""
    # Float64 of the loop, differentiated at its own output's cosine like the others.
    exact = _run(contest.loop, [leaf.double() for leaf in contest.leaves])[2]
    rivals = {
        "ours": (contest.ours, contest.leaves),
        "loop": (contest.loop, contest.leaves),
        "release": (contest.release, contest.release_leaves),
    }
    best: dict[str, tuple[float, float]] = {}
    errors: dict[str, float] = {}
    for _ in range(repeats):
        for name, (function, leaves) in rivals.items():
            forward, backward, found = _run(function, leaves)
            errors.setdefault(name, _error(found, exact))
            known = best.get(name, (math.inf, math.inf))
            best[name] = min(forward, known[0]), min(backward, known[1])
    ratio = {name: sum(times) / sum(best["ours"]) for name, times in best.items()}
    frames = contest.leaves[0].shape[1 if "layer" in contest.title else 0]
    cells = [f"{contest.title:<15} {frames:>4}"]
    cells += [
        f"{1e3 * best[name][0]:>8.2f} {1e3 * best[name][1]:>8.2f} {errors[name]:>8.0e}" for name in rivals
    ]
    cells += [f"{ratio['loop']:>6.2f} {ratio['release']:>6.2f}"]
    print(" | ".join(cells), flush=True)
    return errors["ours"] <= EXACT and all(ratio[n] >= 1 for n in ("loop", "release") if errors[n] <= EXACT)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(SIZES), action="append", help="default: study and wide")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 64, 128])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, {arguments.threads} thread(s), best of {arguments.repeats}; milliseconds"
    )
    met = []
    for size in arguments.size or ["study", "wide"]:
        clips, patches, dim = SIZES[size]
        print(f"\n{size}: {clips} clip(s), {patches} patches, {dim} channels")
        groups = ["ours fwd      bwd    error", "(a) fwd      bwd    error", "(b) fwd      bwd    error"]
        print(f"{'part':<15} {'F':>4} | " + " | ".join(f"{g:>26}" for g in groups) + " | (a)/ours (b)/ours")
        for variant in ("paper", "release"):
            for contest in (memory_contest, layer_contest):
                for frames in arguments.frames:
                    met.append(compete(contest(variant, frames, SIZES[size]), arguments.repeats))
    print(f"\nexact to {EXACT:.0e} and not slower than an exact rival: {sum(met)} of {len(met)} rows")


if __name__ == "__main__":
    main()

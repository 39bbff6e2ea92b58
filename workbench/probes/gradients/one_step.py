"""The one-step check: does the inner product predict what a step really does to the image loss?

A plain gradient step of size eta on a video batch, theta -> theta - eta g_V, changes the image loss by
-eta <g_I, g_V> to first order. Here the step is really taken and the image batch evaluated again, at
theta - eta g_V and at theta + eta g_V: half their difference is the first-order part alone, half their sum
minus the loss before is the curvature that a finite step adds. eta is chosen so that the step should lower the
video loss by a set share (1%), which makes checkpoints comparable.

The step is taken inside the backward pass, a parameter as soon as its gradient is complete (every use of it
has been differentiated by then), so no gradient is stored; the copy that is needed is of the weights, which
are put back bit by bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.probes.common import ProbeError
from workbench.probes.gradients.parameters import ParameterGroups
from workbench.probes.gradients.stream import discarding, receiving

SHARE = 0.01


@dataclass(frozen=True)
class OneStep:
    """Losses in nats per answer token.

    Attributes:
        eta: step size.
        predicted: -eta <g_I, g_V>.
        measured: L_I(theta - eta g_V) - L_I(theta).
        first_order: (L_I(theta - eta g_V) - L_I(theta + eta g_V)) / 2, to compare with ``predicted``.
        curvature: ``measured - first_order``: what the step's length adds.
    """

    eta: float
    predicted: float
    measured: float
    first_order: float
    curvature: float


def step_size(video_loss: float, video_square: float, share: float = SHARE) -> float:
    """eta at which a step should lower the video loss by ``share`` of itself: share * L_V / |g_V|^2.

    Raises:
        ProbeError: the gradient is zero.
    """
    if not video_square > 0:
        raise ProbeError(
            "take the one-step check", "the video gradient is zero", "Use a checkpoint that is still learning"
        )
    return share * video_loss / video_square


def one_step(
    model: torch.nn.Module,
    probed: ParameterGroups,
    video_loss: Callable[[], Tensor],
    image_loss: Callable[[], Tensor],
    eta: float,
    product: float,
) -> OneStep:
    """Take the step, measure, put the weights back.

    Args:
        product: <g_I, g_V> over the probed parameters, at the present weights.
    """
    parameters = probed.parameters
    with torch.no_grad():
        before = float(image_loss())

    def step(index: int, gradient: Tensor) -> None:
        parameters[index].data.add_(gradient, alpha=-eta)

    with restored(probed) as saved:
        with receiving(parameters, step), discarding(model, parameters):
            video_loss().backward()
        with torch.no_grad():
            after = float(image_loss())
            for parameter, start in zip(parameters, saved, strict=True):  # to the other side of the start
                parameter.data.mul_(-1).add_(start, alpha=2)
            opposite = float(image_loss())
    first_order = (after - opposite) / 2
    measured = after - before
    return OneStep(eta, -eta * product, measured, first_order, measured - first_order)


@contextlib.contextmanager
def restored(probed: ParameterGroups) -> Iterator[list[Tensor]]:
    """Yields a copy of the probed weights, and puts it back at the end, whatever happened."""
    saved = [p.detach().clone() for p in probed.parameters]
    try:
        yield saved
    finally:
        for parameter, value in zip(probed.parameters, saved, strict=True):
            parameter.data.copy_(value)

"""Claims of "Temporal Gains, Spatial Costs" [T], quoted as such, and what this study's intervals say about each.

A verdict comes from the averages that the paper reports; temporal skills by themselves are told beside them.
"""

from __future__ import annotations

from workbench.study.arms import BASE, Arm, extremes
from workbench.study.contrasts import Analysis, Contrast, controls
from workbench.study.wording import Conclusion, Verdict, compared, control_of, holm_note, interval, points

PAPER = "arXiv 2603.17541"
HYBRID_CLAIM = (
    "Choosing frames by the question (Hybrid-Frame) partially mitigates the image loss "
    "(LLaVA-1.5-7B on MMStar: 32.47 against 29.40 with fixed 32 frames)."
)


def published(analysis: Analysis) -> list[Conclusion]:
    """One statement a claim, those that the study's finished arms can speak to."""
    results = analysis.results
    fixed = [arm for arm in results.arms if arm.role == "fixed"]
    video = [c for arm in fixed if (c := analysis.find(arm.name, BASE, "video")) is not None]
    image = [c for arm in fixed if (c := analysis.find(arm.name, BASE, "image")) is not None]
    found: list[Conclusion] = []
    verdict: Verdict
    if video:
        claim, verdict = "Video-SFT reliably raises video scores.", _all_or_none(video, +1)
        found.append(_claim(claim, verdict, "video against the base", video, _temporal(analysis, video)))
    if image:
        risen, fallen = (
            [c for c in image if sign * c.estimate.value > 0 and c.estimate.shown] for sign in (1, -1)
        )
        verdict = (
            "disagrees" if len(risen) == len(image) else ("agrees" if fallen and not risen else "undecided")
        )
        found.append(
            _claim(
                "Static-image scores gain little or fall after Video-SFT.",
                verdict,
                "image against the base",
                image,
            )
        )
    ends = extremes([arm for arm in fixed if arm.name in results.final_steps])
    if ends:
        pair = [analysis.find(ends[1].name, ends[0].name, kind) for kind in ("video", "image")]
        more = [c for c in pair if c is not None]
        if len(more) == 2:
            v, i = (c.estimate for c in more)
            verdict = "disagrees" if v.high < 0 or i.low > 0 else ("agrees" if v.low > 0 else "undecided")
            claim = "More frames generally help video, and do not reliably help images."
            what = "video, then image, most against fewest frames"
            found.append(_claim(claim, verdict, what, more, _temporal(analysis, more[:1])))
        for arm in results.arms:
            gain = analysis.find(arm.name, ends[1].name, "image") if arm.role == "aware" else None
            if gain is not None:
                verdict = _all_or_none([gain], +1)
                credited, remark = _explained_by_control(analysis, arm)
                if verdict == "agrees" and not credited:
                    verdict = "partly"
                what = f"image, “{arm.title}” against {ends[1].frames} frames"
                found.append(_claim(HYBRID_CLAIM, verdict, what, [gain], remark))
    return found


def _explained_by_control(analysis: Analysis, arm: Arm) -> tuple[bool, str]:
    """Whether the choice itself, not only the smaller number of frames, can take the credit on images."""
    against = [
        (control, contrast)
        for control in controls(analysis.results, arm.name)
        if (contrast := analysis.find(arm.name, control.name, "image")) is not None
    ]
    for control, contrast in against:
        if contrast.estimate.low <= 0:
            return False, (
                f" But against {control_of(control)} {compared(contrast, 'image')}: "
                "using fewer frames can explain it, choosing them cannot be credited."
            )
    if against:
        return True, " Its random-matched control does worse: the choice itself helps images."
    return False, " Without a random-matched control this cannot be told from using fewer frames."


def _all_or_none(contrasts: list[Contrast], sign: int) -> Verdict:
    right = [sign * c.estimate.value > 0 and c.estimate.shown for c in contrasts]
    wrong = [sign * c.estimate.value < 0 and c.estimate.shown for c in contrasts]
    return "disagrees" if any(wrong) else ("agrees" if all(right) else "undecided")


def _temporal(analysis: Analysis, video: list[Contrast]) -> str:
    """The same comparisons on temporal skills alone, as a remark; empty when these are not known."""
    found = [analysis.find(c.arm, c.reference, "video_temporal") for c in video]
    numbers = [_numbers(c) for c in found if c is not None]
    return f" On temporal skills alone: {'; '.join(numbers)}." if numbers else ""


def _numbers(contrast: Contrast) -> str:
    estimate = contrast.estimate
    return f"{contrast.arm} {points(estimate.value)} {interval(estimate)}{holm_note(contrast)}"


def _claim(claim: str, verdict: Verdict, what: str, evidence: list[Contrast], remark: str = "") -> Conclusion:
    leads = {"agrees": "Ours agrees", "partly": "Ours agrees in part", "disagrees": "Ours disagrees"}
    lead = leads.get(verdict, "Ours does not decide")
    text = f"{lead}: {what}: {'; '.join(map(_numbers, evidence))}.{remark}"
    return Conclusion("published", text, claim, verdict)

"""The conclusions of a study in words, generated from its intervals and from nothing else.

Each sentence states a direction only where an interval excludes 0, and says "no difference shown" where it
does not. Published claims are held against them in ``claims.py``.
"""

from __future__ import annotations

from workbench.study.arms import BASE, Arm, extremes, ladders
from workbench.study.claims import published
from workbench.study.contrasts import (
    MEASURE_TITLES,
    MEASURES,
    Analysis,
    Contrast,
    CopiesSplit,
    controls,
    measure_skills,
)
from workbench.study.wording import (
    Conclusion,
    compared,
    control_of,
    holm_note,
    interval,
    joined,
    moved,
    number,
    points,
    size,
)


def conclude(analysis: Analysis) -> list[Conclusion]:
    """All conclusions: the effect of each arm, frame counts, Hybrid-Frame, variants, published claims,
    caveats.
    """
    found = [*_effects(analysis), *_frame_counts(analysis), *_hybrid(analysis), *_variants(analysis)]
    return [*found, *published(analysis), *_caveats(analysis)]


# --------------------------------------------------------------------------------------- what was found


def _effects(analysis: Analysis) -> list[Conclusion]:
    found = []
    order = sorted(
        (arm for arm in analysis.results.arms if arm.role in ("fixed", "aware", "matched", "other")),
        key=lambda arm: (arm.role != "fixed", -(arm.frames or 0)),
    )
    for arm in order:
        video, image = (analysis.find(arm.name, BASE, kind) for kind in ("video", "image"))
        parts = [moved(c, name) for c, name in ((video, "video"), (image, "image")) if c is not None]
        if not parts:
            continue
        some = [c for c in (image, video) if c is not None]
        sentences = [f"{_subject(arm)} {joined(parts)} ({size(*some)})."]
        temporal = analysis.find(arm.name, BASE, "video_temporal")
        if temporal is not None:
            sentences.append(_on_temporal(analysis, temporal))
        rest = analysis.find(arm.name, BASE, "image_no_count")
        if image is not None and rest is not None:
            sentences.append(_without_counting(image, rest))
        split = analysis.split(arm.name)
        if split is not None:
            sentences.append(copies_sentence(split))
        found.append(Conclusion("effect", " ".join(sentences)))
    return found


def _subject(arm: Arm) -> str:
    if arm.role == "fixed":
        return f"Video-SFT at {arm.frames} frame{'s' if arm.frames != 1 else ''}"
    return f"Video-SFT “{arm.title}”"


def _on_temporal(analysis: Analysis, temporal: Contrast) -> str:
    estimate = temporal.estimate
    skills = joined(measure_skills(analysis.results, "video_temporal"))
    change = f"On temporal skills alone ({skills}) the video change is {points(estimate.value)}"
    tail = holm_note(temporal) if estimate.shown else ": no difference shown"
    return f"{change} {interval(estimate)}{tail}."


def _without_counting(image: Contrast, rest: Contrast) -> str:
    estimate = rest.estimate
    change = f"Without counting the image change is {points(estimate.value)} {interval(estimate)}"
    if not estimate.shown:
        tail = ""
        if image.estimate.shown:
            tail = "; what the image average shows is counting"
        return f"{change}: no difference shown{tail}."
    return f"{change}."


def copies_sentence(split: CopiesSplit) -> str:
    """What the copies probe says about one arm's image loss."""
    loss, back, left = split.loss.estimate, split.recovered.estimate, split.remaining.estimate
    copies = (
        f"{split.copies:.0f} copies" if float(split.copies).is_integer() else "the arm's own number of copies"
    )
    shown_as = f"when the image is shown as {copies}"
    if split.copies == 1:
        return "The arm gives these questions one frame, so the copies probe has nothing to change."
    if loss.low <= 0:
        extra = ""
        if back.shown:
            verb = "gains" if back.value > 0 else "loses"
            size_ = back if back.value > 0 else back.negated()
            extra = f" Shown as {copies}, an image {verb} {points(size_.value)} {interval(size_)}."
        return f"No image loss is shown, so there is nothing for the copies probe to split.{extra}"
    amount = f"{number(back.value)} of the {points(loss.value)} return {interval(back)} {shown_as}"
    rest = f"{points(left.value)} {interval(left)}"
    if back.low > 0 and left.low > 0:
        return f"{amount} (frame budget); {rest} do not (forgetting)."
    if back.low > 0 and left.high < 0:
        return f"{amount}, more than was lost: frame budget, not forgetting."
    if back.low > 0:
        return f"{amount}: frame budget; no forgetting shown (what does not return is {rest})."
    if back.high < 0:
        worse = f"{points(-back.value)} {interval(back.negated())}"
        return f"Copies make it worse by {worse}: the loss is not one of frame budget."
    if left.low > 0:
        nothing = f"No recovery is shown {shown_as} ({points(back.value)} {interval(back)})"
        return f"{nothing}; {rest} stay lost: forgetting."
    return (
        f"Whether the loss returns {shown_as} is not decided ({points(back.value)} {interval(back)} return)."
    )


def _frame_counts(analysis: Analysis) -> list[Conclusion]:
    ends = extremes([arm for arm in analysis.results.arms if arm.name in analysis.results.final_steps])
    if ends is None:
        return []
    low, high = ends
    text = _versus(analysis, high.name, low.name, f"{high.frames} frames against {low.frames}")
    return [Conclusion("frames", text)] if text else []


def _versus(analysis: Analysis, arm: str, reference: str, label: str) -> str:
    found = [c for measure in MEASURES if (c := analysis.find(arm, reference, measure)) is not None]
    if not found:
        return ""
    parts = [compared(c, MEASURE_TITLES[c.measure]) for c in found]
    return f"{label}: {joined(parts)} ({size(*found)})."


def _hybrid(analysis: Analysis) -> list[Conclusion]:
    found = []
    results = analysis.results
    ends = extremes([arm for arm in results.arms if arm.name in results.final_steps])
    for arm in results.arms:
        matched = controls(results, arm.name)
        aware = arm.role == "aware"
        if not (aware or matched) or arm.name not in results.final_steps:
            continue
        for other in (ends[1], ends[0]) if ends and aware else ():
            text = _versus(analysis, arm.name, other.name, f"“{arm.title}” against {other.frames} frames")
            if text:
                found.append(Conclusion("hybrid", text))
        texts = []
        for control in matched:
            text = _versus(analysis, arm.name, control.name, f"“{arm.title}” against {control_of(control)}")
            if text:
                texts.append(f"{text} {_awareness(analysis, arm, control)}" if aware else text)
        found += [Conclusion("hybrid", text) for text in texts]
        if aware and not texts:
            found.append(
                Conclusion(
                    "hybrid",
                    f"“{arm.title}” has no finished random-matched control: what choosing frames by the "
                    "question does cannot be told from using fewer frames.",
                )
            )
    return found


def _awareness(analysis: Analysis, arm: Arm, control: Arm) -> str:
    looked = {
        MEASURE_TITLES[measure]: c
        for measure in ("image", "video", "video_temporal")
        if (c := analysis.find(arm.name, control.name, measure)) is not None
    }
    video = looked.get("video")
    if video is not None and video.estimate.shown:  # temporal skills are part of it: not a second finding
        looked.pop(MEASURE_TITLES["video_temporal"], None)
    gains = [name for name, c in looked.items() if c.estimate.low > 0]
    costs = [name for name, c in looked.items() if c.estimate.high < 0]
    said = []
    if gains:
        said.append(f"buys {joined(gains)}")
    if costs:
        said.append(f"costs {joined(costs)}")
    if not said:
        return "With the same frame counts dealt at random, choosing them by the question shows no effect."
    rest = [name for name in looked if name not in gains + costs]
    nothing = f"; on {joined(rest)} it shows no effect beyond the frame counts themselves" if rest else ""
    return f"At equal frame counts, choosing them by the question {joined(said)}{nothing}."


def _variants(analysis: Analysis) -> list[Conclusion]:
    found = []
    for arm in analysis.results.arms:
        if arm.role != "variant" or arm.reference is None:
            continue
        label = f"“{arm.title}” against “{analysis.results.title(arm.reference)}”"
        text = _versus(analysis, arm.name, arm.reference, label)
        if text:
            found.append(Conclusion("variant", text))
    for most, fewest in ladders(analysis.results.arms):
        text = _versus(analysis, most.name, fewest.name, f"“{most.title}” against “{fewest.title}”")
        if text:
            found.append(Conclusion("variant", text))
    return found


# --------------------------------------------------------------------------------------------------- caveats


def _caveats(analysis: Analysis) -> list[Conclusion]:
    results = analysis.results
    lines = []
    seeds = {c.estimate.seeds for c in analysis.contrasts}
    if seeds and max(seeds) == 1:
        lines.append(
            "One seed: differences between training runs are not measured. The intervals cover the choice of "
            "questions only and are too narrow as statements about the method."
        )
    elif seeds and min(seeds) < 5:
        lines.append(
            f"Some comparisons rest on {min(seeds)} seed{'s' if min(seeds) > 1 else ''}; five are advised."
        )
    if results.shared_base and len(results.seeds) > 1:
        lines.append(
            "All seeds start from one base model: intervals cover the randomness of Video-SFT and the choice of "
            "questions, not what another base would do."
        )
    lines.append(
        "Intervals are 95%, paired over seeds and questions. Each holds by itself; where several comparisons "
        "are read together, Holm's adjustment within their kind is given in the data table."
    )
    lines.append(
        "A small model in a synthetic world is not a replication of results on 3B to 72B models and public "
        "benchmarks: agreement says that the phenomenon occurs here too, disagreement that it is not "
        "universal. The copies probe is ours; no paper reports it."
    )
    if analysis.copies and BASE in results.final_steps:
        lines.append(
            "The base has no frame policy of its own: its videos are asked at the common frame count."
        )
    if results.temporal is None and results.skills("video"):
        lines.append(
            "Which video skills need more than one frame is not recorded with these scores and cannot be read from "
            "the test data: video averages mix temporal and static questions."
        )
    lines += [f"Missing: {line}" for line in results.missing]
    broken = int(results.scores["error"].notna().sum()) if "error" in results.scores else 0
    if broken:
        lines.append(
            f"{broken} questions could not be asked because their media cannot be read; they count as wrong."
        )
    return [Conclusion("caveat", line) for line in lines]

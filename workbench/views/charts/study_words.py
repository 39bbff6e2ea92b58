"""Title, caption and words of the figures in ``charts.study``: the same in the report, in views and in notebooks."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.study.contrasts import analyse
from workbench.study.curves import curve_table
from workbench.study.results import StudyResults
from workbench.study.wording import interval, number, points

CAPTIONS = {
    "plane": (
        "What is gained on video, what is lost on images",
        "Each line starts at the base and follows one arm over its training steps. Lines use only the "
        "questions asked at every step ({always}): at steps on the way a part of each "
        "suite is asked, and a point must not move because the questions changed. The large marker (the end) and "
        "the base's circle are on all questions, so they need not lie on the lines; the cross is the 95% interval "
        "of the change against the base. The faint marks are single seeds, at the end on all questions.",
    ),
    "curves": (
        "Scores over training",
        "Mean over seeds at every evaluated step, on the questions asked at all steps; the band is a 95% "
        "interval over seeds.",
    ),
    "forest": (
        "Comparisons between arms",
        "Paired over seeds and questions, 95% intervals. Filled: the interval excludes 0, also after "
        "Holm's adjustment within its kind. Hollow: not shown.",
    ),
    "copies": (
        "Copies probe: lost, or shown at the wrong frame budget?",
        "Image loss against the base, split by showing each image in as many copies as the arm's own "
        "policy gives frames to that question. What returns is frame budget, what does not return is "
        "forgetting.",
    ),
    "skills": ("Change of each skill against the base", "Paired 95% intervals, one mark an arm."),
    "frames": (
        "Frames the arms were trained on",
        "Left: how many training clips got how many frames. Right: the mean by the skill that the "
        "clip's question asks.",
    ),
}
UNITS = {"plane": "% right", "curves": "% right", "frames": "training clips"}


@dataclass(frozen=True, slots=True)
class Described:
    """``caption`` says how to read a figure, ``alternative`` what it shows, in words."""

    title: str
    caption: str
    alternative: str


def described(results: StudyResults, name: str) -> Described:
    """Title with unit and n, caption and words of one of the figures in ``CAPTIONS``."""
    title, caption = CAPTIONS[name]
    seeds = f"{len(results.seeds)} seed{'s' if len(results.seeds) != 1 else ''}"
    n = seeds if name == "frames" else f"{asked(results)}, {seeds}"
    title = f"{title} ({UNITS.get(name, 'points')}; {n})"
    return Described(title, caption.format(always=_asked_always(results)), ALTERNATIVES[name](results))


def asked(results: StudyResults) -> str:
    """How many samples were asked about, for example ``400 images, 300 videos``."""
    scores = results.scores
    counts = {k: scores.loc[scores["kind"] == k, "sample_id"].nunique() for k in ("image", "video")}
    return f"{counts['image']} images, {counts['video']} videos"


def _asked_always(results: StudyResults) -> str:
    """How many questions the curves rest on, for example ``800 of 800 image, 200 of 300 video``."""
    table = curve_table(results)
    parts = []
    for kind in ("image", "video"):
        used = table.loc[table["measure"] == kind, "questions"]
        rows = results.scores.loc[results.scores["kind"] == kind, ["suite", "sample_id", "question"]]
        if len(used):
            least, most = int(used.min()), int(used.max())
            count = f"{least}" if least == most else f"{least} to {most}"
            parts.append(f"{count} of {len(rows.drop_duplicates())} {kind}")
    return ", ".join(parts) or "none yet"


NOTHING = "nothing finished yet"


def _ends(results: StudyResults) -> str:
    levels, ends = analyse(results).levels, []
    for arm in results.arms:
        image, video = (levels.get((arm.name, m)) for m in ("image", "video"))
        if image is not None and video is not None:
            ends.append(f"{arm.title} ends at image {image.value:.0f}%, video {video.value:.0f}%")
    return "; ".join(ends) or NOTHING


def _plane(results: StudyResults) -> str:
    return f"Image against video scores: {_ends(results)}."


def _curves(results: StudyResults) -> str:
    return f"Curves over training steps: {_ends(results)}. All points: data table."


def _forest(results: StudyResults) -> str:
    pairs = [
        f"{c.arm} minus {c.reference}, {c.measure}: {points(c.estimate.value)} {interval(c.estimate)}"
        for c in analyse(results).contrasts
        if c.family == "design"
    ]
    return f"{'; '.join(pairs) or 'Comparisons with the base, listed in the data table'}."


def _copies(results: StudyResults) -> str:
    splits = [
        f"{results.title(s.arm)}: {points(s.recovered.estimate.value)} of "
        f"{number(s.loss.estimate.value)} return"
        for s in analyse(results).copies
        if s.measure == "image"
    ]
    return f"{'; '.join(splits) or NOTHING}."


def _skills(results: StudyResults) -> str:
    changes = []
    for arm in results.arms:
        own = [c for c in analyse(results).skills if c.arm == arm.name and c.holds]
        if own:
            listed = ", ".join(f"{c.measure.replace(':', ' ')} {number(c.estimate.value)}" for c in own)
            changes.append(f"{arm.title}: {listed}")
    return f"Changes that stand after Holm's adjustment, in points: {'; '.join(changes) or 'none'}."


def _frames(results: StudyResults) -> str:
    means = results.costs.groupby("arm")["mean_frames"].mean().dropna()
    used = [f"{arm.title} {means[arm.name]:.1f}" for arm in results.arms if means.get(arm.name)]
    return f"Mean frames a training clip: {', '.join(used) or 'not recorded'}."


ALTERNATIVES = {
    "plane": _plane,
    "curves": _curves,
    "forest": _forest,
    "copies": _copies,
    "skills": _skills,
    "frames": _frames,
}

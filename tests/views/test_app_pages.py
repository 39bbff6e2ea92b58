"""Exported pages of monitor, launcher and run browser: no serious axe finding, nothing wider than the window."""

from __future__ import annotations

import pytest

from tests.browser import chromium
from tests.machines.toys import ROOT
from tests.views.axe import needs_axe, violations
from tests.views.runs_made import made_run, made_study, scored, steps
from workbench.views.browser import RunBrowser
from workbench.views.launcher import Launcher
from workbench.views.monitor import RunMonitor


@pytest.mark.browser
@needs_axe
def test_pages_have_no_serious_violation_in_light_or_dark(tmp_path):
    study = made_study(tmp_path / "runs" / "made", {"base-s0": 1.0, "a-s0": 1.0})
    with made_run(study / "runs" / "base-s0") as run:
        steps(run, range(1, 41))
        scored(run, 40, {"image": [True, True, False], "video": [True, False]})
        run.finish("finished")
    failed = made_run(study / "runs" / "a-s0", "a")
    failed.finish("failed", "ValueError: " + "a very long word without an end" * 20 + " שלום")
    launcher = Launcher(ROOT / "recipes/laptop/trap.yaml", recipes=ROOT / "recipes")
    launcher.set("arms.fixed-2.stages.0.batch", 16)
    views = {"monitor": RunMonitor(study), "launcher": launcher, "browser": RunBrowser(tmp_path / "runs")}
    with chromium() as browser:
        for name, view in views.items():
            page = view.to_html(tmp_path / f"{name}.html")
            for scheme in ("light", "dark"):
                assert violations(browser, page, scheme) == [], f"{name}, {scheme}"

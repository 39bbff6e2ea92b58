"""The browser side's own tools (Node.js): its unit tests, type check and build. Not here: such tests are skipped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "frontend"
READY = shutil.which("npm") is not None and (FOLDER / "node_modules").is_dir()
needs_node = pytest.mark.skipif(
    not READY, reason="no front-end tools here: install Node.js 20 or newer, then (cd frontend && npm ci)"
)


def npm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts of frontend/package.json."""
    command = ["npm", "run", "--silent", *arguments]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300)

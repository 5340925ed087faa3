"""Modules of ours as processes of their own, as they are started by hand and as jobs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

from cluster import config_text
from cluster.config import Settings

ROOT = Path(__file__).parents[1]
Done: TypeAlias = "subprocess.CompletedProcess[str]"


def ended(module: str, *words: str, folder: Path = ROOT, **environment: str) -> Done:
    """`python -m module words` in a folder, at its end, which is within five minutes."""
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def answered(module: str, settings: Settings, *words: str) -> dict[str, Any]:
    """The last line that a job prints, with these settings in a file, where it ends well."""
    path = settings.home / "settings.yaml"
    config_text.write(settings, path)
    done = ended(module, "--config", str(path), *words)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found

"""Describe the machine, the installed versions and the revision of the code, without names."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

GIT_TIMEOUT_S = 20.0
RECORDED_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "PYTHONHASHSEED",
    "PYTHONPATH",
)  # others may hold secrets


@functools.cache
def describe_environment(project: Path, archive: Path) -> dict[str, Any]:
    """Machine, versions and code revision, as the manifest keeps them."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_model": cpu_model(),
        "cpu_count": os.cpu_count() or 0,
        "usable_cpu_count": len(os.sched_getaffinity(0))
        if sys.platform == "linux"
        else os.cpu_count() or 0,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "versions": installed_versions(),
        "git": git_state(project, archive),
    }


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


def installed_versions() -> dict[str, str]:
    """Version of every installed distribution."""
    found = {
        dist.metadata["Name"]: dist.version
        for dist in importlib.metadata.distributions()
        if dist.metadata["Name"]
    }
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def git_state(project: Path, archive: Path) -> dict[str, Any] | None:
    """Revision and changed files of the project without the archive; None outside of git."""
    revision = git(project, "rev-parse", "HEAD")
    if revision is None:
        return None
    inside = archive != project and archive.is_relative_to(project)
    without = ["--", ".", f":(exclude,literal){archive.relative_to(project)}"] if inside else []
    changed = (git(project, "status", "--porcelain", *without) or "").splitlines()
    return {"revision": revision.strip(), "dirty": bool(changed), "changed": changed}


def git(project: Path, *args: str) -> str | None:
    """Output of a git command in the project, or None if it fails."""
    try:
        command = ["git", "-C", str(project), *args]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def recorded_variables(env: dict[str, str]) -> dict[str, str]:
    """The variables of an environment that decide what a numerical program does."""
    return {name: env[name] for name in RECORDED_VARIABLES if name in env}

"""Is this scan what its file says? Findings with evidence."""

import dataclasses
import json

from ptycho_torch.config import DoctorConfig
from ptycho_torch.doctor.examination import apply_overrides, examine, examine_quickly, refuse_errors
from ptycho_torch.doctor.findings import ERROR, Finding, take_sample
from ptycho_torch.doctor.picture import save_examination
from ptycho_torch.errors import RunError
from ptycho_torch.io.readers import read_scan


def diagnose(config: DoctorConfig) -> list[Finding]:
    """Examine a scan, print the findings, and draw them.

    Args:
        config: The scan, how it is read, and what to write.

    Returns:
        The findings.

    Raises:
        InputError: If the scan cannot be read at all.
        RunError: If something is certainly wrong, after it was printed.
    """
    scan = read_scan(config.file, options=config)
    sample = take_sample(scan, all_totals=True)
    findings = apply_overrides(examine(scan, sample), config)
    print(as_json(findings) if config.json else as_text(findings))
    if config.picture is not None:
        save_examination(config.picture, scan, sample, findings)
    errors = [finding.check for finding in findings if finding.verdict == ERROR]
    if errors and config.check == "refuse":
        raise RunError(f"{scan.source}: certainly wrong: {', '.join(errors)}")
    return findings


def as_text(findings: list[Finding]) -> str:
    """A line for each finding, with the flag that overrides it."""
    lines = []
    for one in findings:
        flag = f" [{one.flag}]" if one.flag and one.flag not in one.text else ""
        lines.append(f"{one.verdict:8} {one.check:12} {one.text}{flag}")
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    """The findings as JSON."""
    return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2)


__all__ = ["Finding", "diagnose", "examine", "examine_quickly", "refuse_errors", "take_sample"]

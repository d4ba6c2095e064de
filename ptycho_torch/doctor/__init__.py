"""Is this scan what it says it is? A verdict with evidence."""

import dataclasses
import json
import logging

from ptycho_torch.config import DoctorConfig
from ptycho_torch.doctor.examination import examine, examine_quickly, heed, refuse_faults, specimen_of, take_specimen
from ptycho_torch.doctor.findings import FAULT, Finding
from ptycho_torch.doctor.picture import save_examination
from ptycho_torch.errors import RunError
from ptycho_torch.readers import read_recording

logger = logging.getLogger(__name__)


def diagnose(config: DoctorConfig) -> list[Finding]:
    """Examine a scan, print what was found, and draw it.

    Args:
        config: The scan, how it is read, and what to write.

    Returns:
        The findings.

    Raises:
        InputError: If the scan cannot be read at all.
        RunError: If something is certainly wrong, after it was printed.
    """
    specimen = take_specimen(read_recording(config.file, options=config), config)
    findings = heed(examine(specimen), config)
    print(as_json(findings) if config.json else as_text(findings))
    if config.picture is not None:
        save_examination(config.picture, specimen, findings)
    faults = [finding.check for finding in findings if finding.verdict == FAULT]
    if faults and config.check == "refuse":
        raise RunError(f"{specimen.source}: certainly wrong: {', '.join(faults)}")
    return findings


def as_text(findings: list[Finding]) -> str:
    """A line for each finding, and the flag that overrides it."""
    lines = [
        f"{one.verdict:6} {one.check:12} {one.text}{f' [{one.flag}]' if one.flag and one.flag not in one.text else ''}"
        for one in findings
    ]
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    """The findings as JSON."""
    return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2)


__all__ = ["Finding", "diagnose", "examine", "examine_quickly", "refuse_faults", "specimen_of", "take_specimen"]

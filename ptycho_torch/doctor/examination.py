"""The examination of a scan: the quick part, which every run does, and the whole."""

import dataclasses
import logging

import numpy as np

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.scan import Scan
from ptycho_torch.doctor import pattern_checks, position_checks
from ptycho_torch.doctor.findings import ERROR, INFO, Finding, Sample, take_sample
from ptycho_torch.doctor.lost_positions import lost_positions
from ptycho_torch.doctor.near_field import check_near_field
from ptycho_torch.doctor.orientation import (
    LEAST_FRAMES,
    neighbourhood,
    orientation_finding,
    timing_finding,
    try_orientations,
)
from ptycho_torch.errors import InputError

logger = logging.getLogger(__name__)


def examine_quickly(scan: Scan, sample: Sample) -> list[Finding]:
    """The findings from the numbers alone, without trying to reconstruct."""
    return [check(scan, sample) for check in (*pattern_checks.CHECKS, *position_checks.CHECKS)]


def examine(scan: Scan, sample: Sample) -> list[Finding]:
    """The whole examination.

    It tries orientations and the order of positions too, if there is a probe and no error so far.
    """
    findings = [*examine_quickly(scan, sample), check_near_field(scan, sample)]
    if scan.fresnel_number is not None:
        text = "near-field patterns show the sample itself; their orientation is not tried"
        return [*findings, Finding("orientation", INFO, text, {})]
    if scan.probe is not None and all(finding.verdict != ERROR for finding in findings):
        lost = lost_positions(scan)
        placed = scan.subset(np.setdiff1d(np.arange(len(scan)), lost))
        if not neighbourhood(placed)[0].any():
            text = "the middle of the scan has no light; its orientation is not tried"
            return [*findings, Finding("orientation", INFO, text, {})]
        findings.append(orientation_finding(try_orientations(placed)))
        if len(placed) >= LEAST_FRAMES:
            findings.append(timing_finding(placed))
    return findings


def apply_overrides(findings: list[Finding], options: ReadingOptions) -> list[Finding]:
    """The findings; an error whose overriding flag was given becomes an info."""
    default = ReadingOptions()

    def given(finding: Finding) -> bool:
        name = finding.flag.partition(" ")[0].removeprefix("--")
        return bool(name) and getattr(options, name) != getattr(default, name)

    return [
        dataclasses.replace(
            one, verdict=INFO, text=f"{one.text}; overridden with {one.flag.partition(' ')[0]}"
        )
        if one.verdict == ERROR and given(one)
        else one
        for one in findings
    ]


def refuse_errors(scan: Scan, options: ReadingOptions) -> None:
    """Refuse a scan that is certainly not what its file says; with ``--check warn``, warn.

    Raises:
        InputError: For the first error; names the flag that overrides it.
    """
    sample = take_sample(scan, all_totals=False)
    for finding in apply_overrides(examine_quickly(scan, sample), options):
        if finding.verdict != ERROR:
            continue
        override = f"override with {finding.flag}, or continue" if finding.flag else "continue"
        text = (
            f"{scan.source}: {finding.text} ({override} with --check warn; see ptycho-torch doctor)"
        )
        if options.check == "refuse":
            raise InputError(text)
        logger.warning("%s", text)

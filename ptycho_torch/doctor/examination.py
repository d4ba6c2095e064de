"""The examination of a scan: the cheap part, which every run does, and the whole."""

import dataclasses
import logging

import numpy as np

from ptycho_torch.config import ReadingOptions
from ptycho_torch.doctor import patterns, positions
from ptycho_torch.doctor.findings import FAULT, NOTE, Finding, Specimen, choose
from ptycho_torch.doctor.orientation import judge, try_orientations
from ptycho_torch.errors import InputError
from ptycho_torch.readers.assembly import measure, scale_probe
from ptycho_torch.readers.recording import Recording
from ptycho_torch.scan import Scan

logger = logging.getLogger(__name__)


def take_specimen(recording: Recording, options: ReadingOptions) -> Specimen:
    """A recording as the doctor sees it, which may be without a probe.

    Raises:
        InputError: If it cannot be read at all.
    """
    measured = measure(recording, options)
    photons = float(measured.totals.mean())
    probe = None if recording.probe is None else scale_probe(recording, measured, photons)[0]
    chosen = choose(len(measured.totals))
    return Specimen(
        source=recording.source,
        counts=measured.counts,
        totals=measured.totals,
        mask=measured.mask,
        positions_px=measured.positions_px,
        scan_index=measured.scan_index,
        probe=probe,
        pixel_size_m=measured.pixel_size_m,
        stated_pixel_m=None if recording.object_pixel_m is None else measured.pixel_size_m,
        instrument=measured.instrument,
        notes=measured.notes,
        chosen=chosen,
        sample=np.asarray(measured.counts[chosen], dtype=np.float32),
    )


def specimen_of(scan: Scan) -> Specimen:
    """A scan that was read already; the totals are those of the patterns that are looked at."""
    chosen = choose(len(scan))
    sample = np.asarray(scan.counts[chosen], dtype=np.float32)
    return Specimen(
        source=scan.source,
        counts=scan.counts,
        totals=(sample * scan.mask).sum(axis=(1, 2), dtype=np.float64),
        mask=scan.mask,
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
        probe=scan.probe if scan.probe_known else None,
        pixel_size_m=scan.pixel_size_m,
        stated_pixel_m=scan.pixel_size_m,
        instrument=scan.instrument,
        notes=scan.decisions,
        chosen=chosen,
        sample=sample,
    )


def examine_quickly(specimen: Specimen) -> list[Finding]:
    """What a look at the numbers shows, without trying to reconstruct."""
    return [check(specimen) for check in (*patterns.CHECKS, *positions.CHECKS)]


def examine(specimen: Specimen) -> list[Finding]:
    """The whole examination, which tries the orientations where there is a probe and nothing else is certainly wrong."""
    findings = examine_quickly(specimen)
    if specimen.probe is not None and all(finding.verdict != FAULT for finding in findings):
        findings.append(judge(try_orientations(as_scan(specimen))))
    return findings


def heed(findings: list[Finding], options: ReadingOptions) -> list[Finding]:
    """The findings, with a fault as a note where the user has given the flag that overrides it."""
    default = ReadingOptions()

    def given(finding: Finding) -> bool:
        name = finding.flag.partition(" ")[0].removeprefix("--")
        return bool(name) and getattr(options, name) != getattr(default, name)

    return [
        dataclasses.replace(one, verdict=NOTE, text=f"{one.text}; overridden with {one.flag.partition(' ')[0]}")
        if one.verdict == FAULT and given(one)
        else one
        for one in findings
    ]


def as_scan(specimen: Specimen) -> Scan:
    """The specimen as a scan; it has a probe."""
    if specimen.probe is None:
        raise ValueError(f"{specimen.source}: the specimen has no probe")
    return Scan(
        counts=specimen.counts,
        positions_px=specimen.positions_px,
        probe=specimen.probe,
        mask=specimen.mask,
        scan_index=specimen.scan_index,
        pixel_size_m=specimen.pixel_size_m,
        instrument=specimen.instrument,
        source=specimen.source,
    )


def refuse_faults(scan: Scan, options: ReadingOptions) -> None:
    """Stop before a run on a scan that is certainly not what it says; with ``--check warn``, only say so.

    Raises:
        InputError: For the first certain fault; names the flag that overrides it.
    """
    for finding in heed(examine_quickly(specimen_of(scan)), options):
        if finding.verdict != FAULT:
            continue
        override = f"override with {finding.flag}, or go on" if finding.flag else "go on"
        text = f"{scan.source}: {finding.text} ({override} with --check warn; see ptycho-torch doctor)"
        if options.check == "refuse":
            raise InputError(text)
        logger.warning("%s", text)

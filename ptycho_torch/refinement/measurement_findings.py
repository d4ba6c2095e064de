"""What was found about a measurement, as numbers and in plain sentences."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from ptycho_torch.data.scan import Scan, relative_photons
from ptycho_torch.refinement.positions import affine_part

SAID_AFFINE_PX = 0.1  # largest displacement by the affine map below which it is not mentioned
SAID_POSITIONS_PX = 0.05  # error of the positions below which it is not mentioned; it is of noise
SAID_FLUX = 1.0  # % of the photons of a beam that changes, below which it is not mentioned
SAID_PROBE = 2.0  # % of the amplitude; less is noise, or the other half of a shift of all positions
# Independent errors have an affine part, too; it is not mentioned below so many standard errors.
AFFINE_ERRORS = 4.0


@dataclass(frozen=True)
class Finding:
    """One thing that was found and taken into account.

    Attributes:
        name: "affine", "positions", "flux", "background", "probe", "modes" or "probe_change".
        text: A sentence for the reader.
        value: Its size.
        unit: Of the value.
    """

    name: str
    text: str
    value: float
    unit: str


def describe(given: Scan, found: Scan) -> tuple[Finding, ...]:
    """The findings from a scan as given and as it was found to be."""
    findings = [*_positions(given, found)]
    findings += _flux(given, found)
    if found.background is not None and given.background is None:
        share = 100 * float(found.background.sum()) / float(given.pattern_totals().mean())
        findings.append(
            Finding("background", f"{share:.2g} % of the light is background", share, "%")
        )
    findings += _probe(given, found)
    return tuple(findings)


def _positions(given: Scan, found: Scan) -> list[Finding]:
    """Affine map, and what is left of the moves."""
    if found.positions_px is given.positions_px:
        return []
    before, after = (torch.from_numpy(scan.positions_px) for scan in (given, found))
    affine, rest = affine_part(after, before)
    away = before - before.mean(0)
    rms = float(rest.square().mean().sqrt())
    by_chance = AFFINE_ERRORS * rms * math.sqrt(6 / len(rest))
    findings = []
    said = max(SAID_AFFINE_PX, by_chance)
    if float((away @ affine.T).norm(dim=1).max()) > said:
        findings.append(_affine(affine, said / float(away.norm(dim=1).max())))
    if rms > SAID_POSITIONS_PX or not findings:
        text = f"positions were off by {rms:.2g} px rms"
        findings.append(Finding("positions", text, rms, "px"))
    return findings


def _affine(affine: torch.Tensor, said: float) -> Finding:
    """Scale, rotation and shear of an affine map, where they are larger than ``said``."""
    (yy, yx), (xy, xx) = affine.tolist()
    scale, turn = (yy + xx) / 2, (xy - yx) / 2
    shear = math.hypot((yy - xx) / 2, (yx + xy) / 2)
    parts = []
    if abs(scale) > said:
        larger = "larger" if scale > 0 else "smaller"
        parts.append(f"{100 * abs(scale):.2f} % {larger} than the file says")
    if abs(turn) > said:
        parts.append(f"turned by {math.degrees(turn):.2f}°")
    if shear > said or not parts:
        parts.append(f"sheared by {100 * shear:.2f} %")
    *first, last = parts
    text = f"the scan is {', '.join(first)}{' and ' if first else ''}{last}"
    return Finding("affine", text, 100 * scale, "%")


def _flux(given: Scan, found: Scan) -> list[Finding]:
    """How much the photons of the beam vary."""
    if found.flux is None or given.flux is not None:
        return []
    spread = 100 * float(relative_photons(found).std())
    if found.probe_components is not None and spread < SAID_FLUX:
        return []  # the flux keeps the photons of a probe that changes
    text = f"the flux varies by {spread:.2g} % from shot to shot"
    return [Finding("flux", text, spread, "%")]


def _probe(given: Scan, found: Scan) -> list[Finding]:
    """Change of the probe, of its modes, and over the scan."""
    if found.probe is given.probe:
        return []
    before, after = given.need_probe(), found.need_probe()
    first = np.vdot(before[0], after[0])
    likeness = abs(first) / float(np.linalg.norm(before[0]) * np.linalg.norm(after[0]))
    off = 100 * math.sqrt(max(0.0, 1 - likeness**2))
    findings = []
    if off > SAID_PROBE:
        text = f"the probe of the file was off by {off:.2g} % of its amplitude"
        findings.append(Finding("probe", text, off, "%"))
    if len(after) > len(before):
        text = f"the beam is partly coherent: {len(after)} modes"
        findings.append(Finding("modes", text, float(len(after)), "modes"))
    if found.probe_components is not None and found.probe_weights is not None:
        change = np.tensordot(found.probe_weights, found.probe_components, axes=1)
        power = np.mean(np.sum(np.abs(change) ** 2, axis=(1, 2, 3))) / found.photons
        share = 100 * math.sqrt(float(power))
        text = f"the probe changes over the scan by {share:.2g} % of its amplitude"
        findings.append(Finding("probe_change", text, share, "%"))
    return findings

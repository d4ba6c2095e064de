"""Whether a scan is like the scans that a network was trained on."""

from collections.abc import Sequence
from dataclasses import asdict

from ptycho_torch.data.conditions import Conditions, conditions_of
from ptycho_torch.data.scan import Scan

LIMITS = {  # condition: factor by which it may differ from the training scans, and its unit
    "photons": (30.0, "photons a pattern"),
    "step_px": (1.5, "px between neighbours"),
    "beam_px": (1.5, "px of beam"),
    "aperture": (1.5, "of Nyquist of aperture"),
    "probe_modes": (1.0, "probe modes"),
    "pattern_rows": (1.0, "rows of a pattern"),
    "pattern_columns": (1.0, "columns of a pattern"),
}
SPARSE_STEP = 0.4  # of the beam; at 0.42 either start is as good, at 0.47 an empty object is better


def is_sparse(trained: Sequence[Conditions], scan: Scan) -> bool:
    """Whether the positions lie so far apart that a refinement should start from an empty object.

    A refinement then does not correct the slow phases that the network gets wrong; there are more
    of them where the training positions lie much closer.
    """
    conditions = conditions_of(scan)
    usual = max(known.step_px for known in trained)
    return conditions.step_px > min(SPARSE_STEP * conditions.beam_px, LIMITS["step_px"][0] * usual)


def outside_domain(trained: Sequence[Conditions], scan: Scan) -> list[str]:
    """The conditions in which a scan lies outside the training scans, a few words each."""
    words = []
    covered = [*trained, *(conditions.at_lowest_dose() for conditions in trained)]
    for name, value in asdict(conditions_of(scan)).items():
        factor, unit = LIMITS[name]
        known = [getattr(conditions, name) for conditions in covered]
        if not min(known) / factor <= value <= max(known) * factor:
            span = (
                f"{min(known):.3g}"
                if min(known) == max(known)
                else f"{min(known):.3g} to {max(known):.3g}"
            )
            words.append(f"{value:.3g} {unit} (trained with {span})")
    return words

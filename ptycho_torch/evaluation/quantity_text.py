"""Lengths, spatial frequencies and ratios in words, with the unit that is read best."""


def length_text(length_m: float) -> str:
    """A length in picometres, nanometres or micrometres, to three digits."""
    if length_m >= 1e-6:
        return f"{1e6 * length_m:.3g} µm"
    return f"{1e9 * length_m:.3g} nm" if length_m >= 1e-10 else f"{1e12 * length_m:.3g} pm"


def frequency_text(cycles_per_m: float) -> str:
    """A spatial frequency per nanometre or per micrometre, to three digits."""
    if cycles_per_m >= 1e9:
        return f"{1e-9 * cycles_per_m:.3g} nm⁻¹"
    return f"{1e-6 * cycles_per_m:.3g} µm⁻¹"


def ratio_text(ratio: float) -> str:
    """How many times, to two digits and without a power of ten."""
    return f"{ratio:.2g}" if ratio < 100 else f"{float(f'{ratio:.2g}'):.0f}"

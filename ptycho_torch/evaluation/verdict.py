"""Whether a reconstruction can be trusted, by documented rules, in one sentence.

A rule is a function of what `metrics.json` says; it returns the reason for a doubt, or nothing. The
verdict is the worst level of the rules that have a reason. The numbers of the rules are those of
reconstructions that were looked at: with a right model R lies within a fifth of the counting noise,
with a rough probe at two to five times that, and a wrong image is hardly better than an empty one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ptycho_torch.evaluation.quantity_text import length_text, ratio_text

Level = Literal["trust it", "look twice", "do not trust it"]
LEVELS: tuple[Level, ...] = ("trust it", "look twice", "do not trust it")

Metrics = Mapping[str, Any]
Rule = Callable[[Metrics], str]

HARDLY_BETTER = 0.5  # of what an empty object leaves above counting noise
FAR_ABOVE_NOISE = 3.0  # times the R-factor of counting noise
SMALL_R = 0.02  # R-factor below which a multiple of the noise alone is no reason for a doubt
# Of what an empty object leaves above counting noise; at high dose a good image leaves far more
# than the noise, and far less than this.
LEFT_OVER = 0.05
DARK = 1.0  # R-factor of a model without light
POOR_R = 0.1  # R-factor above counting noise, of an image that may not show the object at all
SMALLEST = 1e-12  # R-factor; keeps the share finite where an empty object explains everything
ENOUGH_FRC = 0.25  # of Nyquist, up to which halves of the data should agree
FEW = 0.02  # share of the frames; fewer that are missing leave no hole in the picture
FALLEN_BEHIND = 1.5  # R-free over R of all patterns; with more, noise was fitted


@dataclass(frozen=True)
class Verdict:
    """A level, and why.

    Attributes:
        level: One of `LEVELS`.
        reasons: One sentence for each reason, the most serious first.
    """

    level: Level
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For `metrics.json`."""
        return {"level": self.level, "reasons": list(self.reasons)}


def no_better_than_empty(said: Metrics) -> str:
    """R is that of an empty object, or nearly."""
    r_image, r_empty = said["r_factor"], said["r_factor_empty"]
    if unexplained(said) < HARDLY_BETTER:
        return ""
    return (
        f"the image explains the patterns hardly better than an empty object (R {r_image:.3g} "
        f"and {r_empty:.3g})"
    )


def unlike_the_probe(said: Metrics) -> str:
    """The patterns are not those of the probe, and the image did not make up for it."""
    left = said["r_factor"] - said["r_factor_noise"]
    if said["r_factor_empty"] <= DARK or left <= POOR_R:
        return ""
    return (
        f"the patterns are not those of this probe, which alone explains them worse than no light "
        f"at all (R {said['r_factor_empty']:.3g}), and the image leaves R {said['r_factor']:.3g}"
    )


def untrained(said: Metrics) -> str:
    """The network had not been trained yet, and its image was not refined."""
    if said["trained"]["steps"] != 0 or "refinement" in said:
        return ""
    return "the network was not trained yet"


def halves_disagree(said: Metrics) -> str:
    """Images from halves of the data have nothing in common but the coarsest features."""
    halves = said.get("frc_halves")
    if halves is None:
        return ""
    agreement = halves["resolution_of_nyquist"]["half_bit"]
    if agreement >= ENOUGH_FRC:
        return ""
    return f"two halves of the data agree only up to {in_words(agreement, said)}"


def in_words(frequency: float, said: Metrics) -> str:
    """A spatial frequency in fractions of Nyquist, with its half period where that is known."""
    pixel = said.get("pixel_size_m")
    length = f", {length_text(max(pixel) / frequency)} half period" if pixel and frequency else ""
    return f"{100 * frequency:.0f} % of Nyquist{length}"


def above_noise(said: Metrics) -> str:
    """R is well above counting noise."""
    r_image, r_noise = said["r_factor"], said["r_factor_noise"]
    left = unexplained(said)
    if r_image <= FAR_ABOVE_NOISE * r_noise or (r_image <= SMALL_R and left <= LEFT_OVER):
        return ""
    return (
        f"the misfit is {ratio_text(r_image / r_noise)} times counting noise (R {r_image:.3g} and "
        f"{r_noise:.3g}), and {100 * left:.0f} % of that of an empty object: probe, positions or "
        "model are not right"
    )


def unexplained(said: Metrics) -> float:
    """What the image leaves above counting noise, as a share of what an empty object leaves."""
    r_image, r_empty = said["r_factor"], said["r_factor_empty"]
    r_noise = min(said["r_factor_noise"], r_empty)
    return float(max(r_image - r_noise, 0) / max(r_empty - r_noise, SMALLEST))


def fitted_noise(said: Metrics) -> str:
    """Held-out patterns are predicted much worse than the others are fitted."""
    refinement = said.get("refinement")
    if refinement is None or refinement["r_free"] <= max(SMALL_R, FALLEN_BEHIND * said["r_factor"]):
        return ""
    return (
        f"held-out patterns are predicted worse (R-free {refinement['r_free']:.3g}) than the "
        f"others are fitted (R {said['r_factor']:.3g})"
    )


def beyond_training(said: Metrics) -> str:
    """The network's image of a scan unlike those that it was trained on."""
    if not said["beyond_training"] or said.get("refinement", {}).get("outcome") == "refined":
        return ""
    return f"the network was trained on other scans, of {', '.join(said['beyond_training'])}"


def frames_missing(said: Metrics) -> str:
    """Frames of a scan that was followed while it was measured never came."""
    share = said.get("missing_share", 0.0)
    return f"{100 * share:.0f} % of the frames are missing" if share > FEW else ""


RULES: dict[Level, tuple[Rule, ...]] = {
    "do not trust it": (
        no_better_than_empty,
        unlike_the_probe,
        untrained,
        halves_disagree,
    ),
    "look twice": (above_noise, fitted_noise, beyond_training, frames_missing),
}


def verdict_on(said: Metrics) -> Verdict:
    """The verdict on a reconstruction.

    Args:
        said: What `metrics.json` holds.
    """
    for level in reversed(LEVELS[1:]):
        reasons = [reason for rule in RULES[level] if (reason := rule(said))]
        if reasons:
            milder = RULES["look twice"] if level != "look twice" else ()
            return Verdict(level, (*reasons, *filter(None, (rule(said) for rule in milder))))
    good = [_well_explained(said)]
    if said.get("frc_halves"):
        agreement = said["frc_halves"]["resolution_of_nyquist"]["half_bit"]
        good.append(f"two halves of the data agree up to {in_words(agreement, said)}")
    return Verdict("trust it", tuple(good))


def _well_explained(said: Metrics) -> str:
    """Why the misfit is no reason for a doubt."""
    r_image, r_noise, r_empty = (
        said[name] for name in ("r_factor", "r_factor_noise", "r_factor_empty")
    )
    figures = f"(R {r_image:.3g}; an empty object has {r_empty:.3g})"
    if r_image <= FAR_ABOVE_NOISE * r_noise:
        times = f"{r_image / r_noise:.2g}"
        return f"the image explains the patterns within {times} times counting noise {figures}"
    return f"the image explains all but {100 * unexplained(said):.2g} % of the patterns {figures}"

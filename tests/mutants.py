"""Apply small, plausible bugs to a copy of the package, one at a time, and see that the tests
notice: `make mutants`.

Writes the table of `docs/testing.md`. Ends with status 1 if a bug is not noticed.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch
import matplotlib.pyplot
import pytest
import scipy.ndimage
import skimage.metrics
import skimage.registration
import torch  # imported here once; the children that test a mutant are forked

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "testing.md"
BEGIN, END = "<!-- mutants -->\n", "<!-- end of mutants -->\n"
LIMIT_S = 200  # a bug that makes a test hang is noticed, too
IMPORTED = (
    lightning.pytorch,
    matplotlib.pyplot,
    scipy.ndimage,
    skimage.metrics,
    skimage.registration,
    torch,
)


@dataclass(frozen=True)
class Mutant:
    """A bug.

    Attributes:
        what: In words.
        module: File in the package.
        right: Text that occurs in it once.
        wrong: What stands there instead.
        tests: Arguments of pytest.
    """

    what: str
    module: str
    right: str
    wrong: str
    tests: str


FAULTS = "tests/data/test_measurement_faults.py"
PHYSICS, STITCHING, MIRRORS = (
    "tests/physics/test_physics.py",
    "tests/inference/test_stitching.py",
    "tests/data/test_augmentation.py",
)
TRUTH = "tests/test_wrong_image.py::test_the_image_is_the_known_object"
MEASUREMENT = "tests/refinement/test_measurement.py"
STEP = "tests/refinement/test_step.py"
SHARED = "tests/distributed/test_shared_refinement.py -k more_processes"
NPZ, GROUPING, REFINEMENT = (
    "tests/io/readers/test_npz.py",
    "tests/data/test_grouping.py",
    "tests/refinement/test_refinement.py",
)

MUTANTS = [
    Mutant(
        "fftshift left out",
        "physics/propagation.py",
        "return torch.fft.fftshift(image, dim=(-2, -1))",
        "return image",
        PHYSICS,
    ),
    Mutant(
        "imaginary parts subtracted from an intensity",
        "physics/incoherent.py",
        "return real + imaginary",
        "return real - imaginary",
        PHYSICS,
    ),
    Mutant(
        "conj missing",
        "physics/forward.py",
        "return coherent_sum(probe.conj() * exit_waves)",
        "return coherent_sum(probe * exit_waves)",
        PHYSICS,
    ),
    Mutant(
        "sign of the residual",
        "physics/backprojection.py",
        "(counts - intensity).mul_",
        "(intensity - counts).mul_",
        PHYSICS,
    ),
    Mutant(
        "sign of the sub-pixel part",
        "physics/patches.py",
        "corners_px - whole",
        "whole - corners_px",
        PHYSICS,
    ),
    Mutant(
        "sign of one ramp",
        "physics/probe_shift.py",
        "-2j * torch.pi * shift_px[..., 0",
        "2j * torch.pi * shift_px[..., 0",
        PHYSICS,
    ),
    Mutant(
        "transform not unitary",
        "physics/propagation.py",
        'return torch.fft.fft2(waves, norm="ortho")',
        "return torch.fft.fft2(waves)",
        PHYSICS,
    ),
    Mutant(
        "x and y exchanged in one place",
        "physics/patches.py",
        "y = corners[..., 0,",
        "y = corners[..., 1,",
        PHYSICS,
    ),
    Mutant(
        "mask inverted in the loss",
        "physics/noise.py",
        "weight = mask[",
        "weight = (~mask)[",
        PHYSICS,
    ),
    Mutant(
        "sign in the likelihood",
        "physics/noise.py",
        "intensity - counts + (",
        "counts - intensity + (",
        PHYSICS,
    ),
    Mutant(
        "stitching off by one",
        "inference/stitching.py",
        "in origin_yx - self.corner_yx)",
        "in origin_yx - self.corner_yx + 1)",
        STITCHING,
    ),
    Mutant(
        "sign of the phase between canvases",
        "inference/stitching.py",
        "torch.ones(()), -turn)",
        "torch.ones(()), turn)",
        STITCHING,
    ),
    Mutant(
        "weight applied twice",
        "inference/stitching.py",
        "+= canvas * weight * torch",
        "+= canvas * weight * weight * torch",
        STITCHING,
    ),
    Mutant(
        "mirrored frequencies off by one",
        "physics/propagation.py",
        ".roll(1 - size % 2, dims=axis)",
        "",
        MIRRORS,
    ),
    Mutant(
        "positions not transposed",
        "data/augmentation.py",
        "probe.mT, corners.flip(-1)",
        "probe.mT, corners",
        MIRRORS,
    ),
    Mutant(
        "x and y exchanged in the reader",
        "io/readers/npz.py",
        '("ycoords", "xcoords")',
        '("xcoords", "ycoords")',
        NPZ,
    ),
    Mutant(
        "corner on the wrong side",
        "data/scan.py",
        "self.positions_px - np.asarray(self.pattern_shape) / 2",
        "self.positions_px + np.asarray(self.pattern_shape) / 2",
        TRUTH,
    ),
    Mutant(
        "points farthest from the middle",
        "data/scan.py",
        'kind="stable")[:count])',
        'kind="stable")[-count:])',
        GROUPING,
    ),
    Mutant(
        "judged by photons that the network saw",
        "train/module.py",
        "pairs.append(split_photons(turned, random_input_fraction(turned, rng), rng))",
        "pairs.append((turned, turned))",
        "tests/train/test_learning_laws.py -k seen_and_judged",
    ),
    Mutant(
        "poorer exposures not shown",
        "data/augmentation.py",
        "if smallest < 1:",
        "if smallest > 1:",
        MIRRORS,
    ),
    Mutant(
        "groups dealt out to all processes",
        "train/datamodule.py",
        "[self.rank :: self.world_size]",
        "[: len(self)]",
        "tests/distributed/test_distribution.py -k any_number",
    ),
    Mutant(
        "seed ignored in the steps",
        "train/module.py",
        "torch.Generator(group.counts.device).manual_seed(int(entropy[0]))",
        "torch.Generator(group.counts.device); rng.seed()",
        "tests/train/test_training.py -k same_bits_and_another",
    ),
    Mutant(
        "validation by other photons at each epoch",
        "train/module.py",
        "self.iter_groups(batch, batch_idx)",
        "self.iter_groups(batch, self.global_step)",
        "tests/train/test_training.py -k validation",
    ),
    Mutant(
        "the epoch of the least training loss delivered",
        "train/callbacks.py",
        'else -row["epoch"]',
        'else row["train_loss"]',
        "tests/train/test_training.py -k best_checkpoint",
    ),
    Mutant(
        "the weights of the first epoch in every checkpoint",
        "train/callbacks.py",
        "        torch.save(checkpoint, content)",
        """        self.first = getattr(self, "first", None) or {
            key: value.clone() for key, value in checkpoint["state_dict"].items()
        }
        torch.save(checkpoint | {"state_dict": self.first}, content)""",
        "tests/train/test_training.py -k weights_of_its_epoch",
    ),
    Mutant(
        "validation on the training scans",
        "train/datamodule.py",
        "self._loader(self.validation, shuffle=False)",
        "self._loader(self.train, shuffle=False)",
        "tests/train/test_learning_laws.py -k validation",
    ),
    Mutant(
        "only the first scan learned from",
        "train/datamodule.py",
        "for i, scan in enumerate(self.scans) for points",
        "for i, scan in enumerate(self.scans[:1]) for points",
        "tests/train/test_learning_laws.py -k every_point",
    ),
    Mutant(
        "no warm-up",
        "train/module.py",
        "min(1.0, (step + 1) / WARM_UP_STEPS) * fall",
        "fall",
        "tests/train/test_learning_laws.py -k first_step",
    ),
    Mutant(
        "gradients not clipped",
        "train/trainer.py",
        "gradient_clip_val=GRADIENT_NORM,",
        "gradient_clip_val=None,",
        "tests/train/test_learning_laws.py -k shortened",
    ),
    Mutant(
        "history lost by resuming",
        "train/callbacks.py",
        'for row in state_dict["rows"]',
        "for row in ()",
        "tests/train/test_resume.py -k more_patience",
    ),
    Mutant(
        "flat image delivered",
        "inference/in_memory.py",
        "FLAT = 0.005",
        "FLAT = 0.0",
        "tests/train/test_training.py -k flat",
    ),
    Mutant(
        "kept-out patterns are fitted, too",
        "refinement/joint_refinement.py",
        "everything[~torch.isin(everything, free)]",
        "everything",
        REFINEMENT + " -k not_made_worse",
    ),
    Mutant(
        "conj missing in the step of the probe",
        "refinement/step.py",
        "self.ramps.conj()",
        "self.ramps",
        REFINEMENT + " -k wrong_probe",
    ),
    Mutant(
        "sign of the shift of positions",
        "refinement/positions.py",
        "+ step.clamp(",
        "- step.clamp(",
        MEASUREMENT + " -k found_and_named",
    ),
    Mutant(
        "positions moved beyond the canvas",
        "refinement/positions.py",
        "within(centres, patterns, canvas_shape))",
        "centres)",
        MEASUREMENT + " -k no_move",
    ),
    Mutant(
        "a pattern fits its position to the photons that score it",
        "refinement/held_out_halves.py",
        "replace(few, measured=self.fitted,",
        "replace(few, measured=self.scored,",
        MEASUREMENT + " -k held_out",
    ),
    Mutant(
        "what other processes found not taken",
        "refinement/prepared_patterns.py",
        "self.comm.sum(*values)",
        "pass",
        SHARED,
    ),
    Mutant(
        "the damping of positions by the own patterns alone",
        "refinement/positions.py",
        "self.patterns.comm.sum(usual)",
        "pass",
        SHARED,
    ),
    Mutant(
        "patterns from the scratch file not in the form of the noise model",
        "refinement/pattern_store.py",
        "return self.prepare(self.reader.read(rows.cpu()).to(self.device, non_blocking=True))",
        "return self.reader.read(rows.cpu()).to(self.device)",
        "tests/refinement/test_pattern_store.py",
    ),
    Mutant(
        "a refinement that asks the system for its memory again and again",
        "refinement/prepared_patterns.py",
        "        keep_freed_memory()",
        "        pass",
        "tests/distributed/test_kept_memory.py",
    ),
    Mutant(
        "a training that asks the system for its memory again and again",
        "train/fit.py",
        "        keep_freed_memory()",
        "        pass",
        "tests/distributed/test_kept_memory.py",
    ),
    Mutant(
        "patterns that were read ahead given for other rows",
        "refinement/pattern_store.py",
        "self.begun and torch.equal(self.begun[0][0], rows)",
        "self.begun",
        "tests/refinement/test_pattern_store.py",
    ),
    Mutant(
        "sums of whole multiples that overflow",
        "physics/exact_sums.py",
        "SUM_BITS - math.ceil(math.log2(max(terms, 1)))",
        "SUM_BITS",
        "tests/physics/test_exact_sums.py",
    ),
    Mutant(
        "a batch replayed by the step of another size",
        "refinement/recorded_steps.py",
        "recorded[size].replay(batch)",
        "next(iter(recorded.values())).replay(batch)",
        "tests/refinement/test_recorded_steps.py",
    ),
    Mutant(
        "traces of faults found in an ideal measurement",
        "refinement/measurement_trials.py",
        "if is_as_given(refiner, plain, with_all):",
        "if False:",
        "tests/refinement/test_measurement_schedule.py",
    ),
    Mutant(
        "a loss replayed by that of another canvas",
        "train/recorded_loss.py",
        "key = shape, tuple(tensor.shape for tensor in tensors)",
        "key = (0, 0), tuple(tensor.shape for tensor in tensors)",
        "tests/train/test_recorded_loss.py",
    ),
    Mutant(
        "a step to record that waits for a value",
        "train/recorded_loss.py",
        "reconstruct = self.generator.on_whole_canvas",
        "reconstruct = self.generator",
        "tests/train/test_recorded_loss.py",
    ),
    Mutant(
        "the affine part of the positions left in",
        "refinement/positions.py",
        "self.affine.add(slopes, products)",
        "pass",
        MEASUREMENT + " -k larger_and_turned",
    ),
    Mutant(
        "flux and scale of the object drift apart",
        "refinement/flux.py",
        "self.flux /= self.flux[index].mean()",
        "pass",
        MEASUREMENT + " -k leaves_the_scale",
    ),
    Mutant(
        "a slope of the flux taken from it and not given to the object",
        "refinement/flux.py",
        "state.obj, state.obj_velocity = state.obj * on_object,",
        "state.obj, state.obj_velocity = state.obj,",
        MEASUREMENT + " -k open_slope",
    ),
    Mutant(
        "a probe taken out that has moved with the object",
        "refinement/measurement_refiner.py",
        "align_to_probe(other.patterns, other.state, given.probe)",
        "pass",
        MEASUREMENT + " -k taken_out",
    ),
    Mutant(
        "a background below zero",
        "refinement/background.py",
        ".clamp_min(0)\n        known",
        "\n        known",
        MEASUREMENT + " -k never_negative",
    ),
    Mutant(
        "the background of wrong positions kept",
        "refinement/measurement_refiner.py",
        "background.start_anew()",
        "pass",
        MEASUREMENT + " -k leave_over",
    ),
    Mutant(
        "near field propagated backwards",
        "physics/propagation.py",
        "* q - q.square() / number",
        "* q + q.square() / number",
        PHYSICS,
    ),
    Mutant(
        "flux missing in the gradient",
        "physics/forward.py",
        "slope = slope * self.flux[..., None, None]",
        "pass",
        PHYSICS,
    ),
    Mutant(
        "sign of the prior",
        "refinement/step.py",
        ".mul_(batches).sub_(roughness_gradient(ahead)",
        ".mul_(batches).add_(roughness_gradient(ahead)",
        REFINEMENT + " -k fits_noise",
    ),
    Mutant(
        "slow phases go the other way",
        "physics/low_frequency.py",
        "(canvas * phase).mul_(1j)",
        "(canvas * phase).mul_(-1j)",
        "tests/physics/test_low_frequency.py",
    ),
    Mutant(
        "a blur of another width",
        "physics/gaussian_blur.py",
        "torch.exp(-0.5 * (offsets / width).square())",
        "torch.exp(-(offsets / width).square())",
        "tests/physics/test_gaussian_blur.py",
    ),
    Mutant(
        "an epoch that leaves its device",
        "refinement/background.py",
        "even = self._smoothed(moved,",
        "even = self._smoothed(moved.cpu(),",
        "tests/refinement/test_device.py",
    ),
    Mutant(
        "a right picture refined on",
        "refinement/loop.py",
        "if falls > TUNING.step_falls or entry.r_free < TUNING.converged:",
        "if falls > TUNING.step_falls:",
        REFINEMENT + " -k refined_longer",
    ),
    Mutant(
        "batches that cover little of a large scan",
        "refinement/step.py",
        "size = max(wanted, round(TUNING.cover * beams), 4)",
        "size = max(wanted, 4)",
        REFINEMENT + " -k large_scan",
    ),
    Mutant(
        "the slow phases of the other picture in the mean",
        "refinement/loop.py",
        "(state.obj + factor * network.obj) / 2",
        "(state.obj / factor + network.obj) / 2",
        REFINEMENT + " -k two_noisy",
    ),
    Mutant(
        "a picture beyond the training has its part",
        "inference/in_memory.py",
        "known = not outside_domain(trained, scan)",
        "known = True",
        "tests/inference/test_training_domain.py -k whose_part",
    ),
    Mutant(
        "a mean that is worse by far",
        "refinement/loop.py",
        "max_score_ratio: float = 1.1",
        "max_score_ratio: float = 1e9",
        REFINEMENT + " -k averaged_with",
    ),
    Mutant(
        "positions far apart in the beam not noticed",
        "inference/training_domain.py",
        "min(SPARSE_STEP * conditions.beam_px, LIMITS",
        "(LIMITS",
        "tests/inference/test_training_domain.py -k far_apart",
    ),
    Mutant(
        "mask not shifted as the patterns",
        "refinement/prepared_patterns.py",
        "propagator.from_detector(torch.from_numpy(scan.mask).to(device))",
        "torch.from_numpy(scan.mask).to(device)",
        REFINEMENT + " -k bad_pixels",
    ),
    Mutant(
        "the network sees the patterns that judge",
        "inference/tiling.py",
        "scan.subset(np.setdiff1d(np.arange(len(scan)), held_out))",
        "scan.subset(np.arange(len(scan)))",
        "tests/test_wrong_image.py -k left_out",
    ),
    Mutant(
        "a point lost in each division",
        "data/grouping.py",
        "order[cut:], parts - left",
        "order[cut + 1 :], parts - left",
        GROUPING,
    ),
    Mutant(
        "the same groups in every epoch",
        "train/datamodule.py",
        "self.epoch = epoch if self.shuffle else 0",
        "self.epoch = 0",
        GROUPING,
    ),
    Mutant(
        "mask of the file inverted",
        "io/readers/npz.py",
        "~bad.astype(bool)",
        "bad.astype(bool)",
        NPZ,
    ),
    Mutant(
        "y for x in a flag",
        "io/readers/to_scan.py",
        '"y": (-1, 1)',
        '"y": (1, -1)',
        "tests/io/readers/test_assembly.py",
    ),
    Mutant(
        "light of neighbours counted as a region's own",
        "inference/tiling.py",
        "corners[:, : region.n_core]",
        "corners",
        STITCHING,
    ),
    Mutant(
        "the light of the last pattern only",
        "physics/patches.py",
        ".add_(patch)",
        ".copy_(patch)",
        STITCHING,
    ),
    Mutant(
        "the scan turned the other way",
        "data/measurement_faults.py",
        "[[cosine, -sine], [sine, cosine]]",
        "[[cosine, sine], [-sine, cosine]]",
        FAULTS,
    ),
    Mutant(
        "the mean flux left as it was drawn",
        "data/measurement_faults.py",
        "return flux / flux.mean()",
        "return flux",
        FAULTS,
    ),
    Mutant(
        "background as a share of the other light",
        "data/measurement_faults.py",
        "faults.background / (1 - faults.background)",
        "faults.background",
        FAULTS,
    ),
    Mutant(
        "the file knows where the probe wandered",
        "data/simulation.py",
        "positions_in_file(positions_px,",
        "positions_in_file(truth.positions_px,",
        FAULTS,
    ),
    Mutant(
        "displaced copies that add light",
        "data/measurement_faults.py",
        ".numpy() / math.sqrt(len(shifts))",
        ".numpy()",
        FAULTS,
    ),
    Mutant(
        "the object of a CXI file half a pixel off",
        "io/writers/cxi_writer.py",
        "result.origin_yx + np.array(result.object.shape) / 2",
        "result.origin_yx + np.array(result.object.shape) // 2",
        "tests/io/writers/test_places.py",
    ),
    Mutant(
        "bad pixels refined as dark ones",
        "refinement/step.py",
        "slope = slope * patterns.mask",
        "pass",
        "tests/test_bad_pixels.py -k refinement",
    ),
    Mutant(
        "noise of bad pixels in the groups",
        "data/grouping.py",
        "counts *= scan.mask",
        "pass",
        "tests/test_bad_pixels.py -k unrolled",
    ),
    Mutant(
        "noise of bad pixels in the doctor's sample",
        "doctor/findings.py",
        "dtype=np.float32) * scan.mask",
        "dtype=np.float32)",
        "tests/test_bad_pixels.py -k doctor",
    ),
    Mutant(
        "momentum kept after the best state is restored",
        "refinement/step.py",
        "self.components = other.components.clone()\n        self.reset_momentum()",
        "self.components = other.components.clone()",
        STEP,
    ),
    Mutant(
        "the scale of the probe not moved into the object",
        "refinement/step.py",
        "state.probe, state.obj = state.probe * scale, state.obj / scale",
        "state.probe = state.probe * scale",
        STEP,
    ),
    Mutant(
        "pickle allowed",
        "io/readers/npz.py",
        "np.load(path, allow_pickle=False) as archive:\n            metadata: Arrays",
        "np.load(path, allow_pickle=bool(1)) as archive:\n            metadata: Arrays",
        "tests/damaged/test_damaged_files.py -k executed",
    ),
    Mutant(
        "a small misfit trusted that is a fifth of an empty object's",
        "evaluation/verdict.py",
        "(r_image <= SMALL_R and left <= LEFT_OVER)",
        "r_image <= SMALL_R",
        "tests/evaluation/test_verdict.py",
    ),
    Mutant(
        "y for x in the arrows of moved positions",
        "evaluation/fit_plots.py",
        "(y, x), (dy, dx) = given_px[shown].T, moves[shown].T",
        "(y, x), (dx, dy) = given_px[shown].T, moves[shown].T",
        "tests/evaluation/test_pattern_fit.py",
    ),
    Mutant(
        "a raster turned the wrong way",
        "data/raster.py",
        "[cosine * rows - sine * columns, sine * rows + cosine * columns]",
        "[cosine * rows + sine * columns, cosine * columns - sine * rows]",
        "tests/io/readers/test_raster.py",
    ),
    Mutant(
        "wavelength of photons for electrons",
        "data/wavelength.py",
        "PHOTON_ENERGY_WAVELENGTH / momentum_ev",
        "PHOTON_ENERGY_WAVELENGTH / energy_ev",
        "tests/data/test_wavelength.py",
    ),
    Mutant(
        "a run that fails deletes the one that it was to replace",
        "io/run_dir.py",
        "(self._delete_former if ended_well else self._settle)",
        "self._delete_former",
        "tests/io/test_run_dir.py -k end_well",
    ),
    Mutant(
        "a file that is cut off read as zeros",
        "data/lazy_patterns.py",
        "check_whole(dataset.file)",
        "pass",
        "tests/io/readers/test_file_cut_off.py -k contiguous",
    ),
    Mutant(
        "a flat picture correlated with another",
        "doctor/position_checks.py",
        "picture.std() <= FLAT * np.abs(picture).max()",
        "picture.std() < 0",
        "tests/doctor/test_flat_patterns.py -k flat",
    ),
    Mutant(
        "positions taken where fractions of a pixel are lost",
        "data/scan.py",
        "if farthest > FARTHEST_PX:",
        "if farthest < 0:",
        "tests/doctor/test_positions.py -k too_far",
    ),
    Mutant(
        "a canvas made that is nearly dark",
        "data/scan.py",
        "if extent.prod() > max(LARGE_CANVAS_PX, DARK_CANVAS * lit):",
        "if extent.prod() < 0:",
        "tests/doctor/test_positions.py -k dark_canvas",
    ),
    Mutant(
        "the smaller of two fields taken for lost positions",
        "doctor/lost_positions.py",
        "allowed = max(1, int(LOST_SHARE * len(positions)))",
        "allowed = len(positions)",
        "tests/doctor/test_positions.py -k two_fields",
    ),
    Mutant(
        "a pattern without a photon divided by its photons",
        "evaluation/metrics/residuals.py",
        "lit = self.photons > 0",
        "lit = self.photons >= 0",
        "tests/evaluation/metrics/test_patterns.py -k without_a_photon",
    ),
    Mutant(
        "too little memory taken for a fault of the program",
        "errors.py",
        "return isinstance(error, MemoryError) or (",
        "return (",
        "tests/io/readers/test_too_little_memory.py -k CXI",
    ),
    Mutant(
        "the checksums of a checkpoint left alone",
        "generators/checkpoint.py",
        "if spoiled is not None:",
        "if False:",
        "tests/damaged/test_damaged_files.py -k turned",
    ),
]


def main() -> int:
    """Judge every mutant, after the tests have passed without one."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("ptycho_torch", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / name, copy / name)
        for tests in sorted({mutant.tests for mutant in MUTANTS}):
            if test(copy, tests) != 0:
                print(f"{tests} fails without a mutant")
                return 1
        for mutant in MUTANTS:
            started = time.monotonic()
            killed = judge(copy, mutant)
            print(
                f"{'killed' if killed else 'SURVIVED':9} {time.monotonic() - started:5.1f} s  "
                f"{mutant.what}",
                flush=True,
            )
            rows.append((mutant, killed))
    write_table(rows)
    living = [mutant.what for mutant, killed in rows if not killed]
    if living:
        print(f"noticed by no test: {'; '.join(living)}")
    return 1 if living else 0


def judge(copy: Path, mutant: Mutant) -> bool:
    """Whether the tests of a mutant fail."""
    path = copy / "ptycho_torch" / mutant.module
    sound = path.read_text()
    if sound.count(mutant.right) != 1:
        raise SystemExit(
            f"{mutant.what}: {mutant.right!r} occurs {sound.count(mutant.right)} times in "
            f"{mutant.module}"
        )
    path.write_text(sound.replace(mutant.right, mutant.wrong))
    try:
        status = test(copy, mutant.tests)
    finally:
        path.write_text(sound)
    if status not in (0, 1, 128 + signal.SIGALRM):
        raise SystemExit(f"{mutant.what}: pytest ended with {status}, which judges nothing")
    return status != 0


def test(copy: Path, tests: str) -> int:
    """Exit status of pytest in a child, on the copy."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        signal.alarm(LIMIT_S)
        os.chdir(copy)
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(copy))
        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests.split()]))
    _, status = os.waitpid(child, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def write_table(rows: list[tuple[Mutant, bool]]) -> None:
    """Put the result between the marks in the document."""
    lines = ["| bug | in | noticed by |", "| --- | --- | --- |"]
    lines += [
        f"| {mutant.what} | `{mutant.module}` | {f'`{mutant.tests}`' if killed else 'nothing'} |"
        for mutant, killed in rows
    ]
    before, _, rest = TABLE.read_text().partition(BEGIN)
    TABLE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    sys.exit(main())

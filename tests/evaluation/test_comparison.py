"""`ptycho-torch compare`: its table, its files, and its refusals."""

import json
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptycho_torch import cli
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.evaluation.comparison import compare_images
from ptycho_torch.evaluation.metrics.agreement import compare
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_reconstruction


@pytest.fixture(scope="module")
def known():
    return simulate_scan(photons=1e6, n_side=10, step_px=5, pattern_size=32, seed=5).truth


@pytest.fixture(scope="module")
def blurred(known):
    """The truth without its finest detail."""
    parts = [gaussian_filter(part, 1.0) for part in (known.object.real, known.object.imag)]
    return replace(known, object=(parts[0] + 1j * parts[1]).astype(np.complex64))


@pytest.fixture
def folders(tmp_path, known, blurred):
    """A folder of a simulation, and two of inference."""
    runs = {name: RunDir(tmp_path / name) for name in ("simulated", "image", "other")}
    for run in runs.values():
        run.path.mkdir()
    write_reconstruction(runs["simulated"].truth, known)
    write_reconstruction(runs["image"].reconstruction, blurred)
    turned = replace(blurred, object=blurred.object * np.complex64(0.9 * np.exp(3j)))
    write_reconstruction(runs["other"].reconstruction, turned)
    return runs


def status(*words):
    return cli.main(["compare", *map(str, words)])


def test_a_table_is_printed_and_numbers_and_picture_are_written(
    folders, blurred, known, tmp_path, capsys
):
    out = RunDir(tmp_path / "out")
    assert status(folders["image"].path, folders["simulated"].path, "--output_dir", out.path) == 0
    agreement = compare(blurred, known)
    text = capsys.readouterr().out
    for words in (
        f"amplitude SSIM │ {agreement.amplitude_ssim:.4f}",
        "half period",
        "1/7 criterion",
        "region",
    ):
        assert words.replace(" ", "") in text.replace(" ", "")
    stored = json.loads(out.comparison.read_text())
    assert stored["agreement"]["phase_ssim"] == pytest.approx(agreement.phase_ssim)
    frc = stored["frc"]
    assert frc["pair"] == "truth"
    assert len(frc["frequency_of_nyquist"]) == len(frc["thresholds"]["half_bit"])
    assert frc["resolution_of_nyquist"]["one_seventh"] == pytest.approx(agreement.frc50)
    picture = matplotlib.image.imread(out.comparison_picture)
    assert min(picture.shape[:2]) > 500
    assert picture[..., :3].std() > 0.1


def test_files_and_folders_mean_the_same(folders, tmp_path):
    figures = []
    for name, words in {
        "folders": (folders["image"].path, folders["simulated"].path),
        "files": (folders["image"].reconstruction, folders["simulated"].truth),
    }.items():
        assert status(*words, "--output_dir", tmp_path / name, "--quiet") == 0
        figures.append(json.loads(RunDir(tmp_path / name).comparison.read_text())["agreement"])
    assert figures[0] == figures[1]


def test_two_results_are_compared_whatever_their_global_phase(folders, tmp_path, caplog):
    """One is the other with a phase of 3 rad and 0.9 of the amplitude; a warning names that both
    come from the same exposures.
    """
    out = RunDir(tmp_path / "out")
    image, other = folders["image"].path, folders["other"].path
    assert status(image, other, "--output_dir", out.path, "--quiet") == 0
    assert "same exposures" in caplog.text
    stored = json.loads(out.comparison.read_text())
    assert stored["frc"]["pair"] == "full"
    assert stored["agreement"]["phase_ssim"] > 0.999
    assert abs(complex(*stored["alignment"]["factor"])) == pytest.approx(0.9, abs=1e-3)


def test_the_truth_may_come_first(folders):
    image, truth = folders["image"].reconstruction, folders["simulated"].truth
    forth, back = compare_images(image, truth, pair=None), compare_images(truth, image, pair=None)
    assert forth.curves.pair == back.curves.pair == "truth"
    assert forth.agreement.correlation == pytest.approx(back.agreement.correlation, abs=1e-3)
    assert forth.agreement.frc50 == back.agreement.frc50


def test_the_pair_can_be_set_to_half(folders):
    paths = folders["image"].reconstruction, folders["other"].reconstruction
    full, half = (
        compare_images(*paths, pair=pair).curves.thresholds["half_bit"] for pair in ("full", "half")
    )
    assert (half[1:] < full[1:]).all()


def test_a_smaller_scan_is_compared_where_both_are(folders, known, tmp_path):
    """The middle third, cut out, in a frame of its own."""
    first, last = 25, 65
    inside = np.all((known.positions_px > first) & (known.positions_px < last), axis=1)
    part = replace(
        known,
        object=known.object[first - 10 : last + 10, first - 10 : last + 10],
        coverage=known.coverage[first - 10 : last + 10, first - 10 : last + 10],
        origin_yx=np.array([first - 10.0, first - 10.0]),
        positions_px=known.positions_px[inside],
        scan_index=known.scan_index[inside],
    )
    path = tmp_path / "part.npz"
    write_reconstruction(path, part)
    assert status(path, folders["simulated"].path, "--output_dir", tmp_path / "out", "--quiet") == 0
    stored = json.loads(RunDir(tmp_path / "out").comparison.read_text())
    assert max(stored["region"]["shape"]) < last - first
    assert stored["agreement"]["correlation"] > 0.999


def test_images_that_cannot_be_compared_get_a_sentence_and_no_folder(
    folders, known, tmp_path, capsys
):
    away, empty, text = tmp_path / "away.npz", tmp_path / "empty", tmp_path / "text.npz"
    write_reconstruction(
        away,
        replace(known, origin_yx=known.origin_yx + 1000, positions_px=known.positions_px + 1000),
    )
    empty.mkdir()
    text.write_text("no image")
    out = tmp_path / "out"
    for wrong, sentence in (
        (away, "less than 16 x 16 pixels in common"),
        (
            empty,
            "holds no image; expected reconstruction.npz of inference or truth.npz of a simulation",
        ),
        (text, "not a readable reconstruction"),
        (tmp_path / "nowhere", "no such file or run folder"),
    ):
        assert status(wrong, folders["simulated"].path, "--output_dir", out) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert str(wrong) in error
        assert not out.exists()
    assert status(folders["image"].path) == 2
    assert "REFERENCE must be given" in capsys.readouterr().err


def test_the_folder_of_an_image_is_never_written_to(folders, capsys):
    """With --overwrite, the image would be deleted as an earlier run."""
    image, simulated = folders["image"].path, folders["simulated"].path
    assert status(image, simulated, "--output_dir", image, "--overwrite") == 2
    assert "choose another --output_dir" in capsys.readouterr().err
    assert folders["image"].reconstruction.is_file()


def test_an_earlier_comparison_is_kept_without_overwrite(folders, tmp_path, capsys):
    image, simulated = folders["image"].path, folders["simulated"].path
    words = (image, simulated, "--output_dir", tmp_path / "out", "--quiet")
    assert status(*words) == 0
    assert status(*words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert status(*words, "--overwrite") == 0

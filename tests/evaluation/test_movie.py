"""The animation of a refinement: which epochs it shows, in which colours, whole or not at all."""

import errno

import numpy as np
import pytest
from PIL import Image

from ptycho_torch import cli
from ptycho_torch.evaluation import movie
from ptycho_torch.evaluation.movie import MovieFrames, save_movie
from ptycho_torch.io.readers.reconstruction import read_reconstruction


def kept(count, shape=(6, 8)):
    """Frames of a refinement whose object is the number of the epoch."""
    frames = MovieFrames()
    for epoch in range(count):
        frames.add(epoch, 1 / (1 + epoch), np.full(shape, epoch, dtype=np.complex64))
    return frames


def test_a_frame_is_a_copy_that_the_next_epoch_does_not_change():
    frames, image = MovieFrames(), np.zeros((4, 4), dtype=np.complex64)
    frames.add(0, 0.5, image)
    image += 1
    assert not frames.frames[0].object.any()


def test_many_epochs_are_thinned_evenly_and_few_are_all_there():
    assert [one.epoch for one in kept(5).frames] == list(range(5))
    many = [one.epoch for one in kept(1000).frames]
    assert len(many) <= movie.MOST_FRAMES + 1
    assert many == list(range(0, 1000, many[1]))
    assert all(one.object[0, 0] == one.epoch for one in kept(1000).frames)


def test_a_second_refinement_replaces_the_first():
    frames = kept(300)
    frames.add(0, 0.1, np.full((5, 5), 7, dtype=np.complex64))
    frames.add(1, 0.1, np.full((5, 5), 8, dtype=np.complex64))
    assert [(one.epoch, one.object.shape) for one in frames.frames] == [(0, (5, 5)), (1, (5, 5))]


def test_a_large_object_is_kept_small():
    (frame,) = kept(1, shape=(1200, 900)).frames
    assert frame.object.shape == (400, 300)


def images_of(path):
    """The pictures of an animation as RGB, (n, Y, X, 3), and how long each stays, in ms."""
    with Image.open(path) as opened:
        pictures, times = [], []
        for number in range(opened.n_frames):
            opened.seek(number)
            pictures.append(np.asarray(opened.convert("RGB")).astype(int))
            times.append(round(opened.info["duration"]))
        return np.stack(pictures), times


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_an_animation_shows_the_epochs_and_ends_with_the_result(suffix, simulation, tmp_path):
    truth, path = simulation.truth, tmp_path / f"movie{suffix}"
    flat = np.full_like(truth.object, np.abs(truth.object).mean())
    frames = MovieFrames()
    for epoch, share in enumerate((0.0, 0.5, 1.0)):
        frames.add(epoch, 0.1, (1 - share) * flat + share * truth.object)
    save_movie(path, frames.frames, truth)
    pictures, times = images_of(path)
    assert len(pictures) == 4
    assert times[-1] > 2 * times[0]
    body = pictures[:, 40:]  # without the title, which names the epoch
    assert np.array_equal(body[2], body[3])
    far, near = (np.abs(body[n] - body[3]).mean() for n in (0, 1))
    assert far > near > 0.5
    for half in (body[3][:, :280], body[3][:, 360:640]):  # both images are there, in colours
        assert half.std(axis=2).max() > 50
    colours = [len(np.unique(one.reshape(-1, 3), axis=0)) for one in body]
    assert max(colours) <= 256 if suffix == ".gif" else max(colours) > 256


def test_a_movie_that_cannot_be_written_leaves_the_old_one(simulation, tmp_path, monkeypatch):
    path = tmp_path / "movie.gif"
    path.write_bytes(b"older")

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_movie(path, kept(2, simulation.truth.object.shape).frames, simulation.truth)
    assert path.read_bytes() == b"older"
    assert [one.name for one in tmp_path.iterdir()] == ["movie.gif"]


@pytest.fixture(scope="module")
def trained(scan_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ["--max_epochs", "1", "--accelerator", "cpu", "--quiet"]
    words += ["--train_data_file", str(scan_file), "--output_dir", str(folder)]
    assert cli.main(["train", *words]) == 0
    return folder


def infer(model, scan, folder, *words):
    named = ["--model_path", model, "--test_data", scan, "--output_dir", folder]
    named += ["--accelerator", "cpu", "--quiet"]
    return cli.main(["infer", *map(str, named), *map(str, words)])


def test_the_animation_of_an_inference_changes_no_bit_of_it(trained, scan_file, tmp_path):
    path = tmp_path / "movie.gif"
    assert infer(trained, scan_file, tmp_path / "with", "--refine", 3, "--movie", path) == 0
    assert infer(trained, scan_file, tmp_path / "without", "--refine", 3) == 0
    found, expected = (
        read_reconstruction(tmp_path / name / "reconstruction.npz") for name in ("with", "without")
    )
    assert found.object.tobytes() == expected.object.tobytes()
    assert found.probe.tobytes() == expected.probe.tobytes()
    assert len(images_of(path)[0]) == 1 + 3 + 1  # start, epochs, result


def test_a_movie_that_cannot_be_is_refused_before_the_scan_is_read(trained, tmp_path, capsys):
    there = tmp_path / "there.gif"
    there.write_bytes(b"of the user")
    scan = tmp_path / "scan.npz"
    scan.write_bytes(b"whoever reads it refuses it")
    for words, sentence in (
        (["--movie", there], "give --refine auto"),
        (["--refine", 3, "--movie", tmp_path / "movie.mp4"], "must end with .gif or .png"),
        (["--refine", 3, "--movie", tmp_path / "no/movie.gif"], "there is no folder"),
        (["--refine", 3, "--movie", there], "is there already"),
    ):
        assert infer(trained, scan, tmp_path / "out", *words) == 2
        assert sentence in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert there.read_bytes() == b"of the user"


def test_a_movie_may_lie_in_the_folder_of_the_run(trained, scan_file, tmp_path):
    path = tmp_path / "out" / "movie.png"
    assert infer(trained, scan_file, tmp_path / "out", "--refine", 1, "--movie", path) == 0
    assert len(images_of(path)[0]) == 3

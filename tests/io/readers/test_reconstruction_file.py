"""Files of reconstructions whose arrays cannot be what their keys say."""

import numpy as np
import pytest

from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.reconstruction import read_reconstruction


def arrays() -> dict[str, np.ndarray]:
    return {
        "object": np.ones((20, 24), dtype=np.complex64),
        "coverage": np.ones((20, 24), dtype=np.float32),
        "origin_yx": np.zeros(2),
        "probe": np.ones((1, 8, 8), dtype=np.complex64),
        "positions_px": np.ones((5, 2)),
        "scan_index": np.arange(5),
    }


def test_a_sound_file_is_read(tmp_path):
    np.savez(tmp_path / "image.npz", **arrays())
    assert read_reconstruction(tmp_path / "image.npz").object.shape == (20, 24)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("object", np.ones(20), "object is .*expected numbers of shape .Y, X."),
        ("object", np.full((20, 24), "a"), "object is <U1"),
        ("object", np.full((20, 24), 1e200), "modulus of object is 1e.200"),
        ("object", np.full((20, 24), 1e-300), "modulus of object is 1e-300"),
        ("object", np.full((20, 24), 1.5e308 * (1 + 1j)), "modulus of object is inf"),
        ("coverage", np.ones((20, 23)), "coverage is .*20, 24"),
        ("origin_yx", np.float64(1), r"origin_yx is .*of shape \(2,\)"),
        ("origin_yx", np.array([np.nan, 0]), "origin_yx holds no places"),
        ("positions_px", np.full((5, 2), 2.0**63), "positions_px holds no places"),
        ("positions_px", np.zeros((0, 2)), "positions_px is .*N, 2"),
        ("probe", np.ones((8, 8)), "probe is .*M, H, W"),
        ("scan_index", np.arange(4), "scan_index is"),
        ("energy_ev", np.array("abc"), "energy_ev is <U3"),
        ("pixel_size_m", np.array([np.nan, 1]), "pixel_size_m is .*expected positive numbers"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_is_named(key, value, words, tmp_path):
    path = tmp_path / "image.npz"
    np.savez(path, **arrays() | {key: value})
    with pytest.raises(InputError, match=words) as refused:
        read_reconstruction(path)
    assert str(path) in str(refused.value)

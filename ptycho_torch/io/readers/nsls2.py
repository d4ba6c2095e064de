"""Read HDF5 files of NSLS-II: amplitudes, positions in micrometres ``[x; y]``."""

from collections.abc import Sequence
from pathlib import Path

from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.wavelength import energy_of
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.checks import check_real
from ptycho_torch.io.readers.hdf5 import lengths, need_dataset, need_patterns, open_hdf5, quantity
from ptycho_torch.io.readers.raw_scan import Format, RawScan


def read_nsls2(paths: Sequence[Path]) -> RawScan:
    """The raw in a file with ``diffamp`` and ``points``.

    Raises:
        InputError: If something is missing or cannot be what it should.
    """
    (path,) = paths
    with open_hdf5(path) as file:
        patterns = need_patterns(need_dataset(file, "diffamp"), path)
        points = check_real(
            f"{path}: points", lengths(need_dataset(file, "points"), "um"), (None, None)
        )
        if points.shape[0] != 2:
            raise InputError(
                f"{path}: points has shape {points.shape}; expected (2, n), [x; y] in micrometres"
            )
        wavelength = quantity(need_dataset(file, "lambda_nm"), "nm")
        pixel = quantity(need_dataset(file, "ccd_pixel_um"), "um")
        return RawScan(
            source=str(path),
            patterns=patterns,
            patterns_key="diffamp",
            values="amplitude",
            positions=points[::-1].T,
            positions_unit="m",
            instrument=Instrument(
                None if wavelength is None else energy_of(wavelength),
                quantity(need_dataset(file, "z_m"), "m"),
                None if pixel is None else (pixel, pixel),
            ),
            wavelength_stated=True,
        )


FORMAT = Format(
    name="NSLS-II HDF5",
    container="hdf5",
    recognises=lambda file: "diffamp" in file,
    read=read_nsls2,
)

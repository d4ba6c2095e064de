"""A scan from Ptychodus in the frame and scale used here, and the object in those of Ptychodus.

Frame: in Ptychodus 1.6 and later, whole numbers are the middles of object pixels, so that the patch
of N pixels at p begins at p - (N - 1) / 2. Here, and in older versions of Ptychodus, whole numbers
are the borders of pixels and the patch begins at p - N / 2. So p(here) = p(Ptychodus) + 1/2, and an
element of the object has the same index in both.

Scale: Ptychodus keeps the probe of its product. The reader multiplies the probe by the factor at
which it carries the photons of a mean pattern. The object for Ptychodus is multiplied by the same
factor, so that probe and object of the product predict the measured counts.
"""

from types import FrameType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.doctor.examination import refuse_errors
from ptycho_torch.errors import InputError
from ptycho_torch.inference.in_memory import on_canvas
from ptycho_torch.io.readers.raw_scan import RawScan
from ptycho_torch.io.readers.to_scan import to_scan
from ptycho_torch.ptychodus.settings import TESTED_VERSIONS, host_name, host_version

MIDDLES_SINCE = (1, 6)  # first version of Ptychodus in which whole numbers are middles of pixels


class HostObject(NamedTuple):
    """What Ptychodus knows of the object and the detector and does not pass.

    Attributes:
        shape: ``(Y, X)`` of the object that the positions refer to.
        layers: Layers of that object.
        bad_pixels: Detector pixels not to trust, bool, (H, W), True = bad; None if it has no mask.
    """

    shape: tuple[int, int]
    layers: int
    bad_pixels: NDArray[np.bool_] | None


class HostScan(NamedTuple):
    """A scan from Ptychodus, with what is needed to give the object back.

    Attributes:
        scan: In this package's frame and scale.
        shape: ``(Y, X)`` of the object to return; its element [0, 0] is at the origin of the frame.
        probe_factor: Factor by which the probe of the product was multiplied.
    """

    scan: Scan
    shape: tuple[int, int]
    probe_factor: float


def object_of_caller(caller: FrameType) -> HostObject:
    """The object that an inference is to replace, from the local variables of the calling function.

    Ptychodus passes patterns, probe and positions, but not the shape of the object, which decides
    where the result lies: Ptychodus puts the middle of the returned array at the middle of that
    object. The positions do not determine it. Its function `run_reconstruct` has the geometry of
    the object in a local variable while it calls this package.

    Args:
        caller: Frame of that function.

    Raises:
        InputError: If there is no such variable.
    """
    geometry = caller.f_locals.get("object_geometry")
    parameters = caller.f_locals.get("parameters")
    try:
        shape = int(geometry.height_px), int(geometry.width_px)  # type: ignore[union-attr]
        layers = len(parameters.product.object_.layer_spacing_m) + 1  # type: ignore[union-attr]
        bad_pixels = parameters.bad_pixels  # type: ignore[union-attr]
    except AttributeError as error:
        raise InputError(
            f"the place of the object is not known: {host_name()} does not pass it, and its "
            f"function {caller.f_code.co_name} does not hold the variables 'object_geometry' and "
            f"'parameters' in which Ptychodus {TESTED_VERSIONS} keep it"
        ) from error
    return HostObject(shape, layers, bad_pixels)


def to_host_scan(
    patterns: NDArray,
    probe: NDArray[np.complexfloating],
    positions: NDArray[np.float64],
    host: HostObject,
) -> HostScan:
    """The scan from Ptychodus's arrays.

    A scan that is certainly not what it says is reconstructed all the same, with a warning, since
    the user of Ptychodus has no flag to override the refusal.

    Args:
        patterns: Counts, (n, H, W), zero frequency at ``[H // 2, W // 2]``.
        probe: Modes at any scale, complex, (M, H, W).
        positions: ``(y, x)`` in pixels of the object, (n, 2).
        host: See `object_of_caller`.

    Raises:
        InputError: If an array cannot be used, or the object has more than one layer.
    """
    if host.layers > 1:
        raise InputError(
            f"the object of the product has {host.layers} layers, and ptycho_torch makes objects "
            "of one layer; reduce the object to one layer in Ptychodus"
        )
    version = host_version()
    middles = not version or version >= MIDDLES_SINCE
    options = ReadingOptions(check="warn")
    raw = RawScan(
        source="the scan from Ptychodus",
        patterns=np.asarray(patterns),
        patterns_key="patterns",
        values="counts",
        positions=np.asarray(positions),
        positions_unit="px",
        positions_from="center" if middles else "corner",
        probe=np.asarray(probe),
        probe_key="probe",
        mask=None if host.bad_pixels is None else ~np.asarray(host.bad_pixels, dtype=bool),
    )
    scan = to_scan(raw, options)
    refuse_errors(scan, options)
    before, after = (
        np.linalg.norm(np.asarray(modes).astype(np.complex128))
        for modes in (probe, scan.need_probe())
    )
    return HostScan(scan, host.shape, float(after / before))


def to_host_object(result: Reconstruction, host: HostScan) -> NDArray[np.complex64]:
    """The object as Ptychodus expects it, complex, (Y, X): its place and its scale."""
    placed = on_canvas(result, (0, 0), host.shape)
    return placed.object * np.float32(host.probe_factor)

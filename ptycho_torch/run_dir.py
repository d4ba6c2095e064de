"""The folder of a run: the names of its files, how they are written, and who may write."""

import contextlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ptycho_torch.errors import InputError

LEFTOVER = ".[0-9]*-*"  # temporary files; outside a write there is one only where a process was killed in the middle of it


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without error."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")  # as `LEFTOVER` finds it
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def provenance() -> dict[str, str]:
    """Versions of what computed the run."""
    packages = ("ptycho_torch", "torch", "lightning", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


@dataclass(frozen=True)
class RunDir:
    """The names of the files in a run folder; no other module knows them.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Every option as the run used it, YAML."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """State after the last epoch."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """State with the smallest judging loss."""
        return self.checkpoints / "best.ckpt"

    @property
    def metrics_csv(self) -> Path:
        """A line for each epoch."""
        return self.path / "metrics.csv"

    @property
    def history(self) -> Path:
        """The losses over the epochs, picture."""
        return self.path / "history.png"

    def probe_file(self, number: int) -> Path:
        """Refined probe of a training scan, from 0, NPY."""
        return self.path / f"probe_{number}.npy"

    @property
    def train_log(self) -> Path:
        """Everything that training said."""
        return self.path / "train_debug.log"

    @property
    def inference_log(self) -> Path:
        """Everything that inference said."""
        return self.path / "inference.log"

    @property
    def reconstruction(self) -> Path:
        """The complex image and what it was made from, NPZ."""
        return self.path / "reconstruction.npz"

    @property
    def amplitude(self) -> Path:
        """Amplitude of the reconstruction, picture."""
        return self.path / "reconstructed_amplitude.png"

    @property
    def phase(self) -> Path:
        """Phase of the reconstruction, picture."""
        return self.path / "reconstructed_phase.png"

    @property
    def metrics(self) -> Path:
        """Figures of the reconstruction, JSON."""
        return self.path / "metrics.json"

    @property
    def residuals(self) -> Path:
        """Residuals over the scan and the ring correlation of its halves, picture."""
        return self.path / "residuals.png"

    @property
    def comparison(self) -> Path:
        """Figures of a comparison, JSON."""
        return self.path / "comparison.json"

    @property
    def comparison_picture(self) -> Path:
        """Both images of a comparison, their difference and their ring correlation, picture."""
        return self.path / "comparison.png"

    @property
    def report(self) -> Path:
        """All of a reconstruction on one page, HTML."""
        return self.path / "report.html"

    @property
    def scan(self) -> Path:
        """Simulated scan, NPZ."""
        return self.path / "scan.npz"

    def scan_file(self, format_name: str) -> Path:
        """Simulated scan in one of the formats of `ptycho_torch.writers`; the two files of a pair lie in the folder itself."""
        return self.path if format_name == "ptychodus" else self.scan.with_suffix(f".{format_name}")

    @property
    def diffraction(self) -> Path:
        """Patterns of a scan as Ptychodus keeps them, HDF5."""
        return self.path / "diffraction.h5"

    @property
    def product(self) -> Path:
        """Product of Ptychodus, HDF5."""
        return self.path / "product.h5"

    @property
    def cxi(self) -> Path:
        """The reconstruction as CXI."""
        return self.path / "reconstruction.cxi"

    @property
    def amplitude_tiff(self) -> Path:
        """Amplitude of the reconstruction, values."""
        return self.path / "reconstructed_amplitude.tiff"

    @property
    def phase_tiff(self) -> Path:
        """Phase of the reconstruction, values."""
        return self.path / "reconstructed_phase.tiff"

    @property
    def truth(self) -> Path:
        """Simulated object, NPZ in the layout of `reconstruction`."""
        return self.path / "truth.npz"

    @property
    def simulation(self) -> Path:
        """Simulated object, probe and patterns, picture."""
        return self.path / "simulation.png"

    def files(self) -> list[Path]:
        """The files of a run that are there; the presence of one means that the folder holds a run."""
        names = (
            self.config,
            self.metrics_csv,
            self.history,
            self.train_log,
            self.inference_log,
            self.reconstruction,
            self.amplitude,
            self.phase,
            self.metrics,
            self.report,
            self.residuals,
            self.comparison,
            self.comparison_picture,
            self.scan,
            self.scan_file("cxi"),
            self.scan_file("ptyd"),
            self.diffraction,
            self.product,
            self.cxi,
            self.amplitude_tiff,
            self.phase_tiff,
            self.truth,
            self.simulation,
            *sorted(self.checkpoints.glob("*.ckpt")),
            *sorted(self.path.glob(self.probe_file(0).name.replace("0", "[0-9]*"))),
        )
        return [path for path in names if path.is_file()]

    @contextlib.contextmanager
    def claim(self, *, overwrite: bool = False, resume: bool = False) -> Iterator[None]:
        """Make the folder, and hold it against other runs until the block ends.

        Args:
            overwrite: Delete the run that the folder holds.
            resume: Keep it and go on.

        Raises:
            InputError: If the folder holds a run and neither is set, is in use by another run,
                or cannot be written.
        """
        lock = FileLock(self.path / ".lock")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout as error:
            raise InputError(f"{self.path} is in use by another run; wait for it or choose another --output_dir") from error
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror}; choose another --output_dir") from error
        with lock:
            found = self.files()
            if found and not (overwrite or resume):
                raise InputError(
                    f"{self.path} already holds a run ({found[0].name}); "
                    "choose another --output_dir, or --overwrite to replace it"
                )
            leftovers = [*self.path.glob(LEFTOVER), *self.checkpoints.glob(LEFTOVER)]
            for path in leftovers + (found if overwrite else []):
                path.unlink()
            yield

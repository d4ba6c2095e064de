"""The folder of a run: the names of its files, which command they belong to, and who may write."""

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from ptycho_torch import __version__
from ptycho_torch.config.yaml_file import read_yaml
from ptycho_torch.errors import InputError, NotTrustedError
from ptycho_torch.io.files import PART


class RunFile(NamedTuple):
    """A file, or a pattern of files, in the folder of a run.

    Attributes:
        name: Relative to the folder.
        commands: The commands that write it; ``--overwrite`` replaces a command's own files and no
            others.
        meaning: What it holds.
    """

    name: str
    commands: tuple[str, ...]
    meaning: str


FILES = {  # attribute of `RunDir` -> file; no other module knows the names
    "config": RunFile(
        "config.yaml", ("train", "infer", "simulate"), "every option as the run used it"
    ),
    "last_checkpoint": RunFile("checkpoints/last.ckpt", ("train",), "state after the last epoch"),
    "best_checkpoint": RunFile(
        "checkpoints/best.ckpt", ("train",), "state with the smallest validation loss"
    ),
    "other_checkpoints": RunFile(
        "checkpoints/*.ckpt", ("train",), "further checkpoints that were asked for"
    ),
    "metrics_csv": RunFile("metrics.csv", ("train",), "losses, a line for each epoch"),
    "history": RunFile("history.png", ("train",), "losses over the epochs"),
    "refined_probes": RunFile(
        "probe_[0-9]*.npy", ("train",), "refined probe of each training scan"
    ),
    "refined_measurements": RunFile(
        "measurement_[0-9]*.npz", ("train",), "refined positions, probe, flux of a training scan"
    ),
    "train_log": RunFile("train_debug.log", ("train",), "every message of the training"),
    "inference_log": RunFile("inference.log", ("infer",), "every message of the inference"),
    "live_state": RunFile("live.json", ("live",), "state of a live view: frames, lag, verdict"),
    "live_image": RunFile("live.npz", ("live",), "the image so far, as reconstruction.npz"),
    "live_amplitude": RunFile("live_amplitude.png", ("live",), "amplitude of the image so far"),
    "live_phase": RunFile("live_phase.png", ("live",), "phase of the image so far"),
    "live_coverage": RunFile("live_coverage.png", ("live",), "light that fell on the image so far"),
    "recorded": RunFile("recorded.h5", ("live",), "frames of a stream or folder, as they came"),
    "recorded_map": RunFile("recorded.yaml", ("live",), "where they lie, for --map"),
    "reconstruction": RunFile("reconstruction.npz", ("infer",), "complex object, probe, positions"),
    "amplitude": RunFile("reconstructed_amplitude.png", ("infer",), "amplitude of the object"),
    "phase": RunFile("reconstructed_phase.png", ("infer",), "phase of the object"),
    "metrics": RunFile("metrics.json", ("infer",), "metrics of the reconstruction"),
    "residuals": RunFile(
        "residuals.png", ("infer",), "residuals over the scan, ring correlation of its halves"
    ),
    "pattern_fit": RunFile(
        "residuals.npz", ("infer",), "residual of each pattern, positions of the file"
    ),
    "report": RunFile("report.html", ("infer",), "all of a reconstruction on one page"),
    "product": RunFile("product.h5", ("infer", "simulate"), "product of Ptychodus"),
    "cxi": RunFile("reconstruction.cxi", ("infer",), "the reconstruction as CXI"),
    "amplitude_tiff": RunFile("reconstructed_amplitude.tiff", ("infer",), "amplitude, values"),
    "phase_tiff": RunFile("reconstructed_phase.tiff", ("infer",), "phase, values"),
    "scan": RunFile("scan.npz", ("simulate",), "simulated scan"),
    "scan_cxi": RunFile("scan.cxi", ("simulate",), "simulated scan as CXI"),
    "scan_ptyd": RunFile("scan.ptyd", ("simulate",), "simulated scan of ptypy"),
    "diffraction": RunFile(
        "diffraction.h5", ("simulate",), "patterns of a scan as Ptychodus keeps them"
    ),
    "truth": RunFile(
        "truth.npz", ("simulate",), "simulated object, in the layout of reconstruction.npz"
    ),
    "simulation": RunFile("simulation.png", ("simulate",), "simulated object, probe and patterns"),
    "comparison": RunFile("comparison.json", ("compare",), "metrics of a comparison"),
    "comparison_picture": RunFile(
        "comparison.png", ("compare", "demo"), "both images, difference, ring correlation"
    ),
    "summary": RunFile("summary.txt", ("demo",), "how good the demonstration's image is"),
}

LOCK = ".lock"
# While a run replaces an earlier one, the files of the earlier one lie beside its own under this
# name, and the second file says that all of them do.
FORMER, ALL_FORMER = ".{name}.{command}.former", ".{command}.former"
USABLE_WITH = {"train": "last_checkpoint", "live": "live_state"}  # what makes a part of a run a run
TRACKER_FOLDERS = ("tensorboard", "mlruns")  # of --logger

CONFIG_KEYS = {  # what tells whose config.yaml it is; one that a user wrote has no "debug"
    "train": {"train_data_file", "debug"},
    "infer": {"model_path", "debug"},
    "simulate": {"n_side", "debug"},
}


def provenance() -> dict[str, str]:
    """Versions of what computed the run. The package itself need not be installed."""
    own = {"python": platform.python_version(), "ptycho_torch": __version__}
    return own | {
        name: importlib.metadata.version(name) for name in ("torch", "lightning", "numpy")
    }


@dataclass(frozen=True)
class RunDir:
    """Paths of the files in a run folder; each key of `FILES` is an attribute.

    Attributes:
        path: The folder.
    """

    path: Path

    def __getattr__(self, name: str) -> Path:
        if name not in FILES:
            raise AttributeError(f"a run folder has no file called {name!r}")
        return self.path / FILES[name].name

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.last_checkpoint.parent

    def probe_file(self, number: int) -> Path:
        """Refined probe of a training scan, from 0, NPY."""
        return self.path / f"probe_{number}.npy"

    def measurement_file(self, number: int) -> Path:
        """What was found about the measurement of a training scan, from 0, NPZ."""
        return self.path / f"measurement_{number}.npz"

    def measurement_files(self) -> list[Path]:
        """All of them that are there, in order."""
        return sorted(self.path.glob("measurement_[0-9]*.npz"))

    def scan_file(self, format_name: str) -> Path:
        """Simulated scan in a format; the two files of a pair lie in the folder itself."""
        return self.path if format_name == "ptychodus" else self.scan.with_suffix(f".{format_name}")

    def files(self, command: str) -> list[Path]:
        """The files that a command left here."""
        names = [file.name for file in FILES.values() if command in file.commands]
        found = {
            path: None for name in names for path in sorted(self.path.glob(name)) if path.is_file()
        }
        return list(found)

    def leftovers(self, command: str) -> list[Path]:
        """The half-written files that a killed run of a command left here."""
        names = [Path(file.name) for file in FILES.values() if command in file.commands]
        parts = [name.with_name(PART.format(name=name.name, process="[0-9]*")) for name in names]
        found = (path for part in parts for path in self.path.glob(str(part)) if path.is_file())
        return list(dict.fromkeys(found))  # some patterns overlap

    def former_files(self, command: str) -> list[Path]:
        """The files of an earlier run, which a run of a command was going to replace."""
        names = [Path(file.name) for file in FILES.values() if command in file.commands]
        hidden = [name.with_name(FORMER.format(name=name.name, command=command)) for name in names]
        found = (path for one in hidden for path in self.path.glob(str(one)))
        return list(dict.fromkeys(found))

    def _set_aside(self, command: str) -> None:
        """Hide the files of an earlier run."""
        for path in self.files(command):
            path.rename(path.with_name(FORMER.format(name=path.name, command=command)))
        if self.former_files(command):
            (self.path / ALL_FORMER.format(command=command)).touch()

    def _delete_former(self, command: str) -> None:
        """Delete the files of an earlier run, which was replaced."""
        (self.path / ALL_FORMER.format(command=command)).unlink(missing_ok=True)
        for path in self.former_files(command):
            path.unlink()

    def _settle(self, command: str) -> None:
        """After a run that did not end well: its files where they can be used, else the former."""
        all_former = self.path / ALL_FORMER.format(command=command)
        usable = USABLE_WITH.get(command)
        if usable is not None and all_former.exists() and getattr(self, usable).is_file():
            self._delete_former(command)
        if all_former.exists():
            for path in self.files(command):
                path.unlink()
            all_former.unlink()
        for path in self.former_files(command):
            name = path.name.removeprefix(".").removesuffix(f".{command}.former")
            if path.with_name(name).exists():
                path.unlink()
            else:
                path.rename(path.with_name(name))

    @contextlib.contextmanager
    def claim(
        self,
        command: str,
        *,
        overwrite: bool = False,
        resume: bool = False,
        inputs: Iterable[Path] = (),
    ) -> Iterator[None]:
        """Make the folder, and hold it against other runs until the block ends.

        Args:
            command: Name of the command that is going to write.
            overwrite: Delete what an earlier run of that command left here, and nothing else, when
                the block ends without an error or has left something that can be used. Else the
                earlier run is put back, by the next claim if this process is killed.
            resume: Keep it and continue.
            inputs: Files and folders that the command reads, which are never deleted.

        Raises:
            InputError: If the folder holds a run of the command and neither is set, holds a
                ``config.yaml`` of somebody else, is in use by another run, or cannot be written.
            OSError: With the name of the folder, where the block raises one without any name.
        """
        with self._locked():
            if not resume:
                self._settle(command)
            self._check_free(
                command, self.files(command), overwrite=overwrite, resume=resume, inputs=inputs
            )
            ended_well = False
            try:
                for path in self.leftovers(command):
                    path.unlink()
                if overwrite:
                    self._set_aside(command)
                yield
                ended_well = True
            except NotTrustedError:  # after all was written
                ended_well = True
                raise
            except OSError as error:
                if error.filename is not None or error.errno is None:
                    raise
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            finally:
                (self._delete_former if ended_well else self._settle)(command)

    def check_unused(
        self,
        command: str,
        *,
        overwrite: bool,
        resume: bool = False,
        inputs: Iterable[Path] = (),
    ) -> None:
        """Raise `InputError` for what `claim` would refuse too, before long work starts.

        A folder that is not there is not made.
        """
        if self.path.is_dir():
            with self._locked():
                found = self.files(command) + self.former_files(command)
                self._check_free(command, found, overwrite=overwrite, resume=resume, inputs=inputs)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Make the folder, and lock it against other runs until the block ends."""
        lock = FileLock(self.path / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._check_places()
            lock.acquire(blocking=False)
        except Timeout as error:
            raise InputError(
                f"{self.path} is in use by another run; wait for it or choose another --output_dir"
            ) from error
        except OSError as error:
            raise InputError(
                f"cannot write to {self.path}: {error.strerror}; choose another --output_dir"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _check_places(self) -> None:
        """Raise `InputError` for links out of the folder, and for folders in the place of files."""
        names = {Path(file.name).parts[0] for file in FILES.values()} | {LOCK, *TRACKER_FOLDERS}
        # `Path.glob` overlooks links to nothing, which a file that is opened would make.
        for path in (path for path in self.path.glob("*") for name in names if path.match(name)):
            if path.is_symlink() and not path.resolve().is_relative_to(self.path.resolve()):
                raise InputError(
                    f"{path} is a link out of the folder, which is not followed; "
                    "remove it or choose another --output_dir"
                )
        for file in FILES.values():
            for path in self.path.glob(file.name):
                if path.is_dir():
                    raise InputError(
                        f"{path} is a folder, where a file is to be written; "
                        "remove it or choose another --output_dir"
                    )

    def _check_free(
        self,
        command: str,
        found: list[Path],
        *,
        overwrite: bool,
        resume: bool,
        inputs: Iterable[Path],
    ) -> None:
        """Raise `InputError` if a command may not write here."""
        if (
            command in CONFIG_KEYS
            and self.config.is_file()
            and not CONFIG_KEYS[command] <= _keys(self.config)
        ):
            raise InputError(
                f"{self.config} is not of a run of '{command}', and would be replaced; choose "
                "another --output_dir"
            )
        if found and not (overwrite or resume):
            raise InputError(
                f"{self.path} already holds a run of '{command}' ({found[0].name}); choose another "
                "--output_dir, "
                "or --overwrite to replace it"
            )
        if overwrite:
            own = {path.resolve() for path in found}
            for path in inputs:
                if path.resolve() in own:
                    raise InputError(
                        f"{path} is read by this run and would be replaced; choose another "
                        "--output_dir"
                    )


def _keys(config: Path) -> set[str]:
    """The keys of a ``config.yaml``; none if it is not one."""
    try:
        content = read_yaml(config)
    except InputError:
        return set()
    return set(content) if isinstance(content, dict) else set()

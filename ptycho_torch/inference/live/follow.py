"""Follow a scan while it is measured: frames in, image out; at its end the ordinary inference."""

import contextlib
import dataclasses
import errno
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ptycho_torch.config import InferenceConfig, LiveConfig, ReadingOptions
from ptycho_torch.data.conditions import training_conditions
from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.distributed.device import choose_device, require_determinism, trim_malloc
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.verdict import verdict_on
from ptycho_torch.generators import Generator
from ptycho_torch.generators.checkpoint import find_checkpoint, load_generator
from ptycho_torch.inference.live.arriving_files import ArrivingFiles
from ptycho_torch.inference.live.growing_file import GrowingFile, files_of
from ptycho_torch.inference.live.growing_mosaic import GrowingMosaic
from ptycho_torch.inference.live.growing_scan import GrowingScan
from ptycho_torch.inference.live.live_pictures import Pictures, draw, with_legend
from ptycho_torch.inference.live.live_server import Board, serve
from ptycho_torch.inference.live.live_state import (
    Figures,
    Lag,
    Rate,
    judge,
    measured_area,
    wait,
)
from ptycho_torch.inference.live.source import Source
from ptycho_torch.inference.live.stream import Stream
from ptycho_torch.inference.tiling import predict_canvases
from ptycho_torch.inference.training_domain import outside_domain
from ptycho_torch.inference.workflow import run_inference
from ptycho_torch.io.files import atomic_write, write_json
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_reconstruction

logger = logging.getLogger(__name__)

POLL_S = 0.05  # between two looks at a source that has nothing new
SHOW_S = 0.25  # between two states of the page
SHARE_OF_PICTURES = 0.2  # of the time, at most, for pictures, so that a large image costs no frames
R_FACTORS = ("r_factor", "r_factor_empty", "r_factor_noise")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def follow(config: LiveConfig) -> RunDir:
    """Reconstruct a scan while it is measured; when it has ended, as `run_inference` does.

    Raises:
        InputError: If the source, the network or the folder cannot be used.
        RunError: If no frame came, or the frames of a stream cannot be recorded.
        OSError: If the disk had no room for any state of the view.
    """
    generator, about = load_generator(find_checkpoint(config.model_path))
    generator = generator.to(choose_device(config.accelerator))
    run = RunDir(config.output_dir)
    inputs = files_of(Path(config.source))
    # refused before the scan is measured, not after it
    run.check_unused("infer", overwrite=config.overwrite, inputs=inputs)
    torch.manual_seed(config.seed)
    require_determinism(config.deterministic)
    board = Board()
    with serve(board, config.port) as address:
        with run.claim("live", overwrite=config.overwrite, inputs=inputs):
            source = open_source(config, run)
            with contextlib.closing(source):
                logger.info("%s is followed; open %s", source.name, address)
                live = Live(config, generator, about, source, run, board, address)
                live.until_end()
                live.raise_if_unsaved()
                data, data_map = source.finished()
        live.stage = "final reconstruction"
        live.show()
        if data != Path(config.source):
            text = "the scan as it came: infer --test_data %s --map %s repeats the final image"
            logger.info(text, data, data_map)
        run_inference(final_config(config, data, data_map))
        with run.claim("live", resume=True):
            live.finish()
    return run


def final_config(config: LiveConfig, data: Path, data_map: Path | None) -> InferenceConfig:
    """The options of the inference at the end."""
    names = {item.name for item in dataclasses.fields(InferenceConfig)}
    shared = {
        item.name: getattr(config, item.name)
        for item in dataclasses.fields(LiveConfig)
        if item.name in names
    }
    return InferenceConfig(**shared | {"test_data": data, "map": data_map, "probe": config.probe})


def open_source(config: LiveConfig, run: RunDir) -> Source:
    """The source that the user means.

    Raises:
        InputError: If it is neither an address, a folder, nor a file that is there or may come.
    """
    if "://" in config.source:
        return Stream(config.source, config.socket, run, config.probe)
    path = Path(config.source)
    reading = ReadingOptions(
        **{item.name: getattr(config, item.name) for item in dataclasses.fields(ReadingOptions)}
    )
    if path.is_dir():
        return ArrivingFiles(path, reading, run)
    for file in files_of(path):
        if not file.parent.is_dir():
            raise InputError(f"{file}: neither the file nor its folder is there")
    return GrowingFile(path, reading, run)


class Live:
    """A live view: its source, the frames and the image so far, and what is shown of them."""

    def __init__(
        self,
        config: LiveConfig,
        generator: Generator,
        about: dict[str, Any],
        source: Source,
        run: RunDir,
        board: Board,
        address: str,
    ) -> None:
        self.stage = "waiting for frames"
        self._config, self._generator, self._source = config, generator, source
        self._run, self._board, self._address = run, board, address
        self._mosaic = GrowingMosaic()
        fixed = None if generator.variable_group_size else generator.settings["group_size"]
        self._scan = GrowingScan(config, source.faults, fixed)
        self._rate = Rate()
        self._first_s = self._last_s = 0.0
        self._last_frame = time.monotonic()
        self._shown = self._saved = float("-inf")
        self._version = self._drawn = 0
        self._drawing_s = 0.0
        self._picture_s = float("-inf")
        self._pictures: Pictures | None = None
        self._about = about
        self._beyond: list[str] | None = None  # how the scan is unlike those of the training
        self._verdict, self._figures = wait("no frame came yet"), Figures()
        self._area: dict[str, Any] = {}
        self._undrawn_s: float | None = None  # when the oldest frame came that no picture shows
        self._lag = Lag()
        self._network_s = 0.0
        self._regions = 0
        self._disk = ""
        self._full: OSError | None = None  # of the last saving, where the disk had no room

    def until_end(self) -> None:
        """Take frames and grow the image until the scan has ended."""
        self.show()
        self._save()
        while True:
            new = self._take()
            grown = self._grow(everything=False)
            if self._has_ended(new):
                break
            now = time.monotonic()
            if grown or now - self._shown >= SHOW_S:
                self.show()
            if now - self._saved >= self._config.save_s:
                self._save()
            if not (new or grown):
                time.sleep(POLL_S)
        while self._grow(everything=True):
            if time.monotonic() - self._shown >= SHOW_S:
                self.show()
        self._picture_s = float("-inf")
        self.show()
        self._save()

    def raise_if_unsaved(self) -> None:
        """Raise the error of a full disk if nothing is saved, so that a former view comes back."""
        if self._full is not None and not self._run.live_state.is_file():
            raise self._full

    def show(self) -> None:
        """Publish the state, with new pictures if the image has grown."""
        self._shown = time.monotonic()
        if self._version > self._drawn and self._time_for_pictures():
            self._draw()
        shown = self._pictures.by_name if self._pictures else {}
        self._board.show(self.state(), {name: one.png for name, one in shown.items()})

    def finish(self) -> None:
        """Publish and keep the final image with its verdict."""
        self.stage = "finished"
        figures = json.loads(self._run.metrics.read_text(encoding="utf-8"))
        self._figures = {name: figures[name] for name in R_FACTORS}
        missing = {"missing_share": self._missing_share()}
        self._verdict = verdict_on(figures | missing).to_dict()
        result = read_reconstruction(self._run.reconstruction)
        self._pictures, self._area = draw(result), measured_area(result)
        self._drawn = self._version = self._version + 1
        self.show()
        with self._noting_full_disk():
            write_json(self._run.live_state, self.state())

    def state(self) -> dict[str, Any]:
        """What the page and ``live.json`` say."""
        now = time.time()
        waiting = (self._scan.oldest_pending_s(), self._undrawn_s)
        lag = self._lag.at(now, waiting) if self.stage == "measuring" else 0.0
        passed = max(self._last_s - self._first_s, 1e-9)
        return {
            "stage": self.stage,
            "source": self._source.name,
            "page": self._address,
            "frames": self._scan.total,
            "expected": self._config.n_frames or self._source.expected,
            "waiting": self._source.waiting + self._scan.pending,
            "lost": self._scan.lost(self._source.expected),
            "faults": dataclasses.asdict(self._source.faults),
            "trouble": self._source.trouble,
            "disk": self._disk,
            "rate": self._rate.add(now, self._scan.total),
            "mean_rate": self._scan.total / passed if self._first_s else 0.0,
            "lag_s": lag,
            "largest_lag_s": self._lag.largest_s,
            "regions": self._regions,
            "network_s": self._network_s,
            "viewers": self._board.viewers,
            "result": str(self._run.report) if self.stage == "finished" else "",
            "version": self._drawn,
            **self._legend(),
            "verdict": self._verdict,
            **self._figures,
            **self._area,
        }

    def _legend(self) -> dict[str, Any]:
        """The legend of the pictures: ranges of values, colour maps and scale bar."""
        if self._pictures is None:
            return {"ranges": None, "colours": None, "bar": None}
        bar = self._pictures.bar
        return {
            "ranges": {name: list(one.span) for name, one in self._pictures.by_name.items()},
            "colours": {name: one.colours for name, one in self._pictures.by_name.items()},
            "bar": None if bar is None else bar._asdict(),
        }

    def _take(self) -> bool:
        """Take the frames that are there; whether there were any."""
        arrivals = self._source.poll()
        if arrivals is None:
            return False
        self._scan.add(arrivals)
        self._last_frame = time.monotonic()
        self._last_s = time.time()
        self._first_s = self._first_s or float(arrivals.seen_s.min())
        self.stage = "measuring"
        return True

    def _grow(self, *, everything: bool) -> bool:
        """Add the neighbourhoods that became complete to the image; whether there were any."""
        oldest = self._scan.oldest_pending_s()
        regions = self._scan.take_regions(time.time(), everything=everything)
        if not regions:
            return False
        started = time.monotonic()
        for region in regions:
            self._mosaic.add(predict_canvases(self._generator, self._scan.scan(), [region]))
        self._network_s += time.monotonic() - started
        self._regions += len(regions)
        trim_malloc()
        self._undrawn_s = self._undrawn_s or oldest
        self._version += 1
        return True

    def _has_ended(self, new: bool) -> bool:
        """Whether no more frames come."""
        if self._config.n_frames is not None and self._scan.total >= self._config.n_frames:
            return True
        if new:
            return False
        silent = time.monotonic() - self._last_frame
        if silent > self._config.timeout_s:
            if self._scan.total == 0 and self._source.trouble:
                raise InputError(self._source.trouble)
            text = "%s: nothing came for %.0f s; the scan is taken to have ended"
            logger.warning(text, self._source.name, silent)
            return True
        return self._source.ended

    def _time_for_pictures(self) -> bool:
        """Whether drawing now keeps to its share of the time."""
        return time.monotonic() - self._picture_s > self._drawing_s / SHARE_OF_PICTURES

    def _draw(self) -> None:
        """Draw the image and compare it with the newest frames."""
        started = time.monotonic()
        result = self._result()
        self._pictures, self._area = draw(result), measured_area(result)
        scan = self._scan.scan()
        place = (self._scan.total - 1) % len(scan)
        if self._beyond is None:
            self._beyond = outside_domain(training_conditions(self._about), scan)
        known = {
            "trained": self._about,
            "beyond_training": self._beyond,
            "missing_share": self._missing_share(),
        }
        self._verdict, self._figures = judge(scan, result, place, known)
        if self._undrawn_s is not None:
            self._lag.drawn(time.time(), self._undrawn_s)
        self._drawn, self._undrawn_s = self._version, None
        self._picture_s = time.monotonic()
        self._drawing_s = self._picture_s - started

    def _missing_share(self) -> float:
        """Frames that never came, as a share of all."""
        lost = self._scan.lost(self._source.expected)
        return lost / max(lost + self._scan.total, 1)

    def _result(self) -> Reconstruction:
        """The image so far, with the frames that are kept."""
        scan = self._scan.scan()
        image, light, origin = self._mosaic.image()
        return Reconstruction(
            object=image,
            coverage=light,
            origin_yx=origin,
            probe=scan.need_probe(),
            positions_px=scan.positions_px,
            scan_index=scan.scan_index,
            pixel_size_m=scan.pixel_size_m,
            instrument=scan.instrument,
            is_far_field=scan.is_far_field,
        )

    def _save(self) -> None:
        """Write image, pictures and state; a full disk is shown and does not end the view."""
        self._saved = time.monotonic()
        with self._noting_full_disk():
            if self._pictures is not None:
                write_reconstruction(self._run.live_image, self._result())
                for name, picture in self._pictures.by_name.items():
                    with atomic_write(getattr(self._run, f"live_{name}")) as temporary:
                        temporary.write_bytes(with_legend(name, picture, self._pictures.bar))
            write_json(self._run.live_state, self.state())

    @contextlib.contextmanager
    def _noting_full_disk(self) -> Iterator[None]:
        """Note a full disk once instead of ending, and that there is room again."""
        try:
            yield
            self._disk, self._full = "", None
        except OSError as error:
            if error.errno not in FULL:
                raise
            text = f"{self._run.path}: {error.strerror}; the image is shown and not saved"
            if not self._disk:
                logger.warning(text)
            self._disk, self._full = text, error

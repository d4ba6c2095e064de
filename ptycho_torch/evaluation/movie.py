"""The epochs of a refinement as an animated picture."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.evaluation.displayed_phase import phase_range, without_ramp
from ptycho_torch.evaluation.plots import crop_to_seen, plot_amplitude, plot_phase
from ptycho_torch.io.files import atomic_write

FORMATS = {".gif": "GIF", ".png": "PNG"}  # suffix of the file -> name in Pillow; PNG is animated
MOST_FRAMES = 100  # epochs that are shown; of more, every second, fourth, ... is
LONGEST_SIDE = 400  # pixels of a frame's object; of larger ones every second, third, ... is kept
WHOLE_MS, LAST_MS = 6000, 2500  # of the epochs together, and of the result at the end
FRAME_MS = (80, 600)  # shortest and longest time of an epoch
GREYS = 16  # of the 256 colours of a GIF
SIZE_IN, DPI = (9.0, 4.4), 80


@dataclass(frozen=True)
class MovieFrame:
    """The object after an epoch.

    Attributes:
        epoch: Its number; 0 is the start.
        r_free: R-factor of the held-out patterns then.
        object: Complex, every `pixel_step`-th pixel of the canvas, (Y', X').
    """

    epoch: int
    r_free: float
    object: NDArray[np.complex64]


class MovieFrames:
    """Keeps copies of the object of a refinement, few enough for the memory.

    A second refinement replaces the first, so that the frames are those of the result.
    """

    def __init__(self) -> None:
        self.frames: list[MovieFrame] = []
        self._every = 1

    def add(self, epoch: int, r_free: float, image: NDArray[np.complex64]) -> None:
        """Keep the object after an epoch, (Y, X)."""
        if epoch == 0:
            self.frames, self._every = [], 1
        if epoch % self._every:
            return
        step = pixel_step(image.shape)
        self.frames.append(MovieFrame(epoch, r_free, image[::step, ::step].copy()))
        if len(self.frames) > MOST_FRAMES:
            self.frames = self.frames[::2]
            self._every *= 2


def pixel_step(shape: tuple[int, ...]) -> int:
    """Every how many pixels of a canvas are kept."""
    return -(-max(shape) // LONGEST_SIDE)


def save_movie(path: Path, frames: list[MovieFrame], result: Reconstruction) -> None:
    """Write the frames and the result as an animation, whole or not at all.

    All frames have the colours of the result, and each is drawn without its own phase ramp.

    Args:
        path: With a suffix of `FORMATS`.
        frames: On the canvas of the result; one or more.
        result: The last frame.
    """
    step = pixel_step(result.object.shape)
    size = result.pixel_size_m
    small = replace(
        result,
        object=result.object[::step, ::step],
        coverage=result.coverage[::step, ::step],
        pixel_size_m=None if size is None else (step * size[0], step * size[1]),
    )
    first, *others = draw_frames(frames, small, few_colours=path.suffix.lower() == ".gif")
    each = int(np.clip(WHOLE_MS / len(frames), *FRAME_MS))
    with atomic_write(path) as temporary:
        first.save(
            temporary,
            format=FORMATS[path.suffix.lower()],
            save_all=True,
            append_images=others,
            duration=[each] * len(frames) + [LAST_MS],
            loop=0,
        )


def draw_frames(
    frames: list[MovieFrame], result: Reconstruction, *, few_colours: bool
) -> list[Image.Image]:
    """A picture of each frame, and of the result at the end.

    Args:
        frames: On the canvas of the result.
        result: The last frame.
        few_colours: Whether the pictures have 256 colours, those of the colour bars and greys.
    """
    figure = Figure(figsize=SIZE_IN, dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    amplitude, phase = figure.subplots(1, 2)
    plot_amplitude(amplitude, result)
    plot_phase(phase, result, title="Phase without its ramp")
    shown = [axes.images[0] for axes in (amplitude, phase)]
    for axes in (amplitude, phase):
        axes.set_axis_off()
    last = crop_to_seen(result)
    span = phase_range(np.angle(without_ramp(last.image, last.lit)[0][last.lit]))
    title = figure.suptitle("result")
    images = []
    for frame in frames:
        modulus, angle = displayed(replace(result, object=frame.object))
        shown[0].set_data(modulus)
        shown[1].set_data(span.on_branch(angle))
        title.set_text(f"epoch {frame.epoch}, R-free {frame.r_free:.3g}")
        images.append(drawn(canvas))
        figure.set_layout_engine("none")  # the first frame has chosen it for all
    modulus, angle = displayed(result)
    shown[0].set_data(modulus)
    shown[1].set_data(span.on_branch(angle))
    title.set_text("result")
    images.append(drawn(canvas))
    return with_few_colours(images, [one.get_cmap() for one in shown]) if few_colours else images


def displayed(result: Reconstruction) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Modulus and phase without ramp of the part that was seen; NaN elsewhere."""
    part = crop_to_seen(result)
    flat, _ = without_ramp(part.image, part.lit)
    return (
        np.where(part.seen, np.abs(part.image), np.nan),
        np.where(part.seen, np.angle(flat), np.nan),
    )


def drawn(canvas: FigureCanvasAgg) -> Image.Image:
    """The picture on a canvas."""
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def with_few_colours(images: list[Image.Image], maps: list[Colormap]) -> list[Image.Image]:
    """The pictures in 256 colours: those of two colour maps, and greys for the letters."""
    greys = np.repeat(np.linspace(0, 1, GREYS)[:, None], 3, axis=1)
    each = np.linspace(0, 1, (256 - GREYS) // len(maps))
    colours = np.concatenate([*(one(each)[:, :3] for one in maps), greys])
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255 * colours).astype(np.uint8).tobytes())
    return [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]

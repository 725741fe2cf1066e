"""Colorize single pictures from Python.

from colorize_cli import Colorizer
colorized = Colorizer().colorize(image)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from colorize_cli.color.resize import working_copy
from colorize_cli.compose import compose
from colorize_cli.core.settings import Settings
from colorize_cli.guidance import Palette, apply_guidance, hints_of, reference_of
from colorize_cli.guidance.hints import Hints
from colorize_cli.image.frame import from_image, to_image
from colorize_cli.inference import model

Pixels = npt.NDArray[np.uint8]
HintsLike = Mapping[str, Any] | Image.Image | Path | None


class Colorizer:
    """A loaded model that colorizes pictures. Thread-safe."""

    def __init__(
        self,
        model_path: Path | None = None,
        device: str = "auto",
        size: int | None = None,
        strength: float = 1.0,
        precision: str = "auto",
    ) -> None:
        """Load the model.

        Args:
            model_path: An ONNX file; None for the bundled model.
            device: "auto", "cpu", "cuda", or with several GPUs "cuda:1", "cuda:0,1" or "cuda:all".
            size: Short side of the network's input in pixels; None for the model's working size.
            strength: Factor on the predicted chroma; 0 gives gray. At most 2.
            precision: "auto", "fp32", "fp16" or "int8".

        Raises:
            ModelError: The file does not exist, is not a supported model, or has no variant in `precision`.
            UsageError: `size` or `strength` is out of range, or there is no such device or precision.
            DeviceError: `device` is "cuda" and part of the network would run elsewhere, or `precision` is not
                for `device`.
        """
        settings = Settings(
            model=model_path, device=device, precision=precision, size=size, strength=strength
        )
        self.model = model.load(settings.model, settings.device, precision=settings.precision)
        self._size = settings.size or self.model.info.working_size
        self._strength = settings.strength

    @overload
    def colorize(
        self, image: Image.Image, *, hints: HintsLike = None, reference: Image.Image | Path | None = None
    ) -> Image.Image: ...

    @overload
    def colorize(
        self, image: Pixels, *, hints: HintsLike = None, reference: Image.Image | Path | None = None
    ) -> Pixels: ...

    def colorize(
        self,
        image: Image.Image | Pixels,
        *,
        hints: HintsLike = None,
        reference: Image.Image | Path | None = None,
    ) -> Image.Image | Pixels:
        """Colorize one picture, keeping its lightness.

        Args:
            image: A Pillow image, or uint8 sRGB of shape (H, W), (H, W, 3) or, with alpha, (H, W, 4).
            hints: Colors for parts of the picture: a JSON or image file, an image that is transparent
                elsewhere, or a mapping in the format of `colorize_cli.guidance.hints`.
            reference: A color photograph whose palette the picture takes on.

        Returns:
            The type of `image`. A Pillow image is RGB (RGBA if the input has transparency), in sRGB, and
            rotated by its EXIF orientation. An array is uint8 of shape (H, W, 3), or (H, W, 4) if the input
            has alpha.

        Raises:
            ValueError: The array has another type or shape.
            ReadError: The mode of the Pillow image cannot be read as gray or color.
            UsageError: The hints or the reference cannot be used.
        """
        marks = None if hints is None else hints_of(hints, Settings().max_pixels)
        palette = None if reference is None else reference_of(reference, Settings().max_pixels)
        if isinstance(image, Image.Image):
            return self._colorize(image, marks, palette)
        channels = image.shape[2:]
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in ((), (3,), (4,)):
            raise ValueError(
                f"the array is {image.dtype} {image.shape}, not uint8 (H, W), (H, W, 3) or (H, W, 4)"
            )
        return np.asarray(self._colorize(Image.fromarray(image), marks, palette))

    def _colorize(self, image: Image.Image, hints: Hints | None, reference: Palette | None) -> Image.Image:
        frame = from_image(image)
        small = working_copy(frame.lightness, self._size, self.model.info.multiple_of)
        ab = self.model.predict(small[None, None])[0]
        ab, overlay = apply_guidance(frame.lightness, ab, hints, reference)
        return to_image(frame, compose(frame.lightness, ab, self._strength, overlay))

"""Colouring single pictures from Python.

from colorize_cli import Colorizer
coloured = Colorizer().colorize(image)
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
from colorize_cli.guidance import Reference, apply_guidance, hints_of, reference_of
from colorize_cli.guidance.hints import Hints
from colorize_cli.image.frame import from_image, to_image
from colorize_cli.inference import model

Pixels = npt.NDArray[np.uint8]
HintsLike = Mapping[str, Any] | Image.Image | Path | None


class Colorizer:
    """A loaded model that colours pictures. May be used from several threads."""

    def __init__(
        self,
        model_path: Path | None = None,
        device: str = "auto",
        size: int | None = None,
        strength: float = 1.0,
        precision: str = "auto",
    ) -> None:
        """Loads the model.

        Args:
            model_path: An ONNX file; None for the model that comes with this package.
            device: "auto", "cuda" or "cpu".
            size: Short side in pixels of the copy that the network sees; None for the model's own.
            strength: Factor on the predicted chroma; 0 gives grey.
            precision: "auto", "fp32", "fp16" or "int8".

        Raises:
            ModelError: There is no such model, or it is of no kind known here.
            UsageError: `size` or `strength` is out of range.
            DeviceError: `device` is "cuda", and some part of the network would run elsewhere.
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
        """Colours one picture; its lightness stays.

        Args:
            image: A Pillow image, or uint8 sRGB of shape (H, W), (H, W, 3) or (H, W, 4), the last with alpha.
            hints: Colours that it is to have at some places: a file, an image that is transparent elsewhere,
                or an object as in `colorize_cli.guidance.hints`.
            reference: A photograph in colour whose palette it is to have.

        Returns:
            The same kind: a Pillow image (RGB, or RGBA where it has transparency), turned as its EXIF
            orientation says and in sRGB; or uint8 of shape (H, W, 3), or (H, W, 4) where it had alpha.

        Raises:
            ValueError: An array of another type or shape.
            ReadError: A Pillow image of a mode that cannot be read as grey or colour.
            UsageError: Hints or a reference that cannot be used.
        """
        given = None if hints is None else hints_of(hints, Settings().max_pixels)
        palette = None if reference is None else reference_of(reference, Settings().max_pixels)
        if isinstance(image, Image.Image):
            return self._colorize(image, given, palette)
        channels = image.shape[2:]
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in ((), (3,), (4,)):
            raise ValueError(f"not uint8 (H, W), (H, W, 3) or (H, W, 4): {image.dtype} {image.shape}")
        return np.asarray(self._colorize(Image.fromarray(image), given, palette))

    def _colorize(self, image: Image.Image, hints: Hints | None, reference: Reference | None) -> Image.Image:
        frame = from_image(image)
        small = working_copy(frame.lightness, self._size, self.model.info.multiple_of)
        ab = self.model.predict(small[None, None])[0]
        ab, overlay = apply_guidance(frame.lightness, ab, hints, reference)
        return to_image(frame, compose(frame.lightness, ab, self._strength, overlay))

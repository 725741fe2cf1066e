"""Typical scripts that run a colorization model over a folder, for comparison with `colorize`.

    python tests/benchmarks/scripts.py pillow|opencv MODEL SIZE OUTPUT INPUT...

Two scripts in the style of tutorials and model repositories: one picture after the other, L*a*b* in floats
at full resolution, default encoder settings. `pillow` uses Pillow and scikit-image, `opencv` uses OpenCV.
Both run the same model on inputs of the same size.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import skimage.color
from PIL import Image


def sides(width: int, height: int, size: int) -> tuple[int, int]:
    scale = size / min(width, height)
    return round(width * scale / 16) * 16, round(height * scale / 16) * 16


def by_pillow(session: onnxruntime.InferenceSession, source: Path, output: Path, size: int) -> None:
    image = Image.open(source).convert("RGB")
    lab = skimage.color.rgb2lab(np.asarray(image))
    small = image.resize(sides(*image.size, size), Image.Resampling.BILINEAR)
    lightness = skimage.color.rgb2lab(np.asarray(small))[..., 0].astype(np.float32)
    (ab,) = session.run(None, {"lightness": lightness[None, None]})
    planes = [np.asarray(Image.fromarray(p).resize(image.size, Image.Resampling.BICUBIC)) for p in ab[0]]
    rgb = skimage.color.lab2rgb(np.dstack([lab[..., 0], *planes]))
    Image.fromarray((rgb * 255).round().astype(np.uint8)).save(output, quality=95)


def by_opencv(session: onnxruntime.InferenceSession, source: Path, output: Path, size: int) -> None:
    bgr = cv2.imread(str(source), cv2.IMREAD_COLOR)
    assert bgr is not None
    height, width = bgr.shape[:2]
    lightness = cv2.cvtColor(bgr.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)[..., 0]
    small = cv2.resize(lightness, sides(width, height, size), interpolation=cv2.INTER_AREA)
    (ab,) = session.run(None, {"lightness": small[None, None]})
    large = cv2.resize(ab[0].transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_CUBIC)
    lab = np.dstack([lightness, large])
    out = cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)
    cv2.imwrite(str(output), (out * 255).round().astype(np.uint8))


SCRIPTS = {"pillow": by_pillow, "opencv": by_opencv}


def main() -> None:
    kind, model, size, output, *inputs = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for source in map(Path, inputs):
        SCRIPTS[kind](session, source, Path(output, source.name), int(size))


if __name__ == "__main__":
    main()

"""Writes golden.txt: what Pillow makes of small images. `python3 golden.py > golden.txt`.

The two axes are resized one after the other: Pillow 13 begins with the columns where that is less work, earlier versions
always with the rows, which differs by one level at most.
"""
import numpy as np
from PIL import Image

FILTERS = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
for name, code in FILTERS.items():
    for (h, w), (oh, ow), c in (
        ((13, 17), (6, 8), 3), ((13, 17), (5, 17), 1), ((5, 4), (9, 7), 3), ((40, 3), (3, 5), 1), ((7, 31), (7, 4), 1),
        ((1, 1), (3, 2), 3), ((64, 48), (2, 3), 3),
    ):
        i = np.arange(h * w * c, dtype=np.int64)
        pixels = ((i * i * 31 + i * 17 + (i >> 3) * 101) % 251).astype(np.uint8).reshape(h, w, c)
        image = Image.fromarray(pixels[:, :, 0] if c == 1 else pixels)
        print(name, f"{h}x{w}", f"{oh}x{ow}", c, np.asarray(image.resize((ow, h), code).resize((ow, oh), code)).tobytes().hex())

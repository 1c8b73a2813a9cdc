"""Images, photos and degradations, in numpy alone; training batches are in `qsci_plugins.data.patches`."""

from __future__ import annotations

from qsci_plugins.data.degradation import bicubic_down, imresize, modcrop
from qsci_plugins.data.images import Photo, find_images, list_images, read_image, read_photo, write_image
from qsci_plugins.data.photos import builtin_photos, calibration_patches

__all__ = [
    "Photo",
    "bicubic_down",
    "builtin_photos",
    "calibration_patches",
    "find_images",
    "imresize",
    "list_images",
    "modcrop",
    "read_image",
    "read_photo",
    "write_image",
]

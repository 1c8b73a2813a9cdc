"""Images, degradations and snapshot measurements, in numpy alone; training batches are in `data.patches` and `data.clips`."""

from __future__ import annotations

from qsci_plugins.data.degradation import bicubic_down, imresize, modcrop
from qsci_plugins.data.images import Photo, find_images, list_images, read_image, read_photo, write_image
from qsci_plugins.data.photos import builtin_photos, calibration_patches
from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.snapshot_files import Snapshots, read_mask, read_snapshots
from qsci_plugins.data.snapshots import SensorNoise, bayer_mosaic, mask_sum, measure, random_mask

__all__ = [
    "Photo",
    "SensorNoise",
    "Snapshots",
    "bayer_mosaic",
    "bicubic_down",
    "builtin_photos",
    "calibration_patches",
    "find_images",
    "imresize",
    "list_images",
    "mask_sum",
    "measure",
    "modcrop",
    "random_mask",
    "read_image",
    "read_mask",
    "read_photo",
    "read_snapshots",
    "synthetic_scene",
    "write_image",
]

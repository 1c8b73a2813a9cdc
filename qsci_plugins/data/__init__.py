"""Images, degradations and snapshot measurements, in numpy alone; training batches are in `data.patches` and `data.clips`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qsci_plugins.data.degradation import bicubic_down, imresize, modcrop
    from qsci_plugins.data.images import Photo, find_images, list_images, read_image, read_photo, write_image
    from qsci_plugins.data.photos import builtin_photos, calibration_patches
    from qsci_plugins.data.scenes import synthetic_scene
    from qsci_plugins.data.snapshot_files import Snapshots, read_mask, read_snapshots
    from qsci_plugins.data.snapshots import (
        SensorNoise,
        bayer_mosaic,
        mask_sum,
        measure,
        mixed_masks,
        random_mask,
        shifting_mask,
    )

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
    "mixed_masks",
    "modcrop",
    "random_mask",
    "read_image",
    "read_mask",
    "read_photo",
    "read_snapshots",
    "shifting_mask",
    "synthetic_scene",
    "write_image",
]

#: where they come from, imported when they are asked for: images need no snapshots
_HOMES = {
    "Photo": "images",
    "SensorNoise": "snapshots",
    "Snapshots": "snapshot_files",
    "bayer_mosaic": "snapshots",
    "bicubic_down": "degradation",
    "builtin_photos": "photos",
    "calibration_patches": "photos",
    "find_images": "images",
    "imresize": "degradation",
    "list_images": "images",
    "mask_sum": "snapshots",
    "measure": "snapshots",
    "mixed_masks": "snapshots",
    "modcrop": "degradation",
    "random_mask": "snapshots",
    "read_image": "images",
    "read_mask": "snapshot_files",
    "read_photo": "images",
    "read_snapshots": "snapshot_files",
    "shifting_mask": "snapshots",
    "synthetic_scene": "scenes",
    "write_image": "images",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Clips: opened, decoded to RGB as they are tagged, encoded in segments, joined with all that the clip holds besides.

`reading.VideoReader` and `writing.VideoWriter` are the way in and the way out for frames alone.
"""

from __future__ import annotations

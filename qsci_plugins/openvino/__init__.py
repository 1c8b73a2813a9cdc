"""Networks that really run in integers: lowering and export (with torch), and a runtime without it.

`manifest`, `tiling`, `gradient`, `fitting` and `runtime` need openvino and numpy alone; `reconstructor` and `latency`
Pillow too.
"""

from __future__ import annotations

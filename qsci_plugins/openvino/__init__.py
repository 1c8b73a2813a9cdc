"""Networks that really run in integers: lowering and export (with torch), and a runtime without it.

`manifest`, `tiling`, `gradient`, `runtime` and `latency` need openvino and numpy alone.
"""

from __future__ import annotations

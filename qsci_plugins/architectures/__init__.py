"""Stock networks: recognised by their tensors, built from their settings, never edited in order to quantize them.

`registry.load_network` is the way in; `network.Network` is what it returns.
"""

from __future__ import annotations

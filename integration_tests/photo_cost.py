"""What `qsci upscale` of a large photo takes beside its network's arithmetic: so many tiles times the time of one.

    python integration_tests/photo_cost.py [WIDTHxHEIGHT [MODEL]]

Default: 4000x3000 with builtin:edsr_x4, which takes about four minutes on two idle cores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from qsci_plugins.commands.upscale import upscale
from qsci_plugins.data.photos import builtin_photos
from qsci_plugins.openvino.builtin import find_model_folder
from qsci_plugins.openvino.runtime import Upscaler


def main() -> None:
    width, height = map(int, (sys.argv[1] if len(sys.argv) > 1 else "4000x3000").split("x"))
    model = sys.argv[2] if len(sys.argv) > 2 else "builtin:edsr_x4"
    photo = next(iter(dict(builtin_photos("evaluation")).values()))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "photo.jpg")
        Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC).save(file, quality=95)
        warm = Path(folder, "warm.jpg")
        Image.fromarray(photo[:64, :64]).save(warm)
        upscale(model, [warm], Path(folder, "warm.png"))
        began, used = time.perf_counter(), time.process_time()
        upscale(model, [file], Path(folder, "large.png"))
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        image = np.asarray(Image.open(file))
        print(f"{len(image)} rows, output {Path(folder, 'large.png').stat().st_size / 2**20:.0f} MiB")

    upscaler = Upscaler(find_model_folder(model), tile="fit")
    rows, columns = upscaler.plan(height, width)
    count, size = len(rows.starts) * len(columns.starts), (rows.tile, columns.tile)
    requests = upscaler._graphs.requests(0, size, False, False, keep=True)
    tile = np.ascontiguousarray(image[: size[0], : size[1]])[None]
    for _ in requests.run([{0: tile}]):
        pass
    rounds = min(count, 6)
    began, used = time.perf_counter(), time.process_time()
    for _ in requests.run({0: tile} for _ in range(rounds)):
        pass
    wall_of_tile, cpu_of_tile = (time.perf_counter() - began) / rounds, (time.process_time() - used) / rounds
    print(
        f"{count} tiles of {size[1]}x{size[0]}: {wall:.1f} s, of which the network {count * wall_of_tile:.1f} s, the rest"
        f" {100 * (wall / (count * wall_of_tile) - 1):.1f} %; processor {cpu:.1f} and {count * cpu_of_tile:.1f} s,"
        f" {100 * (cpu / (count * cpu_of_tile) - 1):.1f} %"
    )


if __name__ == "__main__":
    main()

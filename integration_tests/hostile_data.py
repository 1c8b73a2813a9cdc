"""Checkpoints, measurements and clips that a stranger might hand over, made from a seed."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hostile_files import Case, Expected, damaged, specials, written

SIZE, FRAMES = 32, 8


class Exploding:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch exploded",)


def checkpoints(rng: random.Random, count: int) -> Iterator[Case]:
    """For `load_network`: EDSR x2 of one block."""
    import torch
    from safetensors.torch import save

    from qsci_plugins import load_network

    base = dict(load_network("edsr", None, 2, blocks=1, width=8).module.state_dict())
    first = next(iter(base))

    def saved(content: Any, zipped: bool = True) -> bytes:
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=zipped)
        return stream.getvalue()

    def case(name: str, content: bytes, expected: Expected = "refused") -> Case:
        return Case("checkpoints", name, written("w.pth", content), "w.pth", expected)

    intact = [saved(base), saved(base, False), save(base)]
    for index, content in enumerate(intact):
        yield case(f"intact {index}", content, "works")
    yield case("code", saved({"state_dict": Exploding()}))
    yield case("old code", saved({"x": Exploding()}, False))
    yield case("bare code", pickle.dumps(Exploding()))
    itself: dict[str, Any] = {**base}
    itself["state_dict"] = itself
    yield case("holds itself", saved(itself), "either")
    deep: Any = base
    for _ in range(200):
        deep = {"state_dict": deep}
    yield case("deep wrappers", saved(deep), "either")
    odd = {
        "sparse": base[first].to_sparse(),
        "meta": base[first].to("meta"),
        "quantized": torch.quantize_per_tensor(base[first], 0.1, 0, torch.qint8),
        "complex": base[first].to(torch.complex64),
        "huge": torch.zeros(1).expand(10**12, 3, 3, 3),
        "NaN": torch.full_like(base[first], float("nan")),
        "infinite": torch.full_like(base[first], 1e300, dtype=torch.float64),
        "empty": torch.zeros(0, 3, 3, 3),
        "scalar": torch.tensor(1.0),
    }
    for name, tensor in odd.items():
        yield case(name, saved({**base, first: tensor}))
    yield case("truth values", saved({name: tensor.bool() for name, tensor in base.items()}))
    yield case("a list", saved([base]))
    yield case("a tensor", saved(torch.zeros(3)))
    yield case("numbers as names", saved(dict(enumerate(base.values()))))
    yield case("another network", saved({f"layer{index}.weight": torch.zeros(4, 4) for index in range(5)}))
    yield case("huge header", struct.pack("<Q", 1 << 60) + b"{}")
    yield case("deep header", struct.pack("<Q", 200_006) + b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(1 << 26))
        file.writestr("archive/version", "3")
    yield case("zip bomb", bomb.getvalue())
    for name, make in specials("w.pth").items():
        yield Case("checkpoints", name, make, "w.pth", "refused")
    for index in range(count):
        yield case(f"damaged {index}", damaged(rng, rng.choice(intact)), "either")


def measurements(rng: random.Random, count: int) -> Iterator[Case]:
    """For `qsci reconstruct` with a network for eight frames."""
    import h5py
    from scipy.io import savemat

    numbers = np.random.default_rng(3)
    mask = (numbers.random((SIZE, SIZE, FRAMES)) > 0.5).astype(np.float32)
    frames = (0.2 + numbers.random(mask.shape) / 2).astype(np.float32)
    measured = (mask * frames).sum(2)

    def mat(**arrays: Any) -> bytes:
        stream = io.BytesIO()
        savemat(stream, arrays)
        return stream.getvalue()

    def case(name: str, content: bytes, expected: Expected = "refused", suffix: str = "mat") -> Case:
        return Case("measurements", name, written(f"x.{suffix}", content), f"x.{suffix}", expected)

    def hdf5(name: str, fill: Callable[[Any], None], expected: Expected = "refused") -> Case:
        def make(folder: Path) -> None:
            np.arange(SIZE * SIZE, dtype=np.uint8).tofile(folder / "secret")
            with h5py.File(folder / "other.h5", "w") as other:
                other["meas"] = measured.T
            with h5py.File(folder / "x.mat", "w") as file:
                fill(file)

        return Case("measurements", name, make, "x.mat", expected)

    def beside(**arrays: Any) -> Callable[[Any], None]:
        def fill(file: Any) -> None:
            file["mask"] = mask.T
            for name, value in arrays.items():
                file[name] = value

        return fill

    def external(file: Any) -> None:
        file["mask"] = mask.T
        file.create_dataset("meas", (SIZE, SIZE), "u1", external=[("secret", 0, SIZE * SIZE)])

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((SIZE, SIZE), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "meas", (SIZE, SIZE))
        file["mask"] = mask.T
        file.create_virtual_dataset("meas", layout)

    def huge(file: Any) -> None:
        file["mask"] = mask.T
        file.create_dataset("meas", (10**5,) * 3, "f8", chunks=(1, 100, 100))

    good = mat(meas=measured, mask=mask)
    yield case("intact", good, "works")
    yield hdf5("intact HDF5", beside(meas=measured.T), "works")
    yield hdf5("external", external)
    yield hdf5("virtual", virtual)
    yield hdf5("huge", huge)
    yield hdf5("external link", beside(meas=h5py.ExternalLink("other.h5", "/meas")))
    yield hdf5("soft link", beside(meas=h5py.SoftLink("/mask")))
    yield hdf5("group", lambda file: file.create_group("meas"))
    yield hdf5("text", beside(meas=["a", "b"]))
    yield hdf5("nothing", beside(meas=h5py.Empty("f4")))
    yield hdf5("number", beside(meas=3.0))
    wrong: dict[str, dict[str, Any]] = {
        "NaN": {"meas": np.where(mask[..., 0] > 0, np.nan, measured)},
        "infinite mask": {"mask": np.where(mask > 0, np.inf, 0)},
        "negative mask": {"mask": -mask},
        "black mask": {"mask": 0 * mask},
        "mask of 5": {"mask": 5 * mask},
        "flat mask": {"mask": mask[..., 0]},
        "mask of 7 frames": {"mask": mask[..., :7]},
        "mask of 1000 frames": {"mask": np.ones((SIZE, SIZE, 1000), np.uint8)},
        "small mask": {"mask": mask[:16]},
        "complex": {"meas": measured + 1j},
        "words": {"meas": "hello"},
        "struct": {"meas": {"a": measured}},
        "no values": {"meas": np.zeros((0, 0)), "mask": np.zeros((0, 0, 8))},
        "four axes": {"meas": np.zeros((2, 2, 2, 2))},
        "bright": {"meas": measured * 1e30},
        "other frames": {"orig": np.zeros((8, 8, 3))},
        "few frames": {"orig": frames[..., :3]},
        "frames of 9": {"orig": np.concatenate([frames, frames[..., :1]], 2)},
    }
    for name, arrays in wrong.items():
        yield case(name, mat(**{"meas": measured, "mask": mask, **arrays}))
    for name, make in specials("x.mat").items():
        yield Case("measurements", name, make, "x.mat", "refused")
    archive = io.BytesIO()
    np.savez(archive, meas=measured, mask=mask.transpose(2, 0, 1))
    packed = io.BytesIO()
    np.savez_compressed(packed, meas=measured, mask=mask.transpose(2, 0, 1))
    yield case("intact npz", archive.getvalue(), "works", "npz")
    pickled = io.BytesIO()
    np.savez(pickled, meas=np.array([Exploding()], object), mask=mask, allow_pickle=True)
    yield case("npz with code", pickled.getvalue(), "refused", "npz")
    claim = io.BytesIO()
    with zipfile.ZipFile(claim, "w") as file:
        for name in ("meas.npy", "mask.npy"):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f8", "fortran_order": False, "shape": (10**4, 10**4, 100)}
            )
            file.writestr(name, header.getvalue() + bytes(64))
    yield case("npz claims", claim.getvalue(), "refused", "npz")
    whole = io.BytesIO()
    with h5py.File(whole, "w") as content:
        beside(meas=measured.T)(content)
    sources = [("mat", good), ("npz", archive.getvalue()), ("npz", packed.getvalue()), ("mat", whole.getvalue())]
    for index in range(count):
        suffix, content = rng.choice(sources)
        yield case(f"damaged {index}", damaged(rng, content), "either", suffix)


def clips(rng: random.Random, count: int) -> Iterator[Case]:
    """For `qsci upscale`, into x.mp4."""
    import av

    def clip(suffix: str) -> bytes:
        stream = io.BytesIO()
        with av.open(stream, "w", format={"mp4": "mp4", "mkv": "matroska", "avi": "avi"}[suffix]) as file:
            track = file.add_stream("libx264" if suffix != "avi" else "mpeg4", rate=10)
            track.width, track.height, track.pix_fmt = 32, 24, "yuv420p"
            for level in range(0, 120, 40):
                frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), level, np.uint8), format="rgb24")
                file.mux(track.encode(frame))
            file.mux(track.encode())
        return stream.getvalue()

    intact = {suffix: clip(suffix) for suffix in ("mp4", "mkv", "avi")}
    yield Case("clips", "intact", written("x.mp4", intact["mp4"]), "x.mp4", "works")
    playlists = {
        "ffconcat": b"ffconcat version 1.0\nfile secret.mkv\n",
        "m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mkv\n#EXT-X-ENDLIST\n",
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }
    for name, text in playlists.items():

        def make(folder: Path, text: bytes = text) -> None:
            (folder / "secret.mkv").write_bytes(intact["mkv"])
            (folder / "x.mp4").write_bytes(text)

        yield Case("clips", name, make, "x.mp4", "refused")
    for name, special in specials("x.mp4").items():
        yield Case("clips", name, special, "x.mp4", "refused")
    for index in range(count):
        suffix = rng.choice(list(intact))
        yield Case("clips", f"damaged {index}", written(f"x.{suffix}", damaged(rng, intact[suffix])), f"x.{suffix}")

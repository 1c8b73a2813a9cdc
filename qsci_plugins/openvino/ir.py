"""OpenVINO's file format: several graphs over one file of constants, the same bytes for the same network."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openvino
from openvino import Layout, Type
from openvino import opset13 as ops
from openvino.preprocess import PrePostProcessor

__all__ = ["pack", "store_in_four_bits", "with_image_ports"]

_ALIGNMENT = 8
#: smaller constants save fewer bytes than their conversion takes in the XML
_FEWEST_VALUES = 1024


def with_image_ports(model: openvino.Model, value_range: float) -> openvino.Model:
    """A model of float (N,3,H,W) in 0..value_range as one of uint8 RGB images (N,H,W,3) in and out, 0..255.

    Conversion, clamp and rounding (half to even) happen inside, at a hundredth of what they cost outside. Other outputs
    than the first stay as they are.
    """
    process = PrePostProcessor(model)
    source, result = process.input(), process.output(0)
    source.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    source.model().set_layout(Layout("NCHW"))
    image = source.preprocess().convert_element_type(Type.f32)
    if value_range != 255.0:
        image.scale(255.0 / value_range)
    result.model().set_layout(Layout("NCHW"))
    result.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    levels = result.postprocess().custom(lambda value: _to_levels(value, value_range))
    levels.convert_element_type(Type.u8).convert_layout(Layout("NHWC"))
    return process.build()


def _to_levels(value: openvino.Output, value_range: float) -> openvino.Output:
    if value_range != 255.0:
        value = ops.multiply(value, ops.constant(np.float32(255.0 / value_range))).output(0)
    return ops.round(ops.clamp(value, 0.0, 255.0), "half_to_even").output(0)


def pack(models: Mapping[str, openvino.Model]) -> tuple[dict[str, bytes], bytes]:
    """The graphs of models as XML by the same names, and the constants of all of them, each held once.

    The models are changed in place, by `store_in_four_bits`.
    """
    graphs: dict[str, bytes] = {}
    constants = bytearray()
    places: dict[bytes, int] = {}
    for name, model in models.items():
        store_in_four_bits(model)
        with tempfile.TemporaryDirectory() as folder:
            xml, binary = Path(folder) / "graph.xml", Path(folder) / "graph.bin"
            openvino.serialize(model, xml, binary)
            root, blob = ElementTree.parse(xml).getroot(), binary.read_bytes()
        for data in root.iter("data"):
            if "offset" not in data.attrib:
                continue
            start, size = int(data.attrib["offset"]), int(data.attrib["size"])
            content = blob[start : start + size]
            digest = hashlib.sha256(content).digest()
            if digest not in places:
                constants.extend(bytes(-len(constants) % _ALIGNMENT))
                places[digest] = len(constants)
                constants.extend(content)
            data.set("offset", str(places[digest]))
        _share_constants(root)
        _name_by_order(root)
        graphs[name] = re.sub(rb">\s+<", b"><", ElementTree.tostring(root))
    return graphs, bytes(constants)


def store_in_four_bits(model: openvino.Model) -> int:
    """Halves the int8 constants whose values all fit into four bits, in place; returns how many.

    Two values lie in a byte, behind a conversion to int8, which OpenVINO does once as it compiles: it then sees the
    constants of before, and computes the same in u8 and i8. Of four bits converted to float at once it computes in float.
    """
    changed = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != Type.i8:
            continue
        values = node.data.reshape(-1)
        if values.size < _FEWEST_VALUES or values.min() < -8 or values.max() > 7:
            continue
        pairs = np.concatenate([values, np.zeros(values.size % 2, np.int8)]).reshape(-1, 2).view(np.uint8) & 15
        packed = openvino.Tensor(Type.i4, node.output(0).get_shape())
        packed.data[:] = (pairs[:, 0] | pairs[:, 1] << 4).view(np.int8)
        readers = node.output(0).get_target_inputs()
        widened = ops.convert(ops.constant(packed), Type.i8).output(0)
        for reader in readers:
            reader.replace_source_output(widened)
        changed += 1
    return changed


def _share_constants(root: ElementTree.Element) -> None:
    """Equal constants become one node; a FakeQuantize alone has four."""
    layers, edges = root.find("layers"), root.find("edges")
    assert layers is not None
    assert edges is not None
    kept: dict[tuple[str, ...], str] = {}
    renamed: dict[str, str] = {}
    for layer in list(layers):
        data = layer.find("data")
        if layer.attrib["type"] != "Const" or data is None:
            continue
        key = tuple(data.attrib.get(name, "") for name in ("element_type", "shape", "offset"))
        renamed[layer.attrib["id"]] = kept.setdefault(key, layer.attrib["id"])
        if kept[key] != layer.attrib["id"]:
            layers.remove(layer)
    for edge in edges:
        source = edge.attrib["from-layer"]
        edge.set("from-layer", renamed.get(source, source))


def _name_by_order(root: ElementTree.Element) -> None:
    """Names that come from the network stay, short; numbers that OpenVINO counts up over a process's life go."""
    root.set("name", "network")
    taken: set[str] = set()
    for layer in root.iter("layer"):
        kind = layer.attrib["type"]
        module = re.fullmatch(r"__module\.(.*?)/.*", layer.attrib["name"])
        name = "c" if kind == "Const" else f"{module[1]}/{kind}" if module else kind
        if kind == "Parameter":
            name = layer.attrib["name"]
        elif kind == "Const" or name in taken:
            name += layer.attrib["id"]
        taken.add(name)
        layer.set("name", name)
        for port in layer.iter("port"):
            if kind not in ("Parameter", "Result"):
                port.attrib.pop("names", None)
        for port in layer.iterfind("input/port"):
            port.attrib.pop("precision", None)

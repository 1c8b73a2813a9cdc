"""What the forms of a network are worth on sets of images or scenes, from the `sets` of metrics.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["FORMS", "patch_table", "quality_section", "quality_table", "table"]

#: the forms of a network in the order in which tables show them
FORMS = {"float": "float", "torch": "quantized, torch", "openvino": "quantized, OpenVINO"}

_UNMEASURED = {
    "sr": "No benchmark set was measured; give --data DIR, or name `builtin` in the recipe's `evaluate`.",
    "sci": "No set was measured; name `builtin`, or a folder of .mat files, in the recipe's `evaluate`.",
}

_MEASURED = {
    "sr": "PSNR-Y and SSIM on luma, a border of `scale` pixels cropped, 8-bit rounding; FAB is the mean bit-width of the"
    " activations that the scheme quantizes.",
    "sci": "PSNR and SSIM of each frame of 0..255, neither clamped nor rounded, averaged over frames and measurements.",
}


def quality_section(sets: Mapping[str, Any], task: str, scale: int) -> str:
    """The table of all sets, what its numbers mean, and the correlation of patches and bits where that was measured."""
    if not sets:
        return _UNMEASURED[task]
    parts = [f"## Quality\n\n{quality_table(sets, task, scale)}\n\n{_MEASURED[task]}", patch_table(sets)]
    return "\n\n".join(part for part in parts if part)


def quality_table(sets: Mapping[str, Any], task: str = "sr", scale: int | None = None) -> str:
    """PSNR, its loss to float, SSIM and FAB of every form on every set; of video scene by scene, with the share of float."""
    rows = []
    for title, numbers, reference in _video_rows(sets) if task == "sci" else _image_rows(sets, scale):
        psnr, ssim, fab = (numbers.get(key) for key in ("psnr", "ssim", "fab"))
        known = reference is not None and psnr is not None
        if task == "sci":
            loss = f"{100 * psnr / reference:.2f} %" if known and psnr is not None else ""
        else:
            loss = _signed(reference - psnr) if known and psnr is not None and reference is not None else ""
        cells = ["equal" if psnr is None else f"{psnr:.2f}", loss]
        rows.append([title, *cells, "" if ssim is None else f"{ssim:.4f}", "" if fab is None else f"{fab:.2f}"])
    columns = ["scene: form", "PSNR dB", "of float"] if task == "sci" else ["set: form", "PSNR-Y dB", "loss dB"]
    return table([*columns, "SSIM", "FAB bits"], rows)


#: a row's title, its numbers, and the PSNR of the float network there (None in its own row)
_Row = tuple[str, Mapping[str, Any], float | None]


def _image_rows(sets: Mapping[str, Any], scale: int | None) -> Iterator[_Row]:
    enlarged = "" if scale is None else f" x{scale}"
    for name, forms in sets.items():
        reference = forms.get("float", {}).get("psnr")
        for form, title in FORMS.items():
            if form in forms:
                yield f"{name}{enlarged}: {title}", forms[form], None if form == "float" else reference


def _video_rows(sets: Mapping[str, Any]) -> Iterator[_Row]:
    for name, forms in sets.items():
        plain = forms.get("float", {})
        for form, title in FORMS.items():
            if form not in forms:
                continue
            mean = {"mean": forms[form]} if len(forms[form]["pieces"]) > 1 else {}
            for scene, numbers in {**forms[form]["pieces"], **mean}.items():
                there = plain if scene == "mean" else plain.get("pieces", {}).get(scene, {})
                yield f"{name} {scene}: {title}", numbers, None if form == "float" else there.get("psnr")


def patch_table(sets: Mapping[str, Any]) -> str:
    """Whether busier patches got more bits, where the network ran patch by patch."""
    rows = []
    for name, forms in sets.items():
        patches = forms.get("torch", {}).get("patches")
        if patches:
            cells = ["-" if value is None else f"{value:.2f}" for value in patches["gradient_and_fab"].values()]
            rows.append([name, str(patches["count"]), *cells])
    if not rows:
        return ""
    title = "Correlation of a patch's mean gradient and its FAB, over all patches of a set (torch runs patch by patch):"
    return f"{title}\n\n{table(['set', 'patches', 'Spearman', 'Pearson'], rows)}"


def _signed(decibels: float) -> str:
    return f"{round(decibels, 2) + 0.0:.2f}"  # no minus in front of a zero


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text too; all but the first are right-aligned."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    rule = [f"{'-' * (width - 1)}{'-' if column == 0 else ':'}" for column, width in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(cells[0]), line(rule), *(line(row) for row in cells[1:])])

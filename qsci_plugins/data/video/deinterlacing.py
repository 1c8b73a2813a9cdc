"""Fields become frames: interlaced pictures go through FFmpeg's bwdif, one frame for each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from av.filter import Graph

__all__ = ["deinterlaced"]


def deinterlaced(frames: Iterator[tuple[Any, int]], time_base: Any) -> Iterator[tuple[Any, int]]:
    """Decoded frames and their time stamps, as many and at the same times; from the first interlaced one on filtered.

    Progressive frames stay as they are.
    """
    graph: Graph | None = None
    waiting: deque[int] = deque()
    for frame, stamp in frames:
        if graph is None and frame.interlaced_frame:
            graph = _bwdif(frame, time_base)
        if graph is None:
            yield frame, stamp
            continue
        waiting.append(stamp)
        frame.pts, frame.time_base = stamp, time_base
        graph.push(frame)
        yield from _pull(graph, waiting)
    if graph is not None:
        graph.push(None)
        yield from _pull(graph, waiting)


def _bwdif(frame: Any, time_base: Any) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    filter_ = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    graph.link_nodes(source, filter_, graph.add("buffersink"))
    graph.configure()
    return graph


def _pull(graph: Graph, waiting: deque[int]) -> Iterator[tuple[Any, int]]:
    from av.error import BlockingIOError, EOFError

    while waiting:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):
            return
        yield frame, waiting.popleft()

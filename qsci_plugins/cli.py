"""The command line: `qsci`, or `python -m qsci_plugins`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from qsci_plugins import __version__
from qsci_plugins.commands import (
    bench,
    benchmark,
    cost,
    doctor,
    evaluate,
    quantize,
    recipes,
    reconstruct,
    report,
    run,
    sweep,
    train,
    upscale,
    validate,
)
from qsci_plugins.commands.console import one_line
from qsci_plugins.errors import UserError
from qsci_plugins.extras import MissingExtraError, missing_extra
from qsci_plugins.machine import memory_error, yield_waiting_threads
from qsci_plugins.telemetry import switch_off_telemetry

__all__ = ["main"]

USER_ERROR = 2
INTERRUPTED = 130

_COMMANDS = (
    run,
    quantize,
    recipes,
    validate,
    train,
    upscale,
    reconstruct,
    evaluate,
    bench,
    benchmark,
    sweep,
    report,
    cost,
    doctor,
)


class _Parser(argparse.ArgumentParser):
    """Mistakes are one line, as every other error is."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 2 for what the user can put right, 130 for Ctrl-C."""
    _fill_closed_streams()
    switch_off_telemetry()  # a command writes nothing outside its output
    yield_waiting_threads()  # torch reads it when it is imported
    parser = _Parser(prog="qsci", description=_SUMMARY, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"qsci {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for command in _COMMANDS:
        command.add(commands)
    try:
        chosen = parser.parse_args(arguments)
        if chosen.command is None:
            parser.print_help()
            return 0
        code: int = chosen.execute(chosen)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UserError as error:
        return _refused(error)
    except ModuleNotFoundError as error:
        if not isinstance(explained := missing_extra(error), MissingExtraError):
            raise
        return _refused(explained)
    except KeyboardInterrupt as interruption:
        print(f"\nqsci: {str(interruption) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `qsci recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _refused(_reason(error))
    except MemoryError:
        return _refused("there is not enough memory for this; use smaller images, patches or batches")
    except RuntimeError as error:
        refusal = memory_error(error)
        if refusal is None:
            raise
        return _refused(refusal)


def _refused(reason: object) -> int:
    """Says on one line what the user can put right."""
    print(f"qsci: error: {one_line(reason)}", file=sys.stderr)
    return USER_ERROR


def _fill_closed_streams() -> None:
    """Where a shell closed standard streams, the files that are opened next would get their numbers, and their output."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)


def _reason(error: OSError) -> str:
    """Of a disk that is full or files that may not be read or written, wherever that was noticed."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


_SUMMARY = "Low-bit, content-adaptive quantization of image restoration networks, ending in OpenVINO models."

if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""The trace of what a machine and its guest did: text that greps, or slices for ui.perfetto.dev."""

from .chrome import Chrome
from .chrome import load as load_chrome
from .form import KINDS
from .text import Record, line_of, records_of
from .watcher import Trace, form_of

__all__ = ["KINDS", "Chrome", "Record", "Trace", "form_of", "line_of", "load_chrome", "records_of"]

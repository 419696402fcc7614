# SPDX-License-Identifier: Apache-2.0
"""Whose fault an exception is: the operator's or the client's.

A guest's fault is never an exception: models return it as a value.
"""

from __future__ import annotations

import errno as _errno


class UsageError(Exception):
    """The operator's mistake; its text is one sentence that says the mend (exit code 2)."""


class ClientError(Exception):
    """A bad vfio-user message; answered with ``errno`` in one place (vfio-user §"Error")."""

    def __init__(self, text: str, errno: int = _errno.EINVAL) -> None:
        super().__init__(text)
        self.errno = errno

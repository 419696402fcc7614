# SPDX-License-Identifier: Apache-2.0
"""Faults: ways in which an SMMU or a master is wrong on purpose, each declared once (docs/faults.md).

Law: a fault sets seams and nothing else; it says each time that it struck, and how often it did is counted. Python's
``Fault``, a machine file's [[fault]] and ``--fault`` are all made from the declarations.
"""

from __future__ import annotations

from .fault import Fault
from .injection import Bare, Injection, Later, Parameter, Seen
from .kinds import FAULTS
from .lab import Astray, Lab

__all__ = ["FAULTS", "Astray", "Bare", "Fault", "Injection", "Lab", "Later", "Parameter", "Seen"]

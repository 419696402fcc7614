# SPDX-License-Identifier: Apache-2.0
"""What a kernel's log says of an SMMU: its words as named fields (``words``), and whole logs (``logs``).

Law: reads no memory and no file; every name, value and complaint comes from the declarations in ``smmu``.
"""

from __future__ import annotations

from .words import KINDS, MANY, Decoded, decode_text, decode_words, is_kind

__all__ = ["KINDS", "MANY", "Decoded", "decode_text", "decode_words", "is_kind"]

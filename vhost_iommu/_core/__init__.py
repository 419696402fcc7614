# SPDX-License-Identifier: Apache-2.0
"""The compiled core: C11 (``core.h``) behind a Cython door (``door.pyx``)."""

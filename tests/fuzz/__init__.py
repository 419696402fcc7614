# SPDX-License-Identifier: Apache-2.0
"""Random machines, tables, registers, commands and requests, against properties that must hold whatever they are."""

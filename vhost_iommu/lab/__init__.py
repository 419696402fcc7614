# SPDX-License-Identifier: Apache-2.0
"""What somebody does to a machine who wants to see a driver fail. Law: knows models by their seams alone."""

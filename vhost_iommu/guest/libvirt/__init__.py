# SPDX-License-Identifier: Apache-2.0
"""Guests that libvirt starts: the domain, a session of libvirt for one run, and who keeps both."""

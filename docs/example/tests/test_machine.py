# SPDX-License-Identifier: Apache-2.0
"""A bare-metal guest: its cases, known before it runs, are tests, and so are those that it tells when it runs."""

import pytest


@pytest.mark.vi_cases("smmuv3-bare")
def test_a_case_of_the_bare_machine(vi_case):
    assert vi_case


def test_all_that_the_bare_machine_tells(vhost_iommu, subtests):
    report = vhost_iommu.run("smmuv3-bare", subtests=subtests)
    assert report.account.smmus[0].worked

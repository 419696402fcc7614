# SPDX-License-Identifier: Apache-2.0
"""What Linux' driver does while a disk behind an SMMU is read, and what it does about an SMMU that is wrong."""


def test_a_disk_read_invalidates_what_it_mapped(vhost_iommu):
    with vhost_iommu.boot("smmuv3-linux", kernel="6.12") as guest:
        with guest.recording() as seen:
            guest.run("dd if=/dev/vda of=/dev/null bs=64k count=4 iflag=direct")
        assert seen.commands("CMD_TLBI_NH_VA") and not seen.events
        with guest.fault("drop-sync", smmu="smmu0", after=3):
            guest.run("dd if=/dev/vda of=/dev/null bs=4k count=4 iflag=direct", check=False)
        assert "CMD_SYNC timeout" in guest.dmesg()


def test_each_unmapping_is_one_invalidation_and_one_sync(vhost_iommu):
    with vhost_iommu.boot("smmuv3-linux") as guest:
        with guest.recording() as seen:
            guest.run("dd if=/dev/vda of=/dev/null bs=4k count=8 iflag=direct")
        assert seen.operations
        for each in seen.operations:
            assert each.kinds == {"CMD_TLBI_NH_VA": 1, "CMD_SYNC": 1}

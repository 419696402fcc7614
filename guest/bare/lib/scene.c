/* SPDX-License-Identifier: Apache-2.0 */
/* What most cases begin with: an engine behind an SMMU that was started anew, and two pages that it may use. */
#include "smmu.h"
#include "vt.h"

bool vt_scene_begin(struct vt_scene *scene)
{
	uint16_t next_asid = scene->smmu.next_asid;

	scene->master = vt_master("arm,smmute", 0);
	if (!scene->master) {
		vt_skip("the machine has no DMA engine");
		return false;
	}
	vt_smmu_start(&scene->smmu, &vt_config.smmu[scene->master->smmu]);
	scene->smmu.next_asid = next_asid;
	vt_engine_init(&scene->engine, scene->master);
	scene->source = vt_alloc(VT_PAGE, VT_PAGE);
	scene->target = vt_alloc(VT_PAGE, VT_PAGE);
	scene->sum = 0;
	for (unsigned int i = 0; i < VT_PAGE / 8; i++) {
		uint64_t word = (i + 1) * 0x0001000100010001UL ^ (uint64_t)scene->source;

		((volatile uint64_t *)scene->source)[i] = word;
		scene->sum += word;
	}
	vt_space_init(&scene->smmu, &scene->space);
	vt_map(&scene->space, VT_SOURCE, (uint64_t)scene->source, VT_PAGE, VT_READ);
	vt_map(&scene->space, VT_TARGET, (uint64_t)scene->target, VT_PAGE, VT_READ | VT_WRITE);
	scene->cd = vt_smmu_attach(&scene->smmu, scene->engine.sid, &scene->space);
	scene->ste = vt_smmu_ste(&scene->smmu, scene->engine.sid);
	return true;
}

#define RAM 0x40000000UL
#define RAM_SIZE (64UL << 20) /* the least that a machine has */
#define BLOCK (2UL << 20)

bool vt_scene_nest(struct vt_scene *scene, struct vt_space *stage2, uint16_t vmid)
{
	if (!(scene->smmu.idr0 & IDR0_S2P)) {
		vt_skip("the SMMU has no stage 2");
		return false;
	}
	vt_space_init(&scene->smmu, stage2);
	for (uint64_t at = RAM; at < RAM + RAM_SIZE; at += BLOCK)
		*vt_descriptor(stage2, at + VT_IPA, 2) = at | DESC_VALID | DESC_AF | DESC_SH_INNER | DESC_S2_NORMAL_WB |
							 DESC_S2AP_READ | DESC_S2AP_WRITE;
	vt_space_init(&scene->smmu, &scene->space);
	scene->space.offset = VT_IPA;
	vt_map(&scene->space, VT_SOURCE, (uint64_t)scene->source + VT_IPA, VT_PAGE, VT_READ);
	vt_map(&scene->space, VT_TARGET, (uint64_t)scene->target + VT_IPA, VT_PAGE, VT_READ | VT_WRITE);
	scene->cd = vt_smmu_attach_stage2(&scene->smmu, scene->engine.sid, &scene->space, stage2, vmid);
	return true;
}

uint64_t *vt_ram2(struct vt_space *stage2, uint64_t ipa)
{
	uint64_t *entry = vt_descriptor(stage2, ipa, 2), block = *entry;

	if (!(block & DESC_TABLE)) {
		uint64_t *table = vt_alloc(VT_PAGE, VT_PAGE);

		for (unsigned int i = 0; i < VT_PAGE / 8; i++)
			table[i] = (block + i * VT_PAGE) | DESC_TABLE; /* at level 3: a page */
		*entry = (uint64_t)table | DESC_TABLE | DESC_VALID;
		vt_barrier();
	}
	return vt_descriptor(stage2, ipa, 3);
}

void vt_scene_ste(struct vt_scene *scene) { vt_smmu_cfgi_ste(&scene->smmu, scene->engine.sid); }

void vt_scene_cd(struct vt_scene *scene) { vt_smmu_cfgi_cd(&scene->smmu, scene->engine.sid, 0); }

void vt_scene_tlbi(struct vt_scene *scene)
{
	vt_barrier();
	vt_smmu_command(&scene->smmu, CMD_TLBI_NSNH_ALL, 0);
	if (!vt_smmu_sync(&scene->smmu))
		vt_fail("CMD_SYNC after CMD_TLBI_NSNH_ALL does not complete");
}

bool vt_blank(const void *page)
{
	for (unsigned int i = 0; i < VT_PAGE / 8; i++)
		if (((const volatile uint64_t *)page)[i])
			return false;
	return true;
}

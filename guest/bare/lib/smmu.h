/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers, commands, events and structures of the SMMUv3, by hand from IHI 0070, for the driver in smmu.c and for
 * programs that misuse what it sets up. Names are the architecture's; a bit of a structure belongs to the 64-bit word
 * that the comment above it names.
 */
#ifndef VT_SMMU_H
#define VT_SMMU_H

/* -- registers (§6.3) -- */
#define IDR0 0x00
#define IDR1 0x04
#define IDR3 0x0c
#define IDR5 0x14
#define CR0 0x20
#define CR0ACK 0x24
#define CR1 0x28
#define CR2 0x2c
#define GBPA 0x44
#define IRQ_CTRL 0x50
#define IRQ_CTRLACK 0x54
#define GERROR 0x60
#define GERRORN 0x64
#define GERROR_IRQ_CFG0 0x68
#define GERROR_IRQ_CFG1 0x70
#define GERROR_IRQ_CFG2 0x74
#define STRTAB_BASE 0x80
#define STRTAB_BASE_CFG 0x88
#define CMDQ_BASE 0x90
#define CMDQ_PROD 0x98
#define CMDQ_CONS 0x9c
#define EVENTQ_BASE 0xa0
#define EVENTQ_IRQ_CFG0 0xb0
#define EVENTQ_IRQ_CFG1 0xb8
#define EVENTQ_IRQ_CFG2 0xbc
#define PRIQ_BASE 0xc0
#define PRIQ_IRQ_CFG0 0xd0 /* 8 bytes */
#define PRIQ_IRQ_CFG1 0xd8
#define MPAMIDR 0x130
#define EVENTQ_PROD 0x100a8
#define EVENTQ_CONS 0x100ac
#define PRIQ_PROD 0x100c8
#define PRIQ_CONS 0x100cc

#define IDR0_S2P (1U << 0)
#define IDR0_S1P (1U << 1)
#define IDR0_HTTU(idr0) ((idr0) >> 6 & 3) /* 1: access flags, 2: dirty state, too */
#define IDR0_HYP (1U << 9)
#define IDR0_ATS (1U << 10)
#define IDR0_MSI (1U << 13)
#define IDR0_PRI (1U << 16)
#define IDR0_CD2L (1U << 19)
#define IDR0_STALL_MODEL(idr0) ((idr0) >> 24 & 3) /* 0: both ways, 1: no stalls, 2: stalls only */
#define IDR0_TERM_MODEL (1U << 26)
#define IDR0_ST_LEVEL(idr0) ((idr0) >> 27 & 3)
#define IDR1_PRIQS(idr1) ((idr1) >> 11 & 31)
#define IDR1_CMDQS(idr1) ((idr1) >> 21 & 31)
#define IDR1_EVENTQS(idr1) ((idr1) >> 16 & 31)
#define IDR1_SSIDSIZE(idr1) ((idr1) >> 6 & 31)
#define IDR3_STT (1U << 9)
#define IDR3_RIL (1U << 10)
#define IDR3_BBML(idr3) ((idr3) >> 11 & 3)
#define IDR5_OAS(idr5) ((idr5) & 7)
#define OAS_52 6
#define MPAMIDR_PARTID_MAX(mpamidr) ((mpamidr) & 0xffff)

#define CR0_SMMUEN (1U << 0)
#define CR0_PRIQEN (1U << 1)
#define CR0_EVENTQEN (1U << 2)
#define CR0_CMDQEN (1U << 3)
#define CR0_ATSCHK (1U << 4)
#define CR1_INNER_SHAREABLE_WB 0x0d75
#define CR2_RECINVSID (1U << 1)
#define GBPA_ABORT (1U << 20)
#define GBPA_UPDATE (1U << 31)
#define IRQ_CTRL_GERROR (1U << 0)
#define IRQ_CTRL_PRIQ (1U << 1)
#define IRQ_CTRL_EVENTQ (1U << 2)
#define GERROR_CMDQ_ERR (1U << 0)
#define GERROR_EVENTQ_ABT_ERR (1U << 2)
#define GERROR_PRIQ_ABT_ERR (1U << 3)
#define GERROR_MSI_CMDQ_ABT_ERR (1U << 4)
#define GERROR_MSI_EVENTQ_ABT_ERR (1U << 5)
#define GERROR_MSI_GERROR_ABT_ERR (1U << 7)
#define STRTAB_TWO_LEVEL (1U << 16)
#define STRTAB_SPLIT(bits) ((uint32_t)(bits) << 6)
#define CMDQ_CONS_ERR(cons) ((cons) >> 24 & 0x7f)
#define CERROR_NONE 0U
#define CERROR_ILL 1U
#define CERROR_ABT 2U
#define CERROR_ATC_INV_SYNC 3U
#define BASE_RA (1UL << 62)
#define OVFLG (1U << 31)
#define OVACKFLG (1U << 31)

/* -- commands (chapter 4), word 0 -- */
#define CMD_PREFETCH_CONFIG 0x01UL
#define CMD_PREFETCH_ADDR 0x02UL
#define CMD_CFGI_STE 0x03UL
#define CMD_CFGI_ALL 0x04UL
#define CMD_CFGI_CD 0x05UL
#define CMD_CFGI_CD_ALL 0x06UL
#define CMD_CFGI_VMS_PIDM 0x07UL
#define CMD_TLBI_NH_ALL 0x10UL
#define CMD_TLBI_NH_ASID 0x11UL
#define CMD_TLBI_NH_VA 0x12UL
#define CMD_TLBI_NH_VAA 0x13UL
#define CMD_TLBI_EL3_ALL 0x18UL
#define CMD_TLBI_EL3_VA 0x1aUL
#define CMD_TLBI_EL2_ALL 0x20UL
#define CMD_TLBI_EL2_ASID 0x21UL
#define CMD_TLBI_EL2_VA 0x22UL
#define CMD_TLBI_EL2_VAA 0x23UL
#define CMD_TLBI_S12_VMALL 0x28UL
#define CMD_TLBI_S2_IPA 0x2aUL
#define CMD_TLBI_NSNH_ALL 0x30UL
#define CMD_ATC_INV 0x40UL
#define CMD_PRI_RESP 0x41UL
#define CMD_RESUME 0x44UL
#define CMD_STALL_TERM 0x45UL
#define CMD_SYNC 0x46UL
#define CMD_SSEC (1UL << 10)
#define CMD_SID(sid) ((uint64_t)(sid) << 32)
#define CMD_SSID(ssid) ((uint64_t)(ssid) << 12)
#define CMD_VMID(vmid) ((uint64_t)(vmid) << 32)
#define CMD_ASID(asid) ((uint64_t)(asid) << 48)
#define CMD_SSV (1UL << 11)
#define RESUME_AC (1UL << 12) /* retry, else terminate */
#define RESUME_AB (1UL << 13) /* and abort */
#define SYNC_CS(kind) ((uint64_t)(kind) << 12)
#define SYNC_SIG_NONE 0
#define SYNC_SIG_IRQ 1
#define SYNC_SIG_SEV 2
#define SYNC_MSI_DATA(data) ((uint64_t)(data) << 32)
/* word 1 */
#define ATC_INV_ALL 52UL
#define PRI_RESP_FAILURE (0UL << 12)
#define PRI_RESP_INVALID (1UL << 12)
#define PRI_RESP_SUCCESS (2UL << 12)
#define CMD_LEAF 1UL
#define TLBI_TG_4K (1UL << 10)

/* -- events (§7.3), word 1 -- */
#define EVENT_STALL (1UL << 31)
#define EVENT_PNU (1UL << 33)
#define EVENT_IND (1UL << 34)
#define EVENT_RNW (1UL << 35)
#define EVENT_S2 (1UL << 39)
#define EVENT_CLASS_CD (0UL << 40)
#define EVENT_CLASS_TT (1UL << 40)
#define EVENT_CLASS_IN (2UL << 40)
#define EVENT_TTRNW (1UL << 44)

/* of a hint (§7.3.19) */
#define HINT_UW (1UL << 34)
#define HINT_UR (1UL << 35)
#define HINT_PX (1UL << 37)
#define HINT_PR (1UL << 39)
#define HINT_SPAN(pages) ((uint64_t)(pages) << 44)

/* -- PRI queue entries (chapter 8), word 0 -- */
#define PRI_PRIV (1UL << 58)
#define PRI_X (1UL << 59)
#define PRI_R (1UL << 60)
#define PRI_W (1UL << 61)
#define PRI_LAST (1UL << 62)
#define PRI_SSV (1UL << 63)

/* -- L1STD (§5.1) -- */
#define L1STD_SPAN(span) ((uint64_t)(span))

/* -- STE (§5.2), word 0 -- */
#define STE_V 1UL
#define STE_CONFIG(kind) ((uint64_t)(kind) << 1)
#define STE_S1FMT_TWO_LEVEL_4K (1UL << 4)
#define STE_S1FMT_TWO_LEVEL_64K (2UL << 4)
#define STE_S1CONTEXTPTR 0xfffffffffffc0UL
#define STE_S1CDMAX(bits) ((uint64_t)(bits) << 59)
/* word 1 */
#define STE_S1DSS_TERMINATE 0UL /* without a SubstreamID */
#define STE_S1DSS_BYPASS 1UL
#define STE_S1DSS_SUBSTREAM0 2UL
#define STE_S1DSS 3UL
#define STE_S1_INNER_WB (1UL << 2 | 1UL << 4 | 3UL << 6) /* S1CIR, S1COR write-back, S1CSH inner shareable */
#define STE_S1MPAM (1UL << 26)
#define STE_S1STALLD (1UL << 27)
#define STE_EATS_FULL (1UL << 28)
#define STE_CONT(bits) ((uint64_t)(bits) << 13)
#define STE_SHCFG_INCOMING (1UL << 44)
#define STE_PRIVCFG_UNPRIVILEGED (2UL << 48)
#define STE_PRIVCFG_PRIVILEGED (3UL << 48)
#define STE_INSTCFG_DATA (2UL << 50)
#define STE_INSTCFG_INSTRUCTION (3UL << 50)
/* word 2 */
#define STE_S2VMID(vmid) ((uint64_t)(vmid))
#define STE_S2T0SZ(bits) ((64UL - (bits)) << 32)
#define STE_S2SL0(sl0) ((uint64_t)(sl0) << 38) /* 4K granule: 1 starts at level 1 */
#define STE_S2_INNER_WB (1UL << 40 | 1UL << 42 | 3UL << 44) /* S2IR0, S2OR0, S2SH0 */
#define STE_S2PS(size) ((uint64_t)(size) << 48)
#define STE_S2AA64 (1UL << 51)
#define STE_S2AFFD (1UL << 53)
#define STE_S2HD (1UL << 55)
#define STE_S2HA (1UL << 56)
#define STE_S2S (1UL << 57)
#define STE_S2R (1UL << 58)

/* -- L1CD and CD (§5.3, §5.4), word 0 -- */
#define L1CD_V 1UL
#define CD_T0SZ(bits) (64UL - (bits))
#define CD_T0SZ_MASK 63UL
#define CD_WB_INNER (1UL << 8 | 1UL << 10 | 3UL << 12) /* IR0, OR0 write-back, SH0 inner shareable */
#define CD_EPD0 (1UL << 14)
#define CD_EPD1 (1UL << 30)
#define CD_V (1UL << 31)
#define CD_IPS(size) ((uint64_t)(size) << 32)
#define CD_AFFD (1UL << 35)
#define CD_WXN (1UL << 36)
#define CD_PAN (1UL << 40)
#define CD_AA64 (1UL << 41)
#define CD_HD (1UL << 42)
#define CD_HA (1UL << 43)
#define CD_S (1UL << 44)
#define CD_R (1UL << 45)
#define CD_A (1UL << 46)
#define CD_ASET (1UL << 47)
#define CD_ASID(asid) ((uint64_t)(asid) << 48)

/* -- VMSAv8-64 descriptors (Arm ARM D8.3) -- */
#define DESC_VALID 1UL
#define DESC_TABLE 2UL /* a page at level 3, a table above it; a block without */
#define DESC_SH_INNER (3UL << 8)
#define DESC_AF (1UL << 10)
#define DESC_NT (1UL << 16) /* of a block */
#define DESC_DBM (1UL << 51)
#define DESC_ADDRESS 0xfffffffff000UL
/* stage 1 */
#define DESC_AP_EL0 (1UL << 6)
#define DESC_AP_RO (1UL << 7)
#define DESC_NG (1UL << 11)
#define DESC_PXN (1UL << 53)
#define DESC_UXN (1UL << 54)
#define DESC_APTABLE_RO (2UL << 61)
/* stage 2 */
#define DESC_S2_NORMAL_WB (15UL << 2)
#define DESC_S2AP_READ (1UL << 6)
#define DESC_S2AP_WRITE (2UL << 6)
#define DESC_S2_XN (2UL << 53)

#endif

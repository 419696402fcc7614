/* SPDX-License-Identifier: Apache-2.0 */
/* Written by `python -m vhost_iommu.header`; edit the declarations instead. */
#ifndef VI_DECLARED_H
#define VI_DECLARED_H

#include <stdint.h>

enum Opcode {
    VI_Opcode_CMD_PREFETCH_CONFIG = 0x1,
    VI_Opcode_CMD_PREFETCH_ADDR = 0x2,
    VI_Opcode_CMD_CFGI_STE = 0x3,
    VI_Opcode_CMD_CFGI_STE_RANGE = 0x4,
    VI_Opcode_CMD_CFGI_CD = 0x5,
    VI_Opcode_CMD_CFGI_CD_ALL = 0x6,
    VI_Opcode_CMD_CFGI_VMS_PIDM = 0x7,
    VI_Opcode_CMD_TLBI_NH_ALL = 0x10,
    VI_Opcode_CMD_TLBI_NH_ASID = 0x11,
    VI_Opcode_CMD_TLBI_NH_VA = 0x12,
    VI_Opcode_CMD_TLBI_NH_VAA = 0x13,
    VI_Opcode_CMD_TLBI_EL3_ALL = 0x18,
    VI_Opcode_CMD_TLBI_EL3_VA = 0x1a,
    VI_Opcode_CMD_TLBI_EL2_ALL = 0x20,
    VI_Opcode_CMD_TLBI_EL2_ASID = 0x21,
    VI_Opcode_CMD_TLBI_EL2_VA = 0x22,
    VI_Opcode_CMD_TLBI_EL2_VAA = 0x23,
    VI_Opcode_CMD_TLBI_S12_VMALL = 0x28,
    VI_Opcode_CMD_TLBI_S2_IPA = 0x2a,
    VI_Opcode_CMD_TLBI_NSNH_ALL = 0x30,
    VI_Opcode_CMD_ATC_INV = 0x40,
    VI_Opcode_CMD_PRI_RESP = 0x41,
    VI_Opcode_CMD_RESUME = 0x44,
    VI_Opcode_CMD_STALL_TERM = 0x45,
    VI_Opcode_CMD_SYNC = 0x46,
    VI_Opcode_CMD_TLBI_S_EL2_ALL = 0x50,
    VI_Opcode_CMD_TLBI_S_EL2_ASID = 0x51,
    VI_Opcode_CMD_TLBI_S_EL2_VA = 0x52,
    VI_Opcode_CMD_TLBI_S_EL2_VAA = 0x53,
    VI_Opcode_CMD_TLBI_S_S12_VMALL = 0x58,
    VI_Opcode_CMD_TLBI_S_S2_IPA = 0x5a,
    VI_Opcode_CMD_TLBI_SNH_ALL = 0x60,
    VI_Opcode_CMD_DPTI_ALL = 0x70,
    VI_Opcode_CMD_DPTI_PA = 0x73,
};

enum CompletionSignal {
    VI_CompletionSignal_SIG_NONE = 0x0,
    VI_CompletionSignal_SIG_IRQ = 0x1,
    VI_CompletionSignal_SIG_SEV = 0x2,
};

enum RequestType {
    VI_RequestType_IN = 0x0,
    VI_RequestType_OUT = 0x1,
    VI_RequestType_FLUSH = 0x4,
    VI_RequestType_GET_ID = 0x8,
    VI_RequestType_DISCARD = 0xb,
    VI_RequestType_WRITE_ZEROES = 0xd,
};

enum RequestStatus {
    VI_RequestStatus_OK = 0x0,
    VI_RequestStatus_IOERR = 0x1,
    VI_RequestStatus_UNSUPP = 0x2,
};

/* TableDescriptor: 8 bytes */
#define VI_TableDescriptor_SIZE 8
#define VI_TableDescriptor_TYPE UINT64_C(0x3)
static inline uint64_t TableDescriptor_TYPE(uint64_t raw) { return (raw) & UINT64_C(0x3); }
#define VI_TableDescriptor_Ignored_2 UINT64_C(0x3fc)
static inline uint64_t TableDescriptor_Ignored_2(uint64_t raw) { return (raw >> 2) & UINT64_C(0xff); }
#define VI_TableDescriptor_AF UINT64_C(0x400)
static inline uint64_t TableDescriptor_AF(uint64_t raw) { return (raw >> 10) & UINT64_C(0x1); }
#define VI_TableDescriptor_Ignored_11 UINT64_C(0x800)
static inline uint64_t TableDescriptor_Ignored_11(uint64_t raw) { return (raw >> 11) & UINT64_C(0x1); }
#define VI_TableDescriptor_NextTable UINT64_C(0xfffffffff000)
static inline uint64_t TableDescriptor_NextTable(uint64_t raw) { return ((raw >> 12) & UINT64_C(0xfffffffff)) << 12; }
#define VI_TableDescriptor_Ignored_51 UINT64_C(0x7f8000000000000)
static inline uint64_t TableDescriptor_Ignored_51(uint64_t raw) { return (raw >> 51) & UINT64_C(0xff); }
#define VI_TableDescriptor_PXNTable UINT64_C(0x800000000000000)
static inline uint64_t TableDescriptor_PXNTable(uint64_t raw) { return (raw >> 59) & UINT64_C(0x1); }
#define VI_TableDescriptor_UXNTable UINT64_C(0x1000000000000000)
static inline uint64_t TableDescriptor_UXNTable(uint64_t raw) { return (raw >> 60) & UINT64_C(0x1); }
#define VI_TableDescriptor_APTable UINT64_C(0x6000000000000000)
static inline uint64_t TableDescriptor_APTable(uint64_t raw) { return (raw >> 61) & UINT64_C(0x3); }
#define VI_TableDescriptor_NSTable UINT64_C(0x8000000000000000)
static inline uint64_t TableDescriptor_NSTable(uint64_t raw) { return (raw >> 63) & UINT64_C(0x1); }
#define VI_TableDescriptor_NextTable_51_50 UINT64_C(0x300)
static inline uint64_t TableDescriptor_NextTable_51_50(uint64_t raw) { return (raw >> 8) & UINT64_C(0x3); }
#define VI_TableDescriptor_NextTable_51_48 UINT64_C(0xf000)
static inline uint64_t TableDescriptor_NextTable_51_48(uint64_t raw) { return (raw >> 12) & UINT64_C(0xf); }
#define VI_TableDescriptor_NextTable_49_48 UINT64_C(0x3000000000000)
static inline uint64_t TableDescriptor_NextTable_49_48(uint64_t raw) { return (raw >> 48) & UINT64_C(0x3); }

/* S1LeafDescriptor: 8 bytes */
#define VI_S1LeafDescriptor_SIZE 8
#define VI_S1LeafDescriptor_TYPE UINT64_C(0x3)
static inline uint64_t S1LeafDescriptor_TYPE(uint64_t raw) { return (raw) & UINT64_C(0x3); }
#define VI_S1LeafDescriptor_AttrIndx UINT64_C(0x1c)
static inline uint64_t S1LeafDescriptor_AttrIndx(uint64_t raw) { return (raw >> 2) & UINT64_C(0x7); }
#define VI_S1LeafDescriptor_NS UINT64_C(0x20)
static inline uint64_t S1LeafDescriptor_NS(uint64_t raw) { return (raw >> 5) & UINT64_C(0x1); }
#define VI_S1LeafDescriptor_AP UINT64_C(0xc0)
static inline uint64_t S1LeafDescriptor_AP(uint64_t raw) { return (raw >> 6) & UINT64_C(0x3); }
#define VI_S1LeafDescriptor_SH UINT64_C(0x300)
static inline uint64_t S1LeafDescriptor_SH(uint64_t raw) { return (raw >> 8) & UINT64_C(0x3); }
#define VI_S1LeafDescriptor_AF UINT64_C(0x400)
static inline uint64_t S1LeafDescriptor_AF(uint64_t raw) { return (raw >> 10) & UINT64_C(0x1); }
#define VI_S1LeafDescriptor_nG UINT64_C(0x800)
static inline uint64_t S1LeafDescriptor_nG(uint64_t raw) { return (raw >> 11) & UINT64_C(0x1); }
#define VI_S1LeafDescriptor_OA UINT64_C(0xfffffffff000)
static inline uint64_t S1LeafDescriptor_OA(uint64_t raw) { return ((raw >> 12) & UINT64_C(0xfffffffff)) << 12; }
#define VI_S1LeafDescriptor_GP UINT64_C(0x4000000000000)
static inline uint64_t S1LeafDescriptor_GP(uint64_t raw) { return (raw >> 50) & UINT64_C(0x1); }
#define VI_S1LeafDescriptor_DBM UINT64_C(0x8000000000000)
static inline uint64_t S1LeafDescriptor_DBM(uint64_t raw) { return (raw >> 51) & UINT64_C(0x1); }
#define VI_S1LeafDescriptor_Contiguous UINT64_C(0x10000000000000)
static inline uint64_t S1LeafDescriptor_Contiguous(uint64_t raw) { return (raw >> 52) & UINT64_C(0x1); }
#define VI_S1LeafDescriptor_PXN UINT64_C(0x20000000000000)
static inline uint64_t S1LeafDescriptor_PXN(uint64_t raw) { return (raw >> 53) & UINT64_C(0x1); }
#define VI_S1LeafDescriptor_UXN UINT64_C(0x40000000000000)
static inline uint64_t S1LeafDescriptor_UXN(uint64_t raw) { return (raw >> 54) & UINT64_C(0x1); }
#define VI_S1LeafDescriptor_Software UINT64_C(0x780000000000000)
static inline uint64_t S1LeafDescriptor_Software(uint64_t raw) { return (raw >> 55) & UINT64_C(0xf); }
#define VI_S1LeafDescriptor_PBHA UINT64_C(0x7800000000000000)
static inline uint64_t S1LeafDescriptor_PBHA(uint64_t raw) { return (raw >> 59) & UINT64_C(0xf); }
#define VI_S1LeafDescriptor_AMEC UINT64_C(0x8000000000000000)
static inline uint64_t S1LeafDescriptor_AMEC(uint64_t raw) { return (raw >> 63) & UINT64_C(0x1); }
#define VI_S1LeafDescriptor_OA_51_50 UINT64_C(0x300)
static inline uint64_t S1LeafDescriptor_OA_51_50(uint64_t raw) { return (raw >> 8) & UINT64_C(0x3); }
#define VI_S1LeafDescriptor_OA_51_48 UINT64_C(0xf000)
static inline uint64_t S1LeafDescriptor_OA_51_48(uint64_t raw) { return (raw >> 12) & UINT64_C(0xf); }
#define VI_S1LeafDescriptor_nT UINT64_C(0x10000)
static inline uint64_t S1LeafDescriptor_nT(uint64_t raw) { return (raw >> 16) & UINT64_C(0x1); }
#define VI_S1LeafDescriptor_OA_49_48 UINT64_C(0x3000000000000)
static inline uint64_t S1LeafDescriptor_OA_49_48(uint64_t raw) { return (raw >> 48) & UINT64_C(0x3); }
#define VI_S1LeafDescriptor_AttrIndx_3 UINT64_C(0x800000000000000)
static inline uint64_t S1LeafDescriptor_AttrIndx_3(uint64_t raw) { return (raw >> 59) & UINT64_C(0x1); }

/* S2LeafDescriptor: 8 bytes */
#define VI_S2LeafDescriptor_SIZE 8
#define VI_S2LeafDescriptor_TYPE UINT64_C(0x3)
static inline uint64_t S2LeafDescriptor_TYPE(uint64_t raw) { return (raw) & UINT64_C(0x3); }
#define VI_S2LeafDescriptor_MemAttr UINT64_C(0x3c)
static inline uint64_t S2LeafDescriptor_MemAttr(uint64_t raw) { return (raw >> 2) & UINT64_C(0xf); }
#define VI_S2LeafDescriptor_S2AP UINT64_C(0xc0)
static inline uint64_t S2LeafDescriptor_S2AP(uint64_t raw) { return (raw >> 6) & UINT64_C(0x3); }
#define VI_S2LeafDescriptor_SH UINT64_C(0x300)
static inline uint64_t S2LeafDescriptor_SH(uint64_t raw) { return (raw >> 8) & UINT64_C(0x3); }
#define VI_S2LeafDescriptor_AF UINT64_C(0x400)
static inline uint64_t S2LeafDescriptor_AF(uint64_t raw) { return (raw >> 10) & UINT64_C(0x1); }
#define VI_S2LeafDescriptor_FnXS UINT64_C(0x800)
static inline uint64_t S2LeafDescriptor_FnXS(uint64_t raw) { return (raw >> 11) & UINT64_C(0x1); }
#define VI_S2LeafDescriptor_OA UINT64_C(0xfffffffff000)
static inline uint64_t S2LeafDescriptor_OA(uint64_t raw) { return ((raw >> 12) & UINT64_C(0xfffffffff)) << 12; }
#define VI_S2LeafDescriptor_DBM UINT64_C(0x8000000000000)
static inline uint64_t S2LeafDescriptor_DBM(uint64_t raw) { return (raw >> 51) & UINT64_C(0x1); }
#define VI_S2LeafDescriptor_Contiguous UINT64_C(0x10000000000000)
static inline uint64_t S2LeafDescriptor_Contiguous(uint64_t raw) { return (raw >> 52) & UINT64_C(0x1); }
#define VI_S2LeafDescriptor_XN UINT64_C(0x60000000000000)
static inline uint64_t S2LeafDescriptor_XN(uint64_t raw) { return (raw >> 53) & UINT64_C(0x3); }
#define VI_S2LeafDescriptor_NS UINT64_C(0x80000000000000)
static inline uint64_t S2LeafDescriptor_NS(uint64_t raw) { return (raw >> 55) & UINT64_C(0x1); }
#define VI_S2LeafDescriptor_Software UINT64_C(0x700000000000000)
static inline uint64_t S2LeafDescriptor_Software(uint64_t raw) { return (raw >> 56) & UINT64_C(0x7); }
#define VI_S2LeafDescriptor_PBHA UINT64_C(0x7800000000000000)
static inline uint64_t S2LeafDescriptor_PBHA(uint64_t raw) { return (raw >> 59) & UINT64_C(0xf); }
#define VI_S2LeafDescriptor_AMEC UINT64_C(0x8000000000000000)
static inline uint64_t S2LeafDescriptor_AMEC(uint64_t raw) { return (raw >> 63) & UINT64_C(0x1); }
#define VI_S2LeafDescriptor_MemAttr_FWB UINT64_C(0x1c)
static inline uint64_t S2LeafDescriptor_MemAttr_FWB(uint64_t raw) { return (raw >> 2) & UINT64_C(0x7); }
#define VI_S2LeafDescriptor_OA_51_50 UINT64_C(0x300)
static inline uint64_t S2LeafDescriptor_OA_51_50(uint64_t raw) { return (raw >> 8) & UINT64_C(0x3); }
#define VI_S2LeafDescriptor_OA_51_48 UINT64_C(0xf000)
static inline uint64_t S2LeafDescriptor_OA_51_48(uint64_t raw) { return (raw >> 12) & UINT64_C(0xf); }
#define VI_S2LeafDescriptor_nT UINT64_C(0x10000)
static inline uint64_t S2LeafDescriptor_nT(uint64_t raw) { return (raw >> 16) & UINT64_C(0x1); }
#define VI_S2LeafDescriptor_OA_49_48 UINT64_C(0x3000000000000)
static inline uint64_t S2LeafDescriptor_OA_49_48(uint64_t raw) { return (raw >> 48) & UINT64_C(0x3); }

/* IDR0: 4 bytes */
#define VI_IDR0_SIZE 4
#define VI_IDR0_S2P UINT64_C(0x1)
static inline uint64_t IDR0_S2P(uint64_t raw) { return (raw) & UINT64_C(0x1); }
#define VI_IDR0_S1P UINT64_C(0x2)
static inline uint64_t IDR0_S1P(uint64_t raw) { return (raw >> 1) & UINT64_C(0x1); }
#define VI_IDR0_TTF UINT64_C(0xc)
static inline uint64_t IDR0_TTF(uint64_t raw) { return (raw >> 2) & UINT64_C(0x3); }
#define VI_IDR0_COHACC UINT64_C(0x10)
static inline uint64_t IDR0_COHACC(uint64_t raw) { return (raw >> 4) & UINT64_C(0x1); }
#define VI_IDR0_BTM UINT64_C(0x20)
static inline uint64_t IDR0_BTM(uint64_t raw) { return (raw >> 5) & UINT64_C(0x1); }
#define VI_IDR0_HTTU UINT64_C(0xc0)
static inline uint64_t IDR0_HTTU(uint64_t raw) { return (raw >> 6) & UINT64_C(0x3); }
#define VI_IDR0_DORMHINT UINT64_C(0x100)
static inline uint64_t IDR0_DORMHINT(uint64_t raw) { return (raw >> 8) & UINT64_C(0x1); }
#define VI_IDR0_Hyp UINT64_C(0x200)
static inline uint64_t IDR0_Hyp(uint64_t raw) { return (raw >> 9) & UINT64_C(0x1); }
#define VI_IDR0_ATS UINT64_C(0x400)
static inline uint64_t IDR0_ATS(uint64_t raw) { return (raw >> 10) & UINT64_C(0x1); }
#define VI_IDR0_NS1ATS UINT64_C(0x800)
static inline uint64_t IDR0_NS1ATS(uint64_t raw) { return (raw >> 11) & UINT64_C(0x1); }
#define VI_IDR0_ASID16 UINT64_C(0x1000)
static inline uint64_t IDR0_ASID16(uint64_t raw) { return (raw >> 12) & UINT64_C(0x1); }
#define VI_IDR0_MSI UINT64_C(0x2000)
static inline uint64_t IDR0_MSI(uint64_t raw) { return (raw >> 13) & UINT64_C(0x1); }
#define VI_IDR0_SEV UINT64_C(0x4000)
static inline uint64_t IDR0_SEV(uint64_t raw) { return (raw >> 14) & UINT64_C(0x1); }
#define VI_IDR0_ATOS UINT64_C(0x8000)
static inline uint64_t IDR0_ATOS(uint64_t raw) { return (raw >> 15) & UINT64_C(0x1); }
#define VI_IDR0_PRI UINT64_C(0x10000)
static inline uint64_t IDR0_PRI(uint64_t raw) { return (raw >> 16) & UINT64_C(0x1); }
#define VI_IDR0_VMW UINT64_C(0x20000)
static inline uint64_t IDR0_VMW(uint64_t raw) { return (raw >> 17) & UINT64_C(0x1); }
#define VI_IDR0_VMID16 UINT64_C(0x40000)
static inline uint64_t IDR0_VMID16(uint64_t raw) { return (raw >> 18) & UINT64_C(0x1); }
#define VI_IDR0_CD2L UINT64_C(0x80000)
static inline uint64_t IDR0_CD2L(uint64_t raw) { return (raw >> 19) & UINT64_C(0x1); }
#define VI_IDR0_VATOS UINT64_C(0x100000)
static inline uint64_t IDR0_VATOS(uint64_t raw) { return (raw >> 20) & UINT64_C(0x1); }
#define VI_IDR0_TTENDIAN UINT64_C(0x600000)
static inline uint64_t IDR0_TTENDIAN(uint64_t raw) { return (raw >> 21) & UINT64_C(0x3); }
#define VI_IDR0_ATSRECERR UINT64_C(0x800000)
static inline uint64_t IDR0_ATSRECERR(uint64_t raw) { return (raw >> 23) & UINT64_C(0x1); }
#define VI_IDR0_STALL_MODEL UINT64_C(0x3000000)
static inline uint64_t IDR0_STALL_MODEL(uint64_t raw) { return (raw >> 24) & UINT64_C(0x3); }
#define VI_IDR0_TERM_MODEL UINT64_C(0x4000000)
static inline uint64_t IDR0_TERM_MODEL(uint64_t raw) { return (raw >> 26) & UINT64_C(0x1); }
#define VI_IDR0_ST_LEVEL UINT64_C(0x18000000)
static inline uint64_t IDR0_ST_LEVEL(uint64_t raw) { return (raw >> 27) & UINT64_C(0x3); }
#define VI_IDR0_RME_IMPL UINT64_C(0x40000000)
static inline uint64_t IDR0_RME_IMPL(uint64_t raw) { return (raw >> 30) & UINT64_C(0x1); }

/* IDR3: 4 bytes */
#define VI_IDR3_SIZE 4
#define VI_IDR3_HAD UINT64_C(0x4)
static inline uint64_t IDR3_HAD(uint64_t raw) { return (raw >> 2) & UINT64_C(0x1); }
#define VI_IDR3_PBHA UINT64_C(0x8)
static inline uint64_t IDR3_PBHA(uint64_t raw) { return (raw >> 3) & UINT64_C(0x1); }
#define VI_IDR3_XNX UINT64_C(0x10)
static inline uint64_t IDR3_XNX(uint64_t raw) { return (raw >> 4) & UINT64_C(0x1); }
#define VI_IDR3_PPS UINT64_C(0x20)
static inline uint64_t IDR3_PPS(uint64_t raw) { return (raw >> 5) & UINT64_C(0x1); }
#define VI_IDR3_MPAM UINT64_C(0x80)
static inline uint64_t IDR3_MPAM(uint64_t raw) { return (raw >> 7) & UINT64_C(0x1); }
#define VI_IDR3_FWB UINT64_C(0x100)
static inline uint64_t IDR3_FWB(uint64_t raw) { return (raw >> 8) & UINT64_C(0x1); }
#define VI_IDR3_STT UINT64_C(0x200)
static inline uint64_t IDR3_STT(uint64_t raw) { return (raw >> 9) & UINT64_C(0x1); }
#define VI_IDR3_RIL UINT64_C(0x400)
static inline uint64_t IDR3_RIL(uint64_t raw) { return (raw >> 10) & UINT64_C(0x1); }
#define VI_IDR3_BBML UINT64_C(0x1800)
static inline uint64_t IDR3_BBML(uint64_t raw) { return (raw >> 11) & UINT64_C(0x3); }
#define VI_IDR3_E0PD UINT64_C(0x2000)
static inline uint64_t IDR3_E0PD(uint64_t raw) { return (raw >> 13) & UINT64_C(0x1); }
#define VI_IDR3_PTWNNC UINT64_C(0x4000)
static inline uint64_t IDR3_PTWNNC(uint64_t raw) { return (raw >> 14) & UINT64_C(0x1); }
#define VI_IDR3_DPT UINT64_C(0x8000)
static inline uint64_t IDR3_DPT(uint64_t raw) { return (raw >> 15) & UINT64_C(0x1); }
#define VI_IDR3_PASIDTT UINT64_C(0x10000)
static inline uint64_t IDR3_PASIDTT(uint64_t raw) { return (raw >> 16) & UINT64_C(0x1); }
#define VI_IDR3_EPAN UINT64_C(0x20000)
static inline uint64_t IDR3_EPAN(uint64_t raw) { return (raw >> 17) & UINT64_C(0x1); }
#define VI_IDR3_S1PI UINT64_C(0x40000)
static inline uint64_t IDR3_S1PI(uint64_t raw) { return (raw >> 18) & UINT64_C(0x1); }
#define VI_IDR3_S2PI UINT64_C(0x80000)
static inline uint64_t IDR3_S2PI(uint64_t raw) { return (raw >> 19) & UINT64_C(0x1); }
#define VI_IDR3_S2PO UINT64_C(0x100000)
static inline uint64_t IDR3_S2PO(uint64_t raw) { return (raw >> 20) & UINT64_C(0x1); }
#define VI_IDR3_THE UINT64_C(0x200000)
static inline uint64_t IDR3_THE(uint64_t raw) { return (raw >> 21) & UINT64_C(0x1); }
#define VI_IDR3_MTEPERM UINT64_C(0x400000)
static inline uint64_t IDR3_MTEPERM(uint64_t raw) { return (raw >> 22) & UINT64_C(0x1); }
#define VI_IDR3_AIE UINT64_C(0x800000)
static inline uint64_t IDR3_AIE(uint64_t raw) { return (raw >> 23) & UINT64_C(0x1); }

/* IDR5: 4 bytes */
#define VI_IDR5_SIZE 4
#define VI_IDR5_OAS UINT64_C(0x7)
static inline uint64_t IDR5_OAS(uint64_t raw) { return (raw) & UINT64_C(0x7); }
#define VI_IDR5_GRAN4K UINT64_C(0x10)
static inline uint64_t IDR5_GRAN4K(uint64_t raw) { return (raw >> 4) & UINT64_C(0x1); }
#define VI_IDR5_GRAN16K UINT64_C(0x20)
static inline uint64_t IDR5_GRAN16K(uint64_t raw) { return (raw >> 5) & UINT64_C(0x1); }
#define VI_IDR5_GRAN64K UINT64_C(0x40)
static inline uint64_t IDR5_GRAN64K(uint64_t raw) { return (raw >> 6) & UINT64_C(0x1); }
#define VI_IDR5_DS UINT64_C(0x80)
static inline uint64_t IDR5_DS(uint64_t raw) { return (raw >> 7) & UINT64_C(0x1); }
#define VI_IDR5_D128 UINT64_C(0x100)
static inline uint64_t IDR5_D128(uint64_t raw) { return (raw >> 8) & UINT64_C(0x1); }
#define VI_IDR5_VAX UINT64_C(0xc00)
static inline uint64_t IDR5_VAX(uint64_t raw) { return (raw >> 10) & UINT64_C(0x3); }
#define VI_IDR5_STALL_MAX UINT64_C(0xffff0000)
static inline uint64_t IDR5_STALL_MAX(uint64_t raw) { return (raw >> 16) & UINT64_C(0xffff); }

/* CR2: 4 bytes */
#define VI_CR2_SIZE 4
#define VI_CR2_E2H UINT64_C(0x1)
static inline uint64_t CR2_E2H(uint64_t raw) { return (raw) & UINT64_C(0x1); }
#define VI_CR2_RECINVSID UINT64_C(0x2)
static inline uint64_t CR2_RECINVSID(uint64_t raw) { return (raw >> 1) & UINT64_C(0x1); }
#define VI_CR2_PTM UINT64_C(0x4)
static inline uint64_t CR2_PTM(uint64_t raw) { return (raw >> 2) & UINT64_C(0x1); }
#define VI_CR2_REC_CFG_ATS UINT64_C(0x8)
static inline uint64_t CR2_REC_CFG_ATS(uint64_t raw) { return (raw >> 3) & UINT64_C(0x1); }

/* Command: 16 bytes */
#define VI_Command_SIZE 16
static inline uint64_t Command_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }

/* CMD_PREFETCH_CONFIG: 16 bytes */
#define VI_CMD_PREFETCH_CONFIG_SIZE 16
static inline uint64_t CMD_PREFETCH_CONFIG_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_PREFETCH_CONFIG_SSec(const uint64_t *words) { return (words[0] >> 10) & UINT64_C(0x1); }
static inline uint64_t CMD_PREFETCH_CONFIG_SSV(const uint64_t *words) { return (words[0] >> 11) & UINT64_C(0x1); }
static inline uint64_t CMD_PREFETCH_CONFIG_SSID(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0xfffff); }
static inline uint64_t CMD_PREFETCH_CONFIG_SID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffffffff); }

/* CMD_PREFETCH_ADDR: 16 bytes */
#define VI_CMD_PREFETCH_ADDR_SIZE 16
static inline uint64_t CMD_PREFETCH_ADDR_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_PREFETCH_ADDR_SSec(const uint64_t *words) { return (words[0] >> 10) & UINT64_C(0x1); }
static inline uint64_t CMD_PREFETCH_ADDR_SSV(const uint64_t *words) { return (words[0] >> 11) & UINT64_C(0x1); }
static inline uint64_t CMD_PREFETCH_ADDR_SSID(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0xfffff); }
static inline uint64_t CMD_PREFETCH_ADDR_SID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffffffff); }
static inline uint64_t CMD_PREFETCH_ADDR_Size(const uint64_t *words) { return (words[1]) & UINT64_C(0x1f); }
static inline uint64_t CMD_PREFETCH_ADDR_Stride(const uint64_t *words) { return (words[1] >> 5) & UINT64_C(0x1f); }
static inline uint64_t CMD_PREFETCH_ADDR_NS(const uint64_t *words) { return (words[1] >> 10) & UINT64_C(0x1); }
static inline uint64_t CMD_PREFETCH_ADDR_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffffff)) << 12; }

/* CMD_CFGI_STE: 16 bytes */
#define VI_CMD_CFGI_STE_SIZE 16
static inline uint64_t CMD_CFGI_STE_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_CFGI_STE_SSec(const uint64_t *words) { return (words[0] >> 10) & UINT64_C(0x1); }
static inline uint64_t CMD_CFGI_STE_SID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffffffff); }
static inline uint64_t CMD_CFGI_STE_Leaf(const uint64_t *words) { return (words[1]) & UINT64_C(0x1); }

/* CMD_CFGI_STE_RANGE: 16 bytes */
#define VI_CMD_CFGI_STE_RANGE_SIZE 16
static inline uint64_t CMD_CFGI_STE_RANGE_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_CFGI_STE_RANGE_SSec(const uint64_t *words) { return (words[0] >> 10) & UINT64_C(0x1); }
static inline uint64_t CMD_CFGI_STE_RANGE_SID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffffffff); }
static inline uint64_t CMD_CFGI_STE_RANGE_Range(const uint64_t *words) { return (words[1]) & UINT64_C(0x1f); }

/* CMD_CFGI_CD: 16 bytes */
#define VI_CMD_CFGI_CD_SIZE 16
static inline uint64_t CMD_CFGI_CD_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_CFGI_CD_SSec(const uint64_t *words) { return (words[0] >> 10) & UINT64_C(0x1); }
static inline uint64_t CMD_CFGI_CD_SSID(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0xfffff); }
static inline uint64_t CMD_CFGI_CD_SID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffffffff); }
static inline uint64_t CMD_CFGI_CD_Leaf(const uint64_t *words) { return (words[1]) & UINT64_C(0x1); }

/* CMD_CFGI_CD_ALL: 16 bytes */
#define VI_CMD_CFGI_CD_ALL_SIZE 16
static inline uint64_t CMD_CFGI_CD_ALL_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_CFGI_CD_ALL_SSec(const uint64_t *words) { return (words[0] >> 10) & UINT64_C(0x1); }
static inline uint64_t CMD_CFGI_CD_ALL_SID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffffffff); }

/* CMD_CFGI_VMS_PIDM: 16 bytes */
#define VI_CMD_CFGI_VMS_PIDM_SIZE 16
static inline uint64_t CMD_CFGI_VMS_PIDM_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_CFGI_VMS_PIDM_SSec(const uint64_t *words) { return (words[0] >> 10) & UINT64_C(0x1); }
static inline uint64_t CMD_CFGI_VMS_PIDM_VMID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffff); }

/* CMD_TLBI_NH_ALL: 16 bytes */
#define VI_CMD_TLBI_NH_ALL_SIZE 16
static inline uint64_t CMD_TLBI_NH_ALL_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_NH_ALL_VMID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffff); }

/* CMD_TLBI_NH_ASID: 16 bytes */
#define VI_CMD_TLBI_NH_ASID_SIZE 16
static inline uint64_t CMD_TLBI_NH_ASID_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_NH_ASID_VMID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffff); }
static inline uint64_t CMD_TLBI_NH_ASID_ASID(const uint64_t *words) { return (words[0] >> 48) & UINT64_C(0xffff); }

/* CMD_TLBI_NH_VA: 16 bytes */
#define VI_CMD_TLBI_NH_VA_SIZE 16
static inline uint64_t CMD_TLBI_NH_VA_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_NH_VA_NUM(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0x1f); }
static inline uint64_t CMD_TLBI_NH_VA_SCALE(const uint64_t *words) { return (words[0] >> 20) & UINT64_C(0x3f); }
static inline uint64_t CMD_TLBI_NH_VA_VMID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffff); }
static inline uint64_t CMD_TLBI_NH_VA_ASID(const uint64_t *words) { return (words[0] >> 48) & UINT64_C(0xffff); }
static inline uint64_t CMD_TLBI_NH_VA_Leaf(const uint64_t *words) { return (words[1]) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_NH_VA_TTL128(const uint64_t *words) { return (words[1] >> 7) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_NH_VA_TTL(const uint64_t *words) { return (words[1] >> 8) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_NH_VA_TG(const uint64_t *words) { return (words[1] >> 10) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_NH_VA_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffffff)) << 12; }

/* CMD_TLBI_NH_VAA: 16 bytes */
#define VI_CMD_TLBI_NH_VAA_SIZE 16
static inline uint64_t CMD_TLBI_NH_VAA_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_NH_VAA_NUM(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0x1f); }
static inline uint64_t CMD_TLBI_NH_VAA_SCALE(const uint64_t *words) { return (words[0] >> 20) & UINT64_C(0x3f); }
static inline uint64_t CMD_TLBI_NH_VAA_VMID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffff); }
static inline uint64_t CMD_TLBI_NH_VAA_Leaf(const uint64_t *words) { return (words[1]) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_NH_VAA_TTL128(const uint64_t *words) { return (words[1] >> 7) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_NH_VAA_TTL(const uint64_t *words) { return (words[1] >> 8) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_NH_VAA_TG(const uint64_t *words) { return (words[1] >> 10) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_NH_VAA_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffffff)) << 12; }

/* CMD_TLBI_EL3_ALL: 16 bytes */
#define VI_CMD_TLBI_EL3_ALL_SIZE 16
static inline uint64_t CMD_TLBI_EL3_ALL_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }

/* CMD_TLBI_EL3_VA: 16 bytes */
#define VI_CMD_TLBI_EL3_VA_SIZE 16
static inline uint64_t CMD_TLBI_EL3_VA_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_EL3_VA_NUM(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0x1f); }
static inline uint64_t CMD_TLBI_EL3_VA_SCALE(const uint64_t *words) { return (words[0] >> 20) & UINT64_C(0x3f); }
static inline uint64_t CMD_TLBI_EL3_VA_Leaf(const uint64_t *words) { return (words[1]) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_EL3_VA_TTL128(const uint64_t *words) { return (words[1] >> 7) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_EL3_VA_TTL(const uint64_t *words) { return (words[1] >> 8) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_EL3_VA_TG(const uint64_t *words) { return (words[1] >> 10) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_EL3_VA_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffffff)) << 12; }

/* CMD_TLBI_EL2_ALL: 16 bytes */
#define VI_CMD_TLBI_EL2_ALL_SIZE 16
static inline uint64_t CMD_TLBI_EL2_ALL_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }

/* CMD_TLBI_EL2_ASID: 16 bytes */
#define VI_CMD_TLBI_EL2_ASID_SIZE 16
static inline uint64_t CMD_TLBI_EL2_ASID_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_EL2_ASID_ASID(const uint64_t *words) { return (words[0] >> 48) & UINT64_C(0xffff); }

/* CMD_TLBI_EL2_VA: 16 bytes */
#define VI_CMD_TLBI_EL2_VA_SIZE 16
static inline uint64_t CMD_TLBI_EL2_VA_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_EL2_VA_NUM(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0x1f); }
static inline uint64_t CMD_TLBI_EL2_VA_SCALE(const uint64_t *words) { return (words[0] >> 20) & UINT64_C(0x3f); }
static inline uint64_t CMD_TLBI_EL2_VA_ASID(const uint64_t *words) { return (words[0] >> 48) & UINT64_C(0xffff); }
static inline uint64_t CMD_TLBI_EL2_VA_Leaf(const uint64_t *words) { return (words[1]) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_EL2_VA_TTL128(const uint64_t *words) { return (words[1] >> 7) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_EL2_VA_TTL(const uint64_t *words) { return (words[1] >> 8) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_EL2_VA_TG(const uint64_t *words) { return (words[1] >> 10) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_EL2_VA_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffffff)) << 12; }

/* CMD_TLBI_EL2_VAA: 16 bytes */
#define VI_CMD_TLBI_EL2_VAA_SIZE 16
static inline uint64_t CMD_TLBI_EL2_VAA_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_EL2_VAA_NUM(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0x1f); }
static inline uint64_t CMD_TLBI_EL2_VAA_SCALE(const uint64_t *words) { return (words[0] >> 20) & UINT64_C(0x3f); }
static inline uint64_t CMD_TLBI_EL2_VAA_Leaf(const uint64_t *words) { return (words[1]) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_EL2_VAA_TTL128(const uint64_t *words) { return (words[1] >> 7) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_EL2_VAA_TTL(const uint64_t *words) { return (words[1] >> 8) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_EL2_VAA_TG(const uint64_t *words) { return (words[1] >> 10) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_EL2_VAA_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffffff)) << 12; }

/* CMD_TLBI_S12_VMALL: 16 bytes */
#define VI_CMD_TLBI_S12_VMALL_SIZE 16
static inline uint64_t CMD_TLBI_S12_VMALL_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_S12_VMALL_VMID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffff); }

/* CMD_TLBI_S2_IPA: 16 bytes */
#define VI_CMD_TLBI_S2_IPA_SIZE 16
static inline uint64_t CMD_TLBI_S2_IPA_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_S2_IPA_NUM(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0x1f); }
static inline uint64_t CMD_TLBI_S2_IPA_SCALE(const uint64_t *words) { return (words[0] >> 20) & UINT64_C(0x3f); }
static inline uint64_t CMD_TLBI_S2_IPA_VMID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffff); }
static inline uint64_t CMD_TLBI_S2_IPA_Leaf(const uint64_t *words) { return (words[1]) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_S2_IPA_TTL128(const uint64_t *words) { return (words[1] >> 7) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_S2_IPA_TTL(const uint64_t *words) { return (words[1] >> 8) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_S2_IPA_TG(const uint64_t *words) { return (words[1] >> 10) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_S2_IPA_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffff)) << 12; }

/* CMD_TLBI_NSNH_ALL: 16 bytes */
#define VI_CMD_TLBI_NSNH_ALL_SIZE 16
static inline uint64_t CMD_TLBI_NSNH_ALL_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }

/* CMD_ATC_INV: 16 bytes */
#define VI_CMD_ATC_INV_SIZE 16
static inline uint64_t CMD_ATC_INV_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_ATC_INV_Global(const uint64_t *words) { return (words[0] >> 9) & UINT64_C(0x1); }
static inline uint64_t CMD_ATC_INV_SSV(const uint64_t *words) { return (words[0] >> 11) & UINT64_C(0x1); }
static inline uint64_t CMD_ATC_INV_SSID(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0xfffff); }
static inline uint64_t CMD_ATC_INV_SID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffffffff); }
static inline uint64_t CMD_ATC_INV_Size(const uint64_t *words) { return (words[1]) & UINT64_C(0x3f); }
static inline uint64_t CMD_ATC_INV_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffffff)) << 12; }

/* CMD_PRI_RESP: 16 bytes */
#define VI_CMD_PRI_RESP_SIZE 16
static inline uint64_t CMD_PRI_RESP_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_PRI_RESP_SSV(const uint64_t *words) { return (words[0] >> 11) & UINT64_C(0x1); }
static inline uint64_t CMD_PRI_RESP_SSID(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0xfffff); }
static inline uint64_t CMD_PRI_RESP_SID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffffffff); }
static inline uint64_t CMD_PRI_RESP_PRGIndex(const uint64_t *words) { return (words[1]) & UINT64_C(0x1ff); }
static inline uint64_t CMD_PRI_RESP_Resp(const uint64_t *words) { return (words[1] >> 12) & UINT64_C(0x3); }

/* CMD_RESUME: 16 bytes */
#define VI_CMD_RESUME_SIZE 16
static inline uint64_t CMD_RESUME_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_RESUME_SSec(const uint64_t *words) { return (words[0] >> 10) & UINT64_C(0x1); }
static inline uint64_t CMD_RESUME_Ac(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0x1); }
static inline uint64_t CMD_RESUME_Ab(const uint64_t *words) { return (words[0] >> 13) & UINT64_C(0x1); }
static inline uint64_t CMD_RESUME_SID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffffffff); }
static inline uint64_t CMD_RESUME_STAG(const uint64_t *words) { return (words[1]) & UINT64_C(0xffff); }

/* CMD_STALL_TERM: 16 bytes */
#define VI_CMD_STALL_TERM_SIZE 16
static inline uint64_t CMD_STALL_TERM_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_STALL_TERM_SSec(const uint64_t *words) { return (words[0] >> 10) & UINT64_C(0x1); }
static inline uint64_t CMD_STALL_TERM_SID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffffffff); }

/* CMD_SYNC: 16 bytes */
#define VI_CMD_SYNC_SIZE 16
static inline uint64_t CMD_SYNC_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_SYNC_CS(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0x3); }
static inline uint64_t CMD_SYNC_MSH(const uint64_t *words) { return (words[0] >> 22) & UINT64_C(0x3); }
static inline uint64_t CMD_SYNC_MSIAttr(const uint64_t *words) { return (words[0] >> 24) & UINT64_C(0xf); }
static inline uint64_t CMD_SYNC_MSIData(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffffffff); }
static inline uint64_t CMD_SYNC_MSIAddress(const uint64_t *words) { return ((words[1] >> 2) & UINT64_C(0x3fffffffffffff)) << 2; }

/* CMD_TLBI_S_EL2_ALL: 16 bytes */
#define VI_CMD_TLBI_S_EL2_ALL_SIZE 16
static inline uint64_t CMD_TLBI_S_EL2_ALL_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }

/* CMD_TLBI_S_EL2_ASID: 16 bytes */
#define VI_CMD_TLBI_S_EL2_ASID_SIZE 16
static inline uint64_t CMD_TLBI_S_EL2_ASID_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_S_EL2_ASID_ASID(const uint64_t *words) { return (words[0] >> 48) & UINT64_C(0xffff); }

/* CMD_TLBI_S_EL2_VA: 16 bytes */
#define VI_CMD_TLBI_S_EL2_VA_SIZE 16
static inline uint64_t CMD_TLBI_S_EL2_VA_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_S_EL2_VA_NUM(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0x1f); }
static inline uint64_t CMD_TLBI_S_EL2_VA_SCALE(const uint64_t *words) { return (words[0] >> 20) & UINT64_C(0x3f); }
static inline uint64_t CMD_TLBI_S_EL2_VA_ASID(const uint64_t *words) { return (words[0] >> 48) & UINT64_C(0xffff); }
static inline uint64_t CMD_TLBI_S_EL2_VA_Leaf(const uint64_t *words) { return (words[1]) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_S_EL2_VA_TTL128(const uint64_t *words) { return (words[1] >> 7) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_S_EL2_VA_TTL(const uint64_t *words) { return (words[1] >> 8) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_S_EL2_VA_TG(const uint64_t *words) { return (words[1] >> 10) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_S_EL2_VA_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffffff)) << 12; }

/* CMD_TLBI_S_EL2_VAA: 16 bytes */
#define VI_CMD_TLBI_S_EL2_VAA_SIZE 16
static inline uint64_t CMD_TLBI_S_EL2_VAA_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_S_EL2_VAA_NUM(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0x1f); }
static inline uint64_t CMD_TLBI_S_EL2_VAA_SCALE(const uint64_t *words) { return (words[0] >> 20) & UINT64_C(0x3f); }
static inline uint64_t CMD_TLBI_S_EL2_VAA_Leaf(const uint64_t *words) { return (words[1]) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_S_EL2_VAA_TTL128(const uint64_t *words) { return (words[1] >> 7) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_S_EL2_VAA_TTL(const uint64_t *words) { return (words[1] >> 8) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_S_EL2_VAA_TG(const uint64_t *words) { return (words[1] >> 10) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_S_EL2_VAA_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffffff)) << 12; }

/* CMD_TLBI_S_S12_VMALL: 16 bytes */
#define VI_CMD_TLBI_S_S12_VMALL_SIZE 16
static inline uint64_t CMD_TLBI_S_S12_VMALL_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_S_S12_VMALL_VMID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffff); }

/* CMD_TLBI_S_S2_IPA: 16 bytes */
#define VI_CMD_TLBI_S_S2_IPA_SIZE 16
static inline uint64_t CMD_TLBI_S_S2_IPA_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_TLBI_S_S2_IPA_NUM(const uint64_t *words) { return (words[0] >> 12) & UINT64_C(0x1f); }
static inline uint64_t CMD_TLBI_S_S2_IPA_SCALE(const uint64_t *words) { return (words[0] >> 20) & UINT64_C(0x3f); }
static inline uint64_t CMD_TLBI_S_S2_IPA_VMID(const uint64_t *words) { return (words[0] >> 32) & UINT64_C(0xffff); }
static inline uint64_t CMD_TLBI_S_S2_IPA_Leaf(const uint64_t *words) { return (words[1]) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_S_S2_IPA_NS(const uint64_t *words) { return (words[1] >> 1) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_S_S2_IPA_TTL128(const uint64_t *words) { return (words[1] >> 7) & UINT64_C(0x1); }
static inline uint64_t CMD_TLBI_S_S2_IPA_TTL(const uint64_t *words) { return (words[1] >> 8) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_S_S2_IPA_TG(const uint64_t *words) { return (words[1] >> 10) & UINT64_C(0x3); }
static inline uint64_t CMD_TLBI_S_S2_IPA_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffff)) << 12; }

/* CMD_TLBI_SNH_ALL: 16 bytes */
#define VI_CMD_TLBI_SNH_ALL_SIZE 16
static inline uint64_t CMD_TLBI_SNH_ALL_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }

/* CMD_DPTI_ALL: 16 bytes */
#define VI_CMD_DPTI_ALL_SIZE 16
static inline uint64_t CMD_DPTI_ALL_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }

/* CMD_DPTI_PA: 16 bytes */
#define VI_CMD_DPTI_PA_SIZE 16
static inline uint64_t CMD_DPTI_PA_OPCODE(const uint64_t *words) { return (words[0]) & UINT64_C(0xff); }
static inline uint64_t CMD_DPTI_PA_Address(const uint64_t *words) { return ((words[1] >> 12) & UINT64_C(0xfffffffffff)) << 12; }

/* DescFlags: 2 bytes */
#define VI_DescFlags_SIZE 2
#define VI_DescFlags_NEXT UINT64_C(0x1)
static inline uint64_t DescFlags_NEXT(uint64_t raw) { return (raw) & UINT64_C(0x1); }
#define VI_DescFlags_WRITE UINT64_C(0x2)
static inline uint64_t DescFlags_WRITE(uint64_t raw) { return (raw >> 1) & UINT64_C(0x1); }
#define VI_DescFlags_INDIRECT UINT64_C(0x4)
static inline uint64_t DescFlags_INDIRECT(uint64_t raw) { return (raw >> 2) & UINT64_C(0x1); }

/* AvailFlags: 2 bytes */
#define VI_AvailFlags_SIZE 2
#define VI_AvailFlags_NO_INTERRUPT UINT64_C(0x1)
static inline uint64_t AvailFlags_NO_INTERRUPT(uint64_t raw) { return (raw) & UINT64_C(0x1); }

/* InterruptStatus: 4 bytes */
#define VI_InterruptStatus_SIZE 4
#define VI_InterruptStatus_USED_BUFFER UINT64_C(0x1)
static inline uint64_t InterruptStatus_USED_BUFFER(uint64_t raw) { return (raw) & UINT64_C(0x1); }
#define VI_InterruptStatus_CONFIG_CHANGE UINT64_C(0x2)
static inline uint64_t InterruptStatus_CONFIG_CHANGE(uint64_t raw) { return (raw >> 1) & UINT64_C(0x1); }

#endif

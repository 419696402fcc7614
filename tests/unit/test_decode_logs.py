# SPDX-License-Identifier: Apache-2.0
"""Logs as Linux 6.1, 6.12 and 7.3 printed them on machines of ours, pasted in every form, say what was reported."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from vhost_iommu.decode.logs import Finding, complaints, read_log
from vhost_iommu.layout import Layout
from vhost_iommu.smmu.v2.records import ContextFault, GlobalFault
from vhost_iommu.smmu.v3 import causes
from vhost_iommu.smmu.v3 import events as e
from vhost_iommu.smmu.v3.commands import CMD_TLBI_NH_VA
from vhost_iommu.smmu.v3.registers import BY_NAME, CMDQ_CONS, CMDQ_PROD, GERROR, CommandError

LINUX_6_1 = """\
[    1.818119] arm-smmu-v3 10000000.iommu: ias 44-bit, oas 44-bit (features 0x000083c7)
[    1.822125] arm-smmu-v3 10000000.iommu: allocated 1024 entries for cmdq
[    1.822658] arm-smmu-v3 10000000.iommu: allocated 1024 entries for evtq
[    5.486730] arm-smmu-v3 10000000.iommu: event 0x02 received:
[    5.486768] arm-smmu-v3 10000000.iommu: \t0x0000077700000002
[    5.486779] arm-smmu-v3 10000000.iommu: \t0x0000000000000000
[    5.486787] arm-smmu-v3 10000000.iommu: \t0x0000000000000000
[    5.486795] arm-smmu-v3 10000000.iommu: \t0x0000000000000000
[    6.711795] arm-smmu-v3 10000000.iommu: CMD_SYNC timeout at 0x0000019c [hwprod 0x0000019d, hwcons 0x0100019b]
[    6.712355] arm-smmu-v3 10000000.iommu: unexpected global error reported (0x00000001), this could be serious
[    6.712479] arm-smmu-v3 10000000.iommu: CMDQ error (cons 0x0100019b): Illegal command
[    6.712548] arm-smmu-v3 10000000.iommu: skipping command in error state:
[    6.712563] arm-smmu-v3 10000000.iommu: \t0x0001000000000012
[    6.712579] arm-smmu-v3 10000000.iommu: \t0x0000ffffffffb701
[    8.731463] arm-smmu-v3 10000000.iommu: CMD_SYNC timeout at 0x0000032c [hwprod 0x0000032d, hwcons 0x0100032d]
"""
LINUX_6_12 = LINUX_6_1.replace("0x000083c7", "0x001083c7")  # this driver prints the same
LINUX_7_3 = """\
<6>[    1.728220] arm-smmu-v3 10000000.iommu: oas 44-bit (features 0x011083c7)
<3>[    8.532048] arm-smmu-v3 10000000.iommu: event 0x10 received:
<3>[    8.532151] arm-smmu-v3 10000000.iommu: \t0x0000010000000010
<3>[    8.532170] arm-smmu-v3 10000000.iommu: \t0x0000020000000000
<3>[    8.532178] arm-smmu-v3 10000000.iommu: \t0x00000000dead0000
<3>[    8.532185] arm-smmu-v3 10000000.iommu: \t0x0000000000000000
<3>[    8.532248] arm-smmu-v3 10000000.iommu: event: F_TRANSLATION client: 10020000.virtio_mmio \
sid: 0x100 ssid: 0x0 iova: 0xdead0000 ipa: 0x0
<3>[    8.533110] arm-smmu-v3 10000000.iommu: unpriv data write s1 "Input address caused fault" stag: 0x0
<3>[    8.561393] arm-smmu-v3 10000000.iommu: event 0x02 received:
<3>[    8.561441] arm-smmu-v3 10000000.iommu: \t0x0000077700000002
<3>[    8.561451] arm-smmu-v3 10000000.iommu: \t0x0000000000000000
<3>[    8.561459] arm-smmu-v3 10000000.iommu: \t0x0000000000000000
<3>[    8.561466] arm-smmu-v3 10000000.iommu: \t0x0000000000000000
<3>[    8.561531] arm-smmu-v3 10000000.iommu: event: C_BAD_STREAMID client: (unassigned sid) sid: 0x777 ssid: 0x0
<3>[    9.973428] arm-smmu-v3 10000000.iommu: CMD_SYNC timeout at 0x0000019c [hwprod 0x0000019d, hwcons 0x0100019b]
<4>[    9.981447] arm-smmu-v3 10000000.iommu: unexpected global error reported (0x00000001), this could be serious
<3>[    9.981724] arm-smmu-v3 10000000.iommu: CMDQ error (cons 0x0100019b): Illegal command
<3>[    9.981805] arm-smmu-v3 10000000.iommu: skipping command in error state:
<3>[    9.981819] arm-smmu-v3 10000000.iommu: \t0x0001000000000012
<3>[    9.981835] arm-smmu-v3 10000000.iommu: \t0x0000ffffffffb701
"""
FAULT = e.F_TRANSLATION.of(SID=0x100, CLASS=e.EventClass.IN, InputAddr=0xDEAD0000)
BAD_SID = e.C_BAD_STREAMID.of(SID=0x777)
ILLEGAL = CMDQ_CONS.of(RD=0x19B, ERR=CommandError.CERROR_ILL)
SKIPPED = CMD_TLBI_NH_VA.of(ASID=1, Leaf=1, TTL=3, TG=1, Address=0xFFFFFFFFB000)


def values(text: str) -> list[tuple[Layout, ...]]:
    return [tuple(each.value for each in finding.decoded) for finding in read_log(text).findings]


def only(text: str) -> Finding:
    (found,) = read_log(text).findings
    return found


@pytest.mark.parametrize("log", [LINUX_6_1, LINUX_6_12])
def test_a_log_of_words_is_decoded_whole(log: str) -> None:
    read = read_log(log)
    assert values(log) == [
        (BAD_SID,),
        (CMDQ_PROD.of(WR=0x19D), ILLEGAL),
        (GERROR.of(CMDQ_ERR=1),),
        (ILLEGAL, SKIPPED),
        (CMDQ_PROD.of(WR=0x32D), CMDQ_CONS.of(RD=0x32D, ERR=1)),
    ]
    assert [finding.lines for finding in read.findings] == [(4,), (9,), (10,), (11,), (15,)]
    assert {finding.smmu for finding in read.findings} == {"10000000.iommu"}
    stopped, lost = read.findings[1], read.findings[4]
    assert stopped.causes == complaints.STOPPED
    assert lost.causes == complaints.CONSUMED
    assert lost.decoded[1].causes == ()
    assert lost.decoded[1].notes == ["ERR is of an error before, as all commands are consumed"]


def test_a_log_of_a_newer_kernel_says_each_event_once_and_names_its_client() -> None:
    first, second, *rest = read_log(LINUX_7_3).findings
    assert ([each.value for each in first.decoded], first.client) == ([FAULT], "10020000.virtio_mmio")
    assert ([each.value for each in second.decoded], second.client) == ([BAD_SID], "(unassigned sid)")
    assert [finding.said.split(" ")[0] for finding in rest] == ["CMD_SYNC", "unexpected", "CMDQ"]


def lines_of(text: str) -> list[str]:
    """What is said, without stamps."""
    return [re.sub(r"^(?:<\d>)?\[ *[\d.]+\] ", "", line) for line in text.splitlines()]


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "without stamps": lambda text: "\n".join(lines_of(text)),
    "in one line": lambda text: " ".join(text.split()),
    "with carriage returns": lambda text: text.replace("\n", "\r\n"),
    "dmesg -T": lambda text: "\n".join(f"[Mon Nov 30 20:38:01 2026] {line}" for line in lines_of(text)),
    "dmesg -x": lambda text: "\n".join(f"kern  :err   : [   12.345678] {line}" for line in lines_of(text)),
    "with colours": lambda text: "\n".join(f"\x1b[32m[    8.53]\x1b[0m {line}\x1b[0m" for line in lines_of(text)),
    "with callers": lambda text: "\n".join(f"[    8.532048][  T123] {line}" for line in lines_of(text)),
    "syslog": lambda text: "\n".join(f"Nov 30 20:38:01 board kernel: [    8.5] {line}" for line in lines_of(text)),
    "journalctl": lambda text: "\n".join(f"Nov 30 20:38:01 board kernel: {line}" for line in lines_of(text)),
    "journalctl -o short-iso": lambda text: "\n".join(
        f"2026-11-30T20:38:01+0100 board kernel: {line}" for line in lines_of(text)
    ),
    "rsyslog": lambda text: "\n".join(
        f"2026-11-30T20:38:01.123456+01:00 board kernel: [    8.532048] {line}" for line in lines_of(text)
    ),
    "/dev/kmsg": lambda text: "\n".join(f"3,{n},8532048,-;{line}" for n, line in enumerate(lines_of(text))),
    "quoted in a mail": lambda text: "\n".join(f"> > {line}" for line in text.splitlines()),
    "in a guest's report": lambda text: "\n".join(f"# {line}" for line in text.splitlines()),
    "wrapped at 72 columns": lambda text: "\n".join(
        line[at : at + 72] for line in text.splitlines() for at in range(0, len(line), 72)
    ),
    "wrapped at blanks": lambda text: text.replace("arm-smmu-v3 ", "arm-smmu-v3\n").replace("iommu: ", "iommu:\n"),
    "with others between": lambda text: text.replace(
        "\n", "\n[    8.6] nvme 0000:01:00.0: 0x0000000000000bad 72/0/0 queues\n[    8.7] 8021q: adding VLAN 0\n"
    ),
}


@pytest.mark.parametrize("log", [LINUX_6_1, LINUX_7_3], ids=["6.1", "7.3"])
@pytest.mark.parametrize("form", FORMS)
def test_a_log_says_the_same_however_it_is_pasted(form: str, log: str) -> None:
    pasted = read_log(FORMS[form](log))
    plain = read_log(log)
    assert [finding.decoded for finding in pasted.findings] == [finding.decoded for finding in plain.findings]
    assert [finding.client for finding in pasted.findings] == [finding.client for finding in plain.findings]
    assert {finding.smmu for finding in pasted.findings} == {"10000000.iommu"}


def test_words_without_their_driver_before_them_belong_to_the_line_before() -> None:
    bare = "event 0x10 received:\n0x0000010000000010\n0x0000020000000000\n0x00000000dead0000\n0x0\n"
    stamped = "\n".join(f"[    8.53] {line}" for line in bare.splitlines())
    comma = "event 0x10 received: 0x0000010000000010, 0x0000020000000000, 0x00000000dead0000, 0"
    for text in bare, stamped, comma:
        assert values(text) == [(FAULT,)]


def test_the_words_of_two_smmus_may_be_mixed() -> None:
    ours = LINUX_7_3.splitlines()[1:8]
    other = [line.replace("10000000.iommu", "10060000.iommu").replace("dead0000", "beef0000") for line in ours]
    mixed = "\n".join(line for pair in zip(ours, other, strict=True) for line in pair)
    assert [(found.smmu, found.decoded[0].value) for found in read_log(mixed).findings] == [
        ("10000000.iommu", FAULT),
        ("10060000.iommu", FAULT.replace(InputAddr=0xBEEF0000)),
    ]


def test_an_event_by_name_alone_is_decoded_as_far_as_it_tells() -> None:
    text = (
        "arm-smmu-v3 9050000.iommu: event: F_PERMISSION client: 0000:01:00.0 sid: 0x108 ssid: 0x5 iova: 0x1234 "
        "ipa: 0x45678\n"
        'arm-smmu-v3 9050000.iommu: priv inst read s2 "Stage 1 translation table fetch" ttd_read stall stag: 0x7\n'
    )
    found = only(text)
    assert found.decoded[0].value == e.F_PERMISSION.of(
        SID=0x108,
        SSV=1,
        SSID=5,
        InputAddr=0x1234,
        IPA=0x45000,
        PnU=1,
        InD=1,
        RnW=1,
        S2=1,
        CLASS=e.EventClass.TT,
        TTRnW=1,
        STALL=1,
        STAG=7,
    )
    assert found.client == "0000:01:00.0"
    assert found.sid == 0x108


@pytest.mark.parametrize("name", [name for name in dir(e) if name[:2] in ("F_", "C_", "E_")])
def test_each_event_that_a_driver_may_name_is_known(name: str) -> None:
    address = " fetch_addr: 0x45000040" if "FETCH" in name else " iova: 0x1000 ipa: 0"
    found = only(f"arm-smmu-v3 a.iommu: event: {name} client: x sid: 0x3 ssid: 0{address}")
    value = found.decoded[0].value
    assert type(value).__name__ == name
    assert value.values()["SID"] == 3
    assert "FETCH" not in name or value.values()["FetchAddr"] == 0x45000040
    assert found.decoded[0].causes


def test_an_event_whose_words_are_lost_still_says_what_it_is() -> None:
    found = only("[ 1.0] arm-smmu-v3 a.iommu: event 0x10 received:\n[ 1.1] nvme 1: 0x1 timeout\n")
    assert found.decoded == ()
    assert found.meaning.startswith("F_TRANSLATION: ")
    assert "§7.3.13" in found.meaning
    assert found.causes == causes.EVENTS[e.F_TRANSLATION]
    assert found.kinds == {"event"}


def test_a_global_error_and_the_lines_that_repeat_it_are_one_finding() -> None:
    text = (
        "a: unexpected global error reported (0x000000b4), this could be serious\n"
        "a: GERROR MSI write aborted\na: EVTQ MSI write aborted\na: CMDQ MSI write aborted\n"
        "a: EVTQ write aborted -- events may have been lost\n"
    )
    found = only("\n".join(f"[ 1.0] arm-smmu-v3 {line}" for line in text.splitlines()))
    assert found.decoded[0].value == GERROR.of(
        MSI_GERROR_ABT_ERR=1, MSI_EVENTQ_ABT_ERR=1, MSI_CMDQ_ABT_ERR=1, EVENTQ_ABT_ERR=1
    )
    assert any(cause.startswith("EVENTQ_ABT_ERR: EVENTQ_BASE") for cause in found.decoded[0].causes)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("GERROR MSI write aborted", "MSI_GERROR_ABT_ERR"),
        ("PRIQ MSI write aborted", "MSI_PRIQ_ABT_ERR"),
        ("EVTQ MSI write aborted", "MSI_EVENTQ_ABT_ERR"),
        ("CMDQ MSI write aborted", "MSI_CMDQ_ABT_ERR"),
        ("PRIQ write aborted -- events may have been lost", "PRIQ_ABT_ERR"),
        ("EVTQ write aborted -- events may have been lost", "EVENTQ_ABT_ERR"),
        ("device has entered Service Failure Mode!", "SFM_ERR"),
    ],
)
def test_such_a_line_alone_is_the_global_error_that_it_means(line: str, name: str) -> None:
    assert only(f"arm-smmu-v3 a.iommu: {line}").decoded[0].value == GERROR.of(**{name: 1})


@pytest.mark.parametrize(
    ("cons", "why", "error"),
    [
        ("0x0302bb84", "ATC invalidate timeout", CommandError.CERROR_ATC_INV_SYNC),
        ("0x02000010", "Abort on command fetch", CommandError.CERROR_ABT),
        ("0x01000022", "Illegal command", CommandError.CERROR_ILL),
    ],
)
def test_a_command_error_has_the_causes_of_its_kind(cons: str, why: str, error: CommandError) -> None:
    (decoded,) = only(f"[ 1.0] arm-smmu-v3 a.iommu: CMDQ error (cons {cons}): {why}").decoded
    assert decoded.value.values()["ERR"] == error
    assert decoded.causes == causes.COMMAND_ERRORS[error]


def test_a_page_request_is_decoded_from_its_line() -> None:
    text = (
        "[ 1.0] arm-smmu-v3 a.iommu: unexpected PRI request received:\n"
        "[ 1.0] arm-smmu-v3 a.iommu: \tsid 0x00000108.0x00005: [3L] unprivileged RW access at iova 0x0000000012345000\n"
        "[ 1.1] arm-smmu-v3 a.iommu: \tsid 0x00000109.0x00000: [4] privileged RX access at iova 0x0000000000001000\n"
    )
    assert values(text) == [
        (e.PRIEntry.of(SID=0x108, SSV=1, SSID=5, PRGIndex=3, Last=1, R=1, W=1, Address=0x12345000),),
        (e.PRIEntry.of(SID=0x109, PRGIndex=4, Priv=1, R=1, X=1, Address=0x1000),),
    ]


@pytest.mark.parametrize(
    ("said", "causes"),
    [
        ("CMD_SYNC timeout at 0x00000004 [hwprod 0x00000005, hwcons 0x00000005]", complaints.CONSUMED),
        ("CMD_SYNC timeout at 0x00000004 [hwprod 0x00000005, hwcons 0x01000004]", complaints.STOPPED),
        ("CMD_SYNC timeout at 0x00000004 [hwprod 0x00000005, hwcons 0x00000004]", complaints.STUCK),
        ("CMD_SYNC timeout", complaints.CONSUMED + complaints.STUCK),
    ],
)
def test_a_timeout_says_whether_the_queue_stopped_stands_or_lost_a_signal(said: str, causes: tuple[str, ...]) -> None:
    assert only(f"[ 1.0] arm-smmu-v3 a.iommu: {said}").causes == causes


@pytest.mark.parametrize("complaint", complaints.COMPLAINTS, ids=lambda each: each.text)
def test_each_sentence_of_the_driver_names_its_registers_and_their_sections(complaint: complaints.Complaint) -> None:
    found = only(f"[ 1.0] arm-smmu-v3 a.iommu: {complaint.text.replace('%', '0x10')}")
    assert found.meaning.startswith(complaint.meaning)
    for name in complaint.registers:
        assert f"{name} §{BY_NAME[name].section}" in found.meaning
    assert found.causes == complaint.causes
    assert "cause: " in found.text()


def test_what_is_repeated_word_for_word_is_one_finding() -> None:
    found = only(LINUX_7_3.split("<3>[    8.561393]")[0] * 3)
    assert found.lines == (2, 10, 18)
    assert found.text().startswith(
        "line 2 and 2 more: 10000000.iommu: event 0x10 received\nclient: 10020000.virtio_mmio"
    )


def test_a_log_without_errors_of_an_smmu_has_no_finding_and_names_who_speaks() -> None:
    quiet = read_log("\n".join(LINUX_6_1.splitlines()[:3]))
    assert (quiet.findings, quiet.smmus) == ((), ("10000000.iommu",))
    other = read_log(
        "[ 1.0] nvme nvme0: I/O error 0x10 received\n[ 1.0] arm-smmu 5000000.iommu: Unhandled context fault"
    )
    assert (other.findings, other.smmus, other.stamped) == ((), ("5000000.iommu",), True)


#: As 7.3 and 6.12 print them.
SMMUV2 = """\
<3>[   11.890642] arm-smmu 10000000.iommu: Unhandled context fault: fsr=0x402, iova=0xfffffffc9000, fsynr=0x13, cbfrsynra=0x200, cb=2
<3>[   11.890709] arm-smmu 10000000.iommu: FSR    = 00000402 [Format=2 TF], SID=0x200
<3>[   11.890725] arm-smmu 10000000.iommu: FSYNR0 = 00000013 [S1CBNDX=0 WNR PLVL=3]
[    6.100000] arm-smmu 10000000.iommu: Blocked unknown Stream ID 0x9; boot with "arm-smmu.disable_bypass=0" to allow, but this may have security implications
[    6.200000] arm-smmu 10000000.iommu: Unexpected global fault, this could be serious
[    6.200010] arm-smmu 10000000.iommu:  GFSR 0x80000001, GFSYNR0 0x00000006, GFSYNR1 0x00000200, GFSYNR2 0x00000000
"""  # noqa: E501


def test_what_the_driver_of_an_smmuv2_reports_is_decoded() -> None:
    context, unknown, fault = read_log(SMMUV2).findings
    assert context.decoded[0].value == ContextFault.of(
        TF=1, FORMAT=2, PLVL=3, WNR=1, FADDR=0xFFFFFFFC9000, SID=0x200, CBNDX=2
    )
    assert (context.lines, context.smmu, context.sid) == ((1,), "10000000.iommu", 0x200)
    assert "IHI 0062D §3.7" in context.text()
    assert "cause: the address was never mapped" in context.text()
    assert unknown.decoded[0].value == GlobalFault.of(USF=1, SID=9)
    assert fault.decoded[0].value == GlobalFault.of(ICF=1, MULTI=1, WNR=1, PNU=1, SID=0x200)
    assert "cause: the stream's S2CR.TYPE is fault" in fault.text()


def test_an_smmuv2_and_an_smmuv3_in_one_log_are_read_apart() -> None:
    found = read_log(SMMUV2 + LINUX_6_1).findings
    assert {type(each.decoded[0].value).__name__ for each in found} >= {"ContextFault", "GlobalFault", "CMDQ_CONS"}


def test_every_event_global_error_and_command_error_has_causes_and_not_too_many() -> None:
    assert set(causes.EVENTS) == set(e.EVENTS.values())
    assert set(causes.GLOBAL_ERRORS) == {field.name for field in GERROR.fields}
    assert set(causes.COMMAND_ERRORS) == set(CommandError)
    for each in (*causes.EVENTS.values(), *causes.GLOBAL_ERRORS.values(), *causes.COMMAND_ERRORS.values()):
        assert 1 <= len(each) <= 3
        assert all(cause == cause.strip() and not cause.endswith(".") for cause in each)


def test_the_fields_of_an_event_bring_its_likeliest_cause_first() -> None:
    assert causes.causes_of(e.F_TRANSLATION.of(SID=1))[0].startswith("address 0")
    assert causes.causes_of(FAULT) == causes.EVENTS[e.F_TRANSLATION]
    table = e.F_TRANSLATION.of(S2=1, CLASS=e.EventClass.TT, InputAddr=0x1000)
    assert causes.causes_of(table)[0].startswith("a stage 1 table lies at an IPA")


def test_a_finding_is_plain_values_for_programs() -> None:
    told = read_log(LINUX_7_3).findings[0].json("disk0")
    assert told["lines"] == [2]
    assert (told["smmu"], told["client"], told["master"]) == ("10000000.iommu", "10020000.virtio_mmio", "disk0")
    assert told["decoded"][0]["name"] == "F_TRANSLATION"
    assert told["causes"] == list(causes.EVENTS[e.F_TRANSLATION])


def test_nothing_of_a_log_speaks_to_a_terminal() -> None:
    said = "[1.0] arm-smmu-v3 1\x1b]0;title\x070.iommu: event: F_TRANSLATION client: a\x1b[2J\bb sid: 0x20 ssid: 0x0"
    (found,) = read_log(said).findings
    assert (found.smmu, found.client) == ("10.iommu", "a\\x08b")
    assert found.text().replace("\n", "").isprintable()

# SPDX-License-Identifier: Apache-2.0
"""Man pages and completion say what the parser says, all of it."""

from __future__ import annotations

import argparse
import re
import subprocess

import pytest

from tools.man import completions, page, pages
from vhost_iommu.cli import main, parser, verbs
from vhost_iommu.cli.completion import SHELLS, completion
from vhost_iommu.config import machine_names

VERBS = sorted(verbs(parser()))


def plain(roff: str) -> str:
    """A man page's text, without what is roff's."""
    text = re.sub(r"\\f[BIR]|\\[,/]|\\&", "", roff).replace(r"\-", "-").replace(r"\e", "\\")
    return re.sub(r"^\.\w+ ?", "", text, flags=re.MULTILINE)


def options(command: argparse.ArgumentParser) -> list[argparse.Action]:
    """But for --help, which a man page is."""
    others = (argparse._SubParsersAction, argparse._HelpAction)
    return [each for each in command._actions if not isinstance(each, others)]


def test_each_command_has_a_man_page_and_so_have_all_together() -> None:
    assert sorted(pages()) == sorted(
        f"share/man/man1/{name}.1" for name in ["vhost-iommu", *(f"vhost-iommu-{verb}" for verb in VERBS)]
    )


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_a_man_page_has_each_option_and_what_it_means(verb: str) -> None:
    command = verbs(parser())[verb] if verb else parser()
    text = plain(page(command))
    words = " ".join(text.split())
    for action in options(command):
        for name in action.option_strings:
            assert name in words
        assert " ".join(command._get_formatter()._expand_help(action).split()) in words
    assert command.description is not None
    assert command.description in words


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_a_man_page_has_each_word_of_the_epilog(verb: str) -> None:
    epilog = (verbs(parser())[verb] if verb else parser()).epilog or ""
    words = " ".join(plain(page(verbs(parser())[verb] if verb else parser())).split())
    for line in epilog.splitlines():
        said = re.sub(r"^(examples|environment|exit codes):\s*", "", " ".join(line.split()))
        assert said in words


def test_the_page_of_all_names_each_command_and_refers_to_its_page() -> None:
    text = plain(page(parser()))
    for verb in VERBS:
        assert re.search(rf"^{verb}$", text, re.MULTILINE)
        assert f"vhost-iommu-{verb}(1)" in text


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shells_completion_has_each_command_and_each_option(shell: str) -> None:
    text = completion(parser(), shell)
    for verb, command in verbs(parser()).items():
        assert verb in text
        for action in options(command):
            for name in action.option_strings:
                assert (name.lstrip("-") if shell == "fish" else name) in text


@pytest.mark.parametrize("shell", SHELLS)
def test_print_completion_prints_what_is_installed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert ended.value.code == 0
    assert capsys.readouterr().out in completions().values()


def test_a_shell_that_is_not_known_is_a_mistake_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "fisch"]) == 2
    assert capsys.readouterr().err == "vhost-iommu: there is no --print-completion 'fisch'; did you mean 'fish'?\n"


def completed(*words: str) -> set[str]:
    """What bash offers for the last of ``words``."""
    script = f"""
        {completion(parser(), "bash")}
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
        f=$(complete -p vhost-iommu); f=${{f##*-F }}; "${{f%% *}}" vhost-iommu "{words[-1]}" "{words[-2]}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_bash_completes_commands_machines_options_and_kinds() -> None:
    assert completed("vhost-iommu", "d") == {verb for verb in VERBS if verb.startswith("d")}
    assert set(machine_names()) <= completed("vhost-iommu", "run", "")
    assert completed("vhost-iommu", "run", "--exit") == {"--exit-only"}
    assert completed("vhost-iommu", "run", "--fault", "drop-s") == {"drop-sync"}
    assert "6.12-small" in completed("vhost-iommu", "fetch", "6.12")

"""What deploy/README.md says of the files beside it."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.deploy.manifests import DEPLOY, KUBERAY, ROOT, load_all, of_kind, walk
from tests.deploy.test_grafana import counted

README = (DEPLOY / "README.md").read_text()


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) >= 5
    assert all((DEPLOY / link).exists() for link in links)


def test_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:deploy|merge|nightly|grafana)/[\w./-]+)`", README)) - {"deploy/.env"}
    assert len(named) >= 4
    for name in named:
        assert any((folder / name).exists() for folder in (ROOT, DEPLOY, KUBERAY)), name


def test_its_command_fills_in_every_name(tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", KUBERAY, tmp_path / "kuberay"], check=True)
    command = re.search(r"^    (grep -rl .*?(?:\\\n.*?)*)\n\n", README, re.M)
    assert command
    subprocess.run(["bash", "-ec", command[1]], cwd=tmp_path / "kuberay", check=True, timeout=60)
    left = {
        word
        for path in (tmp_path / "kuberay").rglob("*.yaml")
        for document in load_all(path.read_text())
        for _, value in walk(document)
        if isinstance(value, str)
        for word in re.findall(r"[A-Z]{4,}(?:-[A-Z]+)*", value)
    }
    # Kubernetes' own words, and the day, which the nightly job fills in.
    assert left == {"SUCCEEDED", "HOME", "TIME", "ZONE", "STOP", "WAIT", "DATE"}


def test_its_metrics_are_those_of_the_code() -> None:
    assert set(re.findall(r"ray_plait_\w+_total", README)) == set(counted())


def test_its_policy_trusts_the_accounts_that_have_the_role() -> None:
    accounts = set(re.findall(r"system:serviceaccount:plait:([\w-]+)", README))
    with_role = {one.name for one in of_kind("ServiceAccount") if one.data["metadata"].get("annotations")}
    assert accounts == with_role


@pytest.mark.parametrize("word", ["plait merge", "ray job submit"])
def test_its_commands_parse(word: str) -> None:
    from ray.dashboard.modules.job.cli import job_cli_group

    from plait.cli import cli

    blocks = re.findall(r"(?:^    .*\n)+", README, re.M)
    lines = [line for block in blocks for line in re.sub(r"\\\n", " ", block).splitlines() if word in line]
    assert lines
    for line in lines:
        words = shlex.split(line)
        if "submit" in words:
            submit = job_cli_group.commands["submit"].make_context(
                "submit", words[words.index("submit") + 1 :]
            )
            assert submit.params["entrypoint"][:2] == ("plait", "merge")
        place = max(index for index, one in enumerate(words) if one == "plait")
        cli.commands["merge"].make_context("merge", words[place + 2 :])

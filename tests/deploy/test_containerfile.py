"""The container file: what it promises, and its steps, run in a folder, as no container engine is at hand."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

import plait
from tests.deploy.manifests import DEPLOY, ROOT
from tests.support.checkpoints import make_family

FILE = DEPLOY / "Containerfile"
IGNORED = DEPLOY / "Containerfile.dockerignore"
Step = tuple[str, str]
"""An instruction and what stands after it."""


def parsed() -> DockerfileParser:
    return DockerfileParser(fileobj=io.BytesIO(FILE.read_bytes()))


def stages() -> list[list[Step]]:
    """The steps of each stage, without comments, from its FROM on."""
    found: list[list[Step]] = []
    for entry in parsed().structure:
        if entry["instruction"] == "FROM":
            found.append([])
        if found and entry["instruction"] != "COMMENT":
            found[-1].append((entry["instruction"], entry["value"]))
    return found


def test_its_python_is_the_one_that_is_tested() -> None:
    [image] = set(parsed().parent_images)
    version = re.search(r":(\d+\.\d+)-slim-", image)
    assert version
    assert f"Python {version[1]} " in (ROOT / "constraints.txt").read_text().splitlines()[0]


def test_the_last_stage_has_no_compiler_and_no_root() -> None:
    *_, last = stages()
    runs = [value for name, value in last if name == "RUN"]
    assert not [run for run in runs if re.search(r"\b(apt|apt-get|pip|gcc|curl|wget)\b", run)]
    users = [index for index, (name, _) in enumerate(last) if name == "USER"]
    assert [last[index][1] for index in users] == ["10001:10001"]
    assert users[0] > max(index for index, (name, _) in enumerate(last) if name == "COPY")
    assert {value.split()[0] for name, value in last if name == "COPY"} == {"--from=install"}


def test_its_labels() -> None:
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in parsed().labels.items()}
    assert set(labels) == {"title", "description", "licenses", "version", "revision"}
    assert labels["version"] == plait.__version__


def test_only_what_it_copies_is_sent_to_the_engine() -> None:
    copied = {
        name
        for stage in stages()
        for step, value in stage
        if step == "COPY" and "--from" not in value
        for name in shlex.split(value)[:-1]
    }
    everything, *kept = [line for line in IGNORED.read_text().splitlines() if line and line[0] not in "#"]
    assert everything == "*"
    assert {line[1:] for line in kept if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


class Folder:
    """A folder that stands for a container's root, where steps of a container file are run.

    Paths below /src, /wheels, /opt and /constraints.txt are paths in it. It isolates nothing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root
        base = root / "base"
        subprocess.run([sys.executable, "-m", "venv", base], check=True, timeout=120)
        self.path = [str(base / "bin"), "/usr/local/bin", "/usr/bin", "/bin"]

    def inside(self, text: str) -> str:
        """The text with its absolute paths in the folder."""
        return re.sub(r"(?<![\w/.-])/(?=(src|wheels|opt|constraints)\b)", f"{self.root}/", text)

    def take(self, step: Step) -> None:
        """Do what an engine would do for this step; an error if it fails."""
        name, value = step
        if name == "WORKDIR":
            self.work = Path(self.inside(value))
        elif name == "COPY" and "--from" not in value:
            *sources, target = shlex.split(self.inside(value))
            place = self.work / target
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(
                        ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__", "*.so")
                    )
                else:
                    (place if target.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, place)
        elif name == "ENV":
            variables = dict(shlex.split(part)[0].split("=", 1) for part in re.split(r"\s{2,}", value))
            self.path.insert(0, self.inside(variables["PATH"].removesuffix(":$PATH")))
        elif name == "RUN" and not value.startswith("groupadd"):
            self.run(self.inside(value))

    def run(self, command: str) -> str:
        """A shell's output, with the environment of a container."""
        # What pip must know to reach its index stays as it is on this machine.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment.pop("VIRTUAL_ENV", None)
        run = subprocess.run(
            ["/bin/sh", "-c", command],
            env=environment | {"PATH": ":".join(self.path)},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert run.returncode == 0, f"{command}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
        return run.stdout


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_its_steps_make_a_plait_that_runs(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for stage in stages():
        for step in stage:
            folder.take(step)
    assert folder.run("plait --version") == f"plait {plait.__version__}\n"
    assert str(tmp_path / "opt") in folder.run(
        "python -c 'import plait_service; print(plait_service.__file__)'"
    )
    folder.run("python -c 'import ray, plait_service.driver, plait_workers.methods'")
    family = make_family(tmp_path / "models", {"w": ("BF16", (64, 33))})
    spec = {"models": ["m0", "m1", "m2"], "base": "base", "method": {"name": "select"}, "output": "out"}
    (tmp_path / "models/merge.json").write_text(json.dumps(spec))
    folder.run(f"cd {family.root} && plait merge merge.json && plait verify out --sample 1")
    # What KubeRay's operator starts beside the head, and what posts nightly merges.
    folder.run("ray kuberay-autoscaler --help")
    folder.run("python -c 'import ray.autoscaler.v2.instance_manager.cloud_providers.kuberay.cloud_provider'")
    folder.run("python -c 'import requests, yaml'")
    assert not list((tmp_path / "opt/plait/bin").glob("pip*"))
    listed = folder.run(folder.inside("pip --python /opt/plait/bin/python list --format=freeze"))
    installed = {line for line in listed.lower().replace("_", "-").split() if not line.startswith("plait==")}
    assert installed <= set((ROOT / "constraints.txt").read_text().lower().replace("_", "-").split())

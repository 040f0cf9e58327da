"""Post the merge of the day: a RayJob that is named after the day, so that a day is merged once.

A second post of a day is refused by Kubernetes and is a success here. Runs in a pod of the image, which has
requests (Ray needs it) and PyYAML.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import requests
import yaml

ACCOUNT = Path(os.environ.get("ACCOUNT_FOLDER", "/var/run/secrets/kubernetes.io/serviceaccount"))
"""Where Kubernetes puts a pod's token and the certificate of its own server."""
TIMEOUT = 30.0


def job_of(template: str, now: datetime) -> dict[str, Any]:
    """The template's RayJob, for the day of this moment."""
    job: dict[str, Any] = yaml.safe_load(template.replace("DATE", f"{now:%Y-%m-%d}"))
    return job


def post(job: dict[str, Any], server: str) -> requests.Response:
    """Ask Kubernetes for this RayJob; its answer."""
    return requests.post(
        f"{server}/apis/{job['apiVersion']}/namespaces/{job['metadata']['namespace']}/rayjobs",
        json=job,
        params={"fieldValidation": "Strict"},
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}"},
        verify=str(ACCOUNT / "ca.crt"),
        timeout=TIMEOUT,
    )


def main() -> int:
    """The process's exit status: 0 if the day has its merge, 1 if not."""
    now = datetime.now(ZoneInfo(os.environ["TIME_ZONE"]))
    job = job_of(Path(sys.argv[1]).read_text(), now)
    name = job["metadata"]["name"]
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    answer = post(job, f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")
    if answer.status_code == requests.codes.conflict:
        print(f"{name} is there already")
        return 0
    if answer.ok:
        print(f"posted {name}")
        return 0
    print(f"{name} was refused: HTTP {answer.status_code}: {answer.text[:2000]}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""The client in a notebook: progress is shown in its cell, and coroutines are awaited there."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.scripted_service import END, JOB, event, good, job, pieces, scripted

_SYNC = """
from plait import AsyncClient, Client
with Client({url!r}) as client:
    state = client.job({job!r}).wait().state
"""
_ASYNC = """
async with AsyncClient({url!r}) as client:
    handle = await client.job({job!r})
    print(state, (await handle.wait(show=False)).state)
"""


def test_progress_is_shown_and_coroutines_are_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    done = {"bytes_done": 5_000_000, "bytes_total": 10_000_000}
    events = pieces(event(1, **done), event(2, "state", state="succeeded"), END)
    over = good(job("succeeded", progress=done))
    with scripted() as service:
        service.on("/events", events, events)
        service.will(*[over] * 6)
        notebook = nbformat.v4.new_notebook()
        for text in (_SYNC, _ASYNC):
            notebook.cells.append(nbformat.v4.new_code_cell(text.format(url=service.url, job=JOB)))
        nbclient.NotebookClient(notebook, timeout=60).execute()
    shown, printed = (cell.outputs for cell in notebook.cells)
    assert [output.output_type for output in shown] == ["display_data"]
    assert f"{JOB} succeeded" in shown[0].data["text/html"]
    assert "5.0/10.0 MB" in shown[0].data["text/html"]
    assert printed[0].text == "succeeded succeeded\n"

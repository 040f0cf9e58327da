"""Jobs in the database, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from plait.errors import SpecInvalid
from plait.jobs import JobState
from plait_service.jobs.database import Database
from plait_service.jobs.records import Filter, Jobs, first_id, new_id, now, transition
from plait_service.jobs.tables import Base, JobRow
from tests.support.merging import fails
from tests.support.service_jobs import submission, submit


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


def test_a_submission_is_a_job_that_waits(jobs: Jobs) -> None:
    job = submit(jobs, "/out", labels={"run": "nightly"}, priority=3)
    assert job.state is JobState.QUEUED
    assert jobs.get(job.id, "blue") == job == jobs.get(job.id, None)
    assert [(event.kind, event.data) for event in jobs.events(job.id, 0)] == [("state", {"state": "queued"})]
    assert job.created <= now()
    assert job.created.utcoffset() == timedelta(0)


def test_another_teams_job_is_not_there(jobs: Jobs) -> None:
    job = submit(jobs)
    for do in (jobs.get, jobs.cancel, jobs.retry):
        with fails("not-found"):
            do(job.id, "red")
    assert jobs.page(Filter(team="red")).jobs == []
    with fails("not-found"):
        jobs.get("j-" + "0" * 24, None)


class TestIdempotency:
    def test_the_same_key_and_body_give_the_same_job(self, jobs: Jobs) -> None:
        first, is_new = jobs.submit(submission(key="a"))
        assert is_new
        again, is_new = jobs.submit(submission(key="a"))
        assert not is_new
        assert again.id == first.id
        assert len(jobs.page(Filter(team=None)).jobs) == 1

    def test_another_body_is_an_error_and_another_team_another_job(self, jobs: Jobs) -> None:
        first, _ = jobs.submit(submission(key="a"))
        with fails("idempotency-conflict"):
            jobs.submit(submission("/elsewhere", key="a"))
        other, is_new = jobs.submit(submission(key="a", team="red"))
        assert is_new
        assert other.id != first.id

    def test_many_at_once_make_one_job(self, jobs: Jobs) -> None:
        made: list[tuple[str, bool]] = []

        def once() -> None:
            job, is_new = jobs.submit(submission(key="race"))
            made.append((job.id, is_new))

        threads = [threading.Thread(target=once) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 8
        assert len({job for job, _ in made}) == 1
        assert sum(is_new for _, is_new in made) == 1


class TestLists:
    def test_pages_have_every_job_once_newest_first(self, jobs: Jobs) -> None:
        made = [submit(jobs, f"/out/{number}").id for number in range(7)]
        found, cursor = [], None
        while True:
            page = jobs.page(Filter(team="blue"), cursor=cursor, limit=3)
            found += [job.id for job in page.jobs]
            cursor = page.next
            if cursor is None:
                break
        assert found == sorted(made, reverse=True)

    def test_filters(self, jobs: Jobs, database: Database) -> None:
        one = submit(jobs, "/one", labels={"run": "a", "size": "7b"})
        two = submit(jobs, "/two", labels={"run": "a"})
        with database.begin() as session:
            transition(session, session.get_one(JobRow, two.id), JobState.PLANNING)

        def found(**wanted: object) -> set[str]:
            page = jobs.page(Filter(team="blue", **wanted))  # type: ignore[arg-type]
            return {job.id for job in page.jobs}

        assert found(labels={"run": "a"}) == {one.id, two.id}
        assert found(labels={"run": "a", "size": "7b"}) == {one.id}
        assert found(labels={"run": "b"}) == set()
        assert found(states=[JobState.PLANNING]) == {two.id}
        assert found(states=[JobState.PLANNING, JobState.QUEUED]) == {one.id, two.id}
        assert found(output="/one") == {one.id}
        assert found(after=one.created + timedelta(hours=1)) == set()
        assert found(before=one.created - timedelta(hours=1)) == set()
        assert found(after=one.created - timedelta(seconds=1), before=now() + timedelta(seconds=1)) == {
            one.id,
            two.id,
        }

    def test_ids_sort_by_time(self) -> None:
        moments = [now()]
        made = []
        for _ in range(3):
            made.append(new_id())
            moments.append(now() + timedelta(milliseconds=2))
        assert first_id(moments[0]) <= made[0]
        assert made[-1] < first_id(moments[-1])
        assert all(len(number) == 26 for number in made)


class TestCancelAndRetry:
    def test_who_waits_is_cancelled_at_once_and_retried(self, jobs: Jobs) -> None:
        job = submit(jobs)
        assert jobs.cancel(job.id, "blue").state is JobState.CANCELLED
        assert jobs.cancel(job.id, "blue").state is JobState.CANCELLED
        again = jobs.retry(job.id, "blue")
        assert again.state is JobState.QUEUED
        assert not again.cancel_requested
        numbers = [event.id for event in jobs.events(job.id, 0)]
        assert all(one + 1 == two for one, two in pairwise(numbers))

    def test_who_runs_is_asked_to_stop(self, jobs: Jobs, database: Database) -> None:
        job = submit(jobs)
        with database.begin() as session:
            transition(session, session.get_one(JobRow, job.id), JobState.PLANNING)
        found = jobs.cancel(job.id, "blue")
        assert (found.state, found.cancel_requested) == (JobState.PLANNING, True)
        with fails("wrong-state"):
            jobs.retry(job.id, "blue")

    def test_what_succeeded_is_neither(self, jobs: Jobs, database: Database) -> None:
        job = submit(jobs)
        with database.begin() as session:
            row = session.get_one(JobRow, job.id)
            transition(session, row, JobState.PLANNING)
            transition(session, row, JobState.SUCCEEDED)
        for do in (jobs.cancel, jobs.retry):
            with fails("wrong-state"):
                do(job.id, "blue")


def test_old_jobs_are_removed_with_all_that_is_theirs(jobs: Jobs) -> None:
    old, young = submit(jobs, "/one", labels={"run": "a"}), submit(jobs, "/two", labels={"run": "a"})
    jobs.cancel(old.id, None)
    assert jobs.ended_before(now() - timedelta(hours=1)) == {}
    assert jobs.ended_before(now() + timedelta(hours=1)) == {old.id: []}
    jobs.remove([old.id, young.id])  # that one is not over
    assert [job.id for job in jobs.page(Filter(team=None, labels={"run": "a"})).jobs] == [young.id]
    assert jobs.events(old.id, 0) == []


def test_migrations_make_the_tables_that_the_code_has(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    database.upgrade()  # once more: nothing happens
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_another_process_may_upgrade_while_one_has_the_database_open(database: Database) -> None:
    """As `plait token create --database` does beside a service."""
    other = Database(database.engine.url.render_as_string(hide_password=False))
    thread = threading.Thread(target=other.upgrade, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    other.close()


def test_a_new_database_is_for_this_user_alone_and_its_folder_is_made(tmp_path: Path) -> None:
    file = tmp_path / "srv" / "plait" / "plait.db"
    database = Database(f"sqlite:///{file}")
    database.upgrade()
    database.close()
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0
    (tmp_path / "file").touch()
    with fails("store-unavailable") as failed:
        Database(f"sqlite:///{tmp_path}/file/plait.db")
    assert f"{tmp_path}/file/plait.db" in str(failed.value)


@pytest.mark.parametrize("url", ["nonsense", "mysql://u@h/d", "sqlite+nonsense:///x"])
def test_a_url_that_is_none_is_not_repeated(url: str) -> None:
    with pytest.raises(SpecInvalid, match="the database's URL") as caught:
        Database(url)
    assert url not in str(caught.value)

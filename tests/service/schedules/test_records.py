"""Creating schedules and looking at them: what is refused, and whose they are."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from plait.errors import Forbidden, NotFound, PlanRejected, SpecInvalid, WrongState
from plait.schedules import ScheduleRequest, TickState
from plait_service.api.principal import Principal
from tests.service.schedules.world import START, World, at, days

UNKNOWN = "s-" + "0" * 24


def problems(world: World, **more: Any) -> list[str]:
    with pytest.raises(PlanRejected) as error:
        world.create(**more)
    assert not world.schedules.all(None)
    return [f"{problem.where}: {problem}" for problem in error.value.problems]


class TestCreating:
    def test_a_schedule_is_as_it_was_asked_for(self, world: World) -> None:
        request = world.request(
            timezone="Europe/Berlin",
            ready={"glob": str(world.folder / "runs/{date}/*"), "count": 3},
            latest=str(world.folder / "latest.json"),
            labels={"a": "b"},
        )
        made = world.schedules.create(request, world.who, world.settings, START)
        assert made.settings == request
        assert (made.team, made.owner, made.paused) == ("research", "ci", False)
        assert made.next_due == at("2026-11-21 02:00")
        assert world.schedules.get(made.id, "research") == made
        assert world.schedules.all("research") == [made]

    def test_everything_that_is_wrong_is_told_at_once(self, world: World) -> None:
        spec = {
            "models": [{"glob": "/runs/{dat}/*"}],
            "method": {"name": "avrage"},
            "output": "/merged/{date - 1}",
            "sed": 1,
        }
        found = problems(
            world,
            cron="61 * * * *",
            timezone="Berlin",
            spec=spec,
            ready={"glob": "{day}/*", "count": 1},
            latest="gs://bucket/latest.json",
        )
        for number, part in enumerate(
            [
                "timezone: ",
                "cron: ",
                "spec.models.0.glob: ",
                "spec.output: ",
                "ready.glob: ",
                "latest: ",
                "method.name",
                "sed",
            ]
        ):
            assert part in found[number]
        assert len(found) == 8

    @pytest.mark.parametrize(
        ("latest", "said"),
        [
            ("s3://bucket", "a folder"),
            ("s3://bucket/folder/", "a folder"),
            ("az://bucket/latest.json", "not written to"),
            ("s3://user:secret@bucket/x", "credentials"),
            ("s3://bucket/{date}.json", "one name"),
            ("/{folder}/merged/2026-11-21/latest.json", "one name"),
        ],
    )
    def test_a_place_for_the_newest_result(self, world: World, latest: str, said: str) -> None:
        (found,) = problems(world, latest=latest)
        assert said in found
        assert "secret" not in found

    def test_the_newest_result_is_not_named_in_a_result(self, world: World) -> None:
        spec = world.spec(output="merged")
        (found,) = problems(world, spec=spec, latest=str(world.folder / "merged/latest.json"))
        assert "latest lies in the output" in found

    @pytest.mark.parametrize(
        ("more", "key"),
        [
            ({"latest": "/elsewhere/latest.json"}, "latest: "),
            ({"ready": {"glob": "/elsewhere/*", "count": 1}}, "ready.glob: "),
            ({"latest": "s3://bucket/latest.json"}, "latest: "),
        ],
    )
    def test_places_that_are_not_allowed(self, world: World, more: dict[str, Any], key: str) -> None:
        with pytest.raises(Forbidden) as error:
            world.create(**more)
        assert (error.value.found or "").startswith(key)
        assert not world.schedules.all(None)

    def test_a_spec_with_places_that_are_not_allowed(self, world: World) -> None:
        with pytest.raises(Forbidden, match="output"):
            world.create(spec={**world.spec(), "output": "/elsewhere/{date}"})
        with pytest.raises(PlanRejected) as error:
            world.create(spec={**world.spec(), "output": "/elsewhere/{date}"}, cron="x")
        assert [problem.kind for problem in error.value.problems] == ["spec-invalid", "forbidden"]

    def test_a_name_is_a_teams_own(self, world: World) -> None:
        world.create()
        with pytest.raises(WrongState, match="nightly"):
            world.create()
        other = replace(world.who, team="other")
        assert world.create(who=other).team == "other"
        second = world.create(name="second")
        with pytest.raises(WrongState, match="nightly"):
            world.schedules.replace(second.id, world.request(), world.who, world.settings)

    def test_what_is_wrong_is_refused_when_it_is_changed(self, world: World) -> None:
        made = world.create()
        for request, error in (
            (world.request(cron="x"), PlanRejected),
            (world.request(spec={**world.spec(), "output": "/elsewhere"}), Forbidden),
        ):
            with pytest.raises(error):
                world.schedules.replace(made.id, request, world.who, world.settings)
        assert world.schedules.get(made.id, None) == made

    def test_who_changes_it_owns_it(self, world: World) -> None:
        made = world.create()
        other = replace(world.who, name="other")
        changed = world.schedules.replace(made.id, world.request(name="renamed"), other, world.settings)
        assert (changed.owner, changed.name, changed.created) == ("other", "renamed", made.created)

    def test_a_paused_schedule_stays_paused(self, world: World) -> None:
        made = world.create()
        world.schedules.pause(made.id, None)
        changed = world.schedules.replace(made.id, world.request(), world.who, world.settings)
        assert (changed.paused, changed.next_due) == (True, None)


class TestTeams:
    @pytest.fixture
    def world(self, world_of_each: World) -> World:
        return world_of_each

    def test_another_teams_schedule_is_not_there(self, world: World) -> None:
        made = world.create()
        stranger = Principal(name="x", team="other", roles=frozenset({"submit"}))
        of = world.schedules
        for attempt in (
            lambda: of.get(made.id, "other"),
            lambda: of.pause(made.id, "other"),
            lambda: of.resume(made.id, "other"),
            lambda: of.run(made.id, "other"),
            lambda: of.ticks(made.id, "other"),
            lambda: of.delete(made.id, "other"),
            lambda: of.replace(made.id, world.request(), replace(world.who, team="other"), world.settings),
            lambda: of.get(UNKNOWN, stranger.sees),
        ):
            with pytest.raises(NotFound):
                attempt()
        assert of.all("other") == []
        assert of.all(None) == [made] == of.all("research")
        assert of.get(made.id, None) == made

    def test_an_admin_changes_a_teams_schedule(self, world: World) -> None:
        made = world.create()
        admin = replace(world.who, name="root", team="admins", roles=frozenset({"admin"}))
        changed = world.schedules.replace(made.id, world.request(), admin, world.settings)
        assert (changed.team, changed.owner) == ("research", "root")


class TestHistory:
    @pytest.fixture
    def world(self, world_of_each: World) -> World:
        return world_of_each

    def test_pages_newest_first(self, world: World) -> None:
        made = world.create(missed="skip")
        world.step(days(8)[-1] + timedelta(hours=5))
        assert world.states(made) == [TickState.MISSED] * 8
        page = world.schedules.ticks(made.id, None, limit=5)
        assert [tick.due for tick in page.ticks] == days(8)[:2:-1]
        rest = world.schedules.ticks(made.id, None, limit=5, cursor=page.next)
        assert [tick.due for tick in rest.ticks] == days(8)[2::-1]
        assert rest.next is None
        whole = world.schedules.ticks(made.id, None, limit=8)
        assert (len(whole.ticks), whole.next) == (8, None)

    @pytest.mark.parametrize("cursor", ["x", "-1", "1" * 19, "9" * 18, "²", ""])
    def test_a_cursor_that_is_none(self, world: World, cursor: str) -> None:
        made = world.create()
        with pytest.raises(SpecInvalid, match="cursor"):
            world.schedules.ticks(made.id, None, cursor=cursor)

    def test_the_last_tick_of_each(self, world: World) -> None:
        one, _other = world.create(name="one", missed="skip"), world.create(name="two", cron="0 4 * * *")
        world.step(days(2)[-1] + timedelta(minutes=30))
        first, second = world.schedules.all(None)
        assert (first.id, first.last) == (one.id, world.ticks(one)[-1])
        assert second.last is not None
        assert second.last.due == at("2026-11-21 04:00")


def test_settings_can_be_sent_back(world: World) -> None:
    made = world.create(latest=str(world.folder / "x/latest.json"))
    again = ScheduleRequest.model_validate(made.settings.model_dump(mode="json"))
    assert world.schedules.replace(made.id, again, world.who, world.settings).settings == made.settings

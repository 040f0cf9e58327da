"""The dashboard: one that Grafana reads whole, and that asks for nothing that Plait does not count."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from ray.util.metrics import Counter as RayCounter

from tests.deploy.manifests import DEPLOY, walk

FILE = DEPLOY / "grafana/plait.json"
DASHBOARD = json.loads(FILE.read_text())
PANELS = DASHBOARD["panels"]
VARIABLES = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
QUERIES = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
each_query = pytest.mark.parametrize(
    "query",
    [target["expr"] for _, target in QUERIES],
    ids=[f"{title}-{one['refId']}" for title, one in QUERIES],
)


@cache
def counted() -> dict[str, set[str]]:
    """What the code counts: the names under which Ray's exporter shows it, and its labels."""
    from plait_service.cluster.actor import DriverCounters, WorkerCounters

    counters = [*vars(DriverCounters("job")).values(), *vars(WorkerCounters("job", "node")).values()]
    infos = [counter.info for counter in counters if isinstance(counter, RayCounter)]
    return {f"ray_{info['name']}_total": set(info["tag_keys"]) for info in infos}


def parsed(query: str) -> Any:
    """The query as Prometheus reads it, after Grafana has put its variables in."""
    for variable, value in {"$__rate_interval": "1m", "$__range": "1h", "$job": ".+"}.items():
        query = query.replace(variable, value)
    assert "$" not in query
    return promql_parser.parse(query)


def parts(expression: Any) -> Iterator[Any]:
    """An expression and all that it is made of."""
    yield expression
    inner = [getattr(expression, name, None) for name in ("expr", "lhs", "rhs", "vector_selector")]
    for child in [*inner, *getattr(expression, "args", [])]:
        if child is not None:
            yield from parts(child)


def selectors(query: str) -> list[Any]:
    return [part for part in parts(parsed(query)) if isinstance(part, promql_parser.VectorSelector)]


def fields(value: Any) -> Counter[str]:
    """Every value that is no mapping or list, with the names on the way to it."""
    return Counter(
        f"{[key for key in path if isinstance(key, str)]}={node!r}"
        for path, node in walk(value)
        if not isinstance(node, dict | list)
    )


def read_by_grafana(dashboard: dict[str, Any]) -> dict[str, Any]:
    """The dashboard after a way through Grafana's own types, which drop what they do not know."""
    register_default_plugins()
    read: dict[str, Any] = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    return read


def test_grafana_reads_all_of_it() -> None:
    assert fields(DASHBOARD) - fields(read_by_grafana(DASHBOARD)) == Counter()


@pytest.mark.parametrize("place", ["panels", "targets", "options", "variables", "top"])
def test_a_field_that_grafana_does_not_know_is_noticed(place: str) -> None:
    copy = json.loads(FILE.read_text())
    where = {
        "panels": copy["panels"][0],
        "targets": copy["panels"][0]["targets"][0],
        "options": copy["panels"][0]["options"],
        "variables": copy["templating"]["list"][0],
        "top": copy,
    }[place]
    where["noSuchField"] = 1
    assert fields(copy) - fields(read_by_grafana(copy))


def test_panels_have_places_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)
    taken = Counter(
        (x, y)
        for panel in PANELS
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    )
    assert set(taken.values()) == {1}
    assert {x for x, _ in taken} == set(range(24))


def test_variables_choose_the_data_source_and_the_merge() -> None:
    assert {name: one["type"] for name, one in VARIABLES.items()} == {
        "datasource": "datasource",
        "job": "query",
    }
    sources = {str(value) for path, value in walk(DASHBOARD) if path and path[-1] == "datasource"}
    assert sources == {"{'type': 'prometheus', 'uid': '${datasource}'}"}
    asked = VARIABLES["job"]["query"]["query"]
    name, label = asked.removeprefix("label_values(").removesuffix(")").split(", ")
    assert label in counted()[name]


@each_query
def test_queries_ask_for_what_is_counted(query: str) -> None:
    known = counted()
    assert len(known) == 5
    found = selectors(query)
    assert found
    for selector in found:
        assert {matcher.name for matcher in selector.matchers.matchers} == {"job"}
        by = [part.modifier.labels for part in parts(parsed(query)) if getattr(part, "modifier", None)]
        assert {label for labels in by for label in labels} <= known[selector.name]


@each_query
def test_counters_are_read_as_rates(query: str) -> None:
    # A counter begins again with each worker: its value says nothing, its growth does.
    calls = [part for part in parts(parsed(query)) if isinstance(part, promql_parser.Call)]
    assert [call.func.name for call in calls] in (["rate"], ["increase"])


def test_all_that_is_counted_is_shown() -> None:
    shown = {selector.name for _, target in QUERIES for selector in selectors(target["expr"])}
    assert shown == set(counted())


def test_a_wrong_query_is_noticed() -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        parsed("sum by (node (rate(ray_plait_bytes_read_total[1m]))")

"""Pipelines of Azure Data Factory carried out here: as much of its language as the example uses.

What is not documented of an activity or of an expression is an error here. Tokens of a managed
identity are left out, since nobody here gives any; a Wait does not wait long.
"""

import json
import re
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|(-?\d+(?:\.\d+)?)|([A-Za-z_]\w*)|(\?\.|[().,\[\]]))")
DOCUMENTED = {
    "WebActivity": (
        {"method", "url"},
        {"headers", "body", "authentication", "turnOffAsync", "httpRequestTimeout",
         "disableCertValidation", "datasets", "linkedServices", "connectVia"},
    ),
    "WebHook": (
        {"method", "url", "headers", "body"},
        {"authentication", "timeout", "reportStatusOnCallBack"},
    ),
    "Until": ({"expression", "activities"}, {"timeout"}),
    "IfCondition": ({"expression"}, {"ifTrueActivities", "ifFalseActivities"}),
    "Wait": ({"waitTimeInSeconds"}, set()),
    "Fail": ({"message", "errorCode"}, set()),
    "SetVariable": ({"variableName", "value"}, set()),
}  # fmt: skip
"""By type of activity, the properties that are required and those that may be there."""
TYPES = {"String": str, "Float": float, "Int": int, "Bool": bool}
WAIT_SECONDS = 0.5


class ActivityFailed(Exception):
    """An activity that ended with an error."""


class NotAnExpression(ValueError):
    """A text that Data Factory would not evaluate."""


@dataclass
class Factory:
    """One run of a pipeline, with what its activities put out."""

    definition: Mapping[str, Any]
    parameters: dict[str, Any]
    call_back: Callable[[float], tuple[str, Callable[[], Any]]]
    """Given seconds, an address to be called, and what waits for the body of the call."""
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    outputs: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        declared = self.definition["properties"]["parameters"]
        defaults = {n: d["defaultValue"] for n, d in declared.items() if "defaultValue" in d}
        self.parameters = {**defaults, **self.parameters}
        assert self.parameters.keys() == declared.keys()
        for name, value in self.parameters.items():
            assert isinstance(value, TYPES[declared[name]["type"]]), name
        names = [activity["name"] for activity in self._every(self._activities)]
        assert len(names) == len(set(names)), "names of activities are taken once"

    @property
    def _activities(self) -> list[Any]:
        return list(self.definition["properties"]["activities"])

    def run(self) -> None:
        """Carry the activities out; raises ActivityFailed."""
        self._run(self._activities)

    def _every(self, activities: list[Any]) -> Iterator[Any]:
        for activity in activities:
            yield activity
            properties = activity["typeProperties"]
            for key in ("activities", "ifTrueActivities", "ifFalseActivities"):
                yield from self._every(properties.get(key, []))

    def _run(self, activities: list[Any]) -> None:
        done: set[str] = set()
        for activity in activities:
            needed = activity.get("dependsOn", [])
            assert all(each["dependencyConditions"] == ["Succeeded"] for each in needed)
            assert {each["activity"] for each in needed} <= done
            required, optional = DOCUMENTED[activity["type"]]
            properties = activity["typeProperties"]
            assert required <= properties.keys() <= required | optional, activity["name"]
            getattr(self, f"_{activity['type'].lower()}")(activity["name"], properties)
            done.add(activity["name"])

    def _webactivity(self, name: str, properties: Mapping[str, Any]) -> None:
        body = self.value(properties.get("body"))
        assert (body is None) == (properties["method"] == "GET")
        status, answer = self._send(name, properties, body)
        # Followed until it is no 202 any more, unless that is turned off.
        assert status != 202 or properties.get("turnOffAsync") is True
        self.outputs[name] = answer

    def _webhook(self, name: str, properties: Mapping[str, Any]) -> None:
        assert properties["method"] == "POST"
        url, wait = self.call_back(_seconds(properties.get("timeout", "00:10:00")))
        body = {**self.value(properties["body"]), "callBackUri": url}
        self._send(name, properties, body)
        called = wait()
        if not properties.get("reportStatusOnCallBack"):
            self.outputs[name] = called
            return
        self.outputs[name] = called.get("Output", {})
        if int(called["StatusCode"]) >= 400:
            error = called["Error"]
            raise ActivityFailed(f"{name}: {error['ErrorCode']}: {error['Message']}")

    def _send(self, name: str, properties: Mapping[str, Any], body: Any) -> tuple[int, Any]:
        authentication = self.value(properties.get("authentication", {}))
        assert not authentication or authentication.keys() == {"type", "resource"}
        headers = self.value(properties.get("headers", {}))
        data = None if body is None else json.dumps(body).encode()
        assert data is None or headers["Content-Type"] == "application/json"
        request = urllib.request.Request(
            self.value(properties["url"]), data, headers, method=properties["method"]
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            raise ActivityFailed(f"{name}: {error.code}: {error.read().decode()}") from None

    def _until(self, name: str, properties: Mapping[str, Any]) -> None:
        deadline = time.monotonic() + _seconds(properties.get("timeout", "7.00:00:00"))
        while True:
            try:
                self._run(properties["activities"])
            except ActivityFailed:
                # An inner activity that fails does not end the loop.
                self.outputs.pop(properties["activities"][-1]["name"], None)
            if self._condition(properties):
                return
            assert time.monotonic() < deadline, name

    def _ifcondition(self, name: str, properties: Mapping[str, Any]) -> None:
        key = "ifTrueActivities" if self._condition(properties) else "ifFalseActivities"
        self._run(properties.get(key, []))

    def _condition(self, properties: Mapping[str, Any]) -> bool:
        assert properties["expression"]["type"] == "Expression"
        found = self.value(properties["expression"]["value"])
        assert isinstance(found, bool)
        return found

    def _wait(self, name: str, properties: Mapping[str, Any]) -> None:
        time.sleep(min(WAIT_SECONDS, properties["waitTimeInSeconds"]))

    def _fail(self, name: str, properties: Mapping[str, Any]) -> None:
        said, code = self.value(properties["message"]), self.value(properties["errorCode"])
        raise ActivityFailed(f"{name}: {code}: {said}")

    def _setvariable(self, name: str, properties: Mapping[str, Any]) -> None:
        declared = self.definition["properties"]["variables"][properties["variableName"]]
        value = self.value(properties["value"])
        assert isinstance(value, TYPES[declared["type"]])
        self.variables[properties["variableName"]] = value

    def value(self, said: Any) -> Any:
        """What a value of a definition is when it is carried out."""
        if isinstance(said, dict):
            return {key: self.value(each) for key, each in said.items()}
        if isinstance(said, list):
            return [self.value(each) for each in said]
        if not isinstance(said, str):
            return said
        if said.startswith("@@"):
            return said[1:]
        if said.startswith("@") and not said.startswith("@{"):
            return self.evaluate(said[1:])
        # Interpolated: always a string.
        return re.sub(r"@\{(.*?)\}", lambda found: _text(self.evaluate(found[1])), said)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, without its @."""
        tokens = list(_tokens(expression))
        value, rest = self._term(tokens)
        if rest:
            raise NotAnExpression(f"{expression}: {rest}")
        return value

    def _term(self, tokens: list[str]) -> tuple[Any, list[str]]:
        head, rest = tokens[0], tokens[1:]
        if head.startswith("'"):
            value: Any = head[1:-1].replace("''", "'")
        elif re.fullmatch(r"-?\d+(\.\d+)?", head) or head in {"true", "false", "null"}:
            value = json.loads(head)
        elif rest[:1] == ["("]:
            arguments, rest = self._arguments(rest[1:])
            value = self._called(head, arguments)
        else:
            raise NotAnExpression(head)
        return self._members(value, rest)

    def _members(self, value: Any, rest: list[str]) -> tuple[Any, list[str]]:
        while rest[:1] in (["."], ["?."], ["["]):
            if rest[0] == "[":
                key, rest = self._term(rest[1:])
                assert rest[0] == "]"
                rest, is_safe = rest[1:], False
            else:
                key, is_safe, rest = rest[1], rest[0] == "?.", rest[2:]
            if value is None and is_safe:
                continue
            if not isinstance(value, dict | list) or (isinstance(value, dict) and key not in value):
                if not is_safe:
                    raise NotAnExpression(f"there is no '{key}' in {value}")
                value = None
            else:
                value = value[key]
        return value, rest

    def _arguments(self, tokens: list[str]) -> tuple[list[Any], list[str]]:
        found: list[Any] = []
        while tokens[0] != ")":
            value, tokens = self._term(tokens)
            found.append(value)
            if tokens[0] == ",":
                tokens = tokens[1:]
        return found, tokens[1:]

    def _called(self, name: str, given: list[Any]) -> Any:
        functions: dict[str, Callable[..., Any]] = {
            "pipeline": lambda: {"parameters": self.parameters, "RunId": self.run_id},
            "activity": self._activity,
            "variables": self.variables.__getitem__,
            "coalesce": lambda *values: next((each for each in values if each is not None), None),
            "concat": lambda *values: "".join(map(_text, values)),
            "equals": lambda one, other: one == other,
            "not": lambda value: not value,
            "string": _text,
        }
        if name not in functions:
            raise NotAnExpression(f"{name}({given})")
        return functions[name](*given)

    def _activity(self, name: str) -> Any:
        assert name in [each["name"] for each in self._every(self._activities)], name
        return {"output": self.outputs[name]} if name in self.outputs else None


def _tokens(expression: str) -> Iterator[str]:
    place = 0
    while place < len(expression.rstrip()):
        found = TOKEN.match(expression, place)
        if found is None:
            raise NotAnExpression(expression[place:])
        yield next(group for group in found.groups() if group is not None)
        place = found.end()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _seconds(span: str) -> int:
    found = re.fullmatch(r"(?:(\d+)\.)?(\d\d):(\d\d):(\d\d)", span)
    assert found, span
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

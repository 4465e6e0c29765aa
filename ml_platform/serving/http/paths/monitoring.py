"""Health, metrics and facts, as openapi.json describes them."""

from ml_platform.serving.http.paths.operations import TEXT, Paths, Served, answer, fields, operation

FLAG = {"type": "boolean"}
MAYBE_NUMBER = {"type": ["integer", "null"]}
SERVING = fields(
    {
        "version": MAYBE_NUMBER,
        "wanted": MAYBE_NUMBER,
        "followed_seconds_ago": {"type": ["number", "null"]},
        "failed": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Why versions that should serve do not.",
        },
        "tried": {"type": ["object", "null"]},
        "features_age_seconds": {"type": "object", "additionalProperties": {"type": "number"}},
    }
)
STATUS = fields(
    {
        "use_case": {"type": "string"},
        "at": {
            "type": ["string", "null"],
            "description": "When the facts were read; null, and nothing but `note` is told, where "
            "none were yet.",
        },
        "facts_age_seconds": {"type": ["number", "null"]},
        "serving": SERVING,
    }
)
READY = fields({"ready": FLAG, "not_served": {"type": "integer"}})


def monitoring_paths(served: Served) -> Paths:
    """`/metrics`, `/health`, `/status`, and this document."""
    everything = fields({"use_cases": {"type": "object", "additionalProperties": STATUS}})
    not_ready = answer(READY, description="Some use cases that have a champion are not served.")
    paths: Paths = {
        "/openapi.json": {"get": operation("This document", {200: answer({"type": "object"})})},
        "/metrics": {
            "get": operation("Everything for Prometheus", {200: answer({"type": "string"}, TEXT)})
        },
        "/health/live": {
            "get": operation(
                "Whether the process answers", {200: answer(fields({"live": FLAG}))}, public=True
            )
        },
        "/health/ready": {
            "get": operation(
                "Whether every use case that has a champion is served",
                {200: answer(READY), 503: not_ready},
                public=True,
            )
        },
        "/status": {"get": operation("What is known of all use cases", {200: answer(everything)})},
    }
    for live in served.lives:
        name = live.use_case.name
        paths[f"/status/{name}"] = {
            "get": operation(
                f"What is known of {name}", {200: answer(STATUS)}, problems=[404], tags=[name]
            )
        }
    return paths

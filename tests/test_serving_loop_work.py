"""Requests that an event loop cannot get to in time are turned away before they are parsed."""

import asyncio
from typing import Any

import pytest

from ml_platform.serving.loop_work import EVERY_SECONDS, TURNS, LoopWork
from tests.served import ROW, Deployment


def test_work_counts_from_the_last_turn_on() -> None:
    now = 100.0
    work = LoopWork(lambda: now)
    assert work.wait_seconds == 0

    async def three_turns() -> None:
        nonlocal now
        following = asyncio.create_task(work.follow())
        for _ in range(3):
            await asyncio.sleep(2 * EVERY_SECONDS)
            assert work.wait_seconds == 0
            now += 0.3
            assert work.wait_seconds == pytest.approx(TURNS * (0.3 - EVERY_SECONDS))
        following.cancel()

    asyncio.run(three_turns())


@pytest.mark.parametrize("path", ["invocations", "predict", "infer"])
def test_a_request_is_turned_away_before_it_is_parsed(
    deployment: Deployment, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = {
        "invocations": "/invocations",
        "predict": "/predict/trips",
        "infer": "/v2/models/trips/infer",
    }
    with deployment.client() as client:
        work: Any = client.app.state.service.loop_work  # type: ignore[attr-defined]
        monkeypatch.setattr(type(work), "wait_seconds", 1.5)
        # No JSON at all: that is not known yet.
        answer = client.post(url[path], content=b"{", headers={"content-type": "application/json"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "requests that came before take 1.5 seconds" in answer.json()["detail"]
        monkeypatch.setattr(type(work), "wait_seconds", 0.9)
        assert client.post("/invocations", json={"dataframe_records": [ROW]}).status_code == 200

"""The job state machine against a model of it: random sequences of all that workers, reapers, clocks and people do.

Time is moved by moving the rows, so the statements under test are the real ones with the real clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from storage import database, deadletters, jobs, objects
from storage.jobs import Claim, Fenced
from storage.objects import Plan
from tests.integration.stage import make_stored

T = TypeVar("T")
NAMES = ("preview", "exif")
MAX_EXPIRIES = 3
MAX_ATTEMPTS = 3
ERROR = {"code": "unexpected", "detail": "It failed."}
OUTCOMES = ("retry", "crashed", "snoozed", "released")


@dataclass
class Model:
    """What a job's row must be."""

    state: str = "ready"
    outcome: str | None = None
    attempt: int = 0
    crashes: int = 0
    expiries: int = 0
    max_attempts: int = MAX_ATTEMPTS
    token: int = 0
    due: bool = True
    silent: bool = False  # its lease has run out
    ends: list[str | None] = field(default_factory=list)

    def end(self, state: str, end: str, *, outcome: str | None = None) -> None:
        self.state, self.outcome, self.ends[-1] = state, outcome, end


class Jobs(RuleBasedStateMachine):
    dsn = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.conn = self.run(asyncpg.connect(self.dsn))
        self.run(database.read_json(self.conn))
        self.claims: list[Claim] = []
        self.models: dict[int, Model] = {}
        self.actions = 0
        self.run(self.begin())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def act(self, work: Any) -> Any:
        """Run a statement in a transaction."""

        async def transact() -> Any:
            async with self.conn.transaction():
                return await work

        return self.run(transact())

    async def begin(self) -> None:
        await self.conn.execute("truncate object, job, job_attempt, job_action cascade")
        plans = [Plan(processor=name, version=1, max_attempts=MAX_ATTEMPTS) for name in NAMES]
        async with self.conn.transaction():
            self.photo_id = (await objects.record(self.conn, make_stored(), plans)).id
        self.models = {row["id"]: Model() for row in await self.conn.fetch("select id from job order by id")}

    def pick(self, number: int) -> tuple[int, Model]:
        return list(self.models.items())[number]

    def holds(self, claim: Claim) -> bool:
        model = self.models[claim.job_id]
        return model.state == "running" and model.token == claim.token

    def attempt_to(self, claim: Claim, work: Any) -> bool:
        """Whether an ending was accepted; it must be exactly when the claim still holds."""
        held = self.holds(claim)
        try:
            self.act(work)
        except Fenced:
            assert not held
            return False
        assert held
        return True

    @rule(number=st.integers(0, 1))
    def claim(self, number: int) -> None:
        job_id, model = self.pick(number)
        known = dict.fromkeys(NAMES, 1)
        claim = self.run(jobs.claim(self.conn, job_id, worker="w", lease_seconds=600, known=known))
        assert (claim is not None) is (model.state == "ready" and model.due)
        if claim is None:
            return
        model.state, model.silent = "running", False
        model.attempt, model.token = model.attempt + 1, model.token + 1
        model.ends.append(None)
        assert (claim.token, claim.attempt, claim.crashes) == (model.token, model.attempt, model.crashes)
        self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        if self.attempt_to(claim, jobs.finish(self.conn, claim, version=1, derived={"n": 1})):
            self.models[claim.job_id].end("done", "ok", outcome="ok")

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        if self.attempt_to(claim, jobs.reject(self.conn, claim, code="malformed", detail="It is broken.")):
            self.models[claim.job_id].end("done", "rejected", outcome="rejected")

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES), later=st.booleans())
    def postpone(self, data: st.DataObject, outcome: str, later: bool) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        after_seconds = 3600 if later else 0
        work = jobs.postpone(self.conn, claim, after_seconds=after_seconds, outcome=outcome, error=ERROR)
        if self.attempt_to(claim, work):
            model = self.models[claim.job_id]
            model.end("ready", outcome)
            model.due = not later
            model.attempt -= outcome != "retry"
            model.crashes += outcome == "crashed"

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), outcome=st.sampled_from(["dead", "crashed"]))
    def bury(self, data: st.DataObject, outcome: str) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        if self.attempt_to(claim, jobs.bury(self.conn, claim, outcome=outcome, error=ERROR)):
            self.models[claim.job_id].end("dead", outcome)
            self.models[claim.job_id].crashes += outcome == "crashed"

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        claims = list({claim.job_id: claim for claim in data.draw(st.lists(st.sampled_from(self.claims)))}.values())
        ours = self.run(jobs.beat(self.conn, claims, lease_seconds=600))
        assert ours == {claim.job_id for claim in claims if self.holds(claim)}
        for job_id in ours:
            self.models[job_id].silent = False

    @rule(number=st.integers(0, 1))
    def worker_falls_silent(self, number: int) -> None:
        job_id, model = self.pick(number)
        statement = "update job set lease_until = now() - interval '1 s' where id = $1 and state = 'running'"
        self.run(self.conn.execute(statement, job_id))
        model.silent = model.silent or model.state == "running"

    @rule()
    def time_passes(self) -> None:
        self.run(self.conn.execute("update job set run_at = now() where state = 'ready'"))
        for model in self.models.values():
            model.due = model.due or model.state == "ready"

    @rule()
    def reap(self) -> None:
        lost = {row["id"] for row in self.act(jobs.reap(self.conn, max_expiries=MAX_EXPIRIES))}
        assert lost == {job_id for job_id, model in self.models.items() if model.state == "running" and model.silent}
        for job_id in lost:
            model = self.models[job_id]
            model.expiries, model.attempt, model.due = model.expiries + 1, model.attempt - 1, True
            model.end("dead" if model.expiries >= MAX_EXPIRIES else "ready", "expired")

    @rule(number=st.integers(0, 1), action=st.sampled_from(["replay", "discard"]))
    def decide_on_a_dead_letter(self, number: int, action: deadletters.Action) -> None:
        job_id, model = self.pick(number)
        work = deadletters.act(self.conn, [job_id], action, actor="someone", note=None, attempts=2)
        changed = self.act(work)
        assert changed == ([job_id] if model.state == "dead" else [])
        if not changed:
            return
        self.actions += 1
        model.state = "discarded" if action == "discard" else "ready"
        if action == "replay":
            model.crashes = model.expiries = 0
            model.max_attempts, model.due = model.attempt + 2, True

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        rows = self.run(self.conn.fetch("select *, run_at <= now() as due from job order by id"))
        for row, model in zip(rows, self.models.values(), strict=True):
            names = ("state", "outcome", "attempt", "crashes", "expiries", "max_attempts", "token")
            assert {name: row[name] for name in names} == {name: getattr(model, name) for name in names}
            if model.state == "ready":
                assert row["due"] is model.due
            ends = self.run(
                self.conn.fetch("select outcome from job_attempt where job_id = $1 order by token", row["id"])
            )
            assert [end["outcome"] for end in ends] == model.ends
        assert self.run(self.conn.fetchval("select count(*) from job_action")) == self.actions

    @invariant()
    def the_photo_is_what_its_jobs_are(self) -> None:
        models = self.models.values()
        status = self.run(self.conn.fetchval("select status from object where id = $1", self.photo_id))
        if any(model.outcome == "rejected" for model in models):
            assert status == "rejected"
        elif any(model.state in ("ready", "running") for model in models):
            assert status == "processing"
        else:
            assert status == ("ready" if all(model.outcome == "ok" for model in models) else "partial")

    def teardown(self) -> None:
        self.run(self.conn.close())
        self.runner.close()


def test_random_histories_agree_with_the_model(postgres_dsn: str) -> None:
    """Whatever workers, reapers, the clock and people do, in any order, rows, attempts and audit are as modelled."""
    machine = type("Machine", (Jobs,), {"dsn": postgres_dsn})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""The thread that owns the batch: rows come and go, and what goes wrong with one is its own affair."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from unmask.decoding.batch import Batch
from unmask.decoding.canvas import Row
from unmask.decoding.sampler import decode
from unmask.serving.engine import Drafted, Engine, Failed, Finished
from unmask.serving.errors import ApiError
from unmask.serving.served import Served

LONG = {"steps": 20}


@pytest.fixture(scope="module")
def served(lm):
    return Served(lm)


class Breaking(Batch):
    """Raises in every step that has one of these seeds in it, from a row's `after`-th pass on."""

    bad: frozenset = frozenset()
    after = 2

    def step(self):
        for ticket, joined in self._rows.items():
            self.ages = getattr(self, "ages", {})
            self.ages[ticket] = self.ages.get(ticket, 0) + 1
            if joined.row.seed in self.bad and self.ages[ticket] > self.after:
                raise RuntimeError("the hardware is on fire at /secret/path")
        return super().step()


@asynccontextmanager
async def running(served, kind=Batch, **options):
    engine = Engine(lambda: kind(served.denoiser, served.process), **options)
    engine.start()
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.stop)


def rows(n, tokens=12, first=0):
    return [Row.after([65 + i], tokens, first + i) for i in range(n)]


async def collect(job):
    found = {}
    async for row, event in job:
        if not isinstance(event, Drafted):
            found[row] = event
    return found


def test_rows_become_what_they_become_alone(served):
    async def main():
        async with running(served, rows=3) as engine:
            settings = [served.settings({"temperature": 1.0}), served.settings({"steps": 3, "rule": "entropy"})]
            jobs = [engine.submit(rows(4, 8 + i, first=10 * i), settings[i % 2], watch=i % 2 == 0) for i in range(4)]
            for i, found in enumerate(await asyncio.gather(*map(collect, jobs))):
                alone = decode(served.denoiser, served.process, rows(4, 8 + i, first=10 * i), settings[i % 2])
                assert [found[row].decoded.tokens for row in range(4)] == [text.tokens for text in alone]
            assert len(engine) == 0

    asyncio.run(main())


def test_whoever_watches_sees_every_pass(served):
    async def main():
        async with running(served) as engine:
            steps = [
                event.frame.step if isinstance(event, Drafted) else event.decoded.counts.forwards
                async for _, event in engine.submit(rows(1), served.settings({"steps": 5}), watch=True)
            ]
            assert steps == [0, 1, 2, 3, 4, 5]

    asyncio.run(main())


def test_a_cancelled_row_leaves_at_once(served):
    async def main():
        async with running(served) as engine:
            job = engine.submit(rows(2, 60), served.settings({}), watch=True)
            async for row, _ in job:
                job.cancel(1 - row)
                break
            left = [row async for row, _ in job]
            assert len(set(left)) == 1
            jobs = [engine.submit(rows(1, 60), served.settings({})) for _ in range(5)]
            for job in jobs:
                job.cancel()
            while len(engine):
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_too_many_are_refused_and_time_runs_out(served):
    async def main():
        async with running(served, rows=1, waiting=2, timeout=0.3) as engine:
            jobs = [engine.submit(rows(1, 90), served.settings({}), watch=True) for _ in range(3)]
            with pytest.raises(ApiError) as full:
                engine.submit(rows(1), served.settings({}))
            assert (full.value.status, full.value.code) == (429, "queue_full")
            for job in jobs:
                job.cancel()
            while len(engine):
                await asyncio.sleep(0.01)
            late = await collect(engine.submit(rows(1), served.settings({}), age=10.0))
            assert isinstance(late[0], Failed)
            assert late[0].error.status == 408

    asyncio.run(main())


@pytest.mark.parametrize("after", [0, 3])
def test_a_failed_step_fails_only_who_is_at_fault(served, after):
    class Bad(Breaking):
        bad = frozenset({1, 3})

    Bad.after = after

    async def main():
        async with running(served, Bad) as engine:
            settings = served.settings({"temperature": 1.0})
            steps = {row: [] for row in range(5)}
            found = {}
            async for row, event in engine.submit(rows(5), settings, watch=True):
                if isinstance(event, Drafted):
                    steps[row].append(event.frame.step)
                else:
                    found[row] = event
            assert [row for row, event in found.items() if isinstance(event, Failed)] == [1, 3]
            alone = decode(served.denoiser, served.process, rows(5), settings)
            for row in (0, 2, 4):
                assert found[row].decoded.tokens == alone[row].tokens
                assert steps[row] == list(range(12))  # each pass is seen once, though some happened twice
            again = await collect(engine.submit(rows(1), settings))
            assert isinstance(again[0], Finished)

    asyncio.run(main())


def test_what_cannot_be_written_is_refused_alone(served):
    async def main():
        async with running(served) as engine:
            bad = engine.submit([Row.after([10**6], 3)], served.settings({}))
            good = engine.submit(rows(1), served.settings({}))
            assert isinstance((await collect(bad))[0], Failed)
            assert isinstance((await collect(good))[0], Finished)

    asyncio.run(main())


def test_rows_wait_for_room_in_the_caches(served):
    async def main():
        engine = Engine(lambda: Batch(served.denoiser, served.process, slots=40))
        engine.start()
        settings = served.settings({"block": 4, "cache": "dual"})
        found = await asyncio.gather(*(collect(engine.submit(rows(1, 20, first=i), settings)) for i in range(4)))
        assert all(isinstance(one[0], Finished) for one in found)
        large = await collect(engine.submit(rows(1, 60), settings))
        assert isinstance(large[0], Failed)
        await asyncio.to_thread(engine.stop)

    asyncio.run(main())


def test_the_end_lets_what_runs_finish_and_takes_nothing_new(served):
    async def main():
        async with running(served) as engine:
            short = engine.submit(rows(1, 4), served.settings({}))
            engine.drain(30.0)
            with pytest.raises(ApiError) as ending:
                engine.submit(rows(1), served.settings({}))
            assert ending.value.status == 503
            assert isinstance((await collect(short))[0], Finished)
        async with running(served) as engine:
            long = engine.submit(rows(3, 90), served.settings({}))
            engine.drain(0.0)
            ended = await collect(long)
            assert {event.error.status for event in ended.values()} == {503}

    asyncio.run(main())


def test_questions_are_asked_between_steps(served):
    async def main():
        async with running(served) as engine:
            job = engine.submit(rows(2, 30), served.settings({}))
            assert await engine.between_steps(lambda: 3) == 3
            with pytest.raises(ZeroDivisionError):
                await engine.between_steps(lambda: 1 // 0)
            assert len(await collect(job)) == 2

    asyncio.run(main())

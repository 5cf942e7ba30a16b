"""What readers of the stream get, and what looking for it costs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from ovavel.service.store.events import EventBody, LogEntry
from ovavel.service.web.news import News

WITHIN_S = 60


class World:
    """A log and a board, which count who looks."""

    def __init__(self) -> None:
        self.log: list[LogEntry] = []
        self.version, self.looks, self.encodings = 0, 0, 0
        self.broken = False
        self._change = threading.Condition()
        self.news = News(wait=self._wait, newest=lambda: len(self.log), log_after=self._after, now=self._now)

    def happens(self) -> None:
        body = EventBody(
            id="e", revision=1, kind="start", camera="c", label="l", state="open", start_us=0, end_us=0, peak_margin=0.5
        )
        with self._change:
            self.log.append(LogEntry(seq=len(self.log) + 1, utc_us=0, body=body))
            self.version += 1
            self._change.notify_all()

    def _wait(self, version: int, timeout_s: float) -> int:
        with self._change:
            self._change.wait_for(lambda: self.version != version, timeout_s)
            return self.version

    def _after(self, seq: int) -> Sequence[LogEntry]:
        if self.broken:
            raise OSError("the disk is gone")
        self.looks += 1
        return self.log[seq:]

    def _now(self) -> Any:
        self.encodings += 1
        return []


async def read(news: News, until_seq: int) -> list[int]:
    """Numbers of the messages that a reader gets who begins at the present end."""
    found: list[int] = []
    seq: int | None = None
    with news.listening():
        while not found or found[-1] < until_seq:
            if not await news.turn():
                break
            seq = news.seq if seq is None else seq
            messages = news.after(seq)
            assert messages is not None
            found += [number for number, _ in messages]
            seq = news.seq
    return found


def test_a_hundred_readers_cost_as_much_as_one() -> None:
    world = World()

    async def all_of_them() -> list[list[int]]:
        readers = [asyncio.create_task(read(world.news, 10)) for _ in range(100)]
        while world.news.version < 0:
            await asyncio.sleep(0)
        for number in range(1, 11):
            world.happens()
            while world.news.seq < number:
                await asyncio.sleep(0)
        return await asyncio.wait_for(asyncio.gather(*readers), WITHIN_S)

    found = asyncio.run(all_of_them())
    assert all(each == list(range(1, 11)) for each in found)
    assert world.encodings <= 12, "one for each change, and one at the start"
    assert world.news.listeners == 0


def test_what_is_further_back_than_is_kept_is_in_the_store() -> None:
    world = World()
    for _ in range(5):
        world.happens()

    async def look() -> None:
        with world.news.listening():
            assert await world.news.turn()
            assert world.news.seq == 5
            assert world.news.after(5) == []
            assert world.news.after(3) is None
            world.happens()
            while world.news.seq < 6:
                assert await world.news.turn()
            assert [number for number, _ in world.news.after(5) or ()] == [6]
            assert world.news.after(4) is None

    asyncio.run(asyncio.wait_for(look(), WITHIN_S))


def test_what_was_deleted_is_not_sent_to_who_is_behind() -> None:
    world = World()

    async def look() -> None:
        with world.news.listening():
            assert await world.news.turn()
            for _ in range(2):
                world.happens()
            while world.news.seq < 2:
                assert await world.news.turn()
            assert [number for number, _ in world.news.after(0) or ()] == [1, 2]
            world.news.deleted(["e1"])
            assert world.news.after(0) is None, "the store says what is left"
            assert world.news.after(2) == []
            world.happens()
            while world.news.seq < 3:
                assert await world.news.turn()
            assert [number for number, _ in world.news.after(2) or ()] == [3]

    asyncio.run(asyncio.wait_for(look(), WITHIN_S))


def test_who_listens_again_gets_what_is_known_then() -> None:
    world = World()

    async def twice() -> None:
        for _ in range(2):
            with world.news.listening():
                assert world.news.now == b""
                assert await world.news.turn()
                assert world.news.seq == len(world.log)
            task = world.news._task
            assert task
            world.happens()
            await task

    asyncio.run(asyncio.wait_for(twice(), WITHIN_S))


def test_readers_are_sent_away_where_the_store_cannot_be_read_and_may_come_back() -> None:
    world = World()

    async def broken_and_well() -> None:
        world.broken = True
        with world.news.listening():
            while await world.news.turn():
                pass
        world.broken = False
        with world.news.listening():
            assert await world.news.turn()

    asyncio.run(asyncio.wait_for(broken_and_well(), WITHIN_S))

"""Many runs, one activity call: the DataLoader pattern.

`await batch.ask(question)` queues the question. The first question of a queue creates the flush task, which the event loop runs after
every coroutine that is ready in the same activation, so all of them get their questions in: one call for all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batch(Generic[Question, Answer]):
    """Collects questions and asks them together.

    `call` gets the questions in the order they were asked and answers in the same order. If it raises, every asker gets the exception.
    """

    def __init__(self, call: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]]) -> None:
        self._call = call
        self._queue: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._flushes: set[asyncio.Task[None]] = set()

    def ask(self, question: Question) -> asyncio.Future[Answer]:
        """Queued as soon as this is called. A future and no coroutine, for hundreds may wait at the same time."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((question, answer))
        if len(self._queue) == 1:
            flush = asyncio.create_task(self._flush())
            self._flushes.add(flush)
            flush.add_done_callback(self._flushes.discard)
        return answer

    async def _flush(self) -> None:
        queue, self._queue = self._queue, []
        try:
            answers = await self._call([question for question, _ in queue])
            if len(answers) != len(queue):
                raise RuntimeError(f"asked {len(queue)} questions, got {len(answers)} answers")
        except Exception as error:
            for _, waiting in queue:
                if not waiting.done():
                    waiting.set_exception(error)
            return
        for (_, waiting), answer in zip(queue, answers, strict=True):
            if not waiting.done():
                waiting.set_result(answer)

import asyncio
from collections.abc import Sequence

import pytest

from workflows.batching import Batch


async def test_questions_of_coroutines_that_are_ready_together_are_one_call() -> None:
    calls: list[list[int]] = []

    async def double(questions: Sequence[int]) -> Sequence[int]:
        calls.append(list(questions))
        return [2 * question for question in questions]

    batch = Batch(double)
    assert await asyncio.gather(*(batch.ask(number) for number in range(100))) == [2 * number for number in range(100)]
    assert calls == [list(range(100))]


async def test_a_failed_call_fails_every_asker_and_the_next_call_works() -> None:
    answers: list[Exception | None] = [ValueError("away"), None]

    async def flaky(questions: Sequence[int]) -> Sequence[int]:
        if (error := answers.pop(0)) is not None:
            raise error
        return questions

    batch = Batch(flaky)
    outcomes = await asyncio.gather(batch.ask(1), batch.ask(2), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError]
    assert await batch.ask(3) == 3


async def test_too_few_answers_are_an_error_not_a_silent_hang() -> None:
    async def forgetful(questions: Sequence[int]) -> Sequence[int]:
        return list(questions)[:-1]

    batch = Batch(forgetful)
    with pytest.raises(RuntimeError, match="asked 2 questions, got 1 answers"):
        await asyncio.gather(batch.ask(1), batch.ask(2))

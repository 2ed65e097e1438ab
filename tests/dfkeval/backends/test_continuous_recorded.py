"""Recorded steps on a CPU: fixed addresses and rows that fill a step up must not change an answer.

A CUDA graph reads and writes the tensors that it was recorded with. Here the recorded work is called again with the
tensors that it closed over, and its result copied to where the recording left it: what the host fails to bring up to
date is stale here as it would be on a card."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import pytest

from dfkeval.backends._continuous import device as device_module
from dfkeval.backends._continuous.recorder import Recorder
from dfkeval.backends._continuous.sampler import FREE
from dfkeval.backends.transformers import Transformers
from dfkeval.models import loader
from dfkeval.types import Request, Sampling

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")


class Replaying(Recorder):
    """Replays work on a CPU, with the addresses of its recording."""

    def __init__(self, device: Any) -> None:
        super().__init__(device)
        self.records = True
        self._works: dict[Hashable, Callable[[], Any]] = {}

    def record(self, key: Hashable, work: Callable[[], Any]) -> None:
        """Call the work, and keep it with the place of its result."""
        self._works[key] = work
        self._made[key] = (None, work().clone())

    def run(self, key: Hashable, work: Callable[[], Any]) -> Any:
        """Do the recorded work again, not the work that is given now."""
        return self._made[key][1].copy_(self._works[key]())


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(device_module, "Recorder", Replaying)
    monkeypatch.setattr(device_module, "BUCKETS", (1, 4, 8))
    yield


def asked(count: int) -> list[Request]:
    """Questions of several lengths."""
    return [
        Request(
            id=f"r{at}",
            messages=[{"role": "user", "content": [{"type": "text", "text": f"kata {at} " * (1 + at % 4)}]}],
        )
        for at in range(count)
    ]


def texts(tiny: loader.Loaded, sampling: Sampling, requests: list[Request], **how: Any) -> dict[str, Any]:
    made = Transformers(tiny, **how).generate(requests, sampling)
    return {each.id: (each.text, each.reasoning, each.thinking_cut, each.n_output_tokens) for each in made}


SAMPLINGS = {
    "greedy": Sampling(max_new_tokens=8),
    "drawn": Sampling(max_new_tokens=8, temperature=1.3, top_p=0.9, seed=3),
    "penalty": Sampling(max_new_tokens=6, repetition_penalty=1.4),
    "thinking": Sampling(max_new_tokens=6, thinking=True, thinking_budget=3),
    "stops": Sampling(max_new_tokens=8, stop=("a", "\n")),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_answers_of_recorded_steps_are_those_of_generate(
    tiny: loader.Loaded, replays: None, name: str
) -> None:
    requests, sampling = asked(9), SAMPLINGS[name]
    wanted = texts(tiny, sampling, requests, batching="static", batch_size=9)
    got = texts(tiny, sampling, requests, batching="continuous", batch_size=3, batch_tokens=60)
    assert {each: found[:3] for each, found in got.items()} == {
        each: found[:3] for each, found in wanted.items()
    }


def test_a_forced_token_is_written_once_and_to_its_own_row_only(tiny: loader.Loaded, replays: None) -> None:
    """Rows come and go between a forced token and the next step of the same bucket."""
    backend = Transformers(tiny, batching="continuous", batch_size=8, batch_tokens=1000)
    list(backend.generate(asked(8), Sampling(max_new_tokens=2)))
    stepper, forced = backend.engine.stepper, 7
    for count, place in [
        (7, 6),
        (5, None),
        (7, None),
        (4, 3),
        (2, None),
        (3, 1),
        (4, None),
        (6, 5),
        (8, None),
    ]:
        demanded = [forced if row == place else FREE for row in range(count)]
        logits = stepper.forward(list(range(count)))
        wanted = [
            forced if row == place else token for row, token in enumerate(logits.argmax(-1)[:count].tolist())
        ]
        assert stepper.choose(logits, device_module.Bounds(demanded)).wait() == wanted, (count, place)

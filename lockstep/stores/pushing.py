"""Loads the functions, and sends the chunks of a push.

They are pipelined per node, a bounded number ahead of the answers.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

from redis import exceptions

from lockstep.calls import CHUNK_ROWS, Chunk, FunctionLibrary, PushCalls
from lockstep.crash import crash_point
from lockstep.errors import ConflictError, LockstepError, OnlineError, PushFailedError
from lockstep.layout import Names, PushRows, Receipt
from lockstep.stores.link import Link
from lockstep.throttle import Throttle

BATCH_BYTES: Final = 256 * 1024
"""What is sent in one write."""
AHEAD: Final = 8
"""Batches that may be on their way without an answer."""
_PROBES: Final = 5
_CONFLICTS: Final = ("LSGAP ", "LSSEAL ", "LSWIPE ", "Function not found")
_BEING_WIPED: Final = " belongs to table wiping "


def refused(link: Link, error: exceptions.RedisError, node: str | None = None) -> LockstepError:
    """What a function's refusal means: plan again (ConflictError), or stop (OnlineError)."""
    text = str(error)
    moved = isinstance(error, exceptions.MovedError)  # while a slot moves, planning again is vain
    if moved or text.startswith(_CONFLICTS) or _BEING_WIPED in text:
        link.refresh()
        return ConflictError(
            "Somebody else changed the view online, or chunks were lost, during this push.",
            got=text.partition(" ")[2],
            fix="Plan the push again from the present seals.",
            effect="Rows that arrived are right for their version and stay; the bucket was not "
            "sealed by this push.",
        )
    return link.wrapped(
        error, "Rows that arrived are right for their version; the bucket was not sealed.", node
    )


def load_functions(link: Link, library: FunctionLibrary) -> None:
    """Load the library on every master that lacks it, or has another text under its name.

    Raises:
        OnlineError: A master does not answer, or its user may not load functions.
    """
    words = ("FUNCTION", "LIST", "LIBRARYNAME", library.name, "WITHCODE")
    for node, found in link.each(*words).items():
        if not found or library.source.encode() not in found[0]:
            _load(link, library, node)


def _load(link: Link, library: FunctionLibrary, node: str) -> None:
    run: Callable[..., Any] = link.masters()[node].execute_command
    try:
        run("FUNCTION", "LOAD", "REPLACE", library.source)
    except exceptions.NoPermissionError:
        raise OnlineError(
            f"The functions that pushes call are not loaded at {node}, and this user may not run "
            "'function|load'.",
            fix="Load them as a user who may: `lockstep up` with that user in LOCKSTEP_REDIS_URL "
            "(docs/how-to-redis.md).",
            effect="Nothing was pushed.",
        ) from None
    except exceptions.RedisError as error:
        raise link.wrapped(error, "Nothing was pushed.") from None


@dataclass
class _Pipe:
    """One connection and the chunks sent through it that are not answered yet."""

    node: str
    connection: Any
    batches: deque[Sequence[Chunk]] = field(default_factory=deque)

    def send(self, batch: Sequence[Chunk]) -> None:
        self.batches.append(batch)  # first: a part may arrive even if the rest cannot be sent
        self.connection.send_packed_command([b"".join(chunk.packed for chunk in batch)])

    def receive(self) -> Iterator[tuple[Chunk, Any]]:
        """The answers to the oldest batch; all of them are read before a refusal is raised."""
        answers = []
        for _ in self.batches[0]:
            try:
                answers.append(self.connection.read_response())
            except exceptions.ResponseError as error:
                answers.append(error)
        yield from zip(self.batches.popleft(), answers, strict=True)


@dataclass
class Pipes:
    """Runs one push over one connection per node."""

    link: Link
    names: Names
    entity: str
    throttle: Throttle | None
    on_rows: Callable[[int], None] | None
    receipt: Receipt = field(default_factory=Receipt)
    _pipes: dict[str, _Pipe] = field(default_factory=dict)
    _nodes: dict[int, str] = field(default_factory=dict)

    def run(self, calls: PushCalls, blocks: Iterable[PushRows]) -> Receipt:
        """Send all rows, then the seals, and return what was acknowledged.

        Raises:
            ConflictError: Plan again.
            PushFailedError: It ended early; what was acknowledged is in its receipt.
        """
        with ExitStack() as stack:
            try:
                self._rows(calls, blocks, stack)
                self._drain()
                crash_point("pushed")
                self._send(calls.sealing(), stack)
                self._drain()
            except OnlineError as error:
                raise self._failed(error) from None
        return replace(self.receipt, sealed=tuple(sorted(calls.seals)))

    def _rows(self, calls: PushCalls, blocks: Iterable[PushRows], stack: ExitStack) -> None:
        begun = False
        for block in blocks:
            chunks = calls.rows(block, self._chunk_rows)
            if not begun:
                chunks = iter(held := list(chunks))
                half = islice(chunks, (len(held) + 1) // 2)
                for batch in self._batches(half):
                    self._send(batch, stack)
                self._drain()
                crash_point("mid_push")
                begun = True
            for batch in self._batches(chunks):
                self._send(batch, stack)

    def _send(self, chunks: Sequence[Chunk], stack: ExitStack) -> None:
        by_node: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            by_node.setdefault(self._node_of(chunk.bucket), []).append(chunk)
        for node, batch in by_node.items():
            pipe = self._pipe(node, batch[0].bucket, stack)
            if self.throttle is not None:
                self._pace(self.throttle, sum(chunk.rows for chunk in batch), batch[0].bucket)
            with self.link.answering("", node):
                pipe.send(batch)
            # Redis carries out all that it has of one client before it turns to the next.
            while len(pipe.batches) > (AHEAD if self.throttle is None else 0):
                self._receive(pipe)

    def _pace(self, throttle: Throttle, rows: int, bucket: int) -> None:
        if throttle.limit is None:
            throttle.begin([self._probe(throttle, bucket) for _ in range(_PROBES)])
        throttle.before(rows)
        if throttle.wants_probe:
            throttle.saw(self._probe(throttle, bucket))

    def _probe(self, throttle: Throttle, bucket: int) -> float:
        """What a reader of the bucket's node waits now, in seconds."""
        began = throttle.clock()
        self.link.call("HGET", self._key(bucket), "probe", key=self._key(bucket))
        return throttle.clock() - began

    def _drain(self) -> None:
        for pipe in self._pipes.values():
            while pipe.batches:
                self._receive(pipe)

    def _receive(self, pipe: _Pipe) -> None:
        with self.link.answering("", pipe.node):
            answers = list(pipe.receive())
        refusals = []
        for chunk, answer in answers:
            if isinstance(answer, exceptions.RedisError):
                refusals.append(answer)
                continue
            self.receipt = self.receipt.plus(answer)
            if self.on_rows is not None:
                self.on_rows(chunk.rows)
        if refusals:
            raise refused(self.link, refusals[0], pipe.node) from None

    def _chunk_rows(self) -> int:
        return self.throttle.chunk_rows if self.throttle else CHUNK_ROWS

    def _batches(self, chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
        """Chunks in groups of one write; where readers count, every chunk goes alone."""
        batch: list[Chunk] = []
        size = 0
        for chunk in chunks:
            batch.append(chunk)
            size += len(chunk.packed)
            if size >= BATCH_BYTES or self.throttle is not None:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _pipe(self, node: str, bucket: int, stack: ExitStack) -> _Pipe:
        if node not in self._pipes:
            connection = stack.enter_context(self.link.connection(self._key(bucket)))
            self._pipes[node] = _Pipe(node, connection)
        return self._pipes[node]

    def _node_of(self, bucket: int) -> str:
        if bucket not in self._nodes:
            self._nodes[bucket] = self.link.node_of(self._key(bucket))
        return self._nodes[bucket]

    def _key(self, bucket: int) -> bytes:
        return self.names.bucket_key(self.entity, bucket)

    def _failed(self, error: OnlineError) -> PushFailedError:
        waiting = [chunk.rows for p in self._pipes.values() for b in p.batches for chunk in b]
        done = self.receipt.written + self.receipt.removed + self.receipt.superseded
        failed = PushFailedError(
            error.culprit,
            expected=error.expected,
            got=error.got,
            fix=error.fix,
            effect=f"Of this push {done} rows were acknowledged and {sum(waiting)} were sent "
            "without an answer. Rows that arrived are right for their version; what is sealed is "
            "complete. Run it again.",
        )
        failed.receipt = replace(self.receipt, failed=sum(waiting))
        return failed

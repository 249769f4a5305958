"""The three views that every contender reads, loaded once, and whether they read them right.

Our servers also get the view of `type_cases`.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.online import data
from benchmarks.online.bench import Bench
from benchmarks.online.project_files import TYPES

LOADED = "read"
"""The server with our rows."""
ON_VALKEY = "read-valkey"
FEAST = "read-feast"
FLOOR = "read-floor"
FEATURES = [f"{view}:{name}" for view in data.READ for name in data.FEATURES]
KEY = data.key_of(data.READ[0])
CHECKED = 300  # entities whose 30 values are compared
FEW = 3  # requests of a quick run, which are asked again and again
SAMPLED = 2000  # entities whose memory is asked for


class ReadViews:
    """The loaded servers of one run.

    Attributes:
        truth: `view:feature` → the value of every entity, in order.
        grown: Server → bytes that it grew by, per entity.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        frames = {view: bench.rows(view) for view in data.READ}
        self.truth = {
            f"{view}:{name}": frame[name]
            for view, frame in frames.items()
            for name in data.FEATURES
        }
        self.ids = data.asked(bench.sizes.read, CHECKED, 1)[0]
        self.grown: dict[str, float] = {}
        engines = list(bench.engines)
        self._load_ours(LOADED, engines[0])
        if len(engines) > 1:
            self._load_ours(ON_VALKEY, engines[1])
        self._load_floor()
        if bench.feast_python:
            self._load_feast()

    @property
    def ours(self) -> list[str]:
        """The servers that hold our rows."""
        return [name for name in (LOADED, ON_VALKEY) if name in self.grown]

    def _load_ours(self, name: str, engine: str) -> None:
        self.bench.server(name, engine)
        before = self._used(name)
        with self.bench.worker("push_worker", str(self.bench.project), server=name) as worker:
            for view in (*data.READ, TYPES):
                worker.ask("push", view=view)
        self._note_growth(name, before)

    def _load_feast(self) -> None:
        before = self._used(FEAST)
        self.bench.say(f"materialize of 3 × {self.bench.sizes.read:,} rows by Feast")
        with self.bench.feast(FEAST) as worker:
            worker.ask("materialize", views=list(data.READ))
        self._note_growth(FEAST, before)

    def _load_floor(self) -> None:
        """Packed rows of one view as strings, and three fields as long under keys of digits."""
        source, client = self.bench.client(LOADED), self.bench.client(FLOOR)
        entity = data.ENTITIES[data.READ[0]]
        for keys in self._in_groups(source.scan_iter(match=f"*{{{entity}:*}}:*", count=1000)):
            asked, made = source.pipeline(transaction=False), client.pipeline(transaction=False)
            for key in keys:
                asked.hmget(key, data.READ)
            for key, rows in zip(keys, asked.execute(), strict=True):
                number = int(key.rpartition(b":")[2])
                made.set(f"floor:{number}", rows[0][16:])
                made.hset(f"h:{number:012}", mapping=dict(zip(data.READ, rows, strict=True)))
            made.execute()

    @staticmethod
    def _in_groups(keys: Any, size: int = 1000) -> Any:
        group = []
        for key in keys:
            group.append(key)
            if len(group) == size:
                yield group
                group = []
        yield group

    def _used(self, name: str) -> int:
        return int(self.bench.client(name).info("memory")["used_memory"])

    def _note_growth(self, name: str, before: int) -> None:
        self.grown[name] = round((self._used(name) - before) / self.bench.sizes.read, 1)

    def require_right(self, who: str, found: Mapping[str, Sequence[Any]]) -> None:
        """Return if the values of `ids` are those committed, to the last bit.

        Args:
            found: `view:feature` (or `view__feature`) → values in the order of `ids`.

        Raises:
            RuntimeError: One is not.
        """
        named = {name.replace("__", ":", 1): values for name, values in found.items()}
        for feature, column in self.truth.items():
            if column.gather(self.ids).to_list() != list(named.get(feature, ())):
                raise RuntimeError(f"{who} does not answer what was committed for {feature}")

    def asked(self, size: int) -> list[list[int]]:
        """Requests for `size` random entities."""
        count = FEW if self.bench.quick else max(20, min(2000, 20_000 // size))
        return data.asked(self.bench.sizes.read, size, count)

    def bytes_per_entity(self, server: str, pattern: str) -> dict[str, float]:
        """MEMORY USAGE of a sample of entities, key included, and how the server grew."""
        client = self.bench.client(server)
        keys = list(client.scan_iter(match=pattern, count=1000))
        chosen = random.Random(data.SEED).sample(sorted(keys), min(SAMPLED, len(keys)))  # noqa: S311
        asked = client.pipeline(transaction=False)
        for key in chosen:
            asked.memory_usage(key, samples=0)
        return {
            "entities": len(keys),
            "bytes_per_entity": round(sum(asked.execute()) / len(chosen), 1),
            "server_bytes_per_entity": self.grown[server],
        }

"""One run of the benchmark: its folder, its data and its contenders."""

import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import load
from benchmarks.training import children, data
from benchmarks.training.shapes import Shape, Sizes

OURS = "lockstep"
FEAST = {"feast arrow": "arrow", "feast df": "df"}
WORKERS = "benchmarks.training"


@dataclass
class Bench:
    """What the parts share."""

    sizes: Sizes
    work: Path
    feast_python: str | None
    quick: bool = False
    loads: list[float] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def say(self, text: str) -> None:
        """Tell the person who waits, and note how busy the machine is."""
        self.loads.append(load())
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    # Data

    def folder(self, shape: Shape) -> Path:
        """The folder of a workload, built if it is not there; a later run finds it."""
        said = json.dumps({"seed": data.SEED, **shape.to_json()})
        folder = self.work / "data" / f"{shape.name}-{shape.spine}x{shape.rows}"
        made = folder / "made"
        if made.exists() and made.read_text("utf-8") == said:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.say(f"building {shape.name}: {shape.rows:,} rows in {len(shape.views)} views")
        arguments = [str(folder), json.dumps(shape.to_json())]
        log = self.log(f"build-{shape.name}")
        found = self._start("build_worker", arguments, log=log, patience=3600)
        children.require(found, f"building {shape.name} (see {log})")
        made.write_text(said, encoding="utf-8")
        return folder

    def log(self, name: str) -> Path:
        """Where a process writes what nobody measures."""
        folder = self.work / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name.replace(' ', '-')}.log"

    def result(self, shape: Shape, contender: str) -> Path:
        """Where a contender's result is kept until it was compared."""
        folder = self.work / "results"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{shape.name}-{contender.replace(' ', '-')}.parquet"

    # Contenders

    def ours(
        self, shape: Shape, *, label: str = OURS, way: str = "join", **more: Any
    ) -> dict[str, Any]:
        """One training set by Lockstep.

        Args:
            label: Names the log.
            way: What is done, see `ours_worker`.
            more: Goes into the request.
        """
        folder = self.folder(shape)
        asked = {
            "project": str(folder / "project"),
            "spine": str(folder / "spine.parquet"),
            "features": data.asked(shape),
            "mode": "event",
            **more,
        }
        label = f"{shape.name}-{label.replace(',', '')}"
        return self._run("ours_worker", [way], asked, label, memory=None)

    def raw(
        self,
        shape: Shape,
        contender: str,
        *,
        committed: bool = False,
        memory: int | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """One join by a plain engine.

        Args:
            committed: Whether it reads our Delta table's files instead of its own.
            memory: Bytes above which it is ended.
        """
        asked = {**self._for_peers(shape, committed=committed), **more}
        asked["spill"] = str(self.work / "spill")
        label = f"{shape.name}-{contender}"
        return self._run("raw_worker", [contender], asked, label, memory=memory)

    def feast(self, shape: Shape, contender: str, **more: Any) -> dict[str, Any]:
        """One training set by Feast."""
        repository = self.folder(shape) / "feast"
        asked = {**self._for_peers(shape), "repository": str(repository), **more}
        if not (repository / "registry.db").exists():
            self._feast("declare", asked, f"{shape.name}-declare")
        return self._feast(FEAST[contender], asked, f"{shape.name}-{contender}")

    def join(self, shape: Shape, contender: str, **more: Any) -> dict[str, Any]:
        """One join by whoever it is."""
        if contender.startswith(OURS):
            return self.ours(shape, label=contender, **more)
        how = self.feast if contender in FEAST else self.raw
        return how(shape, contender, **more)

    def compare(self, shape: Shape, results: dict[str, Path]) -> dict[str, dict[str, int]]:
        """A number per column of every result; equal numbers say equal values."""
        types = {
            name: str(dtype) for of in shape.views for name, dtype in data.features_of(of).items()
        }
        asked = {"types": types, "results": {name: str(at) for name, at in results.items()}}
        label = f"{shape.name}-compare"
        found = self._run("compare_worker", [], asked, label, memory=None)
        numbers: dict[str, dict[str, int]] = children.require(found, "comparing")["numbers"]
        return numbers

    def _feast(self, how: str, asked: dict[str, Any], label: str) -> dict[str, Any]:
        return self._run(
            "feast_worker", [how], asked, label, memory=None, python=str(self.feast_python)
        )

    def _for_peers(self, shape: Shape, *, committed: bool = False) -> dict[str, Any]:
        """The files, features and ttl of every view, as peers are told them."""
        folder, own_files = self.folder(shape), shape.peers and not committed
        views = []
        for of in shape.views:
            own = folder / "peers" / f"{of.name}.parquet"
            ours = folder / "project" / "lake" / "offline" / of.name / "day=*" / "*.parquet"
            types = {name: str(dtype) for name, dtype in data.features_of(of).items()}
            views.append(
                {
                    "name": of.name,
                    "files": str(own if own_files else ours),
                    "ties": own_files,
                    "features": list(types),
                    "types": types,
                    "ttl_days": of.ttl_days,
                }
            )
        return {"spine": str(folder / "spine.parquet"), "key": data.KEY, "views": views}

    def _run(
        self,
        worker: str,
        arguments: list[str],
        asked: dict[str, Any],
        label: str,
        *,
        memory: int | None,
        **more: Any,
    ) -> dict[str, Any]:
        log = self.log(label)
        request = log.with_suffix(".json")
        request.write_text(json.dumps(asked), encoding="utf-8")
        patience = self.sizes.patience
        arguments = [*arguments, str(request)]
        return self._start(worker, arguments, log=log, memory=memory, patience=patience, **more)

    def _start(self, worker: str, arguments: list[str], **how: Any) -> dict[str, Any]:
        """Run a worker in a process of its own.

        Of a quick run only the first of a kind: importing the libraries takes nearly all of its
        time. Others, but for those in Feast's environment, work in this process.
        """
        if self.quick and worker in self._seen and "python" not in how:
            return children.run_here(f"{WORKERS}.{worker}", arguments)
        self._seen.add(worker)
        return children.run(f"{WORKERS}.{worker}", arguments, **how)

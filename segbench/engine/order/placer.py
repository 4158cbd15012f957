"""Which waiting run is started next, and on which node: the longest that fits, so that none starves."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from segbench.errors import SegbenchError

_EPSILON = 1e-6
_OVERDUE_SHARE = 0.1


@dataclass(frozen=True)
class Node:
    """A node of the cluster with what it has in all."""

    id: str
    """Ray's node id, in hexadecimal."""
    gpus: int = 0
    cpus: float = math.inf
    memory_gb: float = math.inf
    """Gigabytes (10^9 bytes)."""


@dataclass(frozen=True)
class Shape:
    """What a run asks of one node."""

    gpus: float = 0.0
    """A share of one GPU below 1, else a whole number."""
    cpus: float = 0.0
    memory_gb: float = 0.0
    nodes: frozenset[str] | None = None
    """The nodes that may hold it (GPU kind, label); None for any."""


@dataclass(frozen=True)
class Placement:
    """A run to be submitted now, to this node."""

    key: str
    node: str


@dataclass
class _Held:
    shape: Shape
    devices: tuple[int, ...]
    start: float
    end: float
    """Expected."""

    def ends(self, now: float) -> float:
        """Return the expected end as it looks now: a run that is overdue lasts longer by a share of its time so far."""
        return self.end if self.end > now else now + _OVERDUE_SHARE * (now - self.start)


@dataclass
class _Room:
    """What a node has free."""

    node: Node
    gpus: list[float]
    """Free share by GPU."""
    cpus: float
    memory_gb: float
    held: dict[str, _Held] = field(default_factory=dict)
    behind: dict[str, tuple[Shape, float]] = field(default_factory=dict)
    """Runs handed out before there was room, with what they ask for and their expected seconds: the first of a shape
    takes over from the next held one of that shape that ends."""

    @property
    def open(self) -> bool:
        return any(share > _EPSILON for share in self.gpus) or (not self.gpus and self.cpus > _EPSILON)

    def fits(self, shape: Shape) -> bool:
        if shape.cpus > self.cpus + _EPSILON or shape.memory_gb > self.memory_gb + _EPSILON:
            return False
        if shape.nodes is not None and self.node.id not in shape.nodes:
            return False
        if shape.gpus >= 1:
            return sum(share > 1 - _EPSILON for share in self.gpus) >= shape.gpus
        return shape.gpus == 0 or any(share > shape.gpus - _EPSILON for share in self.gpus)

    def could_fit(self, shape: Shape) -> bool:
        """Return whether an idle node of this kind would hold the shape."""
        node = self.node
        allowed = shape.nodes is None or node.id in shape.nodes
        return allowed and node.gpus >= shape.gpus and node.cpus >= shape.cpus and node.memory_gb >= shape.memory_gb

    def tightness(self, shape: Shape) -> tuple[float, ...]:
        """Return what would be left free; the smallest is the best fit. A run without a GPU keeps away from GPUs."""
        if 0 < shape.gpus < 1:
            # as Ray does: the GPU with the least free share that is enough
            left = min(share for share in self.gpus if share > shape.gpus - _EPSILON)
            return (left, sum(self.gpus), self.cpus)
        return (sum(self.gpus), self.cpus, self.memory_gb)

    def take(self, key: str, shape: Shape, start: float, end: float) -> None:
        devices: tuple[int, ...] = ()
        if shape.gpus >= 1:
            devices = tuple(i for i, share in enumerate(self.gpus) if share > 1 - _EPSILON)[: int(shape.gpus)]
            for device in devices:
                self.gpus[device] = 0.0
        elif shape.gpus > 0:
            enough = [i for i, share in enumerate(self.gpus) if share > shape.gpus - _EPSILON]
            devices = (min(enough, key=lambda i: self.gpus[i]),)
            self.gpus[devices[0]] -= shape.gpus
        self.cpus -= shape.cpus
        self.memory_gb -= shape.memory_gb
        self.held[key] = _Held(shape, devices, start, end)

    def give_back(self, key: str) -> None:
        held = self.held.pop(key)
        for device in held.devices:
            self.gpus[device] = min(1.0, self.gpus[device] + (held.shape.gpus if held.shape.gpus < 1 else 1.0))
        self.cpus += held.shape.cpus
        self.memory_gb += held.shape.memory_gb
        heir = next((key for key, (shape, _) in self.behind.items() if shape == held.shape), None)
        if heir is not None:
            shape, seconds = self.behind.pop(heir)
            self.take(heir, shape, held.end, held.end + seconds)

    def free_at(self, shape: Shape, now: float) -> float:
        """Return when the shape is expected to fit here if nothing else is started."""
        copy = self.copy()
        for end, key in sorted((held.ends(now), key) for key, held in self.held.items()):
            copy.give_back(key)
            if copy.fits(shape):
                return end
        return math.inf

    def copy(self) -> _Room:
        return _Room(self.node, list(self.gpus), self.cpus, self.memory_gb, dict(self.held), dict(self.behind))


class _Line:
    """The waiting runs of one shape, longest first; equal ones in the order in which they came."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, seconds: float, order: int, key: str) -> None:
        bisect.insort(self._entries, (seconds, -order, key))

    @property
    def head(self) -> tuple[float, int]:
        """How long the first is, and when it came."""
        seconds, order, _ = self._entries[-1]
        return seconds, -order

    def pop(self) -> tuple[float, str]:
        seconds, _, key = self._entries.pop()
        return seconds, key

    def pop_within(self, limit: float) -> tuple[float, str] | None:
        """Take the longest that lasts at most so many seconds."""
        index = bisect.bisect_right(self._entries, (limit, 1, "")) - 1
        if index < 0:
            return None
        seconds, _, key = self._entries.pop(index)
        return seconds, key

    def remove(self, key: str) -> bool:
        for index, entry in enumerate(self._entries):
            if entry[2] == key:
                del self._entries[index]
                return True
        return False


class Placer:
    """Chooses what is started next and where; knows nothing of Ray, clocks or files.

    The driver tells it what waits, what the cluster has and what has ended, and asks for what to submit. Only what
    fits now is handed out, so that Ray holds no queue of its own (but see ``behind``). The longest expected run
    goes first, onto the node that it fills best. A run that fits nowhere keeps one node reserved, the one that is
    expected to have room first: shorter runs are put there only if they end before that (backfilling), so that
    runs on one GPU do not starve those on four.

    Parameters
    ----------
    nodes
        The cluster.
    reservations
        How many shapes that fit nowhere may hold a node for themselves at the same time.
    """

    def __init__(self, nodes: Iterable[Node], reservations: int = 1) -> None:
        self._rooms = {node.id: _empty(node) for node in nodes}
        self._lines: dict[Shape, _Line] = {}
        self._where: dict[str, str] = {}
        self._reserved: dict[Shape, tuple[str, float]] = {}
        self._most_reservations = reservations
        self._open = {id for id, room in self._rooms.items() if room.open}
        self._possible: dict[Shape, bool] = {}
        self._came = 0

    @property
    def waiting(self) -> int:
        """How many runs wait."""
        return sum(map(len, self._lines.values()))

    @property
    def gpus_in_use(self) -> float:
        """How many GPUs of the cluster are taken, shares added up."""
        return sum(room.node.gpus - sum(room.gpus) for room in self._rooms.values())

    @property
    def placed(self) -> int:
        """How many runs were handed out and have not ended."""
        return len(self._where)

    def can_hold(self, shape: Shape) -> bool:
        """Return whether some node of the cluster, idle, would hold the shape."""
        if shape not in self._possible:
            self._possible[shape] = any(room.could_fit(shape) for room in self._rooms.values())
        return self._possible[shape]

    def add(self, key: str, shape: Shape, seconds: float) -> None:
        """Let a run wait; also for one that is tried again.

        Raises
        ------
        SegbenchError
            The key waits or runs already, which would do the run twice.
        """
        if key in self._where:
            raise SegbenchError(f"run {key} is placed already and cannot wait as well")
        self._came += 1
        self._lines.setdefault(shape, _Line()).add(seconds, self._came, key)

    def remove(self, key: str) -> bool:
        """Take a waiting run out (cancelled); return whether it waited."""
        return any(line.remove(key) for line in self._lines.values())

    def ended(self, key: str) -> None:
        """Free what a placed run held, however it ended; a key that is not placed (its node has gone) is no matter."""
        node = self._where.pop(key, None)
        if node in self._rooms:
            room = self._rooms[node]
            if room.behind.pop(key, None) is None:
                room.give_back(key)
            self._mark(node)

    def set_nodes(self, nodes: Iterable[Node]) -> list[str]:
        """Take over the cluster as it is now; return the keys of the runs whose node has gone."""
        now = {node.id: node for node in nodes}
        gone = [id for id, room in self._rooms.items() if now.get(id) != room.node]
        lost = [key for id in gone for room in [self._rooms.pop(id)] for key in (*room.held, *room.behind)]
        for key in lost:
            del self._where[key]
        self._rooms |= {id: _empty(node) for id, node in now.items() if id not in self._rooms}
        self._open = {id for id, room in self._rooms.items() if room.open}
        self._possible.clear()
        self._reserved = {shape: kept for shape, kept in self._reserved.items() if kept[0] in self._rooms}
        return lost

    def next(self, now: float, most: int | None = None) -> list[Placement]:
        """Return the runs to submit now, with their nodes; they count as placed from here on.

        Parameters
        ----------
        now
            Seconds of any clock that only goes forward, the same one at every call.
        most
            At most so many; None for all that fit.
        """
        found: list[Placement] = []
        blocked: list[Shape] = []
        # the shapes by their longest run: a shape is looked at again after each run of it that was placed
        heads = [(-line.head[0], line.head[1], n, shape) for n, (shape, line) in enumerate(self._lines.items()) if line]
        heapq.heapify(heads)
        while heads and (most is None or len(found) < most):
            _, _, n, shape = heapq.heappop(heads)
            line = self._lines[shape]
            placed = self._place(shape, line, now, blocked)
            if placed is None:
                blocked.append(shape)
                continue
            found.append(placed)
            if len(line):
                heapq.heappush(heads, (-line.head[0], line.head[1], n, shape))
        for shape in [shape for shape, line in self._lines.items() if not line]:
            del self._lines[shape]
            self._reserved.pop(shape, None)
        return found

    def behind(self, seconds: float) -> list[Placement]:
        """Return runs to submit although nothing is free for them yet; they count as placed from here on.

        Where a run is over in a moment, the time in which its end is noticed and the next one handed out is a good part
        of the whole. So each placed run that is expected to last no longer than ``seconds`` gets one such run of the
        same shape behind it, on its node. Nothing is done while a node is kept for a run that fits nowhere.
        """
        found: list[Placement] = []
        for shape, line in self._lines.items():
            if self._reserved or line.head[0] > seconds:
                continue
            for room in self._rooms.values():
                brief = sum(held.shape == shape and held.end - held.start <= seconds for held in room.held.values())
                for _ in range(min(len(line), brief - sum(other == shape for other, _ in room.behind.values()))):
                    length, key = line.pop()
                    room.behind[key] = shape, length
                    self._where[key] = room.node.id
                    found.append(Placement(key, room.node.id))
                if not line:
                    break
        self._lines = {shape: line for shape, line in self._lines.items() if line}
        return found

    def _place(self, shape: Shape, line: _Line, now: float, blocked: list[Shape]) -> Placement | None:
        candidates = self._open if shape.gpus else self._rooms
        fitting = [self._rooms[id] for id in candidates if self._rooms[id].fits(shape)]
        if not fitting:
            return None
        for other in blocked:
            self._reserve(other, now)
        held_back = {node: other for other, (node, _) in self._reserved.items() if other in blocked}
        free = [room for room in fitting if room.node.id not in held_back]
        if free:
            room = min(free, key=lambda room: (*room.tightness(shape), room.node.id))
            seconds, key = line.pop()
        else:
            taken = self._backfill(shape, line, now, fitting, held_back)
            if taken is None:
                return None
            room, seconds, key = taken
        room.take(key, shape, now, now + seconds)
        self._where[key] = room.node.id
        self._mark(room.node.id)
        if shape in self._reserved and self._reserved[shape][0] == room.node.id:
            del self._reserved[shape]
        return Placement(key, room.node.id)

    def _backfill(
        self, shape: Shape, line: _Line, now: float, fitting: list[_Room], held_back: dict[str, Shape]
    ) -> tuple[_Room, float, str] | None:
        """Take the longest run of a shape that does not delay the one for which a node is reserved."""
        for room in sorted(fitting, key=lambda room: (*room.tightness(shape), room.node.id)):
            waiting_for = held_back[room.node.id]
            start = room.free_at(waiting_for, now)
            spare = room.copy()
            spare.take("", shape, now, math.inf)
            # what is left beside the two of them may be held for as long as it likes
            limit = math.inf if spare.free_at(waiting_for, now) <= start else start - now
            taken = line.pop_within(limit)
            if taken is not None:
                return room, *taken
        return None

    def _reserve(self, shape: Shape, now: float) -> None:
        """Keep a node for a shape that fits nowhere: the first to have room, chosen anew where that one is late."""
        if shape in self._reserved:
            node, time = self._reserved[shape]
            if self._rooms[node].free_at(shape, now) <= time:
                return
            del self._reserved[shape]
        taken = {node for node, _ in self._reserved.values()}
        if len(taken) >= self._most_reservations:
            return
        times = [(room.free_at(shape, now), id) for id, room in self._rooms.items() if id not in taken]
        time, node = min(times, default=(math.inf, ""))
        if time < math.inf:
            self._reserved[shape] = node, time

    def _mark(self, node: str) -> None:
        if self._rooms[node].open:
            self._open.add(node)
        else:
            self._open.discard(node)


def _empty(node: Node) -> _Room:
    return _Room(node, [1.0] * node.gpus, node.cpus, node.memory_gb)

"""Recordings: rosbag2 bags (mcap or sqlite3) read and written without a ROS installation.

Convention: `stamp_ns` is the time at which the recorder received a message (rosbag2's log time), nanoseconds
since the Unix epoch; the capture time of a frame is in its header. Message bytes are CDR, as ROS sends them.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from mcap.records import Channel, Footer, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.interfaces import MessageDefinitionFormat, QosDurability
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from thermalreid_ros.errors import ThermalReidError, first_line
from thermalreid_ros.files import shipped


class BagError(ThermalReidError):
    """A recording that cannot be used; the message names it, the fault and the remedy."""


@dataclass(frozen=True)
class BagMessage:
    topic: str
    type_name: str  # e.g. "sensor_msgs/msg/Image"
    stamp_ns: int
    data: bytes


class Bag:
    """A recording opened for reading: a rosbag2 folder, or one .mcap or .db3 file.

    A recording whose recorder died has no metadata.yaml and ends within a record. All that is whole in it is
    read all the same; `damage` says so in one line, and of damaged metadata, from the start where the fault is
    seen on opening, else once `messages` has come to it.

    topics: type name of each topic. latched: those that every recorded publisher offered to latecomers.
    count: messages in all, start_ns and end_ns: first and last stamp.
    custom: the recorder's own entries (`ros2 bag record --custom-data`).
    Raises BagError where there is nothing to read.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.damage: str | None = None
        self.custom: dict[str, str] = {}
        self.latched: frozenset[str] = frozenset()
        self._definitions: dict[str, tuple[str, MessageDefinitionFormat]] = {}
        self._reader: Reader | None = None
        if not self.path.exists():
            raise BagError(f"{self.path}: no such recording; give a rosbag2 folder, or an .mcap or .db3 file")
        self._files = self._storage_files()
        if not self._files:
            raise BagError(f"{self.path}: holds no .mcap or .db3 file, so it is not a rosbag2 recording")
        try:
            self._open_whole()
        except Exception as error:  # rosbags, its YAML, SQLite and decompressors: no common base class
            self._open_cut(error)
        if not self.count:
            self.close()
            raise BagError(f"{self.path}: the recording holds no message; record it again")

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def stamp_at(self, offset_s: float) -> int:
        """The stamp so many seconds after the first message; BagError where that is beyond the last."""
        stamp_ns = self.start_ns + round(offset_s * 1e9)
        if stamp_ns > self.end_ns:
            raise BagError(f"{self.path}: an offset of {offset_s:g} s is beyond its "
                           f"{(self.end_ns - self.start_ns) / 1e9:.1f} s; give a smaller one")
        return stamp_ns

    def messages(self, topics: Iterable[str] | None = None, start_ns: int | None = None) -> Iterator[BagMessage]:
        """Messages of the topics (all by default) from start_ns on, by rising stamp.

        Where a recording is cut, this ends after its last whole message and sets `damage`.
        """
        wanted = set(self.topics if topics is None else topics)
        if self._reader is None:
            for path in self._files:
                for message in _salvage(path, self._definitions):
                    if message.topic in wanted and (start_ns is None or message.stamp_ns >= start_ns):
                        yield message
            return
        connections = [c for c in self._reader.connections if c.topic in wanted]
        if not connections:  # rosbags takes an empty list for all
            return
        source = self._reader.messages(connections, start=start_ns)
        number = 0
        while True:
            try:
                connection, stamp_ns, data = next(source)
            except StopIteration:
                return
            except Exception as error:  # as above
                self.damage = (f"{self.path}: the recording is damaged after message {number} of these topics "
                               f"({_line(error)}); what comes before was read")
                return
            number += 1
            yield BagMessage(connection.topic, connection.msgtype, stamp_ns, bytes(data))

    def decode(self, message: BagMessage) -> Any:
        """The message as an object with the fields of its ROS type (arrays as numpy arrays).

        Raises BagError for a type that the recording does not define, or bytes that are not of that type.
        """
        try:
            return self._typestore.deserialize_cdr(message.data, message.type_name)
        except KeyError:
            raise BagError(f"{self.path}: topic {message.topic} has type {message.type_name}, which the recording "
                           "does not define; leave that topic out") from None
        except Exception as error:  # struct, numpy and Unicode errors of damaged bytes
            raise BagError(f"{self.path}: a message on {message.topic} is not a whole {message.type_name} "
                           f"({_line(error)})") from None

    @cached_property
    def _typestore(self) -> Typestore:
        store = get_typestore(Stores.ROS2_JAZZY)
        for name, (text, form) in self._definitions.items():
            if name in store.types or form is MessageDefinitionFormat.NONE:
                continue
            types = get_types_from_idl(text) if form is MessageDefinitionFormat.IDL else get_types_from_msg(text, name)
            store.register({key: value for key, value in types.items() if key not in store.types})
        return store

    def _storage_files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path] if self.path.suffix in (".mcap", ".db3") else []
        files = [*self.path.glob("*.mcap"), *self.path.glob("*.db3"), *self.path.glob("*.zstd")]
        return sorted(files, key=lambda file: (len(file.name), file.name))  # bag_2 comes before bag_10

    def _open_whole(self) -> None:
        has_metadata = self.path.is_dir() and (self.path / "metadata.yaml").is_file()
        if self.path.is_dir() and not has_metadata and len(self._files) > 1:
            raise BagError("metadata.yaml is missing")
        reader = Reader(self.path if self.path.is_file() or has_metadata else self._files[0])
        reader.open()
        self._reader = reader
        self.topics = {c.topic: c.msgtype for c in reader.connections}
        self.latched = frozenset(c.topic for c in reader.connections if c.ext.offered_qos_profiles and all(
            profile.durability is QosDurability.TRANSIENT_LOCAL for profile in c.ext.offered_qos_profiles))
        self.count, self.start_ns, self.end_ns = reader.message_count, reader.start_time, reader.end_time - 1
        self._definitions = {c.msgtype: (c.msgdef.data, c.msgdef.format) for c in reader.connections}
        self.custom = dict(reader.storage.metadata.custom or {})

    def _open_cut(self, error: Exception) -> None:
        """Scan what is whole in the files; needed once, to know the topics before playing them."""
        self.topics, self.count, self.start_ns, self.end_ns = {}, 0, 2**63 - 1, 0
        cut = False
        for path in self._files:
            before = self.count
            for message in _salvage(path, self._definitions):
                self.topics[message.topic] = message.type_name
                self.count += 1
                self.start_ns, self.end_ns = min(self.start_ns, message.stamp_ns), max(self.end_ns, message.stamp_ns)
            cut = cut or _count(path) != self.count - before
        if not self.count:
            raise BagError(f"{self.path}: nothing in this recording can be read ({_line(error)}); "
                           "record or copy it again")
        expected, self.custom = _noted(self.path)
        if expected is None and self.path.is_dir() and (self.path / "metadata.yaml").exists():
            self.damage = (f"{self.path / 'metadata.yaml'}: damaged ({_line(error)}), so that what it says of units "
                           "and the like is not known; what is whole in the recording is read"
                           + f", which ends early, at message {self.count}" * cut)
            return
        self.damage = (f"{self.path}: the recording ends early, at message {self.count}"
                       f"{f' of {expected}' if expected else ''} ({_line(error)}); what comes before is read")


def write_bag(path: str | Path, messages: Iterable[tuple[str, int, Any]], custom: Mapping[str, str], *,
              storage: str = "mcap", compress: bool = False) -> Path:
    """Write a recording folder; the same messages give the same bytes.

    messages: (topic, stamp_ns, message object of `message_types()`), by rising stamp. custom: text entries for
    its metadata. storage: "mcap" or "sqlite3". compress: the chunks of an mcap file, with zstd. The folder is
    absent or whole.
    Raises BagError where it exists already, or cannot be written.
    """
    path, types = Path(path), message_types()
    if path.exists():
        raise BagError(f"{path}: exists already; remove it or choose another place")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
            work = Path(temporary) / path.name  # rosbag2 names the storage file after its folder
            writer = Writer(work, version=9, storage_plugin=StoragePlugin[storage.upper()])
            writer.set_compression(CompressionMode.STORAGE if compress else CompressionMode.NONE,
                                   CompressionFormat.ZSTD)
            with writer:
                for key, value in custom.items():
                    writer.set_custom_data(key, value)
                connections = {}
                for topic, stamp_ns, message in messages:
                    if topic not in connections:
                        connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=types)
                    writer.write(connections[topic], stamp_ns, types.serialize_cdr(message, message.__msgtype__))
            os.replace(work, path)
    except OSError as error:
        raise BagError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path


def message_types() -> Typestore:
    """ROS 2 Jazzy's messages and this package's own: `message_types().types["sensor_msgs/msg/Image"](...)`."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for file in sorted(shipped("msg").glob("*.msg")):
        types = get_types_from_msg(file.read_text(), f"thermalreid_ros/msg/{file.stem}")
        store.register({name: fields for name, fields in types.items() if name not in store.types})
    return store


_Definitions = dict[str, tuple[str, MessageDefinitionFormat]]


def _salvage(path: Path, definitions: _Definitions) -> Iterator[BagMessage]:
    """Whole messages from the start of a file up to the cut, in file order; fills in the definitions of types."""
    yield from _salvage_mcap(path, definitions) if path.suffix == ".mcap" else _salvage_sqlite(path, definitions)


def _salvage_mcap(path: Path, definitions: _Definitions) -> Iterator[BagMessage]:
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    # What parsers and decompressors raise for damaged bytes shares no base class.
    with path.open("rb") as file, suppress(Exception):
        for record in StreamReader(file).records:
            if isinstance(record, Schema):
                schemas[record.id] = record
                definitions[record.name] = (record.data.decode(), _definition_format(record.encoding))
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, Message):
                channel = channels[record.channel_id]
                yield BagMessage(channel.topic, schemas[channel.schema_id].name, record.log_time, record.data)
            elif isinstance(record, Footer):
                return


def _salvage_sqlite(path: Path, definitions: _Definitions) -> Iterator[BagMessage]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database, \
            suppress(sqlite3.DatabaseError):
        database.execute("PRAGMA writable_schema=ON")  # else a file shorter than its head says is not read at all
        topics = {key: (name, type_name) for key, name, type_name in
                  database.execute("SELECT id, name, type FROM topics")}
        with suppress(sqlite3.OperationalError):  # no such table before Iron
            for type_name, encoding, text in database.execute(
                    "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"):
                definitions[type_name] = (text, _definition_format(encoding))
        for topic_id, stamp_ns, data in database.execute("SELECT topic_id, timestamp, data FROM messages NOT INDEXED"):
            yield BagMessage(*topics[topic_id], stamp_ns, data)


def _count(path: Path) -> int | None:
    """The number of messages in a storage file by its own index; None where it is cut."""
    with suppress(Exception), Reader(path) as reader:
        return reader.message_count
    return None


def _definition_format(encoding: str) -> MessageDefinitionFormat:
    return MessageDefinitionFormat.MSG if encoding == "ros2msg" else MessageDefinitionFormat.IDL


def _noted(path: Path) -> tuple[int | None, dict[str, str]]:
    """The number of messages and the recorder's own entries by metadata.yaml; None and nothing where it is no help."""
    with suppress(OSError, yaml.YAMLError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        noted = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        return int(noted["message_count"]), dict(noted.get("custom_data") or {})
    return None, {}


def _line(error: Exception) -> str:
    return first_line(error).rstrip(".")

"""Node `probe_synthesis`: colour photographs of one object in, its thermal probes out."""

from __future__ import annotations

import sys
import time

from sensor_msgs.msg import CompressedImage, Image, NavSatFix
from std_msgs.msg import Header

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.engine import load_engine
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.msg import ThermalProbe
from thermalreid_ros.reid.embedding import CERTAIN, recognise
from thermalreid_ros.reid.length import ToldLength, told_length
from thermalreid_ros.reid.loading import load_embedder, load_length_teller
from thermalreid_ros.ros import places, probes, qos
from thermalreid_ros.ros.lifecycle import ThermalNode, run
from thermalreid_ros.ros.parameters import Parameter, Schema
from thermalreid_ros.ros.shared_parameters import LENGTH_PARAMETERS, model_options, provider_parameters
from thermalreid_ros.ros.probes import BY_CLOCK, UNKNOWN_DEG
from thermalreid_ros.synthesis import ProbeSynthesizer, SynthesisError
from thermalreid_ros.synthesis.searched import MOST_PHOTOGRAPHS, Made, Photograph, SearchedObject, boxes_of

ANY = "any"
SET_CLASS = f"set probe_class to {', '.join(CLASS_NAMES)}, or {ANY}"
LOOK_AT_CLOCK_S = 5.0


class ProbeSynthesisNode(ThermalNode):
    """docs/probes.md says what photographs serve, and what comes of them."""

    NAME = "probe_synthesis"
    PARAMETERS = Schema(
        Parameter("model", "thermal_synthesis", "name of a shipped model (thermal_synthesis, thermalgan), or path of "
                  "an .onnx file with its card beside it", read_only=True),
        Parameter("embedding", "reid_embedding", "describes probes for reid, likewise; empty: none", read_only=True),
        Parameter("length_model", "photograph_length", "tells by the photographs how long the object is, where "
                  "probe_length_m does not, likewise; empty: none", read_only=True),
        *provider_parameters("the models"),
        Parameter("probe_files", ("",), f"colour photographs of the object, {MOST_PHOTOGRAPHS} at most; an empty name: "
                  "none, they come on probe/image"),
        Parameter("probe_class", "", "class of the object, any where it shall be sought in all; empty: the embedding "
                  "recognises it, and where it is in doubt there is no probe", choices=("", ANY, *CLASS_NAMES)),
        *LENGTH_PARAMETERS,
        Parameter("probe_id", "photograph", "name of the object; with a new one, photographs shown before are "
                  "forgotten"),
        Parameter("box", (0.0, 0.0, 0.0, 0.0), "around the object, x_min, y_min, x_max, y_max: four numbers for all "
                  "photographs or four for each of probe_files; zeros: it is found", unit="px", minimum=0.0),
        Parameter("count", 5, "probes of each photograph, or as many as the model makes", minimum=1, maximum=16),
        Parameter("air_c", 15.0, "temperature of the air", unit="deg C", minimum=-60.0, maximum=60.0),
        Parameter("cloud_cover", 0.4, "share of the sky", minimum=0.0, maximum=1.0),
        Parameter("latitude_deg", UNKNOWN_DEG, "where it is sought; -1000: as prior/fix says", unit="deg",
                  minimum=UNKNOWN_DEG, maximum=90.0),
        Parameter("longitude_deg", UNKNOWN_DEG, "likewise", unit="deg", minimum=UNKNOWN_DEG, maximum=180.0),
        Parameter("solar_hour", BY_CLOCK, "when it is sought, in mean solar time; -1: by the node's clock", unit="h",
                  minimum=BY_CLOCK, maximum=24.0),
    )

    def configure(self) -> None:
        values = self.values
        self._engine = load_engine(values.model, **model_options(self))
        self._object = SearchedObject(ProbeSynthesizer(self._engine))
        self._embedder, told = load_embedder(values.embedding, **model_options(self))
        self._teller, teller = load_length_teller(values.length_model, **model_options(self))
        self._read, self._hour, self._fix, self._count = None, None, None, 0
        self._probe_id = self._read_for = None
        self._out = self.publisher(ThermalProbe, "probe/thermal", qos.LATCHED)
        for key, value in (("model", self._engine.card.name), ("provider", self._engine.provider), ("embedding", told),
                           ("length_model", teller), ("probe", "none: no photograph yet")):
            self.diagnostics.note(key, value)
        self.parameters_changed()

    def parameters_changed(self) -> None:
        values, self._hour = self.values, None
        if values.probe_id != self._probe_id:
            self._object.forget_shown()
        self._probe_id, asked = values.probe_id, (values.probe_id, values.probe_class)
        files = [file for file in values.probe_files if file]
        if (wanted := (files, values.box)) != self._read:
            # Where name or class are others than those files were read for, at once or by an earlier command, these
            # show another object, whatever comes of the new ones.
            if asked != self._read_for:
                self._object.read([], [])
                self._read = None
            if files:
                self._class_name()
            self._object.read(files, boxes_of(values.box, len(files)) if files else [])
            self._read, self._read_for = wanted, asked
        self._length(values.probe_class.removeprefix(ANY))
        self._make()

    def activate(self) -> None:
        self._hour = None
        for kind, topic in ((Image, "probe/image"), (CompressedImage, "probe/image/compressed")):
            self.receive("photographs" if kind is Image else "compressed_photographs", kind, topic, qos.RESULTS,
                         self._receive, depth=MOST_PHOTOGRAPHS, silent_limit_s=None, ordered=False)
        self.receive("priors", NavSatFix, "prior/fix", qos.SENSOR_IN, self._receive_prior, silent_limit_s=None,
                     ordered=False)
        self.every(LOOK_AT_CLOCK_S, self._make)

    def release(self) -> None:
        for name in ("_engine", "_embedder", "_teller"):
            if (held := self.__dict__.pop(name, None)) is not None:
                held.close()

    def _receive_prior(self, message: NavSatFix) -> None:
        self._fix = places.message_to_prior(message)[:2]
        self._make()

    def _receive(self, message: Image | CompressedImage) -> None:
        self._class_name()
        shown = probes.message_to_photograph(message, f"photograph {self._count + 1}", self.values.box)
        self._count, self._hour = self._count + 1, None
        self._object.show(shown)
        self._make(shown)

    def _class_name(self) -> str:
        """As it is given, "" where it is not or any is meant. Raises SynthesisError where nothing could tell it."""
        if not self.values.probe_class and self._embedder is None:
            raise SynthesisError(f"no class is given, and there is no embedding to tell it; {SET_CLASS}")
        return self.values.probe_class.removeprefix(ANY)

    def _recognised(self, made: Made) -> str:
        """The class of what the photographs show. Raises SynthesisError where it is in doubt."""
        name, probability = recognise(self._embedder, [(photograph.pixels, probes.box) for photograph, probes in
                                                       zip(made.served, made.probes, strict=True)])
        if probability < CERTAIN:
            raise SynthesisError(f"no class is given, and the photograph is {name} with a probability of "
                                 f"{probability:.3f} only; {SET_CLASS}")
        self.diagnostics.note("recognised", f"{name}, probability {probability:.3f}")
        return name

    def _length(self, class_name: str) -> ToldLength | None:
        """As it is told. Raises LengthError where nothing of that class is so long."""
        return told_length(self.values.probe_length_m, self.values.probe_length_error, class_name)

    def _make(self, shown: Photograph | None = None) -> None:
        """Probes of all photographs, unless they are made for this hour already; shown: the one that came just now,
        whose fault is raised."""
        if not (self._object.photographs and self._out.is_activated):
            return
        now = self.get_clock().now()
        try:
            conditions = probes.conditions_for(now.nanoseconds, self._fix, self.values)
        except probes.NotYetError as error:
            self.diagnostics.note("probe", f"none yet: {error}")
            return
        if int(conditions.solar_hour) == self._hour:
            return
        began_s, class_name = time.perf_counter(), self._class_name()
        length = self._length(class_name)
        self._hour = int(conditions.solar_hour)
        looked = None if self.values.probe_class else self._object.make(conditions, "", 1)
        if looked is not None and looked.served:
            try:
                class_name = self._recognised(looked)
                length = self._length(class_name)
            except ThermalReidError as error:
                self.diagnostics.note("probe", f"none: {error}")
                if shown is None:
                    self.diagnostics.refused("photographs", str(error))
                    return
                self._object.forget(shown)
                raise
        made = self._object.make(conditions, class_name, self.values.count)
        # What was faulty at the first look is forgotten by the second.
        faults = made.faults if looked is None else {**looked.faults, **made.faults}
        self.diagnostics.sample("synthesis_ms", 1000.0 * (time.perf_counter() - began_s))
        for photograph, fault in faults.items():
            if photograph is not shown:
                self.diagnostics.refused("photographs", fault)
        if made.crops:
            message = probes.made_to_message(made, Header(stamp=now.to_msg()), self._probe_id, class_name,
                                             self._embedder, length, self._teller)
            self._out.publish(message)
            said = probes.summary(made, self._probe_id, class_name, conditions, message.length_m)
            self.diagnostics.note("probe", said)
            self.get_logger().info(f"probe made: {said}")
        else:
            self.diagnostics.note("probe", f"none: {list(faults.values())[-1]}")
        if shown in faults:
            raise SynthesisError(faults[shown])


def main() -> int:
    return run(ProbeSynthesisNode)


if __name__ == "__main__":
    sys.exit(main())

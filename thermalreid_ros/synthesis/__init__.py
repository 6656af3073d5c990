"""From a colour photograph of an object to what a thermal camera would see of it."""

from thermalreid_ros.synthesis.conditions import Conditions
from thermalreid_ros.synthesis.photograph import load_photograph
from thermalreid_ros.synthesis.synthesizer import ProbeSynthesizer, SynthesisError, ThermalProbes

__all__ = ["Conditions", "ProbeSynthesizer", "SynthesisError", "ThermalProbes", "load_photograph"]

"""Models: one Engine protocol over ONNX Runtime, model cards, the cache of built engines."""

from thermalreid_ros.engine.card import EngineError, ModelCard, TensorSpec
from thermalreid_ros.engine.engine import DEFAULT_PROVIDERS, Engine, OrtEngine, load_engine, seconds_in_models

__all__ = ["DEFAULT_PROVIDERS", "Engine", "EngineError", "ModelCard", "OrtEngine", "TensorSpec", "load_engine",
           "seconds_in_models"]

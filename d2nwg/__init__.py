"""D2NWG Studio: trained weights as data. Learns the distribution of a zoo of trained weights and samples new
weights for the task in hand.

The names below are the library's front door; they are imported when first used, so that ``import d2nwg`` and
the command line's ``--help`` stay instant.
"""

from importlib import import_module

__version__ = "0.2.0"

_EXPORTS = {
    "WeightGenerationPipeline": "d2nwg.pipelines.heads",
    "load_bundle": "d2nwg.bundles",
    "generate_heads": "d2nwg.generate",
    "generate_network": "d2nwg.network_generation",
    "generate_from_names": "d2nwg.from_names",
    "generate_from_description": "d2nwg.from_description",
    "Head": "d2nwg.heads",
    "load_images": "d2nwg.data.images",
    "load_data": "d2nwg.data.sources",
    "load_encoder": "d2nwg.encoders.open",
}
__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_EXPORTS[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
